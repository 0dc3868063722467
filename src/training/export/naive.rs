//! A flow as ONNX nodes with nothing folded, as a framework would export it: the condition beside the
//! features of every cell, a layer of its own for the global affine map. For comparison only.

use super::AXES_AS_INPUT;
use super::flow::{append_whitening, to_rows_and_columns};
use super::graph::{GraphBuilder, integer_attribute};
use super::model::Place;
use crate::scoring::flow::CLAMP;
use crate::training::flow::{CONDITION_LENGTH, Flow, FoldedFlow, Part, position_code};

/// Factor on the coupling network's output.
const DAMPING: f32 = 0.1;

/// As [`super::flow::append`]. Of `folded` only the grid, the source and how features are standardised
/// are taken.
pub(super) fn append(graph: &mut GraphBuilder, place: Place<'_>, (flow, folded): (&Flow, &FoldedFlow)) {
    let Place { level, opset, output, .. } = place;
    let FoldedFlow { rows, columns, channels, .. } = *folded;
    let name = |part: &str| format!("naive{level}/{part}");
    let features = to_rows_and_columns(graph, place, folded.source.pooling, None);
    let vectors = graph.integers(&name("vectors"), &[-1, channels as i64]);
    let raw = graph.node("Reshape", &[&features, &vectors], &name("raw"), vec![]);
    let scale = graph.floats(&name("scale"), &[channels], folded.input_scale.iter().copied());
    let shift = graph.floats(&name("shift"), &[channels], folded.input_shift.iter().copied());
    let scaled = graph.node("Mul", &[&raw, &scale], &name("scaled"), vec![]);
    let x = graph.node("Add", &[&scaled, &shift], &name("x"), vec![]);
    let mut x = append_whitening(graph, folded, &name("whitening"), x);
    let condition = append_condition(graph, level, &features, (rows, columns));

    let (first, second, hidden) = (flow.shape.first(), flow.shape.second(), flow.shape.hidden);
    let halves = graph.integers(&name("halves"), &[first as i64, second as i64]);
    let scale_and_shift = graph.integers(&name("scale_and_shift"), &[second as i64; 2]);
    let clamp = graph.floats(&name("clamp"), &[], [CLAMP]);
    let damping = graph.floats(&name("damping"), &[], [DAMPING]);
    let along = || vec![integer_attribute("axis", 1)];
    let mut sums = Vec::new();
    for block in 0..flow.shape.blocks {
        let name = |part: &str| format!("naive{level}/block{block}/{part}");
        let weight = |graph: &mut GraphBuilder, part: Part, what: &str, shape: &[usize]| {
            graph.floats(&name(what), shape, flow.part(block, part).iter().copied())
        };
        let (x1, x2) = (name("x1"), name("x2"));
        graph.node_with_outputs("Split", &[&x, &halves], &[&x1, &x2], along());
        let input = graph.node("Concat", &[&x1, &condition], &name("input"), along());
        let (features, places) = (flow.part(block, Part::FeatureWeight), flow.part(block, Part::ConditionWeight));
        let rows = features.chunks_exact(first).zip(places.chunks_exact(CONDITION_LENGTH));
        let w1 = rows.flat_map(|(features, places)| features.iter().chain(places).copied());
        let w1 = graph.floats(&name("w1"), &[hidden, first + CONDITION_LENGTH], w1);
        let b1 = weight(graph, Part::HiddenBias, "b1", &[hidden]);
        let transposed = || vec![integer_attribute("transB", 1)];
        let product = graph.node("Gemm", &[&input, &w1, &b1], &name("product"), transposed());
        let activated = graph.node("Relu", &[&product], &name("hidden"), vec![]);
        let w2 = weight(graph, Part::OutputWeight, "w2", &[2 * second, hidden]);
        let b2 = weight(graph, Part::OutputBias, "b2", &[2 * second]);
        let affine = graph.node("Gemm", &[&activated, &w2, &b2], &name("affine"), transposed());
        let damped = graph.node("Mul", &[&affine, &damping], &name("damped"), vec![]);
        let (raw_scale, offset) = (name("raw_scale"), name("offset"));
        graph.node_with_outputs("Split", &[&damped, &scale_and_shift], &[&raw_scale, &offset], along());
        let bounded = graph.node("Tanh", &[&raw_scale], &name("tanh"), vec![]);
        let log_scale = graph.node("Mul", &[&bounded, &clamp], &name("s"), vec![]);
        let stretch = graph.node("Exp", &[&log_scale], &name("exp"), vec![]);
        let stretched = graph.node("Mul", &[&x2, &stretch], &name("stretched"), vec![]);
        let moved = graph.node("Add", &[&stretched, &offset], &name("moved"), vec![]);
        let joined = graph.node("Concat", &[&x1, &moved], &name("joined"), along());
        let global = graph.floats(&name("global"), &[channels], flow.global_scale(block).0);
        let scaled = graph.node("Mul", &[&joined, &global], &name("global_scaled"), vec![]);
        let shift = weight(graph, Part::GlobalOffset, "global_offset", &[channels]);
        let shifted = graph.node("Add", &[&scaled, &shift], &name("global_shifted"), vec![]);
        let rotation =
            (0..channels * channels).map(|at| flow.rotations[block][at % channels * channels + at / channels]);
        let rotation = graph.floats(&name("rotation"), &[channels, channels], rotation);
        x = graph.node("MatMul", &[&shifted, &rotation], &name("mixed"), vec![]);
        sums.push(graph.reduce("ReduceSum", &log_scale, true, &name("sum")));
    }
    let square = graph.reduce("ReduceSumSquare", &x, opset >= AXES_AS_INPUT, &name("square"));
    let minus_half = graph.floats(&name("minus_half"), &[], [-0.5]);
    sums.push(graph.node("Mul", &[&square, &minus_half], &name("gaussian"), vec![]));
    sums.push(graph.floats(&name("constant"), &[], [folded.constant]));
    let terms: Vec<&str> = sums.iter().map(String::as_str).collect();
    let sum = graph.node("Sum", &terms, &name("sum"), vec![]);
    let length = graph.floats(&name("length"), &[], [channels as f32]);
    let mean = graph.node("Div", &[&sum, &length], &name("mean"), vec![]);
    let map = graph.integers(&name("map"), &[-1, rows as i64, columns as i64]);
    graph.node("Reshape", &[&mean, &map], output, vec![]);
}

