//! The bundle's model: camera pixels in, a backbone, a flow per level, log-likelihood maps out.

use std::collections::HashSet;
use std::path::Path;

use ndarray::{Array, Dimension};
use prost::Message;

use super::error::ExportError;
use super::graph::{
    Axis, GraphBuilder, integer_attribute, integers_attribute, metadata_entry, operators_of, tensor_info,
};
use super::onnx::tensor_proto::DataType;
use super::onnx::{GraphProto, ModelProto};
use super::splice::Backbone;
use super::{contrast, file, flow, fused, naive, nearest};
use crate::bundle::MODEL_INPUT;
use crate::inspection::Size;
use crate::scoring::flow as operator;
use crate::scoring::{BackboneSpec, ColorOrder, Layout};
use crate::training::flow::{Flow, FoldedFlow};

/// What goes into a model file: a backbone and flows on its maps.
#[derive(Debug, Clone, Copy)]
pub struct ModelExport<'a> {
    /// Any ONNX model that `spec` describes; what `spec.outputs` do not need of it is left out.
    pub backbone: &'a Path,
    /// Its description.
    pub spec: &'a BackboneSpec,
    /// Size of the input, pixels.
    pub size: Size,
    /// Each looks at one output of the backbone; finest first.
    pub flows: &'a [FoldedFlow],
    /// Names of the maps, one a flow.
    pub outputs: &'a [String],
    /// Goes into the file's `metadata_props`.
    pub metadata: &'a [(String, String)],
}

/// How the flows are written.
#[derive(Debug, Clone, Copy)]
pub enum FlowForm<'a> {
    /// In standard operators, which every execution provider and every other program runs.
    Standard,
    /// Every flow as one operator of our own, which [`crate::scoring`] brings to sessions on a processor; no
    /// other program can run the file.
    Processor,
    /// In standard operators with nothing folded, from the flows before folding: to measure what folding is worth.
    Naive(&'a [&'a Flow]),
}

/// Where a level stands in the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its number, which goes into the names of its nodes.
    pub(super) level: usize,
    /// The backbone's map that it looks at.
    pub(super) features: &'a str,
    /// Of that map.
    pub(super) layout: Layout,
    /// Version of the standard operators.
    pub(super) opset: i64,
    /// Name of its own map.
    pub(super) output: &'a str,
}

