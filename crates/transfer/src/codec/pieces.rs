//! Encoded frames, ready to be written.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes from this length on are shared, and shorter ones copied beside their neighbours: each
/// piece becomes a TLS record at least.
const SHARED_BYTES_MIN: usize = 32 << 10;

/// Encoded frames as a list of pieces to be written in order.
#[derive(Debug, Default)]
pub struct Pieces {
    done: VecDeque<Bytes>,
    open: BytesMut,
    total_bytes: usize,
}

impl Pieces {
    /// Takes the next piece.
    pub fn pop(&mut self) -> Option<Bytes> {
        let piece = self
            .done
            .pop_front()
            .or_else(|| (!self.open.is_empty()).then(|| self.open.split().freeze()))?;
        self.total_bytes -= piece.len();
        Some(piece)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total_bytes
    }

    /// Says whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total_bytes == 0
    }

    pub(super) fn slice(&mut self, bytes: &[u8]) {
        self.open.put_slice(bytes);
        self.total_bytes += bytes.len();
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.slice(&[value]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARED_BYTES_MIN {
            return self.slice(bytes);
        }
        if !self.open.is_empty() {
            self.done.push_back(self.open.split().freeze());
        }
        self.done.push_back(bytes.clone());
        self.total_bytes += bytes.len();
    }
}
