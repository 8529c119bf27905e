//! Maps and their liveness: reading them, and writing new ones from old ones and changes.

pub mod changes;
pub mod checkpoint;
pub mod dead;
pub mod liveness;
pub mod node_writer;
pub mod nodes;
pub mod tree;
pub mod update;
