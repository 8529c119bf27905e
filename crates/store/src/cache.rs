//! What is kept so that it need not be fetched twice. Losing any of it is harmless.

pub mod disk;
pub(crate) mod flight;
