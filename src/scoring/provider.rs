//! Execution providers of ONNX Runtime, and sessions on the best one that can be had.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::environment::Environment;
use ort::ep::{ArenaExtendStrategy, CPU, CUDA, ExecutionProviderDispatch, OpenVINO, TensorRT};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::ScoringError;
use super::runtime::environment;
use super::{cores, flow};

/// An execution provider of ONNX Runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// NVIDIA TensorRT.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    Openvino,
    /// The processor; always there.
    Cpu,
}

impl Provider {
    /// The word used in configuration and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tensorrt => "tensorrt",
            Self::Cuda => "cuda",
            Self::Openvino => "openvino",
            Self::Cpu => "cpu",
        }
    }

    /// Pictures that a line scores at once where `given` is 0. On a processor a batch takes as long as
    /// its pictures one by one; an accelerator is filled by it.
    pub fn batch(self, given: usize) -> NonZeroUsize {
        let usual = if self == Self::Cpu { 1 } else { ACCELERATOR_BATCH };
        NonZeroUsize::new(given).unwrap_or(NonZeroUsize::new(usual).unwrap_or(NonZeroUsize::MIN))
    }

    /// Numbers of pictures that a model is run on when it is loaded, so that no frame waits for what the
    /// first such run costs.
    pub(super) fn usual_batches(self) -> impl Iterator<Item = usize> {
        let largest = if self == Self::Cpu { 1 } else { ACCELERATOR_BATCH };
        std::iter::successors(Some(1), |size| Some(size * 2)).take_while(move |size| *size <= largest)
    }

    /// What to register with a session. The provider itself fails loudly, so that we know which
    /// one we really got.
    ///
    /// A session on a GPU has a stream of its own, so that several work beside each other. Its memory
    /// grows by what is asked for, not in powers of two, and products keep the mantissa of f32: the
    /// boundaries were found with it.
    fn dispatches(self, options: &SessionOptions) -> Vec<ExecutionProviderDispatch> {
        let cuda = CUDA::default().with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested).with_tf32(false);
        match self {
            // CUDA takes the nodes that TensorRT refuses; without it they would go to the processor.
            Self::Tensorrt => {
                let mut tensorrt = TensorRT::default();
                if let Some(folder) = &options.engine_cache {
                    let folder = folder.display().to_string();
                    tensorrt = tensorrt
                        .with_engine_cache(true)
                        .with_engine_cache_path(&folder)
                        .with_timing_cache(true)
                        .with_timing_cache_path(folder);
                }
                vec![tensorrt.build().error_on_failure(), cuda.build()]
            }
            Self::Cuda => vec![cuda.build().error_on_failure()],
            // The batch is a dynamic axis.
            Self::Openvino => vec![OpenVINO::default().with_dynamic_shapes(true).build().error_on_failure()],
            Self::Cpu => vec![CPU::default().with_arena_allocator(options.arena).build().error_on_failure()],
        }
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Provider {
    type Err = ScoringError;

    fn from_str(name: &str) -> Result<Self, ScoringError> {
        [Self::Tensorrt, Self::Cuda, Self::Openvino, Self::Cpu]
            .into_iter()
            .find(|provider| provider.as_str() == name)
            .ok_or_else(|| ScoringError::UnknownProvider { name: name.to_owned() })
    }
}

/// Frames of a batch at most on an accelerator.
const ACCELERATOR_BATCH: usize = 8;
/// Sessions beside each other at most where nobody says how many: each holds weights and memory of its own.
const SESSIONS: usize = 4;

/// How a session is made.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Providers in order of preference. The processor stands at the end, named or not.
    pub providers: Vec<Provider>,
    /// Whether the first provider must be had; if not, the next one is taken and that is said.
    pub required: bool,
    /// Sessions that run beside each other, this one included, and share the cores; 0 is as many as there
    /// are cores for, 4 at most, and 2 on an accelerator, so that one frame is made ready while another
    /// is scored.
    pub sessions: usize,
    /// Threads inside one run; 0 is this session's share of the cores.
    pub threads: usize,
    /// Whether these threads wait for the next run by spinning: it begins sooner, and the cores of an
    /// idle line are busy.
    pub spinning: bool,
    /// Whether each thread of a session on a processor stays on a core of its own. The one that runs the model goes
    /// there with [`Model::bind_thread`](super::Model::bind_thread). For machines that have nothing else to do: another
    /// program that binds its threads takes the same cores.
    pub pinned: bool,
    /// Which of the sessions beside each other this is, from 0: says which cores are its own where `pinned`.
    pub number: usize,
    /// Whether a session on a processor keeps what memory a run needed for the next (ONNX Runtime's arena). Given back
    /// to the system, it comes as fresh pages each time.
    pub arena: bool,
    /// Folder where TensorRT keeps the engines it builds, so that the next start need not build them;
    /// none is no such folder. Made where it is missing.
    pub engine_cache: Option<PathBuf>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            providers: vec![Provider::Cpu],
            required: false,
            sessions: 1,
            threads: 0,
            spinning: false,
            pinned: false,
            number: 0,
            arena: true,
            engine_cache: None,
        }
    }
}

impl SessionOptions {
    /// One session on the processor alone, with so many threads; 0 is every core.
    pub fn on_processor(threads: usize) -> Self {
        Self { required: true, threads, ..Self::default() }
    }

    /// Sessions that run beside each other on a provider.
    pub fn sessions_on(&self, provider: Provider) -> usize {
        match (self.sessions, provider) {
            (0, Provider::Cpu) => (cores::count() / self.threads.max(1)).clamp(1, SESSIONS),
            (0, _) => 2,
            (given, _) => given,
        }
    }

