//! Urgency of a frame.

use super::{Error, Result};

/// Urgency of a frame. A lower lane overtakes a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// A guest waits for it.
    Demand = 0,
    /// Hand-over, windows, and all that names no block.
    Control = 1,
    /// Blocks that changed since they were sent.
    Dirty = 2,
    /// Blocks of the initial pass.
    Bulk = 3,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Demand, Self::Control, Self::Dirty, Self::Bulk];

    /// Reads the lane of a head.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownLane`] above 3.
    pub fn from_number(lane: u8) -> Result<Self> {
        Self::ALL.get(usize::from(lane)).copied().ok_or(Error::UnknownLane { lane })
    }

    /// Number in a head.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}
