//! The protocols of a bucket, explored exhaustively at a small scope.
//!
//! [`stream`] explores the take-over of a volume's stream, beside a collector. [`local`] explores
//! flush level `local`: the tail of a log, and an owner that was suspended. [`space`] explores
//! snapshots, clones, pins and their deletion, beside a collector's sweep. [`line`] explores an
//! owner's short passes, with rollbacks and clones of clones. [`deletion`] explores the end of a
//! volume, and [`pins`] the time of pins. The models' processes call the decision functions of
//! `skerry_core` (`takeover`, `hold`). The store and the network are the models' own. A test can
//! switch each rule off; then the explorer must find a run that breaks. `docs/protocols.md` has the
//! table. `cargo test -p skerry-core --test protocol -- --nocapture` prints the runs.

mod deletion;
mod explore;
mod keys;
mod line;
mod local;
mod pins;
mod space;
mod stream;
