//! A level that compares with vectors of training normals as ONNX nodes.

use super::AXES_AS_INPUT;
use super::flow::append_rows;
use super::graph::GraphBuilder;
use super::model::Place;
use crate::scoring::flow::{NEAREST_FLOOR, NEAREST_LIMIT};
use crate::training::flow::FoldedFlow;

/// Adds the nodes of a level that compares, as [`super::flow::append`] those of a flow,.
pub(super) fn append(graph: &mut GraphBuilder, place: Place<'_>, flow: &FoldedFlow) {
    let Place { level, opset, output, .. } = place;
    let Some(vectors) = &flow.nearest else { return };
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    let name = |part: &str| format!("nearest{level}/{part}");
    let x = append_rows(graph, place, flow);
    let [lowest, highest] = [("lowest", -NEAREST_LIMIT), ("highest", NEAREST_LIMIT)]
        .map(|(part, limit)| graph.floats(&name(part), &[], [limit]));
    let x = graph.node("Clip", &[&x, &lowest, &highest], &name("x"), vec![]);
    // |x - m|² = |x|² + (|m|² - 2 x m): one product for all vectors, and what x has alone added once.
    let twice = graph.floats(&name("twice"), &[channels, vectors.nrows()], vectors.t().iter().map(|v| -2.0 * v));
    let squares = vectors.rows().into_iter().map(|vector| vector.dot(&vector));
    let squares = graph.floats(&name("squares"), &[vectors.nrows()], squares);
    let compared = graph.node("Gemm", &[&x, &twice, &squares], &name("compared"), vec![]);
    let least = graph.reduce("ReduceMin", &compared, opset >= AXES_AS_INPUT, &name("least"));
    let square = graph.node("Mul", &[&x, &x], &name("square"), vec![]);
    let ones = graph.floats(&name("ones"), &[channels, 1], vec![1.0; channels]);
    let sum = graph.node("Gemm", &[&square, &ones, &least], &name("sum"), vec![]);
    let each = graph.floats(&name("each"), &[], [1.0 / channels as f32]);
    let mean = graph.node("Mul", &[&sum, &each], &name("mean"), vec![]);
    let floor = graph.floats(&name("floor"), &[], [NEAREST_FLOOR]);
    let raised = graph.node("Add", &[&mean, &floor], &name("raised"), vec![]);
    let distance = graph.node("Sqrt", &[&raised], &name("distance"), vec![]);
    let said = graph.node("Neg", &[&distance], &name("said"), vec![]);
    let map = graph.integers(&name("map"), &[-1, rows as i64, columns as i64]);
    graph.node("Reshape", &[&said, &map], output, vec![]);
}
