//! Compiles the ONNX protobuf schema with a pure-Rust compiler, so that no `protoc` is needed.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
