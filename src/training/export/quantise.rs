//! A backbone whose convolutions work on eight-bit integers.
//!
//! Written as ONNX's pairs of QuantizeLinear and DequantizeLinear around every convolution, which ONNX
//! Runtime joins to one integer operator each. Activations are unsigned with a zero point, weights
//! signed, with a scale for each output channel and seven bits: two products of eight would overflow
//! the sixteen bits that processors without VNNI add them in, and every machine must say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::backbone::{self, map_outputs, map_shape};
use super::error::ExportError;
use super::graph::{Axis, GraphBuilder, integer_attribute, tensor_info};
use super::onnx::tensor_proto::DataType;
use super::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::pack::{GROUP, Packed};
use super::splice::Backbone;
use crate::inspection::Size;
use crate::scoring::BackboneSpec;

/// Highest magnitude of a weight.
const WEIGHT: f32 = 63.0;
/// Highest magnitude of a bias, with room for the sum that it is added to.
const BIAS: f32 = (1 << 30) as f32;

/// What values a tensor takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueRange {
    /// Lowest.
    pub low: f32,
    /// Highest.
    pub high: f32,
}

/// A convolution that can work on integers.
#[derive(Debug)]
pub(super) struct Convolution {
    /// Place among the nodes.
    node: usize,
    input: String,
    output: String,
    /// The Relu or Clip behind it that the range of its output makes needless.
    bounded: Option<Bound>,
}

/// A Relu, or a Clip that begins at zero.
#[derive(Debug)]
struct Bound {
    /// Place among the nodes.
    node: usize,
    output: String,
    /// Highest value.
    high: f32,
}

impl Convolution {
    /// What others read of it.
    fn said(&self) -> &str {
        self.bounded.as_ref().map_or(&self.output, |bound| &bound.output)
    }
}

/// Writes the backbone with its convolutions on integers, and its description beside it; `ranges` has
/// what [`super::observe_backbone`] named. Values beyond a range become its ends.
///
/// # Errors
/// [`ExportError`] when the backbone cannot be read, a range is missing or no range, or a file cannot be
/// written.
pub fn quantise_backbone(
    backbone: &Path,
    spec: &BackboneSpec,
    size: Size,
    ranges: &BTreeMap<String, ValueRange>,
    out: &Path,
) -> Result<(), ExportError> {
    let read = Backbone::read(backbone, spec, size)?;
    let convolutions = convolutions(&read.graph);
    let mut builder = Quantiser { added: GraphBuilder::default(), scales: HashMap::new() };
    for convolution in &convolutions {
        for (tensor, bound) in [(&convolution.input[..], None), (convolution.said(), convolution.bounded.as_ref())] {
            let range = if tensor == read.input { image_range(spec) } else { ranges.get(tensor).copied() };
            let range =
                range.filter(|range| range.low <= range.high && range.high.is_finite() && range.low.is_finite());
            let Some(range) = range else {
                let problem = format!("no range of values is known for {tensor}");
                return Err(ExportError::Request { problem });
            };
            builder.range(tensor, range, bound.map(|bound| bound.high));
        }
    }
    let by_node: HashMap<usize, &Convolution> = convolutions.iter().map(|one| (one.node, one)).collect();
    let needless: HashSet<usize> =
        convolutions.iter().filter_map(|one| one.bounded.as_ref().map(|bound| bound.node)).collect();
    // Everybody reads the integers' value: only then is a convolution, or a sum, one operator on integers.
    let said: HashSet<String> = builder.scales.keys().cloned().collect();
    let read_as = |tensor: &String| if said.contains(tensor) { value_of(tensor) } else { tensor.clone() };
    let constants: HashMap<&str, &TensorProto> = read.graph.initializer.iter().map(|t| (t.name(), t)).collect();
    // Only of the image the width is known.
    let in_groups = size.width.is_multiple_of(GROUP);
    let mut made = Vec::new();
    if builder.scales.contains_key(&read.input) {
        made.extend(builder.pair(&read.input, &read.input, None));
    }
    for (place, node) in read.graph.node.iter().enumerate() {
        if needless.contains(&place) {
            continue;
        }
        let mut node = node.clone();
        if let Some(convolution) = by_node.get(&place) {
            let of_image = in_groups && convolution.input == read.input;
            let packed = of_image.then(|| Packed::of(&node, &shape(constants[node.input[1].as_str()]))).flatten();
            made.extend(builder.weights(&mut node, convolution, packed.as_ref(), &constants));
            made.push(node);
            made.extend(builder.pair(&convolution.output, convolution.said(), packed.as_ref()));
            continue;
        }
        node.input.iter_mut().for_each(|input| *input = read_as(input));
        let outputs = node.output.clone();
        made.push(node);
        for output in outputs {
            if builder.scales.contains_key(&output) {
                made.extend(builder.pair(&output, &output, None));
            }
        }
    }
    let mut ends = GraphBuilder::default();
    for (output, name) in read.outputs.iter().zip(&spec.outputs) {
        ends.node("Identity", &[&read_as(output)], name, vec![]);
    }
    let used: HashSet<&String> = made.iter().flat_map(|node| &node.input).collect();
    let kept = read.graph.initializer.iter().filter(|constant| used.contains(&constant.name().to_owned())).cloned();
    let initializer = kept.chain(builder.added.constants).collect();
    let input = tensor_info(&read.input, DataType::Float, &image_shape(spec));
    let graph = GraphProto {
        node: [made, ends.nodes].concat(),
        initializer,
        sparse_initializer: read.graph.sparse_initializer,
        ..whole(&spec.name, input, map_outputs(spec, &read.declared))
    };
    let spec = BackboneSpec { name: format!("{}_int8", spec.name), input: read.input, ..spec.clone() };
    backbone::write(out, &spec, graph, read.origin)
}

