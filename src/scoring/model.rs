//! A bundle's model in a session.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;
use ort::session::{RunOptions, Session};
use ort::value::{TensorElementType, TensorRef};
use tracing::info;

use super::contract::{self, Axis, broken};
use super::{Provider, ScoringError, SessionOptions, provider};
use crate::bundle::{Bundle, METADATA_NAME, METADATA_VERSION, MODEL_INPUT, Manifest};
use crate::inspection::{LogLikelihoodMaps, ModelIdentity, Picture, Size};

/// A bundle's ONNX model, loaded and checked against its manifest.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    manifest: Arc<Manifest>,
    identity: ModelIdentity,
    session: Session,
    breaker: Breaker,
    provider: Provider,
    /// The input tensor, `[batch, row, column, channel]`, kept between runs.
    input: Vec<u8>,
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
        Self::load_file(&bundle.model_path(), bundle, options)
    }

    /// As [`Model::load`], from another file that answers to the bundle's manifest.
    ///
    /// # Errors
    /// As there.
    pub fn load_file(file: &Path, bundle: &Bundle, options: &SessionOptions) -> Result<Self, ScoringError> {
        let path = file.to_owned();
        let (session, provider) = provider::open(&path, options)?;
        check(&path, &session, &bundle.manifest)?;
        let size = bundle.manifest.preprocessing.size;
        let breaker = Breaker::new().map_err(|source| ScoringError::Open { path: path.clone(), source })?;
        let mut model = Self {
            path,
            manifest: Arc::new(bundle.manifest.clone()),
            identity: bundle.identity.clone(),
            session,
            breaker,
            provider,
            input: vec![0; size.width * size.height * 3],
            maps: Vec::new(),
        };
        // Shows the real shapes, and pays for the first allocations before a frame waits for it.
        model.run(0..1)?;
        let ModelIdentity { name, version, .. } = &model.identity;
        info!(model = name, version, %provider, "model loaded");
        Ok(model)
    }

    /// The execution provider that the session really got.
    pub fn provider(&self) -> Provider {
        self.provider
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

    /// The ONNX file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The place of a picture in the input tensor, `[row, column, channel]` RGB, to be written before
    /// [`Model::score_placed`]. Places of a batch are numbered from 0.
    pub fn place(&mut self, index: usize) -> &mut [u8] {
        let size = self.manifest.preprocessing.size;
        let length = size.width * size.height * 3;
        if self.input.len() < (index + 1) * length {
            self.input.resize((index + 1) * length, 0);
        }
        &mut self.input[index * length..(index + 1) * length]
    }

    /// Scores what was written into the given places as one batch, in their order. The maps stand in
    /// memory that the next run takes again. Values may be infinite or not numbers where the model
    /// gives such: see [`LogLikelihoodMaps::is_finite`].
    ///
    /// # Errors
    /// [`ScoringError`] when the run fails.
    ///
    /// # Panics
    /// When a place was never written.
    pub fn score_placed(&mut self, places: Range<usize>) -> Result<&[LogLikelihoodMaps], ScoringError> {
        let count = places.len();
        if count > 0 {
            let run = run_size(self.provider, count);
            // What the places beyond hold is scored, too, and nobody looks at it.
            self.place(places.start + run - 1);
            self.run(places.start..places.start + run)?;
        }
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
        for (index, picture) in pictures.iter().enumerate() {
            if picture.size() != expected {
                return Err(ScoringError::PictureSize { index, expected, found: picture.size() });
            }
            self.place(index).copy_from_slice(picture.rgb());
        }
        Ok(self.score_placed(0..pictures.len())?.to_vec())
    }

    /// Time of one run of the session alone on what the first `batch` places hold: no copies, nothing
    /// taken apart. For measuring.
    ///
    /// # Errors
    /// [`ScoringError::Run`].
    pub fn time_run(&mut self, batch: NonZeroUsize) -> Result<Duration, ScoringError> {
        let batch = batch.get();
        self.place(batch - 1);
        let Size { width, height } = self.manifest.preprocessing.size;
        let path = &self.path;
        let failed = |source| ScoringError::Run { path: path.clone(), batch, source };
        let began = Instant::now();
        let input = TensorRef::from_array_view(([batch, height, width, 3], &self.input[..batch * height * width * 3]));
        drop(self.session.run(ort::inputs![input.map_err(failed)?]).map_err(failed)?);
        Ok(began.elapsed())
    }

    /// Runs the given places and takes the maps apart.
    fn run(&mut self, places: Range<usize>) -> Result<(), ScoringError> {
        let Self { path, session, breaker, input, maps, .. } = self;
        let batch = places.len();
        let failed = |source| ScoringError::Run { path: path.clone(), batch, source };
        let Size { width, height } = self.manifest.preprocessing.size;
        let length = width * height * 3;
        let input = &input[places.start * length..places.end * length];
        let input = TensorRef::from_array_view(([batch, height, width, 3], input)).map_err(failed)?;
        let outputs = session.run_with_options(ort::inputs![input], &*breaker.0).map_err(failed)?;
        let levels = &self.manifest.levels;
        while maps.len() < batch {
            let levels = levels.iter().map(|level| Array2::zeros((level.rows, level.columns))).collect();
            maps.push(LogLikelihoodMaps { levels });
        }
        for (number, level) in levels.iter().enumerate() {
            let (shape, values) = contract::values(path, &outputs, &level.output)?;
            let expected = [batch, level.rows, level.columns];
            if shape != expected {
                let output = format!("output `{}`", level.output);
                return Err(broken(path, output, format!("{expected:?}"), format!("{shape:?}")));
            }
            for (maps, values) in maps.iter_mut().zip(values.chunks_exact(level.rows * level.columns)) {
                maps.levels[number].iter_mut().zip(values).for_each(|(into, &value)| *into = value);
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
