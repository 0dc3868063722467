//! Somebody's backbone graph, checked and made ready to become a part of ours.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use prost::Message;

use super::backbone::Origin;
use super::error::ExportError;
use super::file;
use super::onnx::tensor_proto::{DataLocation, DataType};
use super::onnx::tensor_shape_proto::dimension::Value as Length;
use super::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, type_proto};
use crate::inspection::Size;
use crate::scoring::{BackboneSpec, Layout};

/// Oldest set of standard operators that our own nodes are written in.
const OLDEST_OPSET: i64 = 13;
/// Oldest set that may be raised to [`OLDEST_OPSET`].
const OLDEST_RAISABLE_OPSET: i64 = 11;
/// Newest set that ONNX Runtime 1.32 knows.
const NEWEST_OPSET: i64 = 28;
/// Operators whose form in opset 11 or 12 means the same in opset 13.
const SAME_IN_11_TO_13: [&str; 38] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Div",
    "Erf",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "Identity",
    "LeakyRelu",
    "MatMul",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "Pow",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Slice",
    "Sqrt",
    "Sub",
    "Tanh",
    "Transpose",
];
/// Put before every name of the backbone, so that none clashes with ours.
const PREFIX: &str = "backbone/";

/// The nodes of a backbone that its feature maps need, every name under [`PREFIX`].
#[derive(Debug)]
pub(super) struct Backbone {
    pub(super) opset: i64,
    pub(super) origin: Origin,
    /// Inputs, outputs and what stands between them; initialisers included.
    pub(super) graph: GraphProto,
    /// Name of the image input.
    pub(super) input: String,
    /// Names of the feature maps, finest first.
    pub(super) outputs: Vec<String>,
    /// Declared (channels, rows, columns) of each feature map, where known before run time.
    pub(super) declared: Vec<[Option<usize>; 3]>,
}

impl Backbone {
    /// Reads a backbone and checks that it can be run on pictures of `size` with any batch.
    ///
    /// # Errors
    /// [`ExportError`] saying what was expected and what was found.
    pub(super) fn read(path: &Path, spec: &BackboneSpec, size: Size) -> Result<Self, ExportError> {
        let bytes = file::read(path)?;
        let model = ModelProto::decode(bytes.as_slice())
            .map_err(|source| ExportError::NotOnnx { path: path.to_owned(), source })?;
        Self::from_model(model, spec, size).map_err(|problem| ExportError::Backbone { path: path.to_owned(), problem })
    }

    fn from_model(model: ModelProto, spec: &BackboneSpec, size: Size) -> Result<Self, String> {
        let mut graph = model.graph.ok_or("it holds no graph: expected an ONNX model")?;
        let (opset, opset_imports) = operators(model.opset_import, &graph)?;
        check_input(&graph, spec, size)?;
        let declared = spec.outputs.iter().map(|name| check_output(&graph, spec, name)).collect::<Result<_, _>>()?;
        check_self_contained(&graph)?;

        prune(&mut graph, &spec.outputs);
        rename_graph(&mut graph);
        let prefixed = |name: &String| format!("{PREFIX}{name}");
        Ok(Self {
            opset,
            origin: Origin { ir_version: model.ir_version.unwrap_or(0), opset_imports, functions: model.functions },
            input: prefixed(&spec.input),
            outputs: spec.outputs.iter().map(prefixed).collect(),
            declared,
            graph,
        })
    }
}

fn operators(
    mut imports: Vec<OperatorSetIdProto>,
    graph: &GraphProto,
) -> Result<(i64, Vec<OperatorSetIdProto>), String> {
    let standard = |import: &&mut OperatorSetIdProto| matches!(import.domain(), "" | "ai.onnx");
    let Some(import) = imports.iter_mut().find(standard) else {
        return Err("it names no version of the standard operators: export it again with opset 13 or later".into());
    };
    match import.version() {
        found @ OLDEST_OPSET..=NEWEST_OPSET => Ok((found, imports)),
        found @ OLDEST_RAISABLE_OPSET..OLDEST_OPSET => {
            let changed = operator_names(graph).into_iter().find(|name| !SAME_IN_11_TO_13.contains(&name.as_str()));
            if let Some(changed) = changed {
                return Err(format!(
                    "its opset {found} is too old, and its operator {changed} cannot simply be taken for one of \
                     opset {OLDEST_OPSET}: export it again with opset {OLDEST_OPSET} to {NEWEST_OPSET}"
                ));
            }
            import.version = Some(OLDEST_OPSET);
            Ok((OLDEST_OPSET, imports))
        }
        found => Err(format!(
            "its opset is {found}, expected {OLDEST_OPSET} to {NEWEST_OPSET}: export it again with one of these"
        )),
    }
}