impl ModelExport<'_> {
    /// Writes one ONNX file that turns camera pixels into log-likelihood maps.
    ///
    /// Input `image`: u8 `[batch, row, column, channel]`, RGB, of `size`, any batch. Outputs, named by
    /// `outputs`: f32 `[batch, row, column]`, nats per feature dimension. The file appears whole or not
    /// at all.
    ///
    /// # Errors
    /// [`ExportError`] when the backbone cannot be read or spliced, the flows do not fit it or
    /// themselves, or the file cannot be written.
    pub fn write(&self, form: FlowForm<'_>, out: &Path) -> Result<(), ExportError> {
        let Self { backbone, spec, size, flows, outputs, .. } = *self;
        check_request(spec, size, flows, outputs)?;
        for (level, flow) in flows.iter().enumerate() {
            check_flow(flow).map_err(|problem| ExportError::Flow { level, problem })?;
        }
        let backbone = Backbone::read(backbone, spec, size)?;
        for (level, flow) in flows.iter().enumerate() {
            let map = flow.source.map;
            let grid = [("channels", flow.channels), ("rows", flow.rows), ("columns", flow.columns)];
            for (&declared, (what, found)) in backbone.declared[map].iter().zip(grid) {
                if let Some(declared) = declared.filter(|&declared| declared != found) {
                    let output = &spec.outputs[map];
                    let problem = format!("it has {found} {what}, the backbone's {output} declares {declared}");
                    return Err(ExportError::Flow { level, problem });
                }
            }
        }
        file::write(out, &self.assemble(backbone, form).encode_to_vec())
    }

    fn assemble(&self, backbone: Backbone, form: FlowForm<'_>) -> ModelProto {
        let Self { spec, size, flows, outputs, metadata, .. } = *self;
        let mut prologue = GraphBuilder::default();
        append_preprocessing(&mut prologue, spec, &backbone.input);
        let mut epilogue = GraphBuilder::default();
        for (level, (flow, output)) in flows.iter().zip(outputs).enumerate() {
            let features = &backbone.outputs[flow.source.map];
            let place = Place { level, features, layout: spec.layout, opset: backbone.opset, output };
            let graph = &mut epilogue;
            match form {
                _ if flow.contrast.is_some() => contrast::append(graph, place, flow),
                FlowForm::Standard | FlowForm::Naive(_) if flow.nearest.is_some() => {
                    nearest::append(graph, place, flow);
                }
                FlowForm::Standard => flow::append(graph, place, flow),
                FlowForm::Processor => fused::append(graph, place, flow),
                FlowForm::Naive(unfolded) => naive::append(graph, place, (unfolded[level], flow)),
            }
        }
        let batch = || Axis::named("batch");
        let image = [batch(), Axis::Fixed(size.height), Axis::Fixed(size.width), Axis::Fixed(3)];
        let maps = flows.iter().zip(outputs).map(|(flow, output)| {
            tensor_info(output, DataType::Float, &[batch(), Axis::Fixed(flow.rows), Axis::Fixed(flow.columns)])
        });
        let graph = GraphProto {
            name: Some("linegate".to_owned()),
            node: [prologue.nodes, backbone.graph.node, epilogue.nodes].concat(),
            initializer: [prologue.constants, backbone.graph.initializer, epilogue.constants].concat(),
            sparse_initializer: backbone.graph.sparse_initializer,
            input: vec![tensor_info(MODEL_INPUT, DataType::Uint8, &image)],
            output: maps.collect(),
            ..Default::default()
        };
        let metadata_props = metadata.iter().map(|(key, value)| metadata_entry(key, value)).collect();
        let mut model = ModelProto { metadata_props, ..backbone.origin.model(graph) };
        if matches!(form, FlowForm::Processor) {
            model.opset_import.push(operators_of(operator::DOMAIN, operator::VERSION));
        }
        model
    }
}

/// Adds what turns `image` into the backbone's input.
fn append_preprocessing(graph: &mut GraphBuilder, spec: &BackboneSpec, input: &str) {
    let mut pixels = MODEL_INPUT.to_owned();
    // Bytes are moved, not floats: a quarter of the memory.
    if spec.color == ColorOrder::Bgr {
        let order = graph.integers("input/bgr", &[2, 1, 0]);
        let axis = vec![integer_attribute("axis", 3)];
        pixels = graph.node("Gather", &[&pixels, &order], "input/reordered", axis);
    }
    let per_channel: &[usize] = match spec.layout {
        Layout::Nhwc => &[3],
        Layout::Nchw => {
            let order = vec![integers_attribute("perm", &[0, 3, 1, 2])];
            pixels = graph.node("Transpose", &[&pixels], "input/channels_first", order);
            &[3, 1, 1]
        }
    };
    if let Some((zero, scale)) = whole_numbers(spec) {
        // One pass instead of three.
        let scale = graph.floats("input/scale", &[], [scale]);
        let zero = graph.byte("input/zero", zero);
        graph.node("DequantizeLinear", &[&pixels, &scale, &zero], input, vec![]);
        return;
    }
    let to = vec![integer_attribute("to", DataType::Float as i64)];
    let pixels = graph.node("Cast", &[&pixels], "input/floats", to);
    let mean = graph.floats("input/mean", per_channel, spec.mean);
    let deviation = graph.floats("input/deviation", per_channel, spec.deviation);
    let centred = graph.node("Sub", &[&pixels, &mean], "input/centred", vec![]);
    graph.node("Div", &[&centred, &deviation], input, vec![]);
}

/// The mean and one over the deviation, where they are the same for every channel and the mean is a byte.
fn whole_numbers(spec: &BackboneSpec) -> Option<(u8, f32)> {
    let alike = |values: &[f32; 3]| values.iter().all(|&value| value == values[0]);
    let zero = spec.mean[0];
    let fits = alike(&spec.mean) && alike(&spec.deviation) && (0.0..=255.0).contains(&zero) && zero.fract() == 0.0;
    fits.then(|| (zero as u8, 1.0 / spec.deviation[0]))
}