/// The position code of every cell of every picture in a batch, `[batch * cell, 128]`.
fn append_condition(graph: &mut GraphBuilder, level: usize, features: &str, (rows, columns): (usize, usize)) -> String {
    let name = |part: &str| format!("naive{level}/{part}");
    let (by_row, by_column) = (position_code(rows), position_code(columns));
    let codes = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let codes =
        codes.flat_map(|(row, column)| by_column.row(column).to_vec().into_iter().chain(by_row.row(row).to_vec()));
    let cells = rows * columns;
    let codes: Vec<f32> = codes.collect();
    let codes = graph.floats(&name("codes"), &[1, cells, CONDITION_LENGTH], codes);
    let shape = graph.node("Shape", &[features], &name("shape"), vec![]);
    let (from, to) = (graph.integers(&name("from"), &[0]), graph.integers(&name("to"), &[1]));
    let batch = graph.node("Slice", &[&shape, &from, &to], &name("batch"), vec![]);
    let each = graph.integers(&name("each"), &[cells as i64, CONDITION_LENGTH as i64]);
    let all = graph.node("Concat", &[&batch, &each], &name("all"), vec![integer_attribute("axis", 0)]);
    let repeated = graph.node("Expand", &[&codes, &all], &name("repeated"), vec![]);
    let flat = graph.integers(&name("flat"), &[-1, CONDITION_LENGTH as i64]);
    graph.node("Reshape", &[&repeated, &flat], &name("condition"), vec![])
}
