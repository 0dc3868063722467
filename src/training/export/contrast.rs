//! A level that contrasts known defects with normals as ONNX nodes.

use super::flow::append_average;
use super::graph::GraphBuilder;
use super::model::Place;
use crate::scoring::Layout;
use crate::training::flow::FoldedFlow;

/// Adds the nodes of a level that contrasts, as [`super::flow::append`] those of a flow.
///
/// All of it is linear, so features are projected first and a single channel is averaged: to average all of them
/// would cost a hundred times as much.
pub(super) fn append(graph: &mut GraphBuilder, place: Place<'_>, flow: &FoldedFlow) {
    let Place { level, features, layout, output, .. } = place;
    let Some((direction, offset)) = &flow.contrast else { return };
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    let name = |part: &str| format!("contrast{level}/{part}");
    // Minus the product with the direction, as weights of the backbone's own features.
    let turned = flow.whitening.as_ref().map_or_else(|| direction.clone(), |whitening| whitening.dot(direction));
    let weights: Vec<f32> = turned.iter().zip(&flow.input_scale).map(|(d, s)| -d * s).collect();
    let bias = graph.floats(&name("bias"), &[], [-(turned.dot(&flow.input_shift) + offset)]);
    let projected = match layout {
        Layout::Nhwc => {
            let weights = graph.floats(&name("weights"), &[channels, 1], weights);
            graph.node("MatMul", &[features, &weights], &name("projected"), vec![])
        }
        // With channels first the weights are the left side: nothing is moved.
        Layout::Nchw => {
            let weights = graph.floats(&name("weights"), &[1, channels], weights);
            let cells = graph.integers(&name("cells"), &[-1, channels as i64, (rows * columns) as i64]);
            let features = graph.node("Reshape", &[features, &cells], &name("features"), vec![]);
            graph.node("MatMul", &[&weights, &features], &name("projected"), vec![])
        }
    };
    let said = graph.node("Add", &[&projected, &bias], &name("said"), vec![]);
    let plane = graph.integers(&name("plane"), &[-1, 1, rows as i64, columns as i64]);
    let said = graph.node("Reshape", &[&said, &plane], &name("plane_of_one"), vec![]);
    let averaged = append_average(graph, &name("averaged"), flow.source.pooling, &said);
    let map = graph.integers(&name("map"), &[-1, rows as i64, columns as i64]);
    graph.node("Reshape", &[&averaged, &map], output, vec![]);
}
