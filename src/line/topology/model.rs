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

/// Loads models as the configuration says.
#[derive(Debug, Clone)]
pub(super) struct Loader {
    bundle: Option<PathBuf>,
    registry: Option<PathBuf>,
    public_key: Option<PathBuf>,
    options: SessionOptions,
    regions: Vec<(Arc<str>, Rectangle)>,
}

impl Loader {
    pub(super) fn new(config: &ModelConfig, cameras: &[CameraConfig]) -> Self {
        let provider = |name: &ProviderName| match name {
            ProviderName::Tensorrt => Provider::Tensorrt,
            ProviderName::Cuda => Provider::Cuda,
            ProviderName::Openvino => Provider::Openvino,
            ProviderName::Cpu => Provider::Cpu,
        };
        Self {
            bundle: config.bundle.clone(),
            registry: config.registry.clone(),
            public_key: config.public_key_file.clone(),
            options: SessionOptions {
                providers: config.providers.iter().map(provider).collect(),
                required: config.required,
                threads: config.threads,
                spinning: config.spinning,
            },
            regions: cameras
                .iter()
                .filter_map(|camera| Some((camera.name.as_str().into(), camera.region_of_interest?)))
                .collect(),
        }
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

    /// Reads and verifies the bundle and makes a session of its own for it.
    pub(super) fn load(&self, path: &Path) -> Result<ActiveModel, ModelError> {
        let bundle = Bundle::open(path)?;
        if let Some(key) = &self.public_key {
            bundle::verify(&bundle, key)?;
        }
        let model = Model::load(&bundle, &self.options)?;
        let with_region = |(camera, region): &(Arc<str>, Rectangle)| {
            let mut manifest = bundle.manifest.clone();
            manifest.preprocessing.region_of_interest = Some(*region);
            (camera.clone(), manifest)
        };
        Ok(ActiveModel {
            provider: model.provider(),
            model,
            by_camera: self.regions.iter().map(with_region).collect(),
            identity: bundle.identity,
            manifest: bundle.manifest,
        })
    }
}

/// Room for one model that waits to be taken over between two batches; a newer one replaces it.
#[derive(Debug, Default)]
pub(super) struct Successor(Mutex<Option<ActiveModel>>);

impl Successor {
    pub(super) fn take(&self) -> Option<ActiveModel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, model: ActiveModel) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(model);
    }
}

/// Looks at the registry until stopped; loads a newly activated bundle beside the running one and
/// hands it over. `problem` is told why the newest bundle cannot be used, and when that is over.
pub(super) fn watch(
    loader: &Loader,
    mut running: PathBuf,
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
        match loader.load(&path) {
            Ok(model) => {
                successor.put(model);
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
