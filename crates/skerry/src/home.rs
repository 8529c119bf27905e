//! The data directory of a node: its files, its locks, and what the node knows of itself.

pub(crate) mod bucket_place;
pub(crate) mod claim;
pub(crate) mod identity;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod log_place;
pub(crate) mod log_room;
pub(crate) mod machine;
pub(crate) mod note;
pub(crate) mod parked;
pub(crate) mod slots;
