//! What values go in and out of a backbone's convolutions, said by the backbone itself.

use std::path::Path;

use super::backbone;
use super::error::ExportError;
use super::graph::{Axis, GraphBuilder, integer_attribute, integers_attribute, tensor_info};
use super::onnx::GraphProto;
use super::onnx::tensor_proto::DataType;
use super::quantise::{convolutions, image_shape, tensors, whole};
use super::splice::Backbone;
use crate::inspection::Size;
use crate::scoring::{BackboneSpec, Layout};

/// The written backbone's only output.
const OBSERVED: &str = "observed";

/// Writes a backbone that says, in place of its maps, what values go in and out of its convolutions:
/// one output in which channel 2 i is the highest and 2 i + 1 the lowest value of the i-th tensor, the
/// same at every cell. Gives the tensors' names.
///
/// # Errors
/// [`ExportError`] when the backbone cannot be read or has no convolution that could work on integers, or
/// a file cannot be written.
pub fn observe_backbone(
    backbone: &Path,
    spec: &BackboneSpec,
    size: Size,
    out: &Path,
) -> Result<Vec<String>, ExportError> {
    let read = Backbone::read(backbone, spec, size)?;
    let tensors = tensors(&convolutions(&read.graph));
    if tensors.is_empty() {
        let problem = "it has no convolution with constant weights: eight bits would change nothing".to_owned();
        return Err(ExportError::Backbone { path: backbone.to_owned(), problem });
    }
    let mut nodes = GraphBuilder::default();
    let as_plane = nodes.integers("observed/as_plane", &[0, 1, -1, 1]);
    // Pooled over the map, then over the channels.
    let highest = |nodes: &mut GraphBuilder, from: &str, to: &str| {
        let pooled = nodes.node("GlobalMaxPool", &[from], &format!("{to}/pooled"), vec![]);
        let plane = nodes.node("Reshape", &[&pooled, &as_plane], &format!("{to}/plane"), vec![]);
        nodes.node("GlobalMaxPool", &[&plane], to, vec![])
    };
    let mut ends = Vec::with_capacity(2 * tensors.len());
    for tensor in &tensors {
        ends.push(highest(&mut nodes, tensor, &format!("{tensor}/highest")));
        let negative = nodes.node("Neg", &[tensor], &format!("{tensor}/negative"), vec![]);
        let lowest = highest(&mut nodes, &negative, &format!("{tensor}/highest_negative"));
        ends.push(nodes.node("Neg", &[&lowest], &format!("{tensor}/lowest"), vec![]));
    }
    let names: Vec<&str> = ends.iter().map(String::as_str).collect();
    let mut ends = nodes.node("Concat", &names, "observed/ends", vec![integer_attribute("axis", 1)]);
    // On the cells of the coarsest map, as whatever a backbone says stands on cells.
    let map = read.outputs.last().map_or("", String::as_str);
    let channels = match spec.layout {
        Layout::Nchw => 1,
        Layout::Nhwc => {
            let order = integers_attribute("perm", &[0, 2, 3, 1]);
            ends = nodes.node("Transpose", &[&ends], "observed/last", vec![order]);
            3
        }
    };
    let [from, to, axis] = [("from", 0), ("to", 1), ("axis", channels)]
        .map(|(name, value)| nodes.integers(&format!("observed/{name}"), &[value]));
    let one = nodes.node("Slice", &[map, &from, &to, &axis], "observed/one_channel", vec![]);
    let nothing = nodes.node("Sub", &[&one, &one], "observed/nothing", vec![]);
    nodes.node("Add", &[&nothing, &ends], OBSERVED, vec![]);

    let shape = ["batch", "a", "b", "c"].map(Axis::named);
    let input = tensor_info(&read.input, DataType::Float, &image_shape(spec));
    let graph = GraphProto {
        node: [read.graph.node, nodes.nodes].concat(),
        initializer: [read.graph.initializer, nodes.constants].concat(),
        sparse_initializer: read.graph.sparse_initializer,
        ..whole(&spec.name, input, vec![tensor_info(OBSERVED, DataType::Float, &shape)])
    };
    let spec = BackboneSpec { input: read.input, outputs: vec![OBSERVED.into()], ..spec.clone() };
    backbone::write(out, &spec, graph, read.origin)?;
    Ok(tensors)
}
