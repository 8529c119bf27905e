//! Age of a block's bytes.

/// Number of an authority. Each hand-over raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// Running number of the source's reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

/// Age of a block's bytes: a higher stamp of a block has newer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// Authority under which the source read them.
    pub epoch: Epoch,
    /// Read that returned them.
    pub generation: Generation,
}