    fn threads_on(&self, provider: Provider) -> usize {
        if self.threads > 0 { self.threads } else { (cores::count() / self.sessions_on(provider)).max(1) }
    }

    /// A core for each thread of the session, where they are to be bound and the system says which there are. None by
    /// itself: ONNX Runtime, which would bind them unasked, has the sessions of two workers sit on the same cores.
    fn cores_on(&self, provider: Provider) -> Vec<usize> {
        if !self.pinned || provider != Provider::Cpu {
            return Vec::new();
        }
        let cores = cores::of_session(self.number, self.threads_on(provider));
        if cores.is_empty() {
            warn!("the system does not say which cores there are: threads are not bound");
        }
        cores
    }
}

/// A session as it was opened.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) provider: Provider,
    /// Where the thread that runs it belongs.
    pub(super) core: Option<usize>,
}

/// Opens an ONNX file on the first provider that takes it; on a processor
/// `for_processor`, where there is such a file.
pub(super) fn open(
    path: &Path,
    for_processor: Option<&Path>,
    options: &SessionOptions,
) -> Result<Opened, ScoringError> {
    // ONNX Runtime's own message for a missing file depends on the provider; the system's is clear.
    for path in for_processor.into_iter().chain([path]) {
        File::open(path).map_err(|source| ScoringError::Read { path: path.to_owned(), source })?;
    }
    if let Some(folder) = &options.engine_cache {
        std::fs::create_dir_all(folder).map_err(|source| ScoringError::EngineCache { path: folder.clone(), source })?;
    }
    let environment = environment()?;
    let before_cpu = options.providers.iter().copied().take_while(|&provider| provider != Provider::Cpu);
    for (place, provider) in before_cpu.enumerate() {
        match session(environment, path, provider, options) {
            Ok(opened) => return Ok(opened),
            Err(source) if options.required && place == 0 => {
                return Err(ScoringError::ProviderUnavailable { path: path.to_owned(), provider, source });
            }
            Err(reason) => {
                warn!(%provider, %reason, "execution provider cannot be had, the next one is tried");
            }
        }
    }
    let path = for_processor.unwrap_or(path);
    session(environment, path, Provider::Cpu, options)
        .map_err(|source| ScoringError::Open { path: path.to_owned(), source })
}

fn session(
    environment: &Environment,
    path: &Path,
    provider: Provider,
    options: &SessionOptions,
) -> ort::Result<Opened> {
    let threads = options.threads_on(provider);
    let cores = options.cores_on(provider);
    let first = lock_first();
    let mut builder = Session::builder(environment)?
        .with_operators(flow::operators(threads)?)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_intra_op_spinning(options.spinning)?
        .with_inter_op_spinning(false)?
        .with_execution_providers(provider.dispatches(options))?;
    if cores.len() > 1 {
        builder = builder.with_config_entry("session.intra_op_thread_affinities", cores::for_runtime(&cores))?;
    }
    let session = builder.commit_from_file(path)?;
    if let Some(mut noted) = first {
        *noted = true;
    }
    Ok(Opened { session, provider, core: cores.first().copied() })
}

/// Whether ONNX Runtime has noted the domain of our operators, which the first session of a process makes it do:
/// two that do so at the same time fail.
static NOTED: Mutex<bool> = Mutex::new(false);

/// Alone until there has been a first session; none from then on.
fn lock_first() -> Option<MutexGuard<'static, bool>> {
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    (!*noted).then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_read_back_from_its_own_word() {
        for provider in [Provider::Tensorrt, Provider::Cuda, Provider::Openvino, Provider::Cpu] {
            assert_eq!(provider.to_string().parse::<Provider>().unwrap(), provider);
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.as_str());
        }
    }

    #[test]
    fn an_unknown_provider_is_refused_with_the_names_that_exist() {
        let error = "CUDA12".parse::<Provider>().unwrap_err().to_string();
        assert!(error.contains("CUDA12") && error.contains("tensorrt, cuda, openvino or cpu"), "{error}");
    }

    #[test]
    fn an_accelerator_is_made_ready_for_every_size_of_a_usual_batch() {
        assert_eq!(Provider::Cpu.usual_batches().collect::<Vec<_>>(), [1]);
        assert_eq!(Provider::Tensorrt.usual_batches().collect::<Vec<_>>(), [1, 2, 4, 8]);
    }

    #[test]
    fn sessions_share_the_cores() {
        let options = |sessions, threads| SessionOptions { sessions, threads, ..SessionOptions::default() };
        let one = SessionOptions::default();
        assert_eq!((one.sessions_on(Provider::Cpu), one.threads_on(Provider::Cpu)), (1, cores::count()));
        let shared = options(0, 0);
        let (sessions, threads) = (shared.sessions_on(Provider::Cpu), shared.threads_on(Provider::Cpu));
        assert!((1..=SESSIONS).contains(&sessions) && sessions * threads <= cores::count(), "{sessions} of {threads}");
        assert_eq!(options(0, 1024).sessions_on(Provider::Cpu), 1);
        assert_eq!(options(0, 0).sessions_on(Provider::Cuda), 2);
        assert_eq!((options(3, 5).sessions_on(Provider::Cuda), options(3, 5).threads_on(Provider::Cpu)), (3, 5));
        assert_eq!(
            (Provider::Cpu.batch(0).get(), Provider::Cuda.batch(0).get(), Provider::Cpu.batch(3).get()),
            (1, 8, 3)
        );
    }
}
