//! Connections between nodes that copy blocks of devices to each other.
//!
//! Participants: the *sender* has devices, and the *receiver* decides whether it takes them. Both
//! are *peers* of one *session*, which has one connection or several. `docs/transfer.md` has the
//! messages and their rules.
//!
//! ```text
//! blocks ─► session ─► lanes ─► codec ─► connection ═══ TLS or Unix socket ═══ peer
//! ```
//!
//! Goals: bounded memory whatever a peer sends; demand before all else; a lost peer becomes a
//! typed error. Non-goals: who owns a device, which blocks are sent when, names and access rules.
//!
//! Must hold: nothing here reads or writes a device, a file or a setting.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod codec;
pub mod connection;
pub mod lanes;
pub mod session;
