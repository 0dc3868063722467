//! The model: found, whole, loaded on an execution provider.

use super::Trial;
use crate::bundle::{Bundle, read_active};
use crate::cli::session_options;
use crate::config::ModelConfig;
use crate::scoring::{Model, initialise};

pub(super) fn check(config: &ModelConfig) -> Vec<Trial> {
    let mut trials = Vec::new();
    if let Err(error) = initialise(None) {
        trials.push(Trial::error("ONNX Runtime", error));
    } else {
        trials.push(Trial::ok("ONNX Runtime", "loaded"));
    }
    let path = match (&config.bundle, &config.registry) {
        (Some(bundle), _) => bundle.clone(),
        (None, Some(registry)) => match read_active(registry) {
            Ok(Some(path)) => path,
            Ok(None) => {
                trials.push(Trial::fail(
                    "model",
                    format!(
                        "nothing is active in {}: `linegate models --registry {0} add BUNDLE --activate`",
                        registry.display()
                    ),
                ));
                return trials;
            }
            Err(error) => {
                trials.push(Trial::error("model", error));
                return trials;
            }
        },
        (None, None) => return trials,
    };
    let bundle = match Bundle::open(&path) {
        Ok(bundle) => bundle,
        Err(error) => {
            trials.push(Trial::error("model", error));
            return trials;
        }
    };
    if let Some(key) = &config.public_key_file
        && let Err(error) = crate::bundle::verify(&bundle, key)
    {
        trials.push(Trial::error("model", error));
        return trials;
    }
    let identity = &bundle.identity;
    let options = session_options(config);
    trials.push(if trials[0].ok {
        match Model::load(&bundle, &options) {
            Ok(model) => {
                let got = model.provider();
                let wished = options.providers.first().filter(|wished| **wished != got);
                let missed = wished.map(|wished| format!(" ({wished:?} was wished and could not be had)"));
                let detail = format!(
                    "{} {} of size {} runs on {got:?}{}",
                    identity.name,
                    identity.version,
                    bundle.manifest.preprocessing.size,
                    missed.unwrap_or_default()
                );
                Trial::ok("model", detail)
            }
            Err(error) => Trial::error("model", error),
        }
    } else {
        Trial::fail("model", format!("{} {} is whole, but nothing can run it", identity.name, identity.version))
    });
    trials
}
