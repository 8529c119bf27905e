//! The engine of streams: the volumes that this node writes, from its log into the bucket and back.
//!
//! It knows no payload ([`payload`] is what it asks of one). It reads nothing of records' content,
//! of segments' blocks or of trees. A test of this crate checks that.

pub(crate) mod engine;
pub mod payload;
pub(crate) mod stream;
pub mod tail;

mod activity;
pub(crate) mod budget;
mod checkin;
mod collecting;
mod comeback;
mod creation;
mod deletion;
mod destage;
mod fence;
mod flush;
pub(crate) mod heavy;
mod idle;
mod naming;
mod open;
mod order;
mod paced;
pub(crate) mod parking;
pub(crate) mod pins;
mod pressure;
mod recover;
mod refs;
mod release;
pub(crate) mod scratch;
pub(crate) mod snaps;
mod snapshots;
pub(crate) mod state;
mod stuck;
mod supervise;
mod sweep;
mod task;
mod told;
pub(crate) mod turns;
mod waiting;

#[cfg(test)]
mod tests;
