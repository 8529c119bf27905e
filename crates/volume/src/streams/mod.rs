//! The stream engine: what this node writes, from its log into the bucket and back.

pub mod node;
pub mod stream;
pub mod tail;

mod activity;
mod budget;
mod checkin;
mod collecting;
mod comeback;
mod deletion;
mod destage;
mod fence;
mod flush;
mod heavy;
mod idle;
mod naming;
pub(crate) mod open;
pub(crate) mod parking;
pub(crate) mod pins;
mod pressure;
mod recover;
mod refs;
mod scratch;
pub(crate) mod snaps;
mod snapshots;
pub(crate) mod state;
mod stuck;
mod sweep;
mod turns;
mod waiting;
