//! Frames and messages as bytes. Does no IO, and checks each length before it allocates anything.
//!
//! A [`Head`] says how long a payload is. [`Message::decode`] reads a payload, and shares its bytes
//! instead of copying them. [`Message::encode`] appends a frame to [`Pieces`].
//!
//! Must hold: `decode` after `encode` gives the message back, and no input makes `decode` panic.
mod block;
mod error;
mod fields;
mod head;
mod hello;
mod kind;
mod lane;
mod message;
mod offer;
mod pieces;
mod stamp;
#[cfg(test)]
mod tests;

pub use block::{
    Compression, EXTENT_BYTES_MAX, EXTENTS_MAX, Extent, HASH_BYTES, Hash, Named, Range, Stamped,
};
pub use error::{Error, Result};
pub use head::{
    CONTROL_PAYLOAD_BYTES_MAX, DEVICE_NUMBERS_MAX, DeviceNumber, HEAD_BYTES, Head,
    PAYLOAD_BYTES_MAX,
};
pub use hello::{CONNECTIONS_MAX, Hello, Id, VERSION};
pub use kind::Kind;
pub use lane::Lane;
pub use message::{Message, Reason, TEXT_BYTES_MAX};
pub use offer::{Accepted, DEVICES_MAX, Offer, Offered};
pub use pieces::Pieces;
pub use stamp::{Epoch, Generation, Stamp};
