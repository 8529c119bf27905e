//! Copies of fetched data. Losing any of it is harmless.

pub mod disk;
pub(crate) mod flight;