/// What the integers of a tensor are called.
fn integers_of(tensor: &str) -> String {
    format!("{tensor}/integers")
}

/// What the values of a tensor are called when they have been integers.
fn value_of(tensor: &str) -> String {
    format!("{tensor}/value")
}

/// The standard convolutions with constant weights, in order.
pub(super) fn convolutions(graph: &GraphProto) -> Vec<Convolution> {
    let constants: HashMap<&str, &TensorProto> = graph.initializer.iter().map(|t| (t.name(), t)).collect();
    let is_constant = |name: &str, axes: usize| {
        constants.get(name).is_some_and(|constant| constant.dims.len() == axes && floats(constant).is_some())
    };
    let outputs: HashSet<&str> = graph.output.iter().map(ValueInfoProto::name).collect();
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, node) in graph.node.iter().enumerate() {
        node.input.iter().for_each(|input| readers.entry(input).or_default().push(place));
    }
    let usable = |node: &NodeProto| {
        node.op_type() == "Conv"
            && matches!(node.domain(), "" | "ai.onnx")
            && !node.output.is_empty()
            && node.input.get(1).is_some_and(|weight| is_constant(weight, 4))
            && node.input.get(2).is_none_or(|bias| bias.is_empty() || is_constant(bias, 1))
    };
    let bound = |output: &str| {
        let [reader] = readers.get(output)?[..] else { return None };
        let node = &graph.node[reader];
        let number = |at: usize| {
            let name = node.input.get(at).filter(|name| !name.is_empty())?;
            Some(constants.get(name.as_str()).and_then(|constant| floats(constant)).and_then(|of| of.first().copied()))
        };
        let high = match (node.op_type(), number(1), number(2)) {
            ("Relu", ..) | ("Clip", Some(Some(0.0)), None) => f32::INFINITY,
            ("Clip", Some(Some(0.0)), Some(Some(high))) => high,
            _ => return None,
        };
        let said = node.output.first()?;
        (node.input[0] == output && !outputs.contains(output)).then(|| Bound {
            node: reader,
            output: said.clone(),
            high,
        })
    };
    let nodes = graph.node.iter().enumerate().filter(|(_, node)| usable(node));
    nodes
        .map(|(node, conv)| Convolution {
            node,
            input: conv.input[0].clone(),
            bounded: bound(&conv.output[0]),
            output: conv.output[0].clone(),
        })
        .collect()
}

