//! The node's identity: an id that is made once for a data directory, and the host's name.

use std::path::Path;

use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Entropy;
use skerry_core::id::NodeId;

use crate::home::layout::Layout;
use crate::home::note;

/// A node, for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its id, for the life of its data directory.
    pub(crate) node: NodeId,
    /// The name by which people know it.
    pub(crate) host: String,
}

/// The note that keeps the id.
#[derive(Serialize, Deserialize)]
struct IdentityNote {
    node: String,
}

impl Identity {
    /// Reads the node's id, or makes one. The caller holds the directory's lock.
    pub(crate) fn open(layout: &Layout, host: String, entropy: &dyn Entropy) -> Result<Self> {
        let path = layout.identity();
        let found = note::read::<IdentityNote>(&path).map_err(|error| irreplaceable(&error))?;
        let node = match found {
            Some(found) => found.node.parse().map_err(|_| irreplaceable(&no_id(&path)))?,
            None => {
                let node = NodeId::random(entropy);
                note::write(&path, &IdentityNote { node: node.to_string() })?;
                node
            }
        };
        Ok(Self { node, host })
    }
}

/// The host's name, or the node's name in the settings.
pub(crate) fn host(name: Option<&str>) -> String {
    match name {
        Some(name) => name.to_owned(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

fn no_id(path: &Path) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} holds no node id", path.display()))
}

/// Adds advice to the error of an unreadable id.
fn irreplaceable(error: &Error) -> Error {
    let advice = "restore it: without it the node can't prove that its log is its own";
    Error::new(error.kind(), format!("{error}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemEntropy;

    #[test]
    fn the_id_is_made_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        let open = || Identity::open(&layout, host(Some("h")), &SystemEntropy);
        let first = open().expect("made");
        assert_eq!(open().expect("read"), first);
        std::fs::write(layout.identity(), "node = 'x'").expect("written");
        let error = open().expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("node.toml"), "{error}");
    }

    #[test]
    fn a_half_written_id_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        std::fs::write(dir.path().join("node.toml.new"), "node = ").expect("written");
        Identity::open(&layout, host(None), &SystemEntropy).expect("made");
    }
}
