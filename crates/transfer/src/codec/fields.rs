//! Reads the fields of a payload one after the other. Each read checks what is left.

use bytes::{Buf, Bytes};

use super::{Error, Kind, Result};

/// Rest of a payload.
pub(super) struct Fields {
    kind: Kind,
    left: Bytes,
}

impl Fields {
    pub(super) fn new(kind: Kind, payload: Bytes) -> Self {
        Self { kind, left: payload }
    }

    fn checked<T>(&self, value: std::result::Result<T, bytes::TryGetError>) -> Result<T> {
        value.map_err(|_| Error::WrongLength { kind: self.kind })
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        let value = self.left.try_get_u8();
        self.checked(value)
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong_field(field)),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        let value = self.left.try_get_u16_le();
        self.checked(value)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        let value = self.left.try_get_u32_le();
        self.checked(value)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        let value = self.left.try_get_u64_le();
        self.checked(value)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        let copied = self.left.try_copy_to_slice(&mut array);
        self.checked(copied)?;
        Ok(array)
    }

    /// Takes bytes without copying them.
    pub(super) fn bytes(&mut self, length: usize) -> Result<Bytes> {
        if length > self.left.len() {
            return Err(self.wrong_length());
        }
        Ok(self.left.split_to(length))
    }

    /// Takes all that is left.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.left)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Reads a list that fills the payload, of entries with `entry_bytes` bytes or more each.
    pub(super) fn list<T>(
        &mut self,
        entry_bytes: usize,
        limit: usize,
        mut entry: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut entries = Vec::with_capacity((self.left.len() / entry_bytes).min(limit));
        while !self.is_empty() {
            if entries.len() == limit {
                return Err(self.wrong_count(limit + 1, limit));
            }
            entries.push(entry(self)?);
        }
        if entries.is_empty() {
            return Err(self.wrong_count(0, limit));
        }
        Ok(entries)
    }

    /// Fails unless the payload ended.
    pub(super) fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(self.wrong_length()) }
    }

    pub(super) fn wrong_field(&self, field: &'static str) -> Error {
        Error::WrongField { kind: self.kind, field }
    }

    pub(super) fn wrong_count(&self, count: usize, limit: usize) -> Error {
        Error::WrongCount { kind: self.kind, count, limit }
    }

    fn wrong_length(&self) -> Error {
        Error::WrongLength { kind: self.kind }
    }
}
