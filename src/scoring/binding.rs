//! Input and outputs of a model's runs, in memory that is kept and handed to ONNX Runtime once.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::Tensor;

use super::Provider;
use super::handles::run_bound;
use crate::bundle::{LevelShape, MODEL_INPUT};
use crate::inspection::Size;

/// What runs of one number of pictures read and write. For a GPU this is page-locked memory, from and
/// to which its driver copies without a copy of its own between.
#[derive(Debug)]
pub(super) struct Binding {
    io: IoBinding,
    /// `[picture, row, column, channel]`.
    input: Tensor<u8>,
    /// One for each level, `[picture, row, column]`.
    outputs: Vec<Tensor<f32>>,
    /// Whether the input goes to a device: then it is sent before every run.
    sent: bool,
}

impl Binding {
    /// For runs of so many pictures of `size`; the input holds nothing in particular.
    pub(super) fn new(
        session: &Session,
        provider: Provider,
        pictures: usize,
        size: Size,
        levels: &[LevelShape],
    ) -> ort::Result<Self> {
        let sent = matches!(provider, Provider::Tensorrt | Provider::Cuda);
        let allocator = |memory| {
            if !sent {
                return Ok(Allocator::default());
            }
            let pinned = MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, memory)?;
            Allocator::new(session, pinned)
        };
        let mut io = session.create_binding()?;
        let mut input = Tensor::<u8>::new(&allocator(MemoryType::CPUInput)?, [pictures, size.height, size.width, 3])?;
        input.extract_tensor_mut().1.fill(0);
        io.bind_input(MODEL_INPUT, &input)?;
        let memory = allocator(MemoryType::CPUOutput)?;
        let output = |level: &LevelShape| {
            let mut output = Tensor::<f32>::new(&memory, [pictures, level.rows, level.columns])?;
            io.bind_output(level.output.as_str(), &mut output)?;
            Ok(output)
        };
        let outputs = levels.iter().map(output).collect::<ort::Result<_>>()?;
        Ok(Self { io, input, outputs, sent })
    }

    /// `[picture, row, column, channel]`.
    pub(super) fn input(&mut self) -> &mut [u8] {
        self.input.extract_tensor_mut().1
    }

    /// Runs what the input holds.
    pub(super) fn run(&mut self, session: &mut Session, options: &RunOptions) -> ort::Result<()> {
        if self.sent {
            // What is bound is a copy on the device, made now.
            self.io.bind_input(MODEL_INPUT, &self.input)?;
            self.io.synchronize_inputs()?;
        }
        run_bound(session, options, &self.io)?;
        if self.sent {
            self.io.synchronize_outputs()?;
        }
        Ok(())
    }

    /// What the last run said at a level, `[picture, row, column]`.
    pub(super) fn output(&self, level: usize) -> &[f32] {
        self.outputs[level].extract_tensor().1
    }
}
