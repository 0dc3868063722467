//! A backbone as a file of ours: ONNX, and its description beside it.

use std::path::Path;

use prost::Message;

use super::error::ExportError;
use super::graph::{Axis, tensor_info};
use super::onnx::tensor_proto::DataType;
use super::onnx::{FunctionProto, GraphProto, ModelProto, OperatorSetIdProto, ValueInfoProto};
use super::{IR_VERSION, file};
use crate::scoring::{BackboneSpec, Layout};

/// What a graph made from somebody's backbone needs of that one's file.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) ir_version: i64,
    pub(super) opset_imports: Vec<OperatorSetIdProto>,
    pub(super) functions: Vec<FunctionProto>,
}

impl Origin {
    /// A whole file around such a graph.
    pub(super) fn model(self, graph: GraphProto) -> ModelProto {
        ModelProto {
            ir_version: Some(self.ir_version.max(IR_VERSION)),
            opset_import: self.opset_imports,
            functions: self.functions,
            producer_name: Some("linegate".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            graph: Some(graph),
            ..Default::default()
        }
    }
}

/// Writes a backbone to `out` and its description beside it.
pub(super) fn write(out: &Path, spec: &BackboneSpec, graph: GraphProto, origin: Origin) -> Result<(), ExportError> {
    let text = toml::to_string(spec).map_err(|source| ExportError::Spec { name: spec.name.clone(), source })?;
    file::write(&BackboneSpec::path_beside(out), text.as_bytes())?;
    file::write(out, &origin.model(graph).encode_to_vec())
}

/// The maps that a backbone gives out, by their declared channels, rows and columns.
pub(super) fn map_outputs(spec: &BackboneSpec, declared: &[[Option<usize>; 3]]) -> Vec<ValueInfoProto> {
    let output = |(name, declared): (&String, &[Option<usize>; 3])| {
        let [channels, rows, columns] =
            [0, 1, 2].map(|at| declared[at].map_or_else(|| Axis::named(format!("{name}_{at}")), Axis::Fixed));
        tensor_info(name, DataType::Float, &map_shape(spec.layout, channels, rows, columns))
    };
    spec.outputs.iter().zip(declared).map(output).collect()
}

/// The shape of a batch of maps in a layout.
pub(super) fn map_shape(layout: Layout, channels: Axis, rows: Axis, columns: Axis) -> [Axis; 4] {
    match layout {
        Layout::Nchw => [Axis::named("batch"), channels, rows, columns],
        Layout::Nhwc => [Axis::named("batch"), rows, columns, channels],
    }
}
