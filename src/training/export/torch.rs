//! Weight files of torch before 1.6: 21 fixed bytes, three pickles (machine, state dict, order of
//! the storages), then every storage as a 64-bit count and its raw numbers.

use std::collections::BTreeMap;

use super::error::WeightsError;
use super::pickle::{Unpickler, Value};
use super::rebuild::{Element, Tensor};

/// torch's magic number and protocol version 1001, each a pickle of its own.
const HEADER: [u8; 21] = [
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e, 0x80, 0x02, 0x4d, 0xe9,
    0x03, 0x2e,
];

/// The tensors of a state dict by name; numbers stay in the file's bytes until asked for.
#[derive(Debug)]
pub(super) struct StateDict<'a> {
    tensors: BTreeMap<&'a str, Tensor>,
    /// Per storage its element type and raw bytes.
    storages: Vec<(Element, &'a [u8])>,
}

impl<'a> StateDict<'a> {
    /// Reads a weight file's bytes. Never panics, and takes memory in proportion to their number.
    ///
    /// # Errors
    /// [`WeightsError`] when it is of another format, truncated, or holds anything but tensors.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, WeightsError> {
        if bytes.starts_with(b"PK\x03\x04") {
            return Err(WeightsError::ZipFormat);
        }
        if !bytes.starts_with(&HEADER) {
            return Err(WeightsError::NotTorch);
        }
        let mut unpickler = Unpickler::new(bytes, HEADER.len());
        check_machine(&mut unpickler)?;
        let state = unpickler.load()?;
        let order = unpickler.load()?;

