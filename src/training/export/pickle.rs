//! A restricted reader of Python pickles: the opcodes that torch's state dicts use, and no global
//! but the four that they need. Nothing is ever imported or called; an object is data in an arena,
//! so that neither depth nor sharing costs stack or copies. Source: Python's `pickletools`.

use std::collections::HashMap;

use super::rebuild::{Global, Storage, Tensor};

/// The most steps one pickle may take; a state dict of a thousand tensors takes about 40,000.
const MAX_STEPS: usize = 1_000_000;

/// Why a pickle cannot be read. Positions are bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// The file ends inside an instruction.
    #[error("the file ends inside the instruction at byte {at}")]
    Truncated {
        /// Position of the instruction.
        at: usize,
    },
    /// An instruction that no state dict needs.
    #[error("instruction 0x{opcode:02x} at byte {at} is refused: no state dict needs it")]
    Opcode {
        /// The instruction.
        opcode: u8,
        /// Its position.
        at: usize,
    },
    /// A name that no state dict needs.
    #[error("{name} at byte {at} is refused: save the plain state dict of 32-bit floats, not a whole model")]
    Global {
        /// Python's name.
        name: String,
        /// Position.
        at: usize,
    },
    /// An instruction whose operands make no sense.
    #[error("the instruction at byte {at} is malformed: {what}")]
    Malformed {
        /// Its position.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// More steps than any state dict takes.
    #[error("it takes more than {MAX_STEPS} steps: no state dict does")]
    TooLong,
}

/// A value; containers are indices into the [`Unpickler`]'s arenas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Text(&'a str),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

/// Reads consecutive pickles from a file's bytes.
#[derive(Debug)]
pub(super) struct Unpickler<'a> {
    pub(super) bytes: &'a [u8],
    position: usize,
    /// Position of the instruction in progress.
    pub(super) at: usize,
    pub(super) stack: Vec<Value<'a>>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    sequences: Vec<Vec<Value<'a>>>,
    dictionaries: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) by_key: HashMap<&'a str, usize>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor>,
}

impl<'a> Unpickler<'a> {
    pub(super) fn new(bytes: &'a [u8], position: usize) -> Self {
        Self {
            bytes,
            position,
            at: position,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            sequences: Vec::new(),
            dictionaries: Vec::new(),
            by_key: HashMap::new(),
            storages: Vec::new(),
            tensors: Vec::new(),
        }
    }

    /// Bytes from the start of the file to the end of the last pickle read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Elements of a list or tuple.
    pub(super) fn sequence(&self, index: usize) -> &[Value<'a>] {
        self.sequences.get(index).map_or(&[], Vec::as_slice)
    }

    /// Entries of a dictionary, in order of insertion.
    pub(super) fn dictionary(&self, index: usize) -> &[(Value<'a>, Value<'a>)] {
        self.dictionaries.get(index).map_or(&[], Vec::as_slice)
    }

    /// Index of the storage with this key.
    pub(super) fn storage_named(&self, key: Value<'a>) -> Option<usize> {
        match key {
            Value::Text(key) => self.by_key.get(key).copied(),
            _ => None,
        }
    }

