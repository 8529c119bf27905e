//! The protocols of a bucket, explored exhaustively at a small scope.
//!
//! [`stream`] is taking over a volume's stream, beside a collector; [`local`] is flush level `local`:
//! the tail of a log, and an owner that was suspended; [`space`] is snapshots, clones, pins and their
//! deletion, beside a collector's sweep; [`line`] is an owner's short passes, with rollbacks and clones of clones;
//! [`deletion`] is the end of a volume, [`pins`] the time of pins. The processes of the models call the decision functions of
//! `skerry_core` (`takeover`, `hold`); the store and the network are the models' own. Every rule can
//! be switched off, and then a run must be found that breaks. `docs/protocols.md` has the table.
//! `cargo test -p skerry-core --test protocol -- --nocapture` prints the runs.

mod deletion;
mod explore;
mod keys;
mod line;
mod local;
mod pins;
mod space;
mod stream;
