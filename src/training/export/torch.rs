//! Weight files of torch before 1.6: 21 fixed bytes, three pickles (machine, state dict, order of
//! the storages), then every storage as a 64-bit count and its raw numbers.

use std::collections::BTreeMap;

use super::error::WeightsError;
use super::pickle::{Element, Tensor, Unpickler, Value};

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
