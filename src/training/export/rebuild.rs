//! What the four names that a pickled state dict may use stand for: an ordered dictionary, two
//! types of storage, and a tensor as a view into a storage.

use super::pickle::{PickleError, Unpickler, Value};

/// The most dimensions a tensor may have.
const MAX_RANK: usize = 8;

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    I64,
}

impl Element {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::I64 => 8,
        }
    }
}

/// A name that a pickle may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    Storage(Element),
}

/// A block of numbers that the description announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) element: Element,
    pub(super) count: usize,
}

/// A view into a storage: `offset`, `shape` and `stride` in elements, checked against its count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) storage: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

impl<'a> Unpickler<'a> {
    pub(super) fn global(&mut self) -> Result<Global, PickleError> {
        match (self.line()?, self.line()?) {
            ("collections", "OrderedDict") => Ok(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Ok(Global::RebuildTensor),
            ("torch", "FloatStorage") => Ok(Global::Storage(Element::F32)),
            ("torch", "LongStorage") => Ok(Global::Storage(Element::I64)),
            (module, name) => Err(PickleError::Global { name: format!("{module}.{name}"), at: self.at }),
        }
    }

    pub(super) fn reduce(&mut self, callable: Value<'a>, arguments: Value<'a>) -> Result<(), PickleError> {
        let Value::Tuple(arguments) = arguments else {
            return Err(self.malformed("arguments are no tuple"));
        };
        let arguments = self.sequence(arguments);
        match (callable, arguments) {
            (Value::Global(Global::OrderedDict), []) => self.push_dictionary(),
            (
                Value::Global(Global::RebuildTensor),
                &[Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(stride), ..],
            ) => {
                let tensor = self.tensor(storage, offset, shape, stride)?;
                self.tensors.push(tensor);
                self.stack.push(Value::Tensor(self.tensors.len() - 1));
            }
            _ => return Err(self.malformed("unexpected call")),
        }
        Ok(())
    }

    fn tensor(&self, storage: usize, offset: i64, shape: usize, stride: usize) -> Result<Tensor, PickleError> {
        let lengths = |index| -> Result<Vec<usize>, PickleError> {
            let of = |value: &Value<'_>| match value {
                Value::Int(length) => usize::try_from(*length).ok(),
                _ => None,
            };
            let lengths: Option<Vec<usize>> = self.sequence(index).iter().take(MAX_RANK + 1).map(of).collect();
            lengths.ok_or(self.malformed("a length of a tensor is no count"))
        };
        let (shape, stride) = (lengths(shape)?, lengths(stride)?);
        let offset = usize::try_from(offset).map_err(|_| self.malformed("negative offset"))?;
        if shape.len() > MAX_RANK || shape.len() != stride.len() {
            return Err(self.malformed("shape and stride of a tensor do not fit"));
        }
        let count = self.storages.get(storage).ok_or(self.malformed("unknown storage"))?.count;
        let elements = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        let last = shape.iter().zip(&stride).try_fold(offset, |last, (&length, &stride)| {
            last.checked_add(length.saturating_sub(1).checked_mul(stride)?)
        });
        match (elements, last) {
            // A view that repeats elements could ask for more memory than the file has bytes.
            (Some(elements), Some(last)) if elements <= count && (last < count || elements == 0) => {
                Ok(Tensor { storage, offset, shape, stride })
            }
            _ => Err(self.malformed("tensor reaches beyond its storage")),
        }
    }

    pub(super) fn storage(&mut self, identity: Value<'a>) -> Result<(), PickleError> {
        let Value::Tuple(identity) = identity else {
            return Err(self.malformed("identity of a storage is no tuple"));
        };
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(element)),
            Value::Text(key),
            Value::Text(_location),
            Value::Int(count),
            Value::None,
        ] = self.sequence(identity)
        else {
            return Err(self.malformed("identity of a storage has another form"));
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|count| count.checked_mul(element.bytes()).is_some_and(|bytes| bytes <= self.bytes.len()))
            .ok_or(self.malformed("storage is larger than the file"))?;
        let storage = Storage { key, element, count };
        let index = *self.by_key.entry(key).or_insert_with(|| {
            self.storages.push(storage);
            self.storages.len() - 1
        });
        if self.storages[index] != storage {
            return Err(self.malformed("one storage with two sizes or types"));
        }
        self.stack.push(Value::Storage(index));
        Ok(())
    }
}
