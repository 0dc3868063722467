//! A bundle's model in a session.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;
use ort::session::{RunOptions, Session};
use ort::value::{TensorElementType, TensorRef};
use tracing::{info, warn};

use super::binding::Binding;
use super::contract::{self, Axis, broken};
use super::provider::Opened;
use super::{Provider, ScoringError, SessionOptions, cores, provider};
use crate::bundle::{Bundle, METADATA_NAME, METADATA_VERSION, MODEL_INPUT, Manifest};
use crate::inspection::{LogLikelihoodMaps, ModelIdentity, Picture, Size};

/// Numbers of pictures that memory is kept for at most.
const MOST_BINDINGS: usize = 8;

/// A bundle's ONNX model, loaded and checked against its manifest.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    manifest: Arc<Manifest>,
    identity: ModelIdentity,
    session: Session,
    breaker: Breaker,
    provider: Provider,
    /// Where the thread that runs it belongs.
    core: Option<usize>,
    /// By number of pictures, and when each was last used.
    bindings: HashMap<usize, (u64, Binding)>,
    /// Pictures of the batch that is being prepared.
    prepared: usize,
    uses: u64,
    /// What the last runs said, a picture each.
    maps: Vec<LogLikelihoodMaps>,
}

impl Model {
    /// Loads the bundle's model, checks input, outputs and metadata against the manifest and runs
    /// it once.
    ///
    /// # Errors
    /// [`ScoringError`] saying what was expected and what was found.
    pub fn load(bundle: &Bundle, options: &SessionOptions) -> Result<Self, ScoringError> {
        Self::load_files(&bundle.model_path(), bundle.processor_model_path().as_deref(), bundle, options)
    }

    /// As [`Model::load`], from another file that answers to the bundle's manifest.
    ///
    /// # Errors
    /// As there.
    pub fn load_file(file: &Path, bundle: &Bundle, options: &SessionOptions) -> Result<Self, ScoringError> {
        Self::load_files(file, None, bundle, options)
    }

    /// From `file`, or on a processor from `for_processor` where there is one.
    fn load_files(
        file: &Path,
        for_processor: Option<&Path>,
        bundle: &Bundle,
        options: &SessionOptions,
    ) -> Result<Self, ScoringError> {
        let Opened { session, provider, core } = provider::open(file, for_processor, options)?;
        let path = for_processor.filter(|_| provider == Provider::Cpu).unwrap_or(file).to_owned();
        check(&path, &session, &bundle.manifest)?;
        let breaker = Breaker::new().map_err(|source| ScoringError::Open { path: path.clone(), source })?;
        let mut model = Self {
            path,
            manifest: Arc::new(bundle.manifest.clone()),
            identity: bundle.identity.clone(),
            session,
            breaker,
            provider,
            core,
            bindings: HashMap::new(),
            prepared: 0,
            uses: 0,
            maps: Vec::new(),
        };
        // Shows the real shapes, and pays for the first allocations before a frame waits for it.
        model.try_out()?;
        for pictures in provider.usual_batches() {
            model.prepare(pictures)?;
            model.run(pictures)?;
        }
        model.prepare(1)?;
        let ModelIdentity { name, version, .. } = &model.identity;
        info!(model = name, version, %provider, "model loaded");
        Ok(model)
    }

    /// The execution provider that the session really got.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Binds the calling thread to a core of its own beside the session's other threads, where the session was opened
    /// `pinned`; else it does nothing. For the thread that will run the model; those that it starts inherit the core.
    pub fn bind_thread(&self) {
        if let Some(core) = self.core
            && let Err(error) = cores::bind(core)
        {
            warn!(core, %error, "a thread cannot be bound to its core");
        }
    }

