//! Writes small ONNX files: just the protobuf fields that the tests need, numbered as in onnx.proto.

/// Element types of onnx.proto's `TensorProto.DataType`.
pub(crate) const F32: u64 = 1;
pub(crate) const U8: u64 = 2;
pub(crate) const BOOL: u64 = 9;
pub(crate) const I64: u64 = 7;

/// A dimension of a declared tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dim {
    Open(&'static str),
    Fixed(usize),
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(field: u64, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, field << 3);
    varint(&mut out, value);
    out
}

fn bytes(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, field << 3 | 2);
    varint(&mut out, value.as_ref().len() as u64);
    out.extend_from_slice(value.as_ref());
    out
}

/// A node with one output; the names of its inputs stand apart by blanks, its attributes are whole
/// numbers or lists of them.
pub(crate) fn node(operator: &str, inputs: &str, output: &str, attributes: &[(&str, &[u64])]) -> Vec<u8> {
    let mut node = inputs.split(' ').flat_map(|input| bytes(1, input)).collect::<Vec<_>>();
    node.extend([bytes(2, output), bytes(4, operator)].concat());
    for &(name, values) in attributes {
        // A list is 7 (INTS) in field 8, except for the attributes that are one number.
        let single = matches!(name, "to" | "keepdims" | "axis");
        let values = values.iter().flat_map(|&value| number(if single { 3 } else { 8 }, value)).collect::<Vec<_>>();
        let attribute = [bytes(1, name), values, number(20, if single { 2 } else { 7 })].concat();
        node.extend(bytes(5, attribute));
    }
    node
}

/// A node that gives a list of whole numbers.
pub(crate) fn numbers(output: &str, values: &[i64]) -> Vec<u8> {
    let data = values.iter().flat_map(|&value| number(7, value as u64)).collect::<Vec<_>>();
    let tensor = [number(1, values.len() as u64), number(2, I64), data].concat();
    // A tensor is 4 (TENSOR) in field 5.
    let attribute = [bytes(1, "value"), bytes(5, tensor), number(20, 4)].concat();
    [bytes(2, output), bytes(4, "Constant"), bytes(5, attribute)].concat()
}

/// The declaration of an input or output.
pub(crate) fn tensor(name: &str, element: u64, dims: &[Dim]) -> Vec<u8> {
    let dims = dims.iter().flat_map(|dim| match dim {
        Dim::Fixed(n) => bytes(1, number(1, *n as u64)),
        Dim::Open(name) => bytes(1, bytes(2, name)),
    });
    let shape = dims.collect::<Vec<_>>();
    let kind = bytes(1, [number(1, element), bytes(2, shape)].concat());
    [bytes(1, name), bytes(2, kind)].concat()
}

/// A whole file, operator set 13.
pub(crate) fn model(nodes: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>], metadata: &[(&str, &str)]) -> Vec<u8> {
    let fields = |field, parts: &[Vec<u8>]| parts.iter().flat_map(|part| bytes(field, part)).collect::<Vec<_>>();
    let graph = [fields(1, nodes), bytes(2, "test"), fields(11, inputs), fields(12, outputs)].concat();
    let mut file = [number(1, 8), bytes(8, number(2, 13)), bytes(7, graph)].concat();
    for (key, value) in metadata {
        file.extend(bytes(14, [bytes(1, key), bytes(2, value)].concat()));
    }
    file
}