/// What goes in and out of convolutions, each once.
pub(super) fn tensors(convolutions: &[Convolution]) -> Vec<String> {
    let all = convolutions.iter().flat_map(|one| [one.input.clone(), one.said().to_owned()]);
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A constant's lengths.
fn shape(constant: &TensorProto) -> Vec<usize> {
    constant.dims.iter().map(|&length| usize::try_from(length).unwrap_or(0)).collect()
}

/// A constant's numbers, where it holds 32-bit floats.
pub(super) fn floats(constant: &TensorProto) -> Option<Vec<f32>> {
    if constant.data_type() != DataType::Float as i32 {
        return None;
    }
    Some(match &constant.raw_data {
        Some(raw) => raw.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        None => constant.float_data.clone(),
    })
}

/// The range in which pixel values are whole steps, where all channels are normalised alike; else the one
/// that holds all of them.
fn image_range(spec: &BackboneSpec) -> Option<ValueRange> {
    let ends =
        |value: f32| spec.mean.iter().zip(&spec.deviation).map(move |(mean, deviation)| (value - mean) / deviation);
    let low = ends(0.0).reduce(f32::min)?;
    let high = ends(255.0).reduce(f32::max)?;
    Some(ValueRange { low, high })
}

/// Gathers what quantisation adds.
struct Quantiser {
    added: GraphBuilder,
    /// Scale and zero point of every tensor that is quantised.
    scales: HashMap<String, (f32, u8)>,
}

impl Quantiser {
    /// Notes a tensor's range, widened to hold zero; one with a bound begins there and ends no higher.
    fn range(&mut self, tensor: &str, range: ValueRange, bound: Option<f32>) {
        let low = if bound.is_some() { 0.0 } else { range.low.min(0.0) };
        let high = range.high.clamp(0.0, bound.unwrap_or(f32::INFINITY).max(0.0));
        let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
        self.scales.entry(tensor.to_owned()).or_insert((scale, (-low / scale).round().clamp(0.0, 255.0) as u8));
    }

    /// The nodes that make `tensor`, computed as `from` (groups of pixels where it was `packed`), integers and
    /// values again.
    fn pair(&mut self, from: &str, tensor: &str, packed: Option<&Packed>) -> Vec<NodeProto> {
        let (scale, zero) = self.scales[tensor];
        let scale = self.added.floats(&format!("{tensor}/scale"), &[], [scale]);
        let zero = self.added.byte(&format!("{tensor}/zero"), zero);
        let mut nodes = GraphBuilder::default();
        let integers = integers_of(tensor);
        if let Some(packed) = packed {
            let groups = format!("{tensor}/of_groups");
            nodes.node("QuantizeLinear", &[from, &scale, &zero], &groups, vec![]);
            packed.spread(&mut nodes, &groups, &integers);
        } else {
            nodes.node("QuantizeLinear", &[from, &scale, &zero], &integers, vec![]);
        }
        self.added.constants.append(&mut nodes.constants);
        nodes.node("DequantizeLinear", &[&integers, &scale, &zero], &value_of(tensor), vec![]);
        nodes.nodes
    }

    /// Has a convolution read integers, in groups of pixels where it is `packed`; the nodes that it then needs.
    fn weights(
        &mut self,
        node: &mut NodeProto,
        convolution: &Convolution,
        packed: Option<&Packed>,
        constants: &HashMap<&str, &TensorProto>,
    ) -> Vec<NodeProto> {
        let name = node.output[0].clone();
        let weight = constants[node.input[1].as_str()];
        let channels = usize::try_from(weight.dims[0]).unwrap_or(0).max(1);
        let values = floats(weight).unwrap_or_default();
        let each = (values.len() / channels).max(1);
        let bias = node.input.get(2).filter(|bias| !bias.is_empty()).map(|bias| constants[bias.as_str()]);
        let bias = bias.map(|bias| floats(bias).unwrap_or_default());
        let (input_scale, input_zero) = self.scales[&convolution.input];
        // Of the products' own unit, as the sums are. Where next to nothing is weighted, that unit must be
        // large enough for the bias all the same; a channel of nothing but zeros may have any.
        let scale = |(channel, weights): (usize, &[f32])| {
            let highest = weights.iter().fold(0.0f32, |highest, weight| highest.max(weight.abs()));
            let bias = bias.as_ref().and_then(|bias| bias.get(channel)).map_or(0.0, |bias| bias.abs());
            let scale = (highest / WEIGHT).max(bias / input_scale / BIAS);
            if scale > 0.0 { scale } else { 1.0 }
        };
        let scales: Vec<f32> = values.chunks(each).enumerate().map(scale).collect();
        let mut integers: Vec<i8> = Vec::with_capacity(values.len());
        for (weights, scale) in values.chunks(each).zip(&scales) {
            integers.extend(weights.iter().map(|weight| (weight / scale).round() as i8));
        }
        let biases = bias.map(|bias| {
            let units = scales.iter().map(|scale| scale * input_scale);
            bias.iter().zip(units).map(|(value, unit)| (value / unit).round() as i32).collect::<Vec<_>>()
        });
        let mut nodes = GraphBuilder::default();
        let mut input = value_of(&convolution.input);
        let (dims, integers, scales, biases) = match packed {
            None => (shape(weight), integers, scales, biases),
            Some(packed) => {
                node.attribute = packed.attributes();
                let groups = packed.gather(&mut nodes, &integers_of(&convolution.input));
                let scale = self.added.floats(&format!("{groups}/scale"), &[], [input_scale]);
                let zero = self.added.byte(&format!("{groups}/zero"), input_zero);
                input = nodes.node("DequantizeLinear", &[&groups, &scale, &zero], &value_of(&groups), vec![]);
                let (dims, integers) = packed.weights(&integers);
                (dims.to_vec(), integers, packed.each(&scales), biases.map(|biases| packed.each(&biases)))
            }
        };
        let per_channel = || vec![integer_attribute("axis", 0)];
        let integers = self.added.bytes(&format!("{name}/weight_integers"), &dims, &integers);
        let scale = self.added.floats(&format!("{name}/weight_scale"), &[scales.len()], scales.iter().copied());
        let weight = format!("{name}/weight");
        nodes.node("DequantizeLinear", &[&integers, &scale], &weight, per_channel());
        if let Some(biases) = biases {
            let units = scales.iter().map(|scale| scale * input_scale);
            let unit = self.added.floats(&format!("{name}/bias_unit"), &[scales.len()], units);
            let integers = self.added.whole(&format!("{name}/bias_integers"), biases);
            node.input[2] = nodes.node("DequantizeLinear", &[&integers, &unit], &format!("{name}/bias"), per_channel());
        }
        self.added.constants.append(&mut nodes.constants);
        node.input[0] = input;
        node.input[1] = weight;
        nodes.nodes
    }
}

pub(super) fn image_shape(spec: &BackboneSpec) -> [Axis; 4] {
    map_shape(spec.layout, Axis::Fixed(3), Axis::named("row"), Axis::named("column"))
}

/// A graph between these ends, still without nodes.
pub(super) fn whole(name: &str, input: ValueInfoProto, output: Vec<ValueInfoProto>) -> GraphProto {
    GraphProto { name: Some(name.to_owned()), input: vec![input], output, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights and bias of a convolution of two channels, as they are after quantisation.
    fn values_after(weights: [f32; 2], bias: [f32; 2]) -> ([f32; 2], [f32; 2]) {
        let mut graph = GraphBuilder::default();
        graph.floats("w", &[2, 1, 1, 1], weights);
        graph.floats("b", &[2], bias);
        graph.node("Conv", &["x", "w", "b"], "y", vec![]);
        let graph = GraphProto { node: graph.nodes, initializer: graph.constants, ..Default::default() };
        let [convolution] = &convolutions(&graph)[..] else { panic!("one convolution") };
        let constants = graph.initializer.iter().map(|constant| (constant.name(), constant)).collect();
        let mut quantiser = Quantiser { added: GraphBuilder::default(), scales: HashMap::new() };
        quantiser.range("x", ValueRange { low: 0.0, high: 6.0 }, None);
        quantiser.weights(&mut graph.node[0].clone(), convolution, None, &constants);
        let raw = |name: &str| {
            let found = quantiser.added.constants.iter().find(|constant| constant.name() == name).unwrap();
            found.raw_data.clone().unwrap()
        };
        let real = |name: &str, at: usize| f32::from_le_bytes(raw(name)[4 * at..4 * at + 4].try_into().unwrap());
        let whole = |at: usize| i32::from_le_bytes(raw("y/bias_integers")[4 * at..4 * at + 4].try_into().unwrap());
        let weight = |at: usize| f32::from(raw("y/weight_integers")[at].cast_signed()) * real("y/weight_scale", at);
        ([weight(0), weight(1)], [0, 1].map(|at| whole(at) as f32 * real("y/bias_unit", at)))
    }

    #[test]
    fn a_bias_survives_weights_next_to_nothing() {
        let (weights, bias) = values_after([0.5, 1e-12], [0.25, -3.0]);
        assert!((weights[0] - 0.5).abs() < 1e-6 && weights[1].abs() < 1e-6, "{weights:?}");
        assert!((bias[0] - 0.25).abs() < 2e-4 && (bias[1] + 3.0).abs() < 1e-5, "{bias:?}");
        let (weights, bias) = values_after([0.0, 0.0], [0.0, 2.0]);
        assert_eq!((weights, bias[0]), ([0.0, 0.0], 0.0));
        assert!((bias[1] - 2.0).abs() < 1e-5, "{bias:?}");
    }

    #[test]
    fn a_node_without_inputs_or_outputs_is_no_convolution() {
        let torn = |input: &[&str], output: &[&str]| NodeProto {
            input: input.iter().map(|&name| name.to_owned()).collect(),
            output: output.iter().map(|&name| name.to_owned()).collect(),
            op_type: Some("Conv".into()),
            ..Default::default()
        };
        let node = vec![torn(&[], &["y"]), torn(&["x"], &["y"]), torn(&["x", "w"], &[])];
        let mut builder = GraphBuilder::default();
        builder.floats("w", &[1, 1, 1, 1], [1.0]);
        assert!(convolutions(&GraphProto { node, initializer: builder.constants, ..Default::default() }).is_empty());
    }
}