    /// Reads the next pickle.
    pub(super) fn load(&mut self) -> Result<Value<'a>, PickleError> {
        self.stack.clear();
        self.marks.clear();
        self.memo.clear();
        for _ in 0..MAX_STEPS {
            self.at = self.position;
            let opcode = self.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
        Err(PickleError::TooLong)
    }

    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            0x80 => {
                let version = self.take(1)?[0];
                if version > 5 {
                    return Err(self.malformed("pickle protocol beyond 5"));
                }
            }
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' => {
                let value = self.take(1)?[0];
                self.stack.push(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.stack.push(Value::Int(value.into()));
            }
            0x8a => {
                let value = self.long()?;
                self.stack.push(Value::Int(value));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                let text = std::str::from_utf8(self.take(length)?).map_err(|_| self.malformed("text is not UTF-8"))?;
                self.stack.push(Value::Text(text));
            }
            b'}' => self.push_dictionary(),
            b']' => {
                let list = self.new_sequence(Vec::new());
                self.stack.push(Value::List(list));
            }
            b')' => self.push_tuple(Vec::new()),
            b't' => {
                let elements = self.pop_to_mark()?;
                self.push_tuple(elements);
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let from = self.floor(count)?;
                let elements = self.stack.split_off(from);
                self.push_tuple(elements);
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.pop_to_mark()?;
                self.append(values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(&[key, value])?;
            }
            b'u' => {
                let entries = self.pop_to_mark()?;
                self.insert(&entries)?;
            }
            b'q' => {
                let slot = self.take(1)?[0];
                self.remember(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot)?;
            }
            b'h' => {
                let slot = self.take(1)?[0];
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            b'c' => {
                let global = self.global()?;
                self.stack.push(Value::Global(global));
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.reduce(callable, arguments)?;
            }
            b'b' => {
                // The state of a state dict is its `_metadata` of versions, which nothing needs.
                let (_state, target) = (self.pop()?, self.pop()?);
                if !matches!(target, Value::Dict(_)) {
                    return Err(self.malformed("state for something that is no dictionary"));
                }
                self.stack.push(target);
            }
            b'Q' => {
                let identity = self.pop()?;
                self.storage(identity)?;
            }
            opcode => return Err(PickleError::Opcode { opcode, at: self.at }),
        }
        Ok(())
    }

    pub(super) fn malformed(&self, what: &'static str) -> PickleError {
        PickleError::Malformed { at: self.at, what }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.position.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.position..end));
        let taken = taken.ok_or(PickleError::Truncated { at: self.at })?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        // No permitted name is longer; without a limit each attempt would search the whole file.
        let ahead = &self.bytes[self.position..self.bytes.len().min(self.position + 128)];
        let length = ahead.iter().position(|&b| b == b'\n').ok_or(PickleError::Truncated { at: self.at })?;
        let text = std::str::from_utf8(&ahead[..length]).map_err(|_| self.malformed("name is not UTF-8"))?;
        self.position += length + 1;
        Ok(text)
    }

    fn long(&mut self) -> Result<i64, PickleError> {
        let length = usize::from(self.take(1)?[0]);
        let bytes = self.take(length)?;
        if length > 8 {
            return Err(self.malformed("integer of more than 8 bytes"));
        }
        let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 };
        let mut out = [fill; 8];
        out[..length].copy_from_slice(bytes);
        Ok(i64::from_le_bytes(out))
    }

    fn pop(&mut self) -> Result<Value<'a>, PickleError> {
        self.floor(1)?;
        self.stack.pop().ok_or(self.malformed("nothing on the stack"))
    }

    /// Where the topmost `count` values start; they may not lie below the latest mark.
    fn floor(&self, count: usize) -> Result<usize, PickleError> {
        let lowest = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|&from| from >= lowest);
        from.ok_or(self.malformed("too few values on the stack"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>, PickleError> {
        let mark = self.marks.pop().ok_or(self.malformed("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn new_sequence(&mut self, elements: Vec<Value<'a>>) -> usize {
        self.sequences.push(elements);
        self.sequences.len() - 1
    }

    fn push_tuple(&mut self, elements: Vec<Value<'a>>) {
        let tuple = self.new_sequence(elements);
        self.stack.push(Value::Tuple(tuple));
    }

    pub(super) fn push_dictionary(&mut self) {
        self.dictionaries.push(Vec::new());
        self.stack.push(Value::Dict(self.dictionaries.len() - 1));
    }

    fn append(&mut self, values: Vec<Value<'a>>) -> Result<(), PickleError> {
        let Some(&Value::List(list)) = self.stack.last() else {
            return Err(self.malformed("append to something that is no list"));
        };
        self.sequences[list].extend(values);
        Ok(())
    }

    fn insert(&mut self, entries: &[Value<'a>]) -> Result<(), PickleError> {
        let Some(&Value::Dict(dictionary)) = self.stack.last() else {
            return Err(self.malformed("entry for something that is no dictionary"));
        };
        let (pairs, rest) = entries.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.malformed("key without a value"));
        }
        self.dictionaries[dictionary].extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), PickleError> {
        let top = *self.stack.last().ok_or(self.malformed("nothing to remember"))?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), PickleError> {
        let value = *self.memo.get(&slot).ok_or(self.malformed("nothing remembered under this number"))?;
        self.stack.push(value);
        Ok(())
    }
}
