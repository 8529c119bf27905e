//! The control API: its protobuf messages, a typed client, and the way of errors over the wire.
//!
//! Participants: a *node*, which serves [`v1::control_server::Control`]; a *client* (the command
//! line, a program), which finds it at an [`Address`] and asks through a [`Client`].
//!
//! Nothing here knows the engine. Must hold: the client sees the kind of error that the node
//! answered with ([`status`] has the one table). Fields of messages are only ever added
//! (`proto/wire.txt` lists them all; a test compares).
#![forbid(unsafe_code)]

pub mod address;
pub mod client;
pub mod status;

/// The messages and services of `skerry.v1`, as generated.
#[allow(missing_docs, unreachable_pub, clippy::too_many_lines)]
pub mod v1 {
    tonic::include_proto!("skerry.v1");
}

pub use address::Address;
pub use client::Client;
pub use status::{Error, ErrorKind, Result};

/// The most bytes of content in one message of an import or export. Messages this large cost
/// little, and stay well below gRPC's limit of 4 MiB.
pub const PIECE_BYTES_MAX: usize = 1 << 20;
