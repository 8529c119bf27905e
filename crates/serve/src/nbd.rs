//! The NBD server: fixed newstyle negotiation, structured replies, `base:allocation`.
//!
//! In layers, each of which knows only those above it in this list:
//!
//! - [`wire`]: every number and message of the protocol, as pure encoding and decoding;
//! - `check`: the check of a request's form, as a pure function of request and geometry;
//! - `negotiate`: from the first byte of a connection to an opened export;
//! - `session`: requests and replies;
//! - `server`: listeners, limits, counting, shutting down; `threads`: what sessions run on.
//!   `quiet`: a bound on lines about clients.
//!
//! Missing: TLS (`STARTTLS` is answered with "unsupported"; negotiation and session run over any
//! `AsyncRead + AsyncWrite`, which is the seam for it), extended headers, the oldstyle handshake.

mod budget;
mod check;
mod control;
mod input;
mod limits;
mod negotiate;
mod quiet;
mod server;
mod session;
mod threads;
pub mod wire;

pub use limits::Limits;
pub use server::{Drained, Server};
pub use threads::SessionThreads;
