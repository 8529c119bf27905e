//! Blocks on their way to the wire and back: hashes, compression, zeros, and "have you this?".
//!
//! Participants: a *packer* of the sender turns bytes into extents or ranges of zeros. The receiver
//! calls [`unpack`], which gives bytes only if they have the extent's hash.
//!
//! Goals: a flipped bit anywhere is found before anything is written; data that does not compress
//! costs little more than no compression. Non-goals: reading and writing devices.
//!
//! Must hold: `unpack` allocates no more than the extent's length, which the codec bounds.
mod pack;
mod question;
#[cfg(test)]
mod tests;
mod unpack;

pub use pack::{Packed, Packer, hash, is_zero};
pub use question::{answer, lacking};
pub use unpack::{Damaged, unpack};
