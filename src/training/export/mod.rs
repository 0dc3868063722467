//! From backbone and trained flows to one ONNX file. The only room that knows ONNX's protobuf.
