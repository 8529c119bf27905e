//! Snapshots: taking them, deleting them, putting a volume back to one, reading them, and
//! collecting after them.

pub(crate) mod collecting;
pub(crate) mod cut;
pub(crate) mod pins;
