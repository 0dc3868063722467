//! A bundle's model in a session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};
use tracing::info;

use super::contract::{self, Axis, broken};
use super::{Provider, ScoringError, SessionOptions, provider};
use crate::bundle::{Bundle, METADATA_NAME, METADATA_VERSION, MODEL_INPUT, Manifest};
use crate::inspection::{LogLikelihoodMaps, ModelIdentity, Picture};

/// A bundle's ONNX model, loaded and checked against its manifest.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    manifest: Arc<Manifest>,
    identity: ModelIdentity,
    session: Session,
    provider: Provider,
    /// The input tensor, `[batch, row, column, channel]`, kept between runs.
    input: Vec<u8>,
}

impl Model {
    /// Loads the bundle's model, checks input, outputs and metadata against the manifest and runs
    /// it once.
    ///
    /// # Errors
    /// [`ScoringError`] saying what was expected and what was found.
    pub fn load(bundle: &Bundle, options: &SessionOptions) -> Result<Self, ScoringError> {
        let path = bundle.model_path();
        let (session, provider) = provider::open(&path, options)?;
        check(&path, &session, &bundle.manifest)?;
        let size = bundle.manifest.preprocessing.size;
        let mut model = Self {
            path,
            manifest: Arc::new(bundle.manifest.clone()),
            identity: bundle.identity.clone(),
            session,
            provider,
            input: vec![0; size.width * size.height * 3],
        };
        // Shows the real shapes, and pays for the first allocations before a frame waits for it.
        model.run(1)?;
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

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The ONNX file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Scores pictures of model size as one batch, in their order. Values may be infinite or not
    /// numbers where the model gives such: see [`LogLikelihoodMaps::is_finite`].
    ///
    /// # Errors
    /// [`ScoringError`] when a picture has another size or the run fails.
    pub fn score(&mut self, pictures: &[&Picture]) -> Result<Vec<LogLikelihoodMaps>, ScoringError> {
        let expected = self.manifest.preprocessing.size;
        self.input.clear();
        for (index, picture) in pictures.iter().enumerate() {
            if picture.size() != expected {
                return Err(ScoringError::PictureSize { index, expected, found: picture.size() });
            }
            self.input.extend_from_slice(picture.rgb());
        }
        if pictures.is_empty() { Ok(Vec::new()) } else { self.run(pictures.len()) }
    }

    /// Time of one run of the session alone on what the input tensor holds from the last scoring: no
    /// copies, nothing taken apart. For measuring.
    ///
    /// # Errors
    /// [`ScoringError::Run`].
    pub fn time_run(&mut self) -> Result<Duration, ScoringError> {
        let size = self.manifest.preprocessing.size;
        let batch = self.input.len() / (size.height * size.width * 3);
        let path = &self.path;
        let failed = |source| ScoringError::Run { path: path.clone(), batch, source };
        let began = Instant::now();
        let input =
            TensorRef::from_array_view(([batch, size.height, size.width, 3], self.input.as_slice())).map_err(failed)?;
        drop(self.session.run(ort::inputs![input]).map_err(failed)?);
        Ok(began.elapsed())
    }

    /// Runs the input tensor and takes the maps apart.
    fn run(&mut self, batch: usize) -> Result<Vec<LogLikelihoodMaps>, ScoringError> {
        let path = &self.path;
        let failed = |source| ScoringError::Run { path: path.clone(), batch, source };
        let size = self.manifest.preprocessing.size;
        let input =
            TensorRef::from_array_view(([batch, size.height, size.width, 3], self.input.as_slice())).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![input]).map_err(failed)?;
        let levels = &self.manifest.levels;
        let mut maps: Vec<_> =
            (0..batch).map(|_| LogLikelihoodMaps { levels: Vec::with_capacity(levels.len()) }).collect();
        for level in levels {
            let (shape, values) = contract::values(path, &outputs, &level.output)?;
            let expected = [batch, level.rows, level.columns];
            let odd =
                || broken(path, format!("output `{}`", level.output), format!("{expected:?}"), format!("{shape:?}"));
            if shape != expected {
                return Err(odd());
            }
            for (maps, values) in maps.iter_mut().zip(values.chunks_exact(level.rows * level.columns)) {
                let map = Array2::from_shape_vec((level.rows, level.columns), values.to_vec()).map_err(|_| odd())?;
                maps.levels.push(map);
            }
        }
        Ok(maps)
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
