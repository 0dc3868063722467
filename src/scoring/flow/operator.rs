//! The flow as an operator of ONNX Runtime.

use std::sync::{Mutex, PoisonError};

use ndarray::{Array, Array2, Array3, Dimension};
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, TensorValueType};

use super::average::Average;
use super::kernel::{Block, BlockParts, Flow, Scratch};
use super::{CONSTANT, DOMAIN, INPUTS, NAME, POOLING};

/// Largest side of an average; memory grows with it.
const MOST_POOLING: usize = 255;

/// What a session must know to run files with the operator, on so many threads.
pub(in crate::scoring) fn operators(threads: usize) -> ort::Result<OperatorDomain> {
    OperatorDomain::new(DOMAIN)?.add(CouplingFlow { threads })
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
        INPUTS.map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<FlowKernel> {
        let flow = read(context).map_err(|problem| ort::Error::new(format!("{DOMAIN}.{NAME}: {problem}")))?;
        let scratch = (0..self.threads.max(1)).map(|_| Scratch::default()).collect();
        Ok(FlowKernel { flow, standardised: Vec::new(), scratch })
    }
}

/// The constant input of that number, as an array.
fn constant<D: Dimension>(context: &KernelContext<'_>, number: usize) -> Result<Array<f32, D>, String> {
    let name = INPUTS[number];
    let failed = |error: &dyn std::fmt::Display| format!("input {number}, {name}: {error}");
    let value = context.constant_input::<TensorValueType<f32>>(number).map_err(|error| failed(&error))?;
    let (shape, values) = value.extract_tensor();
    let shape: Vec<usize> = shape.iter().map(|&length| usize::try_from(length).unwrap_or(0)).collect();
    Array::from_shape_vec(shape, values.to_vec()).and_then(Array::into_dimensionality).map_err(|error| failed(&error))
}

fn read(context: &KernelContext<'_>) -> Result<Flow, String> {
    let attribute = |name: &str| format!("attribute {name} is missing");
    let pooling = context.get::<i64>(POOLING).ok_or_else(|| attribute(POOLING))?;
    let constant_term = context.get::<f32>(CONSTANT).ok_or_else(|| attribute(CONSTANT))?;
    let scale = constant::<ndarray::Ix1>(context, 1)?;
    let shift = constant::<ndarray::Ix1>(context, 2)?;
    let w1: Array3<f32> = constant(context, 3)?;
    let row_table: Array3<f32> = constant(context, 4)?;
    let column_table: Array3<f32> = constant(context, 5)?;
    let w2: Array3<f32> = constant(context, 6)?;
    let b2: Array2<f32> = constant(context, 7)?;
    let mix: Array3<f32> = constant(context, 8)?;
    let mix_shift: Array2<f32> = constant(context, 9)?;

    let channels = scale.len();
    let (blocks, first, hidden) = w1.dim();
    let (rows, columns, second) = (row_table.dim().1, column_table.dim().1, channels / 2);
    let pooling = usize::try_from(pooling)
        .ok()
        .filter(|side| side % 2 == 1 && *side <= MOST_POOLING)
        .ok_or_else(|| format!("attribute {POOLING} is {pooling}, expected an odd number up to {MOST_POOLING}"))?;
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
        && mix_shift.dim() == (blocks, channels);
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
        blocks: (0..blocks).map(block).collect(),
        constant: constant_term,
    })
}

/// A flow in a session.
struct FlowKernel {
    flow: Flow,
    /// One picture's map, `[channel, row, column]`.
    standardised: Vec<f32>,
    /// One for each thread.
    scratch: Vec<Scratch>,
}

impl Kernel for FlowKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let Self { flow, standardised, scratch } = self;
        let missing = || ort::Error::new(format!("{DOMAIN}.{NAME}: an input or output is missing"));
        let input = context.input(0)?.ok_or_else(missing)?;
        let (shape, map) = input.try_extract_tensor::<f32>()?;
        let expected = [flow.channels, flow.rows, flow.columns].map(|length| length as i64);
        let &[pictures, ref found @ ..] = &**shape else { return Err(missing()) };
        if found != expected {
            return Err(ort::Error::new(format!(
                "{DOMAIN}.{NAME}: the features have shape {found:?} beside the batch, expected {expected:?}"
            )));
        }
        let cells = flow.rows * flow.columns;
        let mut output = context.output(0, [pictures, expected[1], expected[2]])?.ok_or_else(missing)?;
        let (_, out) = output.try_extract_tensor_mut::<f32>()?;
        standardised.resize(flow.channels * cells, 0.0);
        let threads = scratch.len();
        for (map, out) in map.chunks_exact(flow.channels * cells).zip(out.chunks_exact_mut(cells)) {
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