    /// Name, version and hash of the bundle.
    pub fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    /// What breaks this model's runs off, from any thread.
    pub fn breaker(&self) -> Breaker {
        self.breaker.clone()
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The ONNX file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the first run on so many pictures may take long, because an accelerator makes itself ready
    /// for it: TensorRT builds an engine.
    pub fn makes_ready_for(&self, pictures: usize) -> bool {
        self.provider != Provider::Cpu && !self.bindings.contains_key(&run_size(self.provider, pictures))
    }

    /// Makes room for a batch of so many pictures, at least 1. What their places hold is nothing in
    /// particular.
    ///
    /// # Errors
    /// [`ScoringError::Run`] when there is no memory for it.
    pub fn prepare(&mut self, pictures: usize) -> Result<(), ScoringError> {
        self.prepared = run_size(self.provider, pictures.max(1));
        self.binding(self.prepared).map(|_| ())
    }

    /// The place of a picture in the prepared batch, `[row, column, channel]` RGB, to be written before
    /// [`Model::score_placed`]. Places are numbered from 0.
    ///
    /// # Panics
    /// Beyond the prepared batch.
    pub fn place(&mut self, index: usize) -> &mut [u8] {
        let length = self.picture_length();
        let (_, binding) = self.bindings.get_mut(&self.prepared).expect("a batch is prepared");
        &mut binding.input()[index * length..(index + 1) * length]
    }

    /// Scores what was written into the given places of the prepared batch as one, in their order. The
    /// maps stand in memory that the next run takes again. Values may be infinite or not numbers where
    /// the model gives such: see [`LogLikelihoodMaps::is_finite`].
    ///
    /// # Errors
    /// [`ScoringError`] when the run fails.
    ///
    /// # Panics
    /// Beyond the prepared batch.
    pub fn score_placed(&mut self, places: Range<usize>) -> Result<&[LogLikelihoodMaps], ScoringError> {
        let count = places.len();
        if count == 0 {
            return Ok(&[]);
        }
        // What the places beyond hold is scored, too, and nobody looks at it.
        let run = run_size(self.provider, count);
        if places.start > 0 || run != self.prepared {
            let length = self.picture_length();
            let (_, prepared) = self.bindings.get_mut(&self.prepared).expect("a batch is prepared");
            let pictures = prepared.input()[places.start * length..places.end * length].to_vec();
            self.binding(run)?.input()[..pictures.len()].copy_from_slice(&pictures);
        }
        self.run(run)?;
        self.take_apart(run, count);
        Ok(&self.maps[..count])
    }

    /// What the last run said of its picture of that number, from 0.
    pub fn scored(&self, index: usize) -> Option<&LogLikelihoodMaps> {
        self.maps.get(index)
    }

    /// Scores pictures of model size as one batch, in their order; as [`Model::score_placed`].
    ///
    /// # Errors
    /// [`ScoringError`] when a picture has another size or the run fails.
    pub fn score(&mut self, pictures: &[&Picture]) -> Result<Vec<LogLikelihoodMaps>, ScoringError> {
        let expected = self.manifest.preprocessing.size;
        self.prepare(pictures.len())?;
        for (index, picture) in pictures.iter().enumerate() {
            if picture.size() != expected {
                return Err(ScoringError::PictureSize { index, expected, found: picture.size() });
            }
            self.place(index).copy_from_slice(picture.rgb());
        }
        Ok(self.score_placed(0..pictures.len())?.to_vec())
    }

    /// Time of one run of the session alone on a batch of so many pictures: no copies, nothing taken
    /// apart. For measuring.
    ///
    /// # Errors
    /// [`ScoringError::Run`].
    pub fn time_run(&mut self, batch: NonZeroUsize) -> Result<Duration, ScoringError> {
        self.prepare(batch.get())?;
        let began = Instant::now();
        self.run(self.prepared)?;
        Ok(began.elapsed())
    }

    /// Bytes of a picture.
    fn picture_length(&self) -> usize {
        let Size { width, height } = self.manifest.preprocessing.size;
        width * height * 3
    }

    /// Input and outputs for runs of so many pictures; made where there are none yet.
    fn binding(&mut self, pictures: usize) -> Result<&mut Binding, ScoringError> {
        if !self.bindings.contains_key(&pictures) {
            let spare = self.bindings.iter().filter(|(size, _)| **size != self.prepared);
            let oldest = spare.min_by_key(|(_, (used, _))| *used).map(|(size, _)| *size);
            if let Some(oldest) = oldest.filter(|_| self.bindings.len() >= MOST_BINDINGS) {
                self.bindings.remove(&oldest);
            }
            let size = self.manifest.preprocessing.size;
            let made = Binding::new(&self.session, self.provider, pictures, size, &self.manifest.levels)
                .map_err(|source| ScoringError::Run { path: self.path.clone(), batch: pictures, source })?;
            self.bindings.insert(pictures, (0, made));
        }
        self.uses += 1;
        let (used, binding) = self.bindings.get_mut(&pictures).expect("it was just made");
        *used = self.uses;
        Ok(binding)
    }

    /// Runs the session on what the binding for so many pictures holds.
    fn run(&mut self, pictures: usize) -> Result<(), ScoringError> {
        let Self { path, session, breaker, bindings, .. } = self;
        let (_, binding) = bindings.get_mut(&pictures).expect("it was prepared");
        let failed = |source| ScoringError::Run { path: path.clone(), batch: pictures, source };
        binding.run(session, &breaker.0).map_err(failed)
    }

    /// Takes the maps of the first `count` pictures out of the outputs for `pictures`.
    fn take_apart(&mut self, pictures: usize, count: usize) {
        let Self { maps, bindings, manifest, .. } = self;
        let (_, binding) = &bindings[&pictures];
        while maps.len() < count {
            let levels = manifest.levels.iter().map(|level| Array2::zeros((level.rows, level.columns))).collect();
            maps.push(LogLikelihoodMaps { levels });
        }
        for (number, level) in manifest.levels.iter().enumerate() {
            let values = binding.output(number).chunks_exact(level.rows * level.columns);
            for (maps, values) in maps[..count].iter_mut().zip(values) {
                maps.levels[number].iter_mut().zip(values).for_each(|(into, &value)| *into = value);
            }
        }
    }

    /// Runs a black picture without memory of ours for the outputs: what the file declares need not be
    /// what it gives.
    fn try_out(&mut self) -> Result<(), ScoringError> {
        let Self { path, session, manifest, .. } = self;
        let failed = |source| ScoringError::Run { path: path.clone(), batch: 1, source };
        let Size { width, height } = manifest.preprocessing.size;
        let black = vec![0u8; width * height * 3];
        let input = TensorRef::from_array_view(([1, height, width, 3], black.as_slice())).map_err(failed)?;
        let outputs = session.run(ort::inputs![input]).map_err(failed)?;
        for level in &manifest.levels {
            let (shape, _) = contract::values(path, &outputs, &level.output)?;
            let expected = [1, level.rows, level.columns];
            if shape != expected {
                let output = format!("output `{}`", level.output);
                return Err(broken(path, output, format!("{expected:?}"), format!("{shape:?}")));
            }
        }
        Ok(())
    }
}

/// Breaks a model's runs off, for good: the one going on and those that follow fail.
#[derive(Clone)]
pub struct Breaker(Arc<RunOptions>);

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Breaker")
    }
}

