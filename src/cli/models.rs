//! `linegate models`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use crate::bundle::{self, Bundle};
use crate::registry::{Activation, Listed, Registry};

/// Arguments of `linegate models`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Registry folder
    #[arg(long, global = true, value_name = "DIR", default_value = "models")]
    registry: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the versions and what was activated when
    List,
    /// Copy a bundle into the registry
    Add {
        /// Bundle folder
        bundle: PathBuf,
        /// Activate it, too
        #[arg(long)]
        activate: bool,
    },
    /// Make a version active; a running line takes it over
    Activate {
        /// Version, as `list` shows it
        #[arg(id = "bundle_version", value_name = "VERSION")]
        version: String,
        /// Why, for the history
        #[arg(long, default_value = "by hand")]
        reason: String,
    },
    /// Make a pair of keys for signing bundles
    Keys {
        /// File for the private key, which stays with whoever releases models
        #[arg(long, value_name = "FILE")]
        private: PathBuf,
        /// File for the public key, for `model.public_key_file` of the line
        #[arg(long, value_name = "FILE")]
        public: PathBuf,
    },
    /// Sign a bundle, before it is added
    Sign {
        /// Bundle folder
        bundle: PathBuf,
        /// File with the private key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Check a bundle's files and signature
    Verify {
        /// Bundle folder
        bundle: PathBuf,
        /// File with the public key
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Make the version active that was active before
    Rollback,
    /// Show the manifest of a version
    Show {
        /// Version; without it the active one
        #[arg(id = "bundle_version", value_name = "VERSION")]
        version: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Overview {
    active: Option<String>,
    versions: Vec<Listed>,
    history: Vec<Activation>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    // Keys and signatures need no registry.
    match &arguments.action {
        Action::Keys { private, public } => {
            bundle::make_keys(private, public)?;
            println!("made {} (keep it secret) and {}", private.display(), public.display());
            return Ok(ExitCode::SUCCESS);
        }
        Action::Sign { bundle, key } => {
            let bundle = Bundle::open(bundle)?;
            bundle::sign(&bundle, key)?;
            println!("signed {} {}", bundle.identity.name, bundle.identity.version);
            return Ok(ExitCode::SUCCESS);
        }
        Action::Verify { bundle, key } => {
            let bundle = Bundle::open(bundle)?;
            bundle::verify(&bundle, key)?;
            println!("{} {} is whole and signed", bundle.identity.name, bundle.identity.version);
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let registry = Registry::open(&arguments.registry)?;
    match &arguments.action {
        Action::Keys { .. } | Action::Sign { .. } | Action::Verify { .. } => {}
        Action::List => list(&registry, arguments.json)?,
        Action::Add { bundle, activate } => {
            let version = registry.add(bundle)?;
            if *activate {
                said(&registry.activate(&version, "by hand")?, arguments.json)?;
            } else if arguments.json {
                println!("{}", serde_json::json!({ "version": version }));
            } else {
                println!("added {version}");
            }
        }
        Action::Activate { version, reason } => said(&registry.activate(version, reason)?, arguments.json)?,
        Action::Rollback => said(&registry.rollback()?, arguments.json)?,
        Action::Show { version } => show(&registry, version.as_deref(), arguments.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn said(activation: &Activation, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(activation)?);
    } else {
        let former = activation.former.as_deref().unwrap_or("nothing");
        println!("active: {} (before: {former})", activation.version);
    }
    Ok(())
}

fn list(registry: &Registry, json: bool) -> anyhow::Result<()> {
    let overview = Overview { active: registry.active()?, versions: registry.list()?, history: registry.history()? };
    if json {
        println!("{}", serde_json::to_string_pretty(&overview)?);
        return Ok(());
    }
    if overview.versions.is_empty() {
        println!("no versions yet: `linegate models add BUNDLE` copies one in");
    }
    let width = overview.versions.iter().map(|listed| listed.version.len()).max().unwrap_or(0);
    for listed in &overview.versions {
        let mark = if listed.active { '*' } else { ' ' };
        let what = match (&listed.problem, &listed.name, &listed.trained_at) {
            (Some(problem), _, _) => format!("BROKEN: {problem}"),
            (None, Some(name), Some(trained)) => format!("{name}, trained {trained}"),
            _ => String::new(),
        };
        println!("{mark} {:width$}  {what}", listed.version);
    }
    if let Some(active) =
        overview.active.filter(|active| overview.versions.iter().all(|listed| listed.version != *active))
    {
        println!("the active version {active} is not there: activate another one");
    }
    for activation in overview.history.iter().rev().take(10) {
        println!("{}  {}  {}", activation.at, activation.version, activation.reason);
    }
    Ok(())
}

fn show(registry: &Registry, version: Option<&str>, json: bool) -> anyhow::Result<()> {
    let bundle = match version {
        Some(version) => Bundle::open(&registry.path(version)?)?,
        None => registry.active_bundle()?.ok_or_else(|| anyhow::anyhow!("no version is active yet"))?,
    };
    let manifest = &bundle.manifest;
    if json {
        println!("{}", serde_json::to_string_pretty(manifest)?);
        return Ok(());
    }
    let provenance = &manifest.provenance;
    let image = &manifest.calibration.image;
    println!("{} {}", manifest.name, manifest.version);
    println!("  sha256      {}", bundle.identity.sha256);
    println!("  size        {}, {} levels", manifest.preprocessing.size, manifest.levels.len());
    println!("  trained     {} with {} ({})", provenance.trained_at, provenance.software, provenance.preset);
    println!(
        "  on          {} normal images, {} known defects",
        provenance.training_images,
        provenance.known_defects.len()
    );
    println!("  boundaries  suspect above {:.3}, reject above {:.3}", image.normal, image.abnormal);
    for warning in &manifest.calibration.set.warnings {
        println!("  warning     {warning}");
    }
    Ok(())
}