        let tensors = tensors_by_name(&unpickler, state)?;
        let Value::List(order) = order else {
            return Err(WeightsError::Structure("the order of its storages is no list".into()));
        };
        let mut raw: Vec<Option<&'a [u8]>> = vec![None; unpickler.storages.len()];
        let mut position = unpickler.position();
        for key in unpickler.sequence(order) {
            let index = unpickler.storage_named(*key).filter(|&index| raw[index].is_none());
            let Some(index) = index else {
                return Err(WeightsError::Structure(format!("storage {key:?} is unknown or comes twice")));
            };
            let storage = unpickler.storages[index];
            let count = slice(bytes, position, 8, "the length of a storage")?;
            if count != (storage.count as u64).to_le_bytes() {
                return Err(WeightsError::Structure(format!(
                    "storage {} does not have the {} elements announced",
                    storage.key, storage.count
                )));
            }
            // No overflow: the count was checked against the file's size.
            let length = storage.count * storage.element.bytes();
            raw[index] = Some(slice(bytes, position + 8, length, "a storage")?);
            position += 8 + length;
        }
        if position != bytes.len() {
            let left = bytes.len() - position;
            return Err(WeightsError::Structure(format!("{left} bytes are left over after the last storage")));
        }
        let storages = unpickler.storages.iter().zip(raw).map(|(storage, raw)| match raw {
            Some(raw) => Ok((storage.element, raw)),
            None => Err(WeightsError::Structure(format!("storage {} has no numbers", storage.key))),
        });
        Ok(Self { tensors, storages: storages.collect::<Result<_, _>>()? })
    }

    /// The numbers of a tensor in row-major order.
    ///
    /// # Errors
    /// [`WeightsError`] when it is absent, of another shape, or not of finite 32-bit floats.
    pub(super) fn floats(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, WeightsError> {
        let named = || name.to_owned();
        let tensor = self.tensors.get(name).ok_or_else(|| WeightsError::MissingTensor { name: named() })?;
        if tensor.shape != expected {
            return Err(WeightsError::Shape {
                name: named(),
                found: tensor.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        let (Element::F32, raw) = self.storages[tensor.storage] else {
            return Err(WeightsError::ElementType { name: named() });
        };
        let (numbers, _) = raw.as_chunks::<4>();
        let elements: usize = tensor.shape.iter().product();
        let mut index = vec![0_usize; tensor.shape.len()];
        let mut floats = Vec::with_capacity(elements);
        for _ in 0..elements {
            let at = tensor.offset + index.iter().zip(&tensor.stride).map(|(i, stride)| i * stride).sum::<usize>();
            let value = f32::from_le_bytes(numbers[at]);
            if !value.is_finite() {
                return Err(WeightsError::Value { name: named(), value });
            }
            floats.push(value);
            for (i, &length) in index.iter_mut().zip(&tensor.shape).rev() {
                *i += 1;
                if *i < length {
                    break;
                }
                *i = 0;
            }
        }
        Ok(floats)
    }
}

fn check_machine(unpickler: &mut Unpickler<'_>) -> Result<(), WeightsError> {
    let machine = unpickler.load()?;
    let Value::Dict(machine) = machine else {
        return Err(WeightsError::Structure("the description of its machine is no dictionary".into()));
    };
    let entries = unpickler.dictionary(machine);
    match entries.iter().find(|(key, _)| *key == Value::Text("little_endian")) {
        Some((_, Value::Bool(true))) => Ok(()),
        Some((_, Value::Bool(false))) => Err(WeightsError::BigEndian),
        _ => Err(WeightsError::Structure("it does not say its byte order".into())),
    }
}

fn tensors_by_name<'a>(unpickler: &Unpickler<'a>, state: Value<'a>) -> Result<BTreeMap<&'a str, Tensor>, WeightsError> {
    let Value::Dict(state) = state else {
        return Err(WeightsError::Structure("the pickled object is no dictionary".into()));
    };
    let entries = unpickler.dictionary(state).iter().map(|entry| match *entry {
        (Value::Text(name), Value::Tensor(tensor)) => Ok((name, unpickler.tensors[tensor].clone())),
        (Value::Text(name), _) => Err(WeightsError::Structure(format!("{name} is no tensor"))),
        _ => Err(WeightsError::Structure("a key is no text".into())),
    });
    entries.collect()
}

fn slice<'a>(bytes: &'a [u8], from: usize, length: usize, what: &'static str) -> Result<&'a [u8], WeightsError> {
    bytes.get(from..from.saturating_add(length)).ok_or(WeightsError::Truncated {
        size: bytes.len(),
        needed: from as u64 + length as u64,
        what,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::training::export::pickle::PickleError;

    fn text(text: &str) -> Vec<u8> {
        [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
    }

    fn tuple(elements: &[Vec<u8>]) -> Vec<u8> {
        [b"(".as_slice(), &elements.concat(), b"t"].concat()
    }

    fn int(value: u8) -> Vec<u8> {
        vec![b'K', value]
    }

    /// A tensor in a storage of `count` elements, as `_rebuild_tensor_v2` is pickled.
    fn tensor(storage: &str, key: &str, count: u8, offset: u8, shape: &[u8], stride: &[u8]) -> Vec<u8> {
        let kind = format!("ctorch\n{storage}\n").into_bytes();
        let identity = tuple(&[text("storage"), kind, text(key), text("cpu"), int(count), b"N".to_vec()]);
        let lengths = |lengths: &[u8]| tuple(&lengths.iter().map(|&length| int(length)).collect::<Vec<_>>());
        let arguments =
            tuple(&[[identity, b"Q".to_vec()].concat(), int(offset), lengths(shape), lengths(stride), vec![0x89]]);
        [b"ctorch._utils\n_rebuild_tensor_v2\n".as_slice(), &arguments, b"R"].concat()
    }

    /// A whole file: one state dict entry per (name, tensor), storages of (key, raw numbers).
    fn file(entries: &[(&str, Vec<u8>)], storages: &[(&str, u64, Vec<u8>)]) -> Vec<u8> {
        let machine = [b"\x80\x02}".as_slice(), &text("little_endian"), b"\x88s."].concat();
        let mut state = b"\x80\x02ccollections\nOrderedDict\n)Rq\x01(".to_vec();
        for (name, tensor) in entries {
            state.extend([text(name), tensor.clone()].concat());
        }
        state.extend(b"u}X\x09\0\0\0_metadata)sb.");
        let keys: Vec<u8> = storages.iter().flat_map(|(key, ..)| text(key)).collect();
        let order = [b"\x80\x02](".as_slice(), &keys, b"e."].concat();
        let mut file = [HEADER.as_slice(), &machine, &state, &order].concat();
        for (_, count, raw) in storages {
            file.extend(count.to_le_bytes());
            file.extend(raw);
        }
        file
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn small() -> Vec<u8> {
        let entries = [
            ("plain", tensor("FloatStorage", "0", 6, 0, &[2, 3], &[3, 1])),
            ("transposed", tensor("FloatStorage", "0", 6, 0, &[3, 2], &[1, 3])),
            ("tail", tensor("FloatStorage", "0", 6, 4, &[2], &[1])),
            ("count", tensor("LongStorage", "1", 1, 0, &[], &[])),
        ];
        file(&entries, &[("1", 1, vec![7; 8]), ("0", 6, floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))])
    }

    #[test]
    fn views_are_read_through_their_offset_and_strides() {
        let bytes = small();
        let state = StateDict::read(&bytes).unwrap();
        assert_eq!(state.floats("plain", &[2, 3]).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(state.floats("transposed", &[3, 2]).unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(state.floats("tail", &[2]).unwrap(), [4.0, 5.0]);
    }

    #[test]
    fn a_tensor_that_is_not_what_is_needed_is_refused() {
        let bytes = small();
        let state = StateDict::read(&bytes).unwrap();
        assert!(matches!(state.floats("absent", &[1]), Err(WeightsError::MissingTensor { .. })));
        assert!(matches!(state.floats("plain", &[3, 2]), Err(WeightsError::Shape { .. })));
        assert!(matches!(state.floats("count", &[]), Err(WeightsError::ElementType { .. })));
        let bytes =
            file(&[("x", tensor("FloatStorage", "0", 2, 0, &[2], &[1]))], &[("0", 2, floats(&[1.0, f32::INFINITY]))]);
        let state = StateDict::read(&bytes).unwrap();
        assert!(matches!(state.floats("x", &[2]), Err(WeightsError::Value { .. })));
    }

    #[test]
    fn a_tensor_beyond_its_storage_and_a_repeating_view_are_refused() {
        for (offset, shape, stride) in [(1, [2, 3], [3, 1]), (0, [2, 3], [4, 1]), (0, [250, 250], [0, 0])] {
            let entries = [("x", tensor("FloatStorage", "0", 6, offset, &shape, &stride))];
            let error = StateDict::read(&file(&entries, &[("0", 6, vec![0; 24])])).unwrap_err();
            assert!(matches!(error, WeightsError::Pickle(PickleError::Malformed { .. })), "{error:?}");
        }
    }

    #[test]
    fn a_storage_that_contradicts_its_description_is_refused() {
        let entry = || [("x", tensor("FloatStorage", "0", 2, 0, &[2], &[1]))];
        let raw = || vec![0; 8];
        let structure = |bytes: &[u8]| match StateDict::read(bytes) {
            Err(WeightsError::Structure(problem)) => problem,
            other => panic!("{other:?}"),
        };
        assert!(structure(&file(&entry(), &[])).contains("no numbers"));
        assert!(structure(&file(&entry(), &[("0", 3, vec![0; 12])])).contains("2 elements announced"));
        assert!(structure(&file(&entry(), &[("0", 2, raw()), ("0", 2, raw())])).contains("twice"));
        assert!(structure(&file(&entry(), &[("other", 2, raw())])).contains("unknown"));
        assert!(structure(&file(&entry(), &[("0", 2, vec![0; 9])])).contains("1 bytes are left over"));
        let cut = file(&entry(), &[("0", 2, vec![0; 7])]);
        assert!(matches!(StateDict::read(&cut), Err(WeightsError::Truncated { .. })));
    }

    #[test]
    fn names_that_no_state_dict_needs_are_refused() {
        for name in ["cos\nsystem\n", "ctorch\nDoubleStorage\n", "c__builtin__\neval\n"] {
            let bytes = [HEADER.as_slice(), name.as_bytes(), b"."].concat();
            let error = StateDict::read(&bytes).unwrap_err();
            assert!(matches!(error, WeightsError::Pickle(PickleError::Global { .. })), "{error:?}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused_without_a_stack_overflow() {
        let bytes = [HEADER.as_slice(), b")", &vec![0x85; 3_000_000], b"."].concat();
        assert!(matches!(StateDict::read(&bytes), Err(WeightsError::Pickle(PickleError::TooLong))));
        let bytes = [HEADER.as_slice(), b")", &vec![0x85; 900_000], b"."].concat();
        assert!(matches!(StateDict::read(&bytes), Err(WeightsError::Structure(_))));
    }

    /// Reads a file and every tensor of it under its own shape; only a panic or hang would matter.
    fn read_all(bytes: &[u8]) {
        if let Ok(state) = StateDict::read(bytes) {
            for (name, tensor) in &state.tensors {
                let _ = state.floats(name, &tensor.shape);
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            read_all(&bytes);
            read_all(&[HEADER.as_slice(), &bytes].concat());
        }

        #[test]
        fn a_damaged_file_never_panics(
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
            length in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = small();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            read_all(&bytes);
        }

        #[test]
        fn instructions_in_any_order_never_panic(
            steps in prop::collection::vec(prop::sample::select(vec![
                b"(".to_vec(), b"N".to_vec(), b")".to_vec(), b"t".to_vec(), b"}".to_vec(), b"]".to_vec(), b"a".to_vec(),
                b"e".to_vec(), b"s".to_vec(), b"u".to_vec(), b"R".to_vec(), b"b".to_vec(), b"Q".to_vec(),
                b"\x85".to_vec(), b"\x86".to_vec(), b"\x87".to_vec(), b"\x88".to_vec(), b"K\x03".to_vec(),
                b"J\xff\xff\xff\xff".to_vec(), b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f".to_vec(),
                b"q\x01".to_vec(), b"h\x01".to_vec(), b".".to_vec(), b"ccollections\nOrderedDict\n".to_vec(),
                b"ctorch._utils\n_rebuild_tensor_v2\n".to_vec(), b"ctorch\nFloatStorage\n".to_vec(),
                text("storage"), tensor("FloatStorage", "0", 2, 0, &[2], &[1]),
            ]), 0..60)
        ) {
            let steps = steps.concat();
            read_all(&[HEADER.as_slice(), &steps].concat());
            let machine = [b"}".as_slice(), &text("little_endian"), b"\x88s."].concat();
            read_all(&[HEADER.as_slice(), &machine, &steps].concat());
        }
    }
}
