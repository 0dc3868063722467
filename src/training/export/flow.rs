//! A folded flow as ONNX nodes: rows of feature vectors in, a map of log-likelihoods out.
//!
//! Matrix products on rows, not 1×1 convolutions: ONNX Runtime reorders memory around every split
//! of a convolution's channels, which made the flow a third dearer on a CPU.

use ndarray::Array2;

use super::graph::{GraphBuilder, float_attribute, integer_attribute, integers_attribute};
use super::model::Place;
use crate::scoring::Layout;
use crate::scoring::flow::CLAMP;
use crate::training::flow::{FoldedBlock, FoldedFlow};

/// Cells up to which a block's two position tables are one table when the model is loaded, which
/// saves a pass over the hidden values. Beyond, tables of every cell and block would fill the memory:
/// about 0.7 GiB at 1104x928.
const FOLDED_CELLS: usize = 8192;

/// Adds the nodes of one flow, whose map is f32 `[batch, row, column]`.
pub(super) fn append(graph: &mut GraphBuilder, place: Place<'_>, flow: &FoldedFlow) {
    let Place { level, output, .. } = place;
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    let cells = rows * columns;
    let name = |part: &str| format!("flow{level}/{part}");
    let mut x = append_rows(graph, place, flow);
    let second = channels / 2;
    let halves = graph.integers(&name("halves"), &[(channels - second) as i64, second as i64]);
    let scale_and_shift = graph.integers(&name("scale_and_shift"), &[second as i64; 2]);
    let hidden = flow.blocks.first().map_or(0, |block| block.w1.ncols());
    let with_cells = graph.integers(&name("with_cells"), &[-1, cells as i64, hidden as i64]);
    let without_cells = graph.integers(&name("without_cells"), &[-1, hidden as i64]);
    let clamp = graph.floats(&name("clamp"), &[], [CLAMP]);
    let shapes = Shapes { halves, scale_and_shift, with_cells, without_cells, clamp };
    // -1/2 |x g + o|² / C at the end, with g and o inside the columns where the last mix is but a scale.
    let (length, half) = (channels as f32, -0.5 / channels as f32);
    let last = flow.blocks.last().and_then(only_scaled);
    let (scale, offset) = last.clone().unwrap_or_else(|| (vec![1.0; channels], vec![0.0; channels]));
    let constant = flow.constant / length + half * offset.iter().map(|offset| offset * offset).sum::<f32>();
    // The sums over channels as products with a column that has the factor inside, each added to the one
    // before: reductions, their sum and a division by C take four times as long.
    let mut sum = graph.floats(&name("constant"), &[1], [constant]);
    let each_scale = graph.floats(&name("each_scale"), &[second, 1], vec![CLAMP / length; second]);
    for (index, block) in flow.blocks.iter().enumerate() {
        let prefix = name(&format!("block{index}"));
        let mixes = last.is_none() || index + 1 < flow.blocks.len();
        let (next, bounded) = append_block(graph, &prefix, flow, (block, mixes), &shapes, &x);
        x = next;
        sum = graph.node("Gemm", &[&bounded, &each_scale, &sum], &format!("{prefix}/sum"), vec![]);
    }
    if last.is_some() {
        let each = scale.iter().zip(&offset).map(|(g, o)| 2.0 * half * g * o);
        let each = graph.floats(&name("each"), &[channels, 1], each);
        sum = graph.node("Gemm", &[&x, &each, &sum], &name("linear"), vec![]);
    }
    let square = graph.node("Mul", &[&x, &x], &name("square"), vec![]);
    let each_square = graph.floats(&name("each_square"), &[channels, 1], scale.iter().map(|g| half * g * g));
    let mean = graph.node("Gemm", &[&square, &each_square, &sum], &name("mean"), vec![]);
    let map = graph.integers(&name("map"), &[-1, rows as i64, columns as i64]);
    graph.node("Reshape", &[&mean, &map], output, vec![]);
}

/// Adds what makes of a level's map its flow's input, `[batch * cell, C]`.
pub(super) fn append_rows(graph: &mut GraphBuilder, place: Place<'_>, flow: &FoldedFlow) -> String {
    let Place { level, layout, .. } = place;
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    let name = |part: &str| format!("flow{level}/{part}");
    let scale = graph.floats(&name("scale"), &[channels], flow.input_scale.iter().copied());
    let shift = graph.floats(&name("shift"), &[channels], flow.input_shift.iter().copied());
    let channels_first = layout == Layout::Nchw || flow.source.pooling > 1;
    // While channels come first they are standardised in one pass, beside the average.
    let standardise = channels_first.then(|| {
        let zero = graph.floats(&name("zero"), &[channels], vec![0.0; channels]);
        let one = graph.floats(&name("one"), &[channels], vec![1.0; channels]);
        [scale.clone(), shift.clone(), zero, one]
    });
    let features = to_rows_and_columns(graph, place, flow.source.pooling, standardise.as_ref());

    // 0 keeps the batch axis: were the map of another size than the flow's grid, the Reshape would
    // fail instead of mixing cells of different pictures.
    let grid = graph.integers(&name("grid"), &[0, (rows * columns) as i64, channels as i64]);
    let grid = graph.node("Reshape", &[&features, &grid], &name("cells"), vec![]);
    let vectors = graph.integers(&name("vectors"), &[-1, channels as i64]);
    let mut x = graph.node("Reshape", &[&grid, &vectors], &name("rows"), vec![]);
    if !channels_first {
        let scaled = graph.node("Mul", &[&x, &scale], &name("scaled"), vec![]);
        x = graph.node("Add", &[&scaled, &shift], &name("x"), vec![]);
    }
    append_whitening(graph, flow, &name("whitening"), x)
}

