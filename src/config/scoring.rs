//! Which model inspects, and how it is run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Execution providers by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderName {
    /// NVIDIA TensorRT.
    Tensorrt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    Openvino,
    /// The processor.
    Cpu,
}

/// Which model inspects: exactly one of `bundle` and `registry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A bundle directory, fixed.
    #[serde(default)]
    pub bundle: Option<PathBuf>,
    /// A registry directory; its active bundle is used, and a new active one taken over while
    /// running.
    #[serde(default)]
    pub registry: Option<PathBuf>,
    /// File with the public key that bundles must be signed with (`linegate models sign`); none takes
    /// unsigned ones.
    #[serde(default)]
    pub public_key_file: Option<PathBuf>,
    /// Execution providers in order of preference.
    #[serde(default = "default_providers")]
    pub providers: Vec<ProviderName>,
    /// Refuse to start when the first provider cannot be had.
    #[serde(default)]
    pub required: bool,
    /// Sessions that score beside each other, 0 to 64; 0 is one per core, 4 at most, and 2 on an
    /// accelerator. `linegate tune` measures it.
    #[serde(default)]
    pub sessions: usize,
    /// Threads inside one run of the model, 0 to 256; 0 is a session's share of the cores.
    #[serde(default)]
    pub threads: usize,
    /// Whether these threads wait for the next run by spinning: it begins sooner, and the cores of an
    /// idle line are busy.
    #[serde(default)]
    pub spinning: bool,
    /// Whether each thread of a session on a processor is bound to a core of its own. For a machine that has nothing
    /// else to do; `linegate tune` measures what it gains.
    #[serde(default)]
    pub pinned: bool,
    /// Whether a session on a processor keeps the memory of a run for the next. `linegate tune` measures it.
    #[serde(default = "default_arena")]
    pub arena: bool,
    /// Folder where TensorRT keeps the engines it builds, which takes minutes; best one for each machine.
    #[serde(default)]
    pub engine_cache: Option<PathBuf>,
    /// A run that takes longer hangs, 100 to 15000: it is broken off, its frames are `not_inspected:
    /// failed`, and another session takes its place.
    #[serde(default = "default_run_timeout_ms")]
    pub run_timeout_ms: u64,
}

fn default_arena() -> bool {
    true
}

fn default_run_timeout_ms() -> u64 {
    10_000
}

fn default_providers() -> Vec<ProviderName> {
    vec![ProviderName::Cpu]
}
