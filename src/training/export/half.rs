//! A backbone on half-precision floats.
//!
//! Half the memory to move, and on a GPU a multiple of the speed. The image is rounded before the first
//! operator and the feature maps are 32-bit floats again after the last, so that nothing around the
//! backbone changes.

use std::path::Path;

use half::f16;

use super::backbone::{self, map_outputs};
use super::error::ExportError;
use super::graph::{GraphBuilder, integer_attribute, tensor_info};
use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::{GraphProto, NodeProto, TensorProto};
use super::quantise::{floats, image_shape, whole};
use super::splice::Backbone;
use crate::inspection::Size;
use crate::scoring::BackboneSpec;

/// Operators all of whose floats are of one kind, or that have none: where all that goes in is of half
/// precision, so is all that comes out.
const OF_ONE_KIND: [&str; 40] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
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

/// Writes the backbone with its operators on half-precision floats, and its description beside it.
///
/// # Errors
/// [`ExportError`] when the backbone cannot be read, has an operator or a constant that half precision is
/// not known to be enough for, or a file cannot be written.
pub fn halve_backbone(backbone: &Path, spec: &BackboneSpec, size: Size, out: &Path) -> Result<(), ExportError> {
    let read = Backbone::read(backbone, spec, size)?;
    let refuse = |problem: String| ExportError::Backbone { path: backbone.to_owned(), problem };
    if !read.graph.sparse_initializer.is_empty() {
        return Err(refuse("it has sparse constants, which half precision is not known for: train with f32".into()));
    }
    let mut graph = read.graph;
    for constant in &mut graph.initializer {
        halve(constant).map_err(refuse)?;
    }
    let image = format!("{}/half", read.input);
    for node in &mut graph.node {
        halve_node(node).map_err(refuse)?;
        node.input.iter_mut().filter(|input| **input == read.input).for_each(|input| input.clone_from(&image));
    }
    let to = |kind: DataType| vec![integer_attribute("to", kind as i64)];
    let mut begin = GraphBuilder::default();
    begin.node("Cast", &[&read.input], &image, to(DataType::Float16));
    let mut end = GraphBuilder::default();
    for (output, name) in read.outputs.iter().zip(&spec.outputs) {
        end.node("Cast", &[output], name, to(DataType::Float));
    }
    let input = tensor_info(&read.input, DataType::Float, &image_shape(spec));
    let graph = GraphProto {
        node: [begin.nodes, graph.node, end.nodes].concat(),
        initializer: graph.initializer,
        ..whole(&spec.name, input, map_outputs(spec, &read.declared))
    };
    let spec = BackboneSpec { name: format!("{}_f16", spec.name), input: read.input, ..spec.clone() };
    backbone::write(out, &spec, graph, read.origin)
}

/// Has a node work on half precision; says why it cannot.
fn halve_node(node: &mut NodeProto) -> Result<(), String> {
    let operator = node.op_type().to_owned();
    let standard = matches!(node.domain(), "" | "ai.onnx");
    if !standard || !OF_ONE_KIND.contains(&operator.as_str()) {
        return Err(format!("its operator {operator} is not known to work on half precision: train with f32"));
    }
    for attribute in &mut node.attribute {
        match (operator.as_str(), attribute.name(), attribute.r#type()) {
            ("Cast", "to", _) if attribute.i == Some(DataType::Float as i64) => {
                attribute.i = Some(DataType::Float16 as i64);
            }
            ("Constant", "value", AttributeType::Tensor) => attribute.t.iter_mut().try_for_each(halve)?,
            ("Constant", name @ ("value_float" | "value_floats"), _) => {
                return Err(format!("it has a constant as {name}, which is always of 32 bits: train with f32"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Rounds a constant's floats to half precision; one of other numbers stays as it is.
fn halve(constant: &mut TensorProto) -> Result<(), String> {
    let Some(values) = floats(constant) else { return Ok(()) };
    let mut raw = Vec::with_capacity(2 * values.len());
    // A single number may be a bound that means none.
    let bound = values.len() == 1;
    for value in values {
        let mut half = f16::from_f32(value);
        if half.is_infinite() && value.is_finite() {
            if !bound {
                return Err(format!(
                    "its constant {} holds {value}, beyond half precision's {}: train with f32",
                    constant.name(),
                    f16::MAX
                ));
            }
            half = if value > 0.0 { f16::MAX } else { f16::MIN };
        }
        raw.extend(half.to_le_bytes());
    }
    constant.data_type = Some(DataType::Float16 as i32);
    constant.float_data.clear();
    constant.raw_data = Some(raw);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(values: &[f32]) -> TensorProto {
        let mut graph = GraphBuilder::default();
        graph.floats("w", &[values.len()], values.iter().copied());
        graph.constants.remove(0)
    }

    fn halved(values: &[f32]) -> Result<Vec<f32>, String> {
        let mut constant = constant(values);
        halve(&mut constant)?;
        assert_eq!(constant.data_type(), DataType::Float16 as i32);
        let raw = constant.raw_data.unwrap();
        Ok(raw.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect())
    }

    #[test]
    fn a_bound_beyond_half_precision_is_its_end_and_a_weight_is_refused() {
        assert_eq!(halved(&[f32::MAX]).unwrap(), [65504.0]);
        assert_eq!(halved(&[-1e30]).unwrap(), [-65504.0]);
        assert_eq!(halved(&[1.0, -0.5]).unwrap(), [1.0, -0.5]);
        let text = halved(&[1.0, 1e6]).unwrap_err();
        assert!(text.contains('w') && text.contains("1000000") && text.contains("f32"), "{text}");
    }

    #[test]
    fn what_is_no_float_stays() {
        let mut graph = GraphBuilder::default();
        graph.integers("shape", &[0, -1]);
        let before = graph.constants[0].clone();
        halve(&mut graph.constants[0]).unwrap();
        assert_eq!(graph.constants[0], before);
    }

    #[test]
    fn an_operator_that_is_not_known_is_named() {
        let node = |operator: &str, domain: &str| NodeProto {
            op_type: Some(operator.into()),
            domain: Some(domain.into()),
            ..Default::default()
        };
        for (operator, domain) in [("Resize", ""), ("Conv", "com.example")] {
            let text = halve_node(&mut node(operator, domain)).unwrap_err();
            assert!(text.contains(operator) && text.contains("f32"), "{text}");
        }
        halve_node(&mut node("Conv", "")).unwrap();
    }

    #[test]
    fn casts_and_constants_inside_become_half() {
        let mut graph = GraphBuilder::default();
        graph.node("Cast", &["x"], "y", vec![integer_attribute("to", DataType::Float as i64)]);
        graph.node("Cast", &["x"], "z", vec![integer_attribute("to", DataType::Int64 as i64)]);
        graph.nodes.iter_mut().try_for_each(halve_node).unwrap();
        let to = |at: usize| graph.nodes[at].attribute[0].i.unwrap();
        assert_eq!([to(0), to(1)], [DataType::Float16 as i64, DataType::Int64 as i64]);
        let mut value = integer_attribute("value", 0);
        value.r#type = Some(AttributeType::Tensor as i32);
        value.t = Some(constant(&[2.0]));
        let mut node = NodeProto { op_type: Some("Constant".into()), attribute: vec![value], ..Default::default() };
        halve_node(&mut node).unwrap();
        assert_eq!(node.attribute[0].t.as_ref().unwrap().data_type(), DataType::Float16 as i32);
        node.attribute[0].name = Some("value_float".into());
        assert!(halve_node(&mut node).unwrap_err().contains("value_float"));
    }
}
