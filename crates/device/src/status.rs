//! The answer to the question what a device stores.

/// A range of a device, and whether anything is stored for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusRange {
    /// Offset, bytes.
    pub offset: u64,
    /// Length, bytes.
    pub length: u64,
    /// True if nothing is stored: it reads as zeros.
    pub hole: bool,
}
