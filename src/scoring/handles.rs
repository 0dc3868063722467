//! What ONNX Runtime is asked for with every frame, by its own functions: the bindings' wrappers allocate
//! a handle, a type and a shape anew for each value that they touch.
#![expect(unsafe_code, reason = "C functions of ONNX Runtime, called as its headers say")]

use std::ptr::{null, null_mut};
use std::slice::{from_raw_parts, from_raw_parts_mut};

use ort::AsPointer;
use ort::operator::ComputeContext;
use ort::session::{IoBinding, RunOptions, Session};
use ort::sys::OrtStatusPtr;

/// Dimensions of a batch of feature maps, `[picture, channel, row, column]`.
const DIMENSIONS: usize = 4;

fn checked(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: each status is that of a call that has just returned, and is looked at once.
    unsafe { ort::Error::result_from_status(status) }
}

/// Runs what is bound; results are in the bound outputs.
pub(super) fn run_bound(session: &mut Session, options: &RunOptions, binding: &IoBinding) -> ort::Result<()> {
    // SAFETY: all three live until it returns, and nobody else runs a session that is borrowed for writing.
    checked(unsafe { (ort::api().RunWithBinding)(session.ptr_mut(), options.ptr(), binding.ptr()) })
}

/// What an operator from feature maps to values of cells works on: its first input, `[picture, channel, row,
/// column]`, and its first output, `[picture, row, column]`, both of `f32` by its declaration. `expected` are
/// the lengths behind the pictures.
///
/// # Errors
/// When either is missing, the maps have another shape, or ONNX Runtime refuses.
///
/// # Safety
/// Called once in a computation at most: the output is handed out for writing.
#[expect(clippy::mut_from_ref, reason = "the context is only lent to the operator")]
pub(super) unsafe fn maps_and_cells(
    context: &ComputeContext,
    expected: [usize; DIMENSIONS - 1],
) -> ort::Result<(&[f32], &mut [f32])> {
    let api = ort::api();
    let missing = || ort::Error::new("an input or output is missing");
    let mut maps = null();
    // SAFETY, here and below: the context lives as long as what is handed out, and its values with it; every pointer that is written
    // to is that of a variable of ours, and is looked at when the call has succeeded.
    checked(unsafe { (api.KernelContext_GetInput)(context.ptr(), 0, &raw mut maps) })?;
    if maps.is_null() {
        return Err(missing());
    }
    let shape = shape(maps)?;
    let expected = expected.map(|length| length as i64);
    let pictures = match shape {
        Some([pictures, found @ ..]) if found == expected && pictures >= 0 => pictures,
        _ => {
            return Err(ort::Error::new(format!(
                "the features have shape {shape:?}, expected {expected:?} behind the number of pictures"
            )));
        }
    };
    let [channels, rows, columns] = expected;
    let mut cells = null_mut();
    let lengths = [pictures, rows, columns];
    let output = api.KernelContext_GetOutput;
    checked(unsafe { output(context.ptr().cast_mut(), 0, lengths.as_ptr(), lengths.len(), &raw mut cells) })?;
    if cells.is_null() {
        return Err(missing());
    }
    let (mut read, mut written) = (null_mut(), null_mut());
    checked(unsafe { (api.GetTensorMutableData)(maps.cast_mut(), &raw mut read) })?;
    checked(unsafe { (api.GetTensorMutableData)(cells, &raw mut written) })?;
    let count = (pictures * rows * columns) as usize;
    if count == 0 {
        return Ok((&[], &mut []));
    }
    // SAFETY: ONNX Runtime gives both as long as their shapes say, and no node writes where it reads.
    Ok(unsafe { (from_raw_parts(read.cast(), count * channels as usize), from_raw_parts_mut(written.cast(), count)) })
}

/// The lengths of a tensor of feature maps; none where it has another number of dimensions.
fn shape(value: *const ort::sys::OrtValue) -> ort::Result<Option<[i64; DIMENSIONS]>> {
    let api = ort::api();
    let (mut info, mut dimensions, mut lengths) = (null_mut(), 0, [0; DIMENSIONS]);
    // SAFETY: the value is alive, and what is made here is given back below, whatever is read of it.
    checked(unsafe { (api.GetTensorTypeAndShape)(value, &raw mut info) })?;
    let read = checked(unsafe { (api.GetDimensionsCount)(info, &raw mut dimensions) }).and_then(|()| {
        if dimensions != DIMENSIONS {
            return Ok(None);
        }
        checked(unsafe { (api.GetDimensions)(info, lengths.as_mut_ptr(), DIMENSIONS) }).map(|()| Some(lengths))
    });
    unsafe { (api.ReleaseTensorTypeAndShapeInfo)(info) };
    read
}