/// The map as `[batch, row, column, channel]`, averaged over its neighbourhood where wanted; with
/// `standardise` (scale, shift, 0 and 1 of every channel), which takes a map that has its channels first
/// or is averaged, standardised, too.
pub(super) fn to_rows_and_columns(
    graph: &mut GraphBuilder,
    place: Place<'_>,
    pooling: usize,
    standardise: Option<&[String; 4]>,
) -> String {
    let Place { level, features, mut layout, .. } = place;
    let name = |part: &str| format!("flow{level}/{part}");
    let transpose = |graph: &mut GraphBuilder, from: &str, to: &str, order: [i64; 4]| {
        graph.node("Transpose", &[from], to, vec![integers_attribute("perm", &order)])
    };
    let mut features = features.to_owned();
    if pooling > 1 {
        if layout == Layout::Nhwc {
            features = transpose(graph, &features, &name("channels_first"), [0, 3, 1, 2]);
            layout = Layout::Nchw;
        }
        features = append_average(graph, &name("pooled"), pooling, &features);
    }
    if let Some([scale, shift, mean, variance]) = standardise {
        let attributes = vec![float_attribute("epsilon", 0.0)];
        let inputs = [&features, scale, shift, mean, variance];
        features = graph.node("BatchNormalization", &inputs.map(String::as_str), &name("standardised"), attributes);
    }
    match layout {
        Layout::Nhwc => features,
        Layout::Nchw => transpose(graph, &features, &name("channels_last"), [0, 2, 3, 1]),
    }
}

/// The average over `pooling` x `pooling` cells around each, channels first; `name` is what it is called.
pub(super) fn append_average(graph: &mut GraphBuilder, name: &str, pooling: usize, features: &str) -> String {
    // Along the rows, then along the columns: the average of averages is the average, as the cells
    // inside the map are a rectangle; and 2 n cells are read for n².
    let (side, margin) = (pooling as i64, (pooling / 2) as i64);
    let mut features = features.to_owned();
    for (part, height, width) in [(format!("{name}_rows"), side, 1), (name.to_owned(), 1, side)] {
        let (above, beside) = if height > 1 { (margin, 0) } else { (0, margin) };
        let attributes = vec![
            integer_attribute("count_include_pad", 0),
            integers_attribute("kernel_shape", &[height, width]),
            integers_attribute("pads", &[above, beside, above, beside]),
            integers_attribute("strides", &[1; 2]),
        ];
        features = graph.node("AveragePool", &[&features], &part, attributes);
    }
    features
}

/// Whitens standardised rows where the flow does; `name` is that of the matrix.
pub(super) fn append_whitening(graph: &mut GraphBuilder, flow: &FoldedFlow, name: &str, x: String) -> String {
    let Some(whitening) = &flow.whitening else { return x };
    let matrix = graph.floats(name, whitening.shape(), whitening.iter().copied());
    graph.node("MatMul", &[&x, &matrix], &format!("{name}/whitened"), vec![])
}

/// Names of the constants that every block of a flow shares.
struct Shapes {
    halves: String,
    scale_and_shift: String,
    with_cells: String,
    without_cells: String,
    clamp: String,
}

/// Scale and shift of a block that does not mix channels: only the last is one.
fn only_scaled(block: &FoldedBlock) -> Option<(Vec<f32>, Vec<f32>)> {
    let diagonal = block.mix.indexed_iter().all(|((row, column), &value)| row == column || value == 0.0);
    diagonal.then(|| (block.mix.diag().to_vec(), block.shift.to_vec()))
}

