//! A folded flow as one node, for processors: see [`crate::scoring::flow`].

use ndarray::Dimension;

use super::graph::{GraphBuilder, float_attribute, integer_attribute, integers_attribute};
use super::model::Place;
use crate::scoring::{Layout, flow as operator};
use crate::training::flow::{FoldedBlock, FoldedFlow};

/// Adds the node of one flow, whose map is f32 `[batch, row, column]`.
pub(super) fn append(graph: &mut GraphBuilder, place: Place<'_>, flow: &FoldedFlow) {
    let Place { level, features, layout, output, .. } = place;
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    let name = |part: &str| format!("flow{level}/{part}");
    let features = match layout {
        Layout::Nchw => features.to_owned(),
        Layout::Nhwc => {
            let order = vec![integers_attribute("perm", &[0, 3, 1, 2])];
            graph.node("Transpose", &[features], &name("channels_first"), order)
        }
    };
    let pooling = integer_attribute(operator::POOLING, flow.source.pooling as i64);
    if let Some(vectors) = &flow.nearest {
        let grid = |name: &str, length: usize| integer_attribute(name, length as i64);
        let identity = ndarray::Array2::eye(channels);
        let whitening = flow.whitening.as_ref().unwrap_or(&identity);
        let mut inputs = vec![features];
        let [scale, shift] = [&flow.input_scale, &flow.input_shift].map(row_major);
        let parts: [(&[usize], Vec<f32>); 4] = [
            (&[channels], scale),
            (&[channels], shift),
            (&[channels, channels], row_major(whitening)),
            (vectors.shape(), row_major(vectors)),
        ];
        inputs.extend(
            operator::NEAREST_INPUTS[1..]
                .iter()
                .zip(parts)
                .map(|(part, (shape, values))| graph.floats(&name(part), shape, values)),
        );
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        graph.node_of(
            operator::DOMAIN,
            operator::NEAREST,
            &inputs,
            &[output],
            vec![pooling, grid(operator::ROWS, rows), grid(operator::COLUMNS, columns)],
        );
        return;
    }
    let (blocks, second) = (flow.blocks.len(), channels / 2);
    let hidden = flow.blocks.first().map_or(0, |block| block.w1.ncols());
    let shapes: [&[usize]; 9] = [
        &[channels],
        &[channels],
        &[blocks, channels - second, hidden],
        &[blocks, rows, hidden],
        &[blocks, columns, hidden],
        &[blocks, hidden, 2 * second],
        &[blocks, 2 * second],
        &[blocks, channels, channels],
        &[blocks, channels],
    ];
    let of_blocks = |values: &dyn Fn(&FoldedBlock) -> Vec<f32>| flow.blocks.iter().flat_map(values).collect();
    let values: [Vec<f32>; 9] = [
        flow.input_scale.to_vec(),
        flow.input_shift.to_vec(),
        of_blocks(&|block| row_major(&block.w1)),
        of_blocks(&|block| row_major(&block.row_table)),
        of_blocks(&|block| row_major(&block.column_table)),
        of_blocks(&|block| row_major(&block.w2)),
        of_blocks(&|block| block.b2.to_vec()),
        of_blocks(&|block| row_major(&block.mix)),
        of_blocks(&|block| block.shift.to_vec()),
    ];
    let mut inputs = vec![features];
    for ((part, shape), values) in operator::INPUTS[1..].iter().zip(shapes).zip(values) {
        inputs.push(graph.floats(&name(part), shape, values));
    }
    if let Some(whitening) = &flow.whitening {
        inputs.push(graph.floats(&name(operator::WHITENING), whitening.shape(), row_major(whitening)));
    }
    let attributes = vec![pooling, float_attribute(operator::CONSTANT, flow.constant)];
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    graph.node_of(operator::DOMAIN, operator::NAME, &inputs, &[output], attributes);
}

fn row_major<D: Dimension>(array: &ndarray::Array<f32, D>) -> Vec<f32> {
    array.iter().copied().collect()
}