fn check_request(spec: &BackboneSpec, size: Size, flows: &[FoldedFlow], outputs: &[String]) -> Result<(), ExportError> {
    let fail = |problem: String| Err(ExportError::Request { problem });
    if size.width == 0 || size.height == 0 {
        return fail(format!("its size is {size}"));
    }
    let maps = spec.outputs.len();
    if flows.is_empty() || flows.len() != outputs.len() || flows.iter().any(|flow| flow.source.map >= maps) {
        return fail(format!(
            "there are {} flows, on maps {:?}, and {} names of outputs for a backbone with {maps} feature maps",
            flows.len(),
            flows.iter().map(|flow| flow.source.map).collect::<Vec<_>>(),
            outputs.len(),
        ));
    }
    let mut taken = HashSet::from([MODEL_INPUT]);
    // Names with a slash are those of inner values.
    if let Some(name) = outputs.iter().find(|name| name.is_empty() || name.contains('/') || !taken.insert(name)) {
        return fail(format!("its output {name:?} is empty, has a slash, or bears a name twice used"));
    }
    let numbers = spec.mean.iter().chain(&spec.deviation);
    if !numbers.clone().all(|number| number.is_finite()) || spec.deviation.iter().any(|&deviation| deviation <= 0.0) {
        return fail(format!(
            "backbone {} is described with mean {:?} and deviation {:?}, expected numbers and positive ones",
            spec.name, spec.mean, spec.deviation
        ));
    }
    Ok(())
}

/// Whether a flow's parts fit each other and hold numbers.
fn check_flow(flow: &FoldedFlow) -> Result<(), String> {
    let FoldedFlow { rows, columns, channels, .. } = *flow;
    if rows == 0 || columns == 0 || channels < 2 {
        return Err(format!(
            "its grid is {columns}x{rows} cells of {channels} channels, expected 1 cell and 2 channels or more"
        ));
    }
    let pooling = flow.source.pooling;
    if pooling.is_multiple_of(2) {
        return Err(format!("it averages features over a side of {pooling}, expected an odd number"));
    }
    if !flow.constant.is_finite() {
        return Err(format!("its constant is {}", flow.constant));
    }
    check_array("input_scale", &flow.input_scale, &[channels])?;
    check_array("input_shift", &flow.input_shift, &[channels])?;
    if let Some(whitening) = &flow.whitening {
        check_array("whitening", whitening, &[channels; 2])?;
    }
    if let Some(vectors) = &flow.nearest {
        if vectors.nrows() == 0 || !flow.blocks.is_empty() {
            return Err(format!("it compares with {} vectors and has {} blocks", vectors.nrows(), flow.blocks.len()));
        }
        check_array("nearest", vectors, &[vectors.nrows(), channels])?;
    }
    if let Some((direction, offset)) = &flow.contrast {
        if !flow.blocks.is_empty() || flow.nearest.is_some() || !offset.is_finite() {
            return Err(format!("it contrasts with an offset of {offset} and has something else beside"));
        }
        check_array("direction", direction, &[channels])?;
    }
    let second = channels / 2;
    let hidden = flow.blocks.first().map_or(0, |block| block.w1.ncols());
    for (index, block) in flow.blocks.iter().enumerate() {
        let name = |part: &str| format!("{part} of block {index}");
        check_array(&name("w1"), &block.w1, &[channels - second, hidden])?;
        check_array(&name("row_table"), &block.row_table, &[rows, hidden])?;
        check_array(&name("column_table"), &block.column_table, &[columns, hidden])?;
        check_array(&name("w2"), &block.w2, &[hidden, 2 * second])?;
        check_array(&name("b2"), &block.b2, &[2 * second])?;
        check_array(&name("mix"), &block.mix, &[channels, channels])?;
        check_array(&name("shift"), &block.shift, &[channels])?;
    }
    if !flow.blocks.is_empty() && hidden == 0 {
        return Err("its hidden width is 0".into());
    }
    Ok(())
}

fn check_array<D: Dimension>(name: &str, array: &Array<f32, D>, expected: &[usize]) -> Result<(), String> {
    if array.shape() != expected {
        return Err(format!("{name} has shape {:?}, expected {expected:?}", array.shape()));
    }
    match array.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("{name} holds {value}: the fit has diverged")),
        None => Ok(()),
    }
}
