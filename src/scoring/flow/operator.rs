//! The flow as an operator of ONNX Runtime.

use std::sync::{Mutex, PoisonError};

use ndarray::{Array, Array1, Array2, Array3, Dimension};
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, TensorValueType};

use super::super::handles::maps_and_cells;
use super::aligned::Aligned;
use super::average::Average;
use super::kernel::{Block, BlockParts, Density, Flow, Scratch, Whitening};
use super::nearest::{AT_ONCE, Nearest};
use super::{COLUMNS, CONSTANT, DOMAIN, INPUTS, NAME, NEAREST, NEAREST_INPUTS, POOLING, ROWS, WHITENING};

/// Largest side of an average; memory grows with it.
const MOST_POOLING: usize = 255;

/// What a session must know to run files with the operator, on so many threads.
pub(in crate::scoring) fn operators(threads: usize) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?.add(CouplingFlow { threads })?.add(NearestVector { threads })
}

struct CouplingFlow {
    threads: usize,
}

impl Operator for CouplingFlow {
    type Kernel<'attr> = FlowKernel;

    fn name(&self) -> &str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let whitening = OperatorInput::optional(TensorElementType::Float32);
        INPUTS.map(|_| OperatorInput::required(TensorElementType::Float32)).into_iter().chain([whitening])
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<FlowKernel> {
        FlowKernel::new(NAME, read(context), self.threads)
    }
}

struct NearestVector {
    threads: usize,
}

impl Operator for NearestVector {
    type Kernel<'attr> = FlowKernel;

