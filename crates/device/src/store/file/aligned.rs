//! A buffer whose memory direct IO takes.

/// The alignment that direct IO needs at most, of memory and of the file: a page.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// Bytes that begin at a multiple of [`ALIGN_BYTES`] in memory.
pub(crate) struct Aligned {
    /// Longer than needed. It never grows, so it never moves.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(crate) fn zeroed(len: usize) -> Self {
        let memory = vec![0; len + ALIGN_BYTES];
        let start = memory.as_ptr().align_offset(ALIGN_BYTES);
        Self { memory, start, len }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// True if direct IO takes this memory at this offset as it is.
pub(crate) fn is_aligned(offset: u64, memory: &[u8]) -> bool {
    offset.is_multiple_of(ALIGN_BYTES as u64)
        && memory.len().is_multiple_of(ALIGN_BYTES)
        && memory.as_ptr().align_offset(ALIGN_BYTES) == 0
}
