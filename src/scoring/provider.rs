//! Execution providers of ONNX Runtime, and sessions on the best one that can be had.

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;

use ort::environment::Environment;
use ort::ep::{CPU, CUDA, ExecutionProviderDispatch, OpenVINO, TensorRT};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::ScoringError;
use super::runtime::environment;

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

    /// What to register with a session. The provider itself fails loudly, so that we know which
    /// one we really got.
    fn dispatches(self) -> Vec<ExecutionProviderDispatch> {
        match self {
            // CUDA takes the nodes that TensorRT refuses; without it they would go to the processor.
            Self::Tensorrt => vec![TensorRT::default().build().error_on_failure(), CUDA::default().build()],
            Self::Cuda => vec![CUDA::default().build().error_on_failure()],
            // The batch is a dynamic axis.
            Self::Openvino => vec![OpenVINO::default().with_dynamic_shapes(true).build().error_on_failure()],
            Self::Cpu => vec![CPU::default().build().error_on_failure()],
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

/// How a session is made.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Providers in order of preference. The processor stands at the end, named or not.
    pub providers: Vec<Provider>,
    /// Whether the first provider must be had; if not, the next one is taken and that is said.
    pub required: bool,
    /// Threads inside one run; 0 is one per core.
    pub threads: usize,
    /// Whether these threads wait for the next run by spinning: it begins sooner, and the cores of an
    /// idle line are busy.
    pub spinning: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { providers: vec![Provider::Cpu], required: false, threads: 0, spinning: false }
    }
}

/// Opens an ONNX file on the first provider that takes it, and says which one that is.
pub(super) fn open(path: &Path, options: &SessionOptions) -> Result<(Session, Provider), ScoringError> {
    // ONNX Runtime's own message for a missing file depends on the provider; the system's is clear.
    File::open(path).map_err(|source| ScoringError::Read { path: path.to_owned(), source })?;
    let environment = environment()?;
    let before_cpu = options.providers.iter().copied().take_while(|&provider| provider != Provider::Cpu);
    for (place, provider) in before_cpu.enumerate() {
        match session(environment, path, provider, options) {
            Ok(session) => return Ok((session, provider)),
            Err(source) if options.required && place == 0 => {
                return Err(ScoringError::ProviderUnavailable { path: path.to_owned(), provider, source });
            }
            Err(reason) => {
                warn!(%provider, %reason, "execution provider cannot be had, the next one is tried");
            }
        }
    }
    let session = session(environment, path, Provider::Cpu, options)
        .map_err(|source| ScoringError::Open { path: path.to_owned(), source })?;
    Ok((session, Provider::Cpu))
}

fn session(
    environment: &Environment,
    path: &Path,
    provider: Provider,
    options: &SessionOptions,
) -> ort::Result<Session> {
    // ONNX Runtime's own count ignores the limits of a container and pins its threads, so that
    // the sessions of two workers would sit on the same cores.
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        given => given,
    };
    Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_intra_op_spinning(options.spinning)?
        .with_inter_op_spinning(false)?
        .with_execution_providers(provider.dispatches())?
        .commit_from_file(path)
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
}
