//! What a model file should be, and the error that says what it is instead.

use std::path::Path;

use ort::session::{Session, SessionOutputs};
use ort::value::{Outlet, TensorElementType, ValueType};

use super::ScoringError;

/// One expected axis of a declared tensor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Axis {
    /// Whatever is declared; the word is for the message.
    Any(&'static str),
    /// Must be left open.
    Open(&'static str),
    /// Must be this number.
    Exactly(usize),
    /// This number, or left open: the first run shows what comes.
    Likely(usize),
}

impl Axis {
    /// Whether a declared dimension is this one; ONNX Runtime declares an open one as -1.
    fn admits(self, declared: i64) -> bool {
        match self {
            Self::Any(_) => true,
            Self::Open(_) => declared < 0,
            Self::Exactly(n) => declared == n as i64,
            Self::Likely(n) => declared < 0 || declared == n as i64,
        }
    }
}

impl std::fmt::Display for Axis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any(name) | Self::Open(name) => f.write_str(name),
            Self::Exactly(n) | Self::Likely(n) => n.fmt(f),
        }
    }
}

/// An error about one part of a file.
pub(super) fn broken(
    path: &Path,
    what: impl Into<String>,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> ScoringError {
    ScoringError::Contract { path: path.to_owned(), what: what.into(), expected: expected.into(), found: found.into() }
}

/// Checks that a model has exactly one input, of this name, type and shape. Returns its declared
/// shape, where -1 is an open axis.
pub(super) fn only_input(
    path: &Path,
    session: &Session,
    name: &str,
    element: TensorElementType,
    axes: &[Axis],
) -> Result<Vec<i64>, ScoringError> {
    match session.inputs() {
        [input] if input.name() == name => tensor(path, &format!("input `{name}`"), input, element, axes),
        others => Err(broken(path, "the only input", format!("`{name}`"), names(others))),
    }
}

/// Checks that an output of this name exists with this type and shape.
pub(super) fn output(path: &Path, session: &Session, name: &str, axes: &[Axis]) -> Result<(), ScoringError> {
    let outputs = session.outputs();
    let Some(found) = outputs.iter().find(|output| output.name() == name) else {
        return Err(broken(path, "one of the outputs", format!("`{name}`"), names(outputs)));
    };
    tensor(path, &format!("output `{name}`"), found, TensorElementType::Float32, axes).map(|_| ())
}

/// Names of inputs or outputs, for a message.
pub(super) fn names(outlets: &[Outlet]) -> String {
    if outlets.is_empty() {
        return "none".into();
    }
    outlets.iter().map(|outlet| format!("`{}`", outlet.name())).collect::<Vec<_>>().join(", ")
}

fn tensor(
    path: &Path,
    what: &str,
    outlet: &Outlet,
    element: TensorElementType,
    axes: &[Axis],
) -> Result<Vec<i64>, ScoringError> {
    match outlet.dtype() {
        ValueType::Tensor { ty, shape, .. }
            if *ty == element
                && shape.len() == axes.len()
                && axes.iter().zip(shape.iter()).all(|(axis, &declared)| axis.admits(declared)) =>
        {
            Ok(shape.to_vec())
        }
        other => {
            // The same notation as ONNX Runtime's for what was found.
            let axes = axes.iter().map(Axis::to_string).collect::<Vec<_>>().join(", ");
            Err(broken(path, what, format!("Tensor<{element}>({axes})"), other.to_string()))
        }
    }
}

/// The numbers of an output after a run, with their real shape.
pub(super) fn values<'a>(
    path: &Path,
    outputs: &'a SessionOutputs<'_>,
    name: &str,
) -> Result<(Vec<usize>, &'a [f32]), ScoringError> {
    let what = || format!("output `{name}`");
    let value = outputs.get(name).ok_or_else(|| broken(path, what(), "part of the result", "nothing"))?;
    let (shape, values) = value
        .try_extract_tensor::<f32>()
        .map_err(|_| broken(path, what(), "a tensor of f32", value.dtype().to_string()))?;
    // A tensor that exists has no negative dimension.
    Ok((shape.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect(), values))
}
