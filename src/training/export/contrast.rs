//! A level that contrasts known defects with normals as ONNX nodes.

use super::graph::{GraphBuilder, integer_attribute, integers_attribute};
use crate::scoring::Layout;
use crate::training::flow::FoldedFlow;

/// Adds the nodes of a level that contrasts, as [`super::flow::append`] those of a flow.
///
/// All of it is linear, so features are projected first and a single channel is averaged: to average all of them
/// would cost a hundred times as much.
pub(super) fn append(
    graph: &mut GraphBuilder,
    level: usize,
    flow: &FoldedFlow,
    (features, layout): (&str, Layout),
    output: &str,
) {
    let Some((direction, offset)) = &flow.contrast else { return };
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    let name = |part: &str| format!("contrast{level}/{part}");
    // Minus the product with the direction, as weights of the backbone's own features.
    let turned = flow.whitening.as_ref().map_or_else(|| direction.clone(), |whitening| whitening.dot(direction));
    let weights =
        graph.floats(&name("weights"), &[channels, 1], turned.iter().zip(&flow.input_scale).map(|(d, s)| -d * s));
    let bias = -(turned.dot(&flow.input_shift) + offset);
    let bias = graph.floats(&name("bias"), &[], [bias]);
    let rows_last = match layout {
        Layout::Nhwc => features.to_owned(),
        Layout::Nchw => {
            let order = vec![integers_attribute("perm", &[0, 2, 3, 1])];
            graph.node("Transpose", &[features], &name("channels_last"), order)
        }
    };
    let said = graph.node("MatMul", &[&rows_last, &weights], &name("projected"), vec![]);
    let said = graph.node("Add", &[&said, &bias], &name("said"), vec![]);
    let plane = graph.integers(&name("plane"), &[-1, 1, rows as i64, columns as i64]);
    let said = graph.node("Reshape", &[&said, &plane], &name("one_channel"), vec![]);
    let (side, margin) = (flow.source.pooling as i64, (flow.source.pooling / 2) as i64);
    let attributes = vec![
        integer_attribute("count_include_pad", 0),
        integers_attribute("kernel_shape", &[side; 2]),
        integers_attribute("pads", &[margin; 4]),
        integers_attribute("strides", &[1; 2]),
    ];
    let averaged = graph.node("AveragePool", &[&said], &name("averaged"), attributes);
    let map = graph.integers(&name("map"), &[-1, rows as i64, columns as i64]);
    graph.node("Reshape", &[&averaged, &map], output, vec![]);
}
