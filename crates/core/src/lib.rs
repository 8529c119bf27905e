//! The IO-free heart of Skerry: ids, formats, and the functions that decide.
//!
//! Nothing here knows a file, a socket, a clock or a source of randomness: callers pass those in
//! through [`mod@env`]. `docs/format.md` describes the formats byte by byte. The planners and
//! protocols ([`takeover`], [`hold`], [`batch`], [`retry`], [`pace`]) turn observations into
//! decisions. `skerry-store` and `skerry-volume` carry the decisions out.
#![forbid(unsafe_code)]

pub mod batch;
pub mod dead;
pub mod descriptor;
pub mod entry;
pub mod env;
pub mod envelope;
pub mod extents;
pub mod frame;
pub mod hold;
pub mod holder;
pub mod id;
pub mod label;
pub mod liveness;
pub mod map_node;
pub mod name;
pub mod names;
pub mod ops;
pub mod overlay;
pub mod pace;
pub mod pins;
pub mod position;
pub mod record;
pub mod refs;
pub mod retry;
pub mod root;
pub mod seal;
pub mod segment;
pub mod size;
pub mod start;
pub mod takeover;
pub mod wall;
pub mod wire;

pub use wire::FormatError;
