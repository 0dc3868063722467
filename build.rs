//! Compiles the ONNX protobuf schema with a pure-Rust compiler, so that no `protoc` is needed.

use std::path::Path;

const FOLDER: &str = "src/training/export";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={FOLDER}/onnx.proto");
    // The whole schema, not the messages in use alone: prost drops fields that it does not know,
    // and a backbone must come out of a read and a write as it went in.
    let schema = protox::compile([Path::new(FOLDER).join("onnx.proto")], [FOLDER])?;
    prost_build::Config::new().compile_fds(schema)?;
    Ok(())
}
