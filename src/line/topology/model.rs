//! The model in use, and the watch on the registry for the next one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::error::ModelError;
use super::pulse::StopFlag;
use crate::bundle::{self, Bundle, Manifest, read_active};
use crate::config::{CameraConfig, ModelConfig, ProviderName};
use crate::inspection::{ModelIdentity, Rectangle};
use crate::scoring::{Model, Provider, SessionOptions};

/// Time between two looks at the registry.
const LOOK: Duration = Duration::from_secs(1);

/// A loaded model with all that a decision needs of its bundle.
#[derive(Debug)]
pub(super) struct ActiveModel {
    pub(super) model: Model,
    pub(super) identity: ModelIdentity,
    pub(super) provider: Provider,
    manifest: Manifest,
    /// Manifests of cameras that have a region of interest of their own.
    by_camera: HashMap<Arc<str>, Manifest>,
}

impl ActiveModel {
    /// The bundle's manifest with the camera's region of interest in it.
    pub(super) fn manifest(&self, camera: &Arc<str>) -> &Manifest {
        self.by_camera.get(camera).unwrap_or(&self.manifest)
    }
}

/// How the configuration wants a line's sessions to be opened.
pub fn session_options(config: &ModelConfig) -> SessionOptions {
    let provider = |name: &ProviderName| match name {
        ProviderName::Tensorrt => Provider::Tensorrt,
        ProviderName::Cuda => Provider::Cuda,
        ProviderName::Openvino => Provider::Openvino,
        ProviderName::Cpu => Provider::Cpu,
    };
    SessionOptions {
        providers: config.providers.iter().map(provider).collect(),
        required: config.required,
        sessions: config.sessions,
        threads: config.threads,
        spinning: config.spinning,
        pinned: config.pinned,
        number: 0,
        arena: config.arena,
        engine_cache: config.engine_cache.clone(),
    }
}

/// Loads models as the configuration says.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    bundle: Option<PathBuf>,
    registry: Option<PathBuf>,
    public_key: Option<PathBuf>,
    options: SessionOptions,
    run_timeout: Duration,
    regions: Vec<(Arc<str>, Rectangle)>,
}

impl Loader {
    pub(super) fn new(config: &ModelConfig, cameras: &[CameraConfig]) -> Self {
        Self {
            bundle: config.bundle.clone(),
            registry: config.registry.clone(),
            public_key: config.public_key_file.clone(),
            options: session_options(config),
            run_timeout: Duration::from_millis(config.run_timeout_ms),
            regions: cameras
                .iter()
                .filter_map(|camera| Some((camera.name.as_str().into(), camera.region_of_interest?)))
                .collect(),
        }
    }

    /// How long a run may take.
    pub(super) fn run_timeout(&self) -> Duration {
        self.run_timeout
    }

    /// The registry to watch, where one is configured.
    pub(super) fn registry(&self) -> Option<&Path> {
        self.registry.as_deref()
    }

    /// Where the bundle to use stands now.
    pub(super) fn current(&self) -> Result<PathBuf, ModelError> {
        match (&self.bundle, &self.registry) {
            (Some(bundle), None) => Ok(bundle.clone()),
            (None, Some(registry)) => {
                read_active(registry)?.ok_or_else(|| ModelError::NothingActive { path: registry.clone() })
            }
            _ => Err(ModelError::NotOne),
        }
    }

    /// Reads and verifies the bundle and makes a session of its own for each of `scorers`; where none are
    /// given, for as many as its provider wants.
    pub(super) fn load(&self, path: &Path, scorers: Option<usize>) -> Result<Vec<ActiveModel>, ModelError> {
        let bundle = self.verified(path)?;
        let first = self.session(&bundle, 0)?;
        let scorers = scorers.unwrap_or_else(|| self.options.sessions_on(first.provider));
        let others = (1..scorers).map(|scorer| self.session(&bundle, scorer));
        std::iter::once(Ok(first)).chain(others).collect()
    }

    /// The same for the scorer of that number.
    pub(super) fn load_one(&self, path: &Path, scorer: usize) -> Result<ActiveModel, ModelError> {
        self.session(&self.verified(path)?, scorer)
    }

    fn verified(&self, path: &Path) -> Result<Bundle, ModelError> {
        let bundle = Bundle::open(path)?;
        if let Some(key) = &self.public_key {
            bundle::verify(&bundle, key)?;
        }
        Ok(bundle)
    }

    fn session(&self, bundle: &Bundle, scorer: usize) -> Result<ActiveModel, ModelError> {
        let model = Model::load(bundle, &SessionOptions { number: scorer, ..self.options.clone() })?;
        let with_region = |(camera, region): &(Arc<str>, Rectangle)| {
            let mut manifest = bundle.manifest.clone();
            manifest.preprocessing.region_of_interest = Some(*region);
            (camera.clone(), manifest)
        };
        Ok(ActiveModel {
            provider: model.provider(),
            model,
            by_camera: self.regions.iter().map(with_region).collect(),
            identity: bundle.identity.clone(),
            manifest: bundle.manifest.clone(),
        })
    }
}

/// Room for the models that wait to be taken over, one for each scorer, between two batches; newer
/// ones replace them.
#[derive(Debug, Default)]
pub(super) struct Successor(Mutex<Vec<Option<ActiveModel>>>);

impl Successor {
    /// The model that waits for the scorer of that number.
    pub(super) fn take(&self, scorer: usize) -> Option<ActiveModel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(scorer)?.take()
    }

    fn put(&self, models: Vec<ActiveModel>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = models.into_iter().map(Some).collect();
    }
}

/// Looks at the registry until stopped; loads a newly activated bundle beside the running one and
/// hands it over. `problem` is told why the newest bundle cannot be used, and when that is over.
pub(super) fn watch(
    loader: &Loader,
    mut running: PathBuf,
    scorers: usize,
    successor: &Successor,
    problem: &dyn Fn(Option<String>),
    stop: &StopFlag,
) {
    // A bundle that failed is not tried again until another one is activated.
    let mut failed: Option<PathBuf> = None;
    while !stop.wait(LOOK) {
        let path = match loader.current() {
            Ok(path) => path,
            Err(error) => {
                // Nothing names a bundle that this could be the failure of.
                tracing::warn!(error = %super::describe(&error), "registry unreadable: the model stays");
                continue;
            }
        };
        if path == running {
            if failed.take().is_some() {
                problem(None);
            }
            continue;
        }
        if failed.as_ref() == Some(&path) {
            continue;
        }
        tracing::info!(bundle = %path.display(), "loading the newly activated bundle");
        // As many as there are scorers, whatever provider it gets this time: none may stay with the former.
        match loader.load(&path, Some(scorers)) {
            Ok(models) => {
                successor.put(models);
                running = path;
                if failed.take().is_some() {
                    problem(None);
                }
            }
            Err(error) => {
                let text = super::describe(&error);
                tracing::error!(bundle = %path.display(), error = text, "active bundle unusable: the model stays");
                problem(Some(format!("the active bundle cannot be used, the former goes on: {text}")));
                failed = Some(path);
            }
        }
    }
}