impl Breaker {
    fn new() -> ort::Result<Self> {
        RunOptions::new().map(|options| Self(Arc::new(options)))
    }

    /// The run going on ends with an error as soon as the operator that it is in has ended; one that
    /// hangs inside an operator does not. `false` when ONNX Runtime refuses.
    pub fn break_off(&self) -> bool {
        self.0.terminate().is_ok()
    }
}

/// Pictures that a batch of `count` is run with. A GPU's memory grows with every new batch size, and
/// TensorRT builds an engine for it: there batches are filled up to a power of two. A processor runs
/// what there is.
fn run_size(provider: Provider, count: usize) -> usize {
    match provider {
        Provider::Tensorrt | Provider::Cuda => count.next_power_of_two(),
        Provider::Openvino | Provider::Cpu => count,
    }
}

/// Checks what the file declares against the manifest.
fn check(path: &Path, session: &Session, manifest: &Manifest) -> Result<(), ScoringError> {
    let size = manifest.preprocessing.size;
    let axes = [Axis::Open("batch"), Axis::Exactly(size.height), Axis::Exactly(size.width), Axis::Exactly(3)];
    contract::only_input(path, session, MODEL_INPUT, TensorElementType::Uint8, &axes)?;
    for level in &manifest.levels {
        let axes = [Axis::Open("batch"), Axis::Likely(level.rows), Axis::Likely(level.columns)];
        contract::output(path, session, &level.output, &axes)?;
    }
    if session.outputs().len() != manifest.levels.len() {
        let expected = manifest.levels.iter().map(|level| format!("`{}`", level.output)).collect::<Vec<_>>().join(", ");
        return Err(broken(path, "the outputs", expected, contract::names(session.outputs())));
    }
    let metadata = session.metadata().map_err(|source| ScoringError::Open { path: path.to_owned(), source })?;
    for (key, expected) in [(METADATA_NAME, &manifest.name), (METADATA_VERSION, &manifest.version)] {
        let found = metadata.custom(key);
        if found.as_ref() != Some(expected) {
            let found = found.map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`"));
            return Err(broken(path, format!("metadata `{key}`"), format!("`{expected}`"), found));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_sees_few_batch_sizes_and_a_processor_no_picture_too_many() {
        let sizes = |provider| (1..=9).map(|count| run_size(provider, count)).collect::<Vec<_>>();
        assert_eq!(sizes(Provider::Cuda), [1, 2, 4, 4, 8, 8, 8, 8, 16]);
        assert_eq!(sizes(Provider::Tensorrt), sizes(Provider::Cuda));
        assert_eq!(sizes(Provider::Cpu), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
