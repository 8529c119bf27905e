//! Space that nothing holds any more: deletes segments, and finds all that may hold them.

pub mod collect;
pub mod family;
