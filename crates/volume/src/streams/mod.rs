//! The engine of streams: the volumes that this node writes, from its log into the bucket and back.
//!
//! It knows no payload ([`stream::payload`] is what it asks of one). It reads nothing of records'
//! content, of segments' blocks or of trees. A test of this crate checks that.
//!
//! The folders are layers, from above; no layer imports one above it, and the same test holds that:
//!
//! * [`engine`] has the open volumes: it opens and closes them, and carries commands out.
//! * [`snapshots`] takes snapshots and deletes them, pins them, and collects after them.
//! * [`mod@write`] brings records into the bucket.
//! * [`stream`] is a volume: its state, its fence, its refs, its payload.
//! * [`tails`] reads a volume's records from the log, and parks them.

pub(crate) mod engine;
pub(crate) mod snapshots;
pub(crate) mod stream;
pub(crate) mod tails;
pub(crate) mod write;

pub(crate) mod budget;
pub(crate) mod heavy;
mod order;
pub(crate) mod scratch;
mod supervise;
mod task;
mod throttle;
pub(crate) mod turns;

#[cfg(test)]
mod tests;