    fn name(&self) -> &str {
        NEAREST
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        NEAREST_INPUTS.map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<FlowKernel> {
        FlowKernel::new(NEAREST, read_nearest(context), self.threads)
    }
}

fn missing(name: &str) -> String {
    format!("attribute {name} is missing")
}

/// The constant input of that number and name, as an array.
fn constant<D: Dimension>(context: &KernelContext<'_>, number: usize, name: &str) -> Result<Array<f32, D>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("input {number}, {name}: {error}");
    let value = context.constant_input::<TensorValueType<f32>>(number).map_err(|error| failed(&error))?;
    let (shape, values) = value.extract_tensor();
    let shape: Vec<usize> = shape.iter().map(|&length| usize::try_from(length).unwrap_or(0)).collect();
    Array::from_shape_vec(shape, values.to_vec()).and_then(Array::into_dimensionality).map_err(|error| failed(&error))
}

fn read_pooling(context: &KernelContext<'_>) -> Result<usize, String> {
    let side: i64 = context.get(POOLING).ok_or_else(|| missing(POOLING))?;
    usize::try_from(side)
        .ok()
        .filter(|side| side % 2 == 1 && *side <= MOST_POOLING)
        .ok_or_else(|| format!("attribute {POOLING} is {side}, expected an odd number up to {MOST_POOLING}"))
}

fn read_nearest(context: &KernelContext<'_>) -> Result<Flow, String> {
    let length = |name: &str| {
        let length: i64 = context.get(name).ok_or_else(|| missing(name))?;
        usize::try_from(length).map_err(|_| format!("attribute {name} is {length}"))
    };
    let (rows, columns, pooling) = (length(ROWS)?, length(COLUMNS)?, read_pooling(context)?);
    let scale: Array1<f32> = constant(context, 1, NEAREST_INPUTS[1])?;
    let shift: Array1<f32> = constant(context, 2, NEAREST_INPUTS[2])?;
    let whitening: Array2<f32> = constant(context, 3, NEAREST_INPUTS[3])?;
    let vectors: Array2<f32> = constant(context, 4, NEAREST_INPUTS[4])?;
    let channels = scale.len();
    let fits = channels > 0
        && rows > 0
        && columns > 0
        && shift.len() == channels
        && whitening.dim() == (channels, channels)
        && vectors.ncols() == channels
        && vectors.nrows() > 0;
    if !fits {
        return Err(format!("its constants do not fit each other ({channels} channels, {rows}x{columns} cells)"));
    }
    Ok(Flow {
        rows,
        columns,
        channels,
        hidden: AT_ONCE,
        average: Average::new(rows, columns, pooling, scale.to_vec(), shift.to_vec()),
        whitening: Some(Whitening::new(whitening.view())),
        density: Density::Nearest(Nearest::new(vectors.view())),
    })
}

fn read(context: &KernelContext<'_>) -> Result<Flow, String> {
    let pooling = read_pooling(context)?;
    let constant_term = context.get::<f32>(CONSTANT).ok_or_else(|| missing(CONSTANT))?;
    let scale: Array1<f32> = constant(context, 1, INPUTS[1])?;
    let shift: Array1<f32> = constant(context, 2, INPUTS[2])?;
    let w1: Array3<f32> = constant(context, 3, INPUTS[3])?;
    let row_table: Array3<f32> = constant(context, 4, INPUTS[4])?;
    let column_table: Array3<f32> = constant(context, 5, INPUTS[5])?;
    let w2: Array3<f32> = constant(context, 6, INPUTS[6])?;
    let b2: Array2<f32> = constant(context, 7, INPUTS[7])?;
    let mix: Array3<f32> = constant(context, 8, INPUTS[8])?;
    let mix_shift: Array2<f32> = constant(context, 9, INPUTS[9])?;
    let whitened = context.inputs().map_err(|error| error.to_string())?.len() > INPUTS.len();
    let whitening: Option<Array2<f32>> = whitened.then(|| constant(context, INPUTS.len(), WHITENING)).transpose()?;

    let channels = scale.len();
    let (blocks, first, hidden) = w1.dim();
    let (rows, columns, second) = (row_table.dim().1, column_table.dim().1, channels / 2);
    let fits = channels > 1
        && rows > 0
        && columns > 0
        && (blocks == 0 || hidden > 0)
        && shift.len() == channels
        && first == channels - second
        && row_table.dim() == (blocks, rows, hidden)
        && column_table.dim() == (blocks, columns, hidden)
        && w2.dim() == (blocks, hidden, 2 * second)
        && b2.dim() == (blocks, 2 * second)
        && mix.dim() == (blocks, channels, channels)
        && mix_shift.dim() == (blocks, channels)
        && whitening.as_ref().is_none_or(|whitening| whitening.dim() == (channels, channels));
    if !fits {
        return Err(format!("its constants do not fit each other ({channels} channels, {blocks} blocks)"));
    }
    let block = |i: usize| {
        Block::new(&BlockParts {
            w1: w1.index_axis(ndarray::Axis(0), i),
            row_table: row_table.index_axis(ndarray::Axis(0), i),
            column_table: column_table.index_axis(ndarray::Axis(0), i),
            w2: w2.index_axis(ndarray::Axis(0), i),
            b2: b2.row(i),
            mix: mix.index_axis(ndarray::Axis(0), i),
            shift: mix_shift.row(i),
        })
    };
    Ok(Flow {
        rows,
        columns,
        channels,
        hidden,
        average: Average::new(rows, columns, pooling, scale.to_vec(), shift.to_vec()),
        whitening: whitening.map(|matrix| Whitening::new(matrix.view())),
        density: Density::Coupling { blocks: (0..blocks).map(block).collect(), constant: constant_term },
    })
}

/// A flow in a session.
struct FlowKernel {
    /// Of the operator.
    name: &'static str,
    flow: Flow,
    /// One picture's map, `[channel, row, column]`.
    standardised: Aligned,
    /// One for each thread.
    scratch: Vec<Scratch>,
}

impl FlowKernel {
    fn new(name: &'static str, flow: Result<Flow, String>, threads: usize) -> ort::Result<Self> {
        let flow = flow.map_err(|problem| ort::Error::new(format!("{DOMAIN}.{name}: {problem}")))?;
        let scratch = (0..threads.max(1)).map(|_| Scratch::default()).collect();
        Ok(Self { name, flow, standardised: Aligned::default(), scratch })
    }
}

#[expect(unsafe_code, reason = "the output is handed out for writing")]
impl Kernel for FlowKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let Self { name, flow, standardised, scratch } = self;
        let cells = flow.rows * flow.columns;
        // SAFETY: once, here.
        let operands = unsafe { maps_and_cells(context, [flow.channels, flow.rows, flow.columns]) };
        let (maps, out) = operands.map_err(|error| ort::Error::new(format!("{DOMAIN}.{name}: {error}")))?;
        let standardised = standardised.make(flow.channels * cells);
        let threads = scratch.len();
        for (map, out) in maps.chunks_exact(flow.channels * cells).zip(out.chunks_exact_mut(cells)) {
            if let [scratch] = &mut scratch[..] {
                flow.standardise(map, 0, standardised, scratch);
                flow.log_likelihoods(standardised, 0..flow.rows, out, scratch);
                continue;
            }
            let each = flow.channels.div_ceil(threads);
            share(context, standardised.chunks_mut(each * cells), scratch, &|part, out, scratch| {
                flow.standardise(map, part * each, out, scratch);
            })?;
            let each = flow.rows.div_ceil(threads);
            share(context, out.chunks_mut(each * flow.columns), scratch, &|part, out, scratch| {
                let first = part * each;
                flow.log_likelihoods(standardised, first..first + out.len() / flow.columns, out, scratch);
            })?;
        }
        Ok(())
    }
}

/// Works on every part in a thread of the session, each with memory of its own.
fn share<'a>(
    context: &ComputeContext,
    parts: impl Iterator<Item = &'a mut [f32]>,
    scratch: &mut [Scratch],
    work: &(dyn Fn(usize, &mut [f32], &mut Scratch) + Sync),
) -> ort::Result<()> {
    let parts: Vec<_> = parts.zip(scratch).map(Mutex::new).collect();
    context.par_for(parts.len(), 0, |number| {
        // Nobody else takes it: the lock only tells the compiler so.
        let (part, scratch) = &mut *parts[number].lock().unwrap_or_else(PoisonError::into_inner);
        work(number, part, scratch);
    })
}