/// Adds one coupling block on `x`, `[batch * cell, C]`; gives the next x, of the last block before it is
/// scaled where it does not mix, and the block's s by [`CLAMP`].
fn append_block(
    graph: &mut GraphBuilder,
    prefix: &str,
    flow: &FoldedFlow,
    (block, mixes): (&FoldedBlock, bool),
    shapes: &Shapes,
    x: &str,
) -> (String, String) {
    let name = |part: &str| format!("{prefix}/{part}");
    let hidden = block.w1.ncols();
    let along_columns = || vec![integer_attribute("axis", 1)];
    let w1 = graph.floats(&name("w1"), block.w1.shape(), block.w1.iter().copied());
    let w2 = graph.floats(&name("w2"), block.w2.shape(), block.w2.iter().copied());
    let b2 = graph.floats(&name("b2"), block.b2.shape(), block.b2.iter().copied());
    let (x1, x2) = (name("x1"), name("x2"));
    graph.node_with_outputs("Split", &[x, &shapes.halves], &[&x1, &x2], along_columns());
    let activated = match without_places(block) {
        Some(bias) => {
            let bias = graph.floats(&name("b1"), &[hidden], bias);
            let product = graph.node("Gemm", &[&x1, &w1, &bias], &name("product"), vec![]);
            graph.node("Relu", &[&product], &name("hidden"), vec![])
        }
        None => {
            let product = graph.node("MatMul", &[&x1, &w1], &name("product"), vec![]);
            let conditioned = append_condition(graph, prefix, flow, block, shapes, &product);
            let activated = graph.node("Relu", &[&conditioned], &name("relu"), vec![]);
            graph.node("Reshape", &[&activated, &shapes.without_cells], &name("hidden"), vec![])
        }
    };
    let affine = graph.node("Gemm", &[&activated, &w2, &b2], &name("affine"), vec![]);

    let (raw_scale, offset) = (name("raw_scale"), name("offset"));
    graph.node_with_outputs("Split", &[&affine, &shapes.scale_and_shift], &[&raw_scale, &offset], along_columns());
    let bounded = graph.node("Tanh", &[&raw_scale], &name("tanh"), vec![]);
    let log_scale = graph.node("Mul", &[&bounded, &shapes.clamp], &name("s"), vec![]);
    let scale = graph.node("Exp", &[&log_scale], &name("exp"), vec![]);
    let stretched = graph.node("Mul", &[&x2, &scale], &name("stretched"), vec![]);
    let moved = graph.node("Add", &[&stretched, &offset], &name("moved"), vec![]);
    let joined = graph.node("Concat", &[&x1, &moved], &name("joined"), along_columns());
    if !mixes {
        return (joined, bounded);
    }
    let mix = graph.floats(&name("mix"), block.mix.shape(), block.mix.iter().copied());
    let shift = graph.floats(&name("mix_shift"), block.shift.shape(), block.shift.iter().copied());
    (graph.node("Gemm", &[&joined, &mix, &shift], &name("mixed"), vec![]), bounded)
}

/// Adds a block's position tables to its first product; gives it by cell.
fn append_condition(
    graph: &mut GraphBuilder,
    prefix: &str,
    flow: &FoldedFlow,
    block: &FoldedBlock,
    shapes: &Shapes,
    product: &str,
) -> String {
    let name = |part: &str| format!("{prefix}/{part}");
    let hidden = block.w1.ncols();
    let row_table = graph.floats(&name("row_table"), &[flow.rows, 1, hidden], block.row_table.iter().copied());
    let column_table =
        graph.floats(&name("column_table"), &[1, flow.columns, hidden], block.column_table.iter().copied());
    if flow.rows * flow.columns > FOLDED_CELLS {
        let grid = [-1, flow.rows as i64, flow.columns as i64, hidden as i64];
        let grid = graph.integers(&name("grid"), &grid);
        let product = graph.node("Reshape", &[product, &grid], &name("by_place"), vec![]);
        let product = graph.node("Add", &[&product, &row_table], &name("by_row"), vec![]);
        return graph.node("Add", &[&product, &column_table], &name("conditioned"), vec![]);
    }
    // The sum of two constants: ONNX Runtime adds them up once, when it loads the file, which
    // thus stays a tenth as large as with a table of every cell.
    let table = graph.node("Add", &[&row_table, &column_table], &name("position"), vec![]);
    let cells = graph.integers(&name("cells"), &[(flow.rows * flow.columns) as i64, hidden as i64]);
    let table = graph.node("Reshape", &[&table, &cells], &name("table"), vec![]);
    let product = graph.node("Reshape", &[product, &shapes.with_cells], &name("by_cell"), vec![]);
    graph.node("Add", &[&product, &table], &name("conditioned"), vec![])
}

/// The bias that stands for both tables where they say the same of every place, as those of a flow
/// that has forgotten places do.
fn without_places(block: &FoldedBlock) -> Option<Vec<f32>> {
    let alike = |table: &Array2<f32>| table.rows().into_iter().all(|row| row == table.row(0));
    (alike(&block.row_table) && alike(&block.column_table))
        .then(|| block.row_table.row(0).iter().zip(block.column_table.row(0)).map(|(a, b)| a + b).collect())
}
