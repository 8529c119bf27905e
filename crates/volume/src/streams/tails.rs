//! Tails: the records of a volume that only the log has, or a parked log of their own.

pub(crate) mod parked;
pub(crate) mod parking;
pub mod tail;
