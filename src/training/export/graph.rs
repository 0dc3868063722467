//! Nodes and constants as they are gathered into an ONNX graph.

use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::{Dimension, dimension};
use super::onnx::{
    AttributeProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// Nodes in order and constants, under construction.
#[derive(Debug, Default)]
pub(super) struct GraphBuilder {
    pub(super) nodes: Vec<NodeProto>,
    pub(super) constants: Vec<TensorProto>,
}

impl GraphBuilder {
    /// Adds a constant of 32-bit floats, row-major, and gives its name back.
    pub(super) fn floats(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) -> String {
        let raw = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.constant(name, shape, DataType::Float, raw)
    }

    /// Adds a vector of 64-bit integers, as shapes and axes are, and gives its name back.
    pub(super) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, &[values.len()], DataType::Int64, raw)
    }

    /// Adds a constant of signed bytes, row-major, and gives its name back.
    pub(super) fn bytes(&mut self, name: &str, shape: &[usize], values: &[i8]) -> String {
        self.constant(name, shape, DataType::Int8, values.iter().map(|value| value.to_le_bytes()[0]).collect())
    }

    /// Adds a vector of 32-bit integers and gives its name back.
    pub(super) fn whole(&mut self, name: &str, values: impl IntoIterator<Item = i32>) -> String {
        let raw: Vec<u8> = values.into_iter().flat_map(i32::to_le_bytes).collect();
        self.constant(name, &[raw.len() / 4], DataType::Int32, raw)
    }

    /// Adds one constant byte and gives its name back.
    pub(super) fn byte(&mut self, name: &str, value: u8) -> String {
        self.constant(name, &[], DataType::Uint8, vec![value])
    }

    fn constant(&mut self, name: &str, shape: &[usize], element: DataType, raw: Vec<u8>) -> String {
        self.constants.push(TensorProto {
            dims: shape.iter().map(|&length| length as i64).collect(),
            data_type: Some(element as i32),
            name: Some(name.to_owned()),
            raw_data: Some(raw),
            ..Default::default()
        });
        name.to_owned()
    }

    /// Adds a node with one output; the node bears its output's name, which is given back.
    pub(super) fn node(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> String {
        self.node_with_outputs(operator, inputs, &[output], attributes);
        output.to_owned()
    }

    /// Adds a reduction over the last of two axes, which stays as length 1.
    pub(super) fn reduce(&mut self, operator: &str, x: &str, axes_as_input: bool, output: &str) -> String {
        if axes_as_input {
            let axes = self.integers(&format!("{output}_axes"), &[1]);
            self.node(operator, &[x, &axes], output, vec![])
        } else {
            self.node(operator, &[x], output, vec![integers_attribute("axes", &[1])])
        }
    }

    /// Adds a node with several outputs; it bears the first one's name.
    pub(super) fn node_with_outputs(
        &mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        self.node_of("", operator, inputs, outputs, attributes);
    }

    /// As [`GraphBuilder::node_with_outputs`], of an operator in a domain of its own.
    pub(super) fn node_of(
        &mut self,
        domain: &str,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.nodes.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: outputs.first().map(|&name| name.to_owned()),
            op_type: Some(operator.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            attribute: attributes,
            ..Default::default()
        });
    }
}

/// An attribute of integers.
pub(super) fn integers_attribute(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Ints as i32),
        ints: values.to_vec(),
        ..Default::default()
    }
}

/// An attribute of one integer.
pub(super) fn integer_attribute(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..Default::default()
    }
}

/// An attribute of one number.
pub(super) fn float_attribute(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(value),
        ..Default::default()
    }
}

/// Length of an axis in a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Axis {
    /// Known now.
    Fixed(usize),
    /// Known at run time, under a name.
    Named(String),
}

impl Axis {
    pub(super) fn named(name: impl Into<String>) -> Self {
        Self::Named(name.into())
    }
}

/// An input or output of a graph.
pub(super) fn tensor_info(name: &str, element: DataType, shape: &[Axis]) -> ValueInfoProto {
    let dim = shape.iter().map(|axis| Dimension {
        value: Some(match axis {
            Axis::Fixed(length) => dimension::Value::DimValue(*length as i64),
            Axis::Named(name) => dimension::Value::DimParam(name.clone()),
        }),
        denotation: None,
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: Some(element as i32),
                shape: Some(TensorShapeProto { dim: dim.collect() }),
            })),
            denotation: None,
        }),
        ..Default::default()
    }
}

/// A version of a domain's operators.
pub(super) fn operators_of(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// A version of the standard operators.
pub(super) fn standard_operators(version: i64) -> OperatorSetIdProto {
    operators_of("", version)
}

/// An entry of a model's metadata.
pub(super) fn metadata_entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}