fn operator_names(graph: &GraphProto) -> BTreeSet<String> {
    // A node with a graph inside (If, Loop, Scan) is on no list, so there is no need to look in.
    graph.node.iter().map(|node| node.op_type().to_owned()).collect()
}

fn check_input(graph: &GraphProto, spec: &BackboneSpec, size: Size) -> Result<(), String> {
    let constants: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    let inputs: Vec<&ValueInfoProto> = graph.input.iter().filter(|input| !constants.contains(input.name())).collect();
    let [input] = inputs[..] else {
        return Err(format!("it has {} inputs ({}), expected one image", inputs.len(), names(&inputs)));
    };
    if input.name() != spec.input {
        return Err(format!("its input is called {}, its description says {}", input.name(), spec.input));
    }
    let (element, shape) = tensor_type(input)?;
    if element != DataType::Float as i32 {
        return Err(format!("its input {} is not of 32-bit floats (ONNX type {element})", spec.input));
    }
    let Some(shape) = shape else { return Ok(()) };
    let axes = match spec.layout {
        Layout::Nchw => {
            [("batch", None), ("channel", Some(3)), ("row", Some(size.height)), ("column", Some(size.width))]
        }
        Layout::Nhwc => {
            [("batch", None), ("row", Some(size.height)), ("column", Some(size.width)), ("channel", Some(3))]
        }
    };
    if shape.len() != axes.len() {
        return Err(format!("its input {} has {} axes, expected 4", spec.input, shape.len()));
    }
    for (length, (axis, wanted)) in shape.iter().zip(axes) {
        match (length, wanted) {
            (Some(length), Some(wanted)) if *length != wanted => {
                return Err(format!(
                    "the {axis} axis of its input {} has length {length}, expected {wanted} or a variable length",
                    spec.input
                ));
            }
            (Some(length), None) => {
                return Err(format!(
                    "its input {} is fixed to a batch of {length}: export it with a variable batch axis",
                    spec.input
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Declared (channels, rows, columns) of an output.
fn check_output(graph: &GraphProto, spec: &BackboneSpec, name: &str) -> Result<[Option<usize>; 3], String> {
    let Some(output) = graph.output.iter().find(|output| output.name() == name) else {
        let all: Vec<&ValueInfoProto> = graph.output.iter().collect();
        return Err(format!("it has no output {name} as its description says, only {}", names(&all)));
    };
    let (element, shape) = tensor_type(output)?;
    if element != DataType::Float as i32 {
        return Err(format!("its output {name} is not of 32-bit floats (ONNX type {element})"));
    }
    match (shape.as_deref(), spec.layout) {
        (None, _) => Ok([None; 3]),
        (Some(&[_, channels, rows, columns]), Layout::Nchw) | (Some(&[_, rows, columns, channels]), Layout::Nhwc) => {
            Ok([channels, rows, columns])
        }
        (Some(shape), _) => Err(format!("its output {name} has {} axes, expected 4: a feature map", shape.len())),
    }
}

/// Element type and, where declared, shape with the lengths that are known before run time.
#[expect(clippy::type_complexity, reason = "an optional list of optional lengths is what a declared shape is")]
fn tensor_type(value: &ValueInfoProto) -> Result<(i32, Option<Vec<Option<usize>>>), String> {
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.as_ref().and_then(|of| of.value.as_ref()) else {
        return Err(format!("{} is no tensor", value.name()));
    };
    let shape = tensor.shape.as_ref().map(|shape| {
        let known = |length: &Option<Length>| match length {
            Some(Length::DimValue(length)) => usize::try_from(*length).ok(),
            _ => None,
        };
        shape.dim.iter().map(|dimension| known(&dimension.value)).collect()
    });
    Ok((tensor.elem_type(), shape))
}

fn names(values: &[&ValueInfoProto]) -> String {
    values.iter().map(|value| value.name()).collect::<Vec<_>>().join(", ")
}

fn check_self_contained(graph: &GraphProto) -> Result<(), String> {
    let in_attributes = |node: &NodeProto| -> bool {
        node.attribute.iter().any(|attribute| attribute.t.iter().chain(&attribute.tensors).any(is_external))
    };
    if graph.initializer.iter().any(is_external) || graph.node.iter().any(in_attributes) {
        return Err("its weights stand in another file: save it as one file (torch.onnx.export with \
                    external_data=False, or onnx.save of the loaded model)"
            .into());
    }
    Ok(())
}

fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External
}

/// Leaves only what `outputs` need. Nodes stand in the order of their computation.
fn prune(graph: &mut GraphProto, outputs: &[String]) {
    let mut needed: HashSet<String> = outputs.iter().cloned().collect();
    let mut kept = Vec::with_capacity(graph.node.len());
    for node in std::mem::take(&mut graph.node).into_iter().rev() {
        if node.output.iter().any(|output| needed.contains(output)) {
            collect_uses(&node, &mut needed);
            kept.push(node);
        }
    }
    kept.reverse();
    graph.node = kept;
    graph.initializer.retain(|constant| needed.contains(constant.name()));
    graph.sparse_initializer.retain(|constant| constant.values.as_ref().is_some_and(|v| needed.contains(v.name())));
    // Declared shapes and notes on quantisation are hints that could contradict a fixed size.
    graph.value_info.clear();
    graph.quantization_annotation.clear();
}

/// Names that a node reads, its inner graphs (If, Loop, Scan) included.
fn collect_uses(node: &NodeProto, uses: &mut HashSet<String>) {
    uses.extend(node.input.iter().cloned());
    for inner in inner_graphs(node) {
        uses.extend(inner.output.iter().map(|output| output.name().to_owned()));
        for node in &inner.node {
            collect_uses(node, uses);
        }
    }
}

fn inner_graphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

fn rename_graph(graph: &mut GraphProto) {
    for value in graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info) {
        rename_field(&mut value.name);
    }
    let sparse = graph.sparse_initializer.iter_mut().filter_map(|constant| constant.values.as_mut());
    for constant in graph.initializer.iter_mut().chain(sparse) {
        rename_field(&mut constant.name);
    }
    for node in &mut graph.node {
        rename_field(&mut node.name);
        node.input.iter_mut().chain(&mut node.output).for_each(rename);
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(rename_graph);
        }
    }
}

fn rename_field(name: &mut Option<String>) {
    name.iter_mut().for_each(rename);
}

fn rename(name: &mut String) {
    // An empty name stands for an absent optional input or output.
    if !name.is_empty() {
        name.insert_str(0, PREFIX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::ColorOrder;
    use crate::training::export::graph::{Axis, GraphBuilder, integer_attribute, standard_operators, tensor_info};

    const SIZE: Size = Size { width: 48, height: 32 };

    fn spec() -> BackboneSpec {
        BackboneSpec {
            name: "small".into(),
            input: "x".into(),
            outputs: vec!["y".into()],
            color: ColorOrder::Rgb,
            layout: Layout::Nchw,
            mean: [0.0; 3],
            deviation: [1.0; 3],
        }
    }

    fn model(opset: i64) -> ModelProto {
        let mut graph = GraphBuilder::default();
        graph.floats("w", &[5, 3, 1, 1], [0.5; 15]);
        graph.floats("unused", &[1], [1.0]);
        graph.node("Conv", &["x", "w"], "c", vec![]);
        graph.node("Relu", &["c"], "y", vec![]);
        graph.node("Mul", &["y", "unused"], "logits", vec![]);
        let axes = |channels| [Axis::named("n"), Axis::Fixed(channels), Axis::named("h"), Axis::named("w")];
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![standard_operators(opset)],
            graph: Some(GraphProto {
                node: graph.nodes,
                initializer: graph.constants,
                input: vec![tensor_info("x", DataType::Float, &axes(3))],
                output: ["y", "logits"].map(|name| tensor_info(name, DataType::Float, &axes(5))).to_vec(),
                value_info: vec![tensor_info("c", DataType::Float, &axes(5))],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut GraphProto)) -> String {
        let mut model = model(17);
        change(model.graph.as_mut().unwrap());
        Backbone::from_model(model, &spec(), SIZE).unwrap_err()
    }

    fn node_names(graph: &GraphProto) -> Vec<&str> {
        graph.node.iter().map(NodeProto::name).collect()
    }

    #[test]
    fn what_the_feature_maps_do_not_need_is_left_out_and_the_rest_renamed() {
        let backbone = Backbone::from_model(model(17), &spec(), SIZE).unwrap();
        assert_eq!(node_names(&backbone.graph), ["backbone/c", "backbone/y"]);
        assert_eq!(backbone.graph.node[0].input, ["backbone/x", "backbone/w"]);
        let constants: Vec<&str> = backbone.graph.initializer.iter().map(TensorProto::name).collect();
        assert_eq!(constants, ["backbone/w"]);
        assert_eq!((backbone.input.as_str(), backbone.outputs[0].as_str()), ("backbone/x", "backbone/y"));
        assert_eq!(backbone.declared, [[Some(5), None, None]]);
        assert!(backbone.graph.value_info.is_empty());
    }

    #[test]
    fn what_only_an_inner_graph_reads_is_kept_and_renamed() {
        let mut with_inner = model(17);
        let graph = with_inner.graph.as_mut().unwrap();
        let mut inner = GraphBuilder::default();
        inner.node("Mul", &["c", "unused"], "branch", vec![]);
        let branch = GraphProto {
            node: inner.nodes,
            output: vec![tensor_info("branch", DataType::Float, &[])],
            ..Default::default()
        };
        let mut attribute = integer_attribute("then_branch", 0);
        attribute.g = Some(branch);
        graph.node[1] = NodeProto {
            op_type: Some("If".into()),
            input: vec!["condition".into()],
            output: vec!["y".into()],
            attribute: vec![attribute],
            ..Default::default()
        };
        let backbone = Backbone::from_model(with_inner, &spec(), SIZE).unwrap();
        let constants: Vec<&str> = backbone.graph.initializer.iter().map(TensorProto::name).collect();
        assert_eq!(constants, ["backbone/w", "backbone/unused"]);
        let branch = backbone.graph.node[1].attribute[0].g.as_ref().unwrap();
        assert_eq!(branch.node[0].input, ["backbone/c", "backbone/unused"]);
        assert_eq!(branch.output[0].name(), "backbone/branch");
    }

    #[test]
    fn an_opset_is_kept_raised_or_refused() {
        let opset = |model| Backbone::from_model(model, &spec(), SIZE).map(|backbone| backbone.opset);
        assert_eq!(opset(model(13)), Ok(13));
        assert_eq!(opset(model(NEWEST_OPSET)), Ok(NEWEST_OPSET));
        assert_eq!(opset(model(12)), Ok(13));
        for outside in [10, NEWEST_OPSET + 1] {
            let error = opset(model(outside)).unwrap_err();
            assert!(error.contains(&format!("its opset is {outside}, expected 13 to {NEWEST_OPSET}")), "{error}");
        }
        // Softmax was over all later axes before opset 13.
        let mut changed = model(12);
        changed.graph.as_mut().unwrap().node[1].op_type = Some("Softmax".into());
        let error = opset(changed).unwrap_err();
        assert!(error.contains("its operator Softmax cannot"), "{error}");
        let mut none = model(13);
        none.opset_import.clear();
        assert!(opset(none).unwrap_err().contains("names no version"));
    }

    #[test]
    fn an_input_that_cannot_take_pictures_is_refused() {
        let fixed = [1, 3, 32, 48].map(Axis::Fixed);
        let error = refusal(|graph| graph.input[0] = tensor_info("x", DataType::Float, &fixed));
        assert!(error.contains("fixed to a batch of 1"), "{error}");
        let grey = [Axis::named("n"), Axis::Fixed(1), Axis::named("h"), Axis::named("w")];
        let error = refusal(|graph| graph.input[0] = tensor_info("x", DataType::Float, &grey));
        assert!(error.contains("channel axis of its input x has length 1, expected 3"), "{error}");
        let error = refusal(|graph| graph.input[0] = tensor_info("x", DataType::Float, &grey[..2]));
        assert!(error.contains("has 2 axes, expected 4"), "{error}");
        let error = refusal(|graph| graph.input[0] = tensor_info("x", DataType::Float16, &grey));
        assert!(error.contains("not of 32-bit floats"), "{error}");
        let error = refusal(|graph| graph.input.push(tensor_info("prompt", DataType::Int64, &grey)));
        assert!(error.contains("2 inputs (x, prompt), expected one image"), "{error}");
    }

    #[test]
    fn weights_in_another_file_are_refused() {
        let error = refusal(|graph| graph.initializer[0].data_location = Some(DataLocation::External as i32));
        assert!(error.contains("its weights stand in another file"), "{error}");
    }

    #[test]
    fn reading_and_writing_a_file_of_another_protobuf_gives_the_same_bytes() {
        let folder = Path::new("tests/fixtures/backbones");
        for name in ["nhwc_bgr.onnx", "opset11.onnx"] {
            let bytes = std::fs::read(folder.join(name)).unwrap();
            assert_eq!(ModelProto::decode(bytes.as_slice()).unwrap().encode_to_vec(), bytes, "{name}");
        }
    }
}
