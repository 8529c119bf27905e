//! Who the node is: an id that is made once for a data directory, and the host's name.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::env::Entropy;
use skerry_core::id::NodeId;

use crate::layout::{Layout, failed};

/// A node, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its id, for as long as its data directory lives.
    pub(crate) node: NodeId,
    /// The name by which people know it.
    pub(crate) host: String,
}

/// The file that keeps the id.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    node: String,
}

impl Identity {
    /// Reads the node's id, or makes one. The caller holds the directory's lock.
    pub(crate) fn open(layout: &Layout, host: String, entropy: &dyn Entropy) -> Result<Self> {
        let path = layout.identity();
        let node = match fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let node = NodeId::random(entropy);
                let made = create(&path, node);
                made.map_err(|error| failed("can't be written", &path, &error))?;
                node
            }
            Err(error) => return Err(failed("can't be read", &path, &error)),
        };
        Ok(Self { node, host })
    }
}

/// The host's name, or what the settings call the node.
pub(crate) fn host(name: Option<&str>) -> String {
    match name {
        Some(name) => name.to_owned(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

fn parse(path: &Path, text: &str) -> Result<NodeId> {
    let file = toml::from_str::<IdentityFile>(text).ok();
    file.and_then(|file| file.node.parse().ok()).ok_or_else(|| {
        let message = format!(
            "{} holds no node id: restore it (node = \"32 hexadecimal digits\"); without it the \
             node can't prove that its log is its own",
            path.display()
        );
        Error::new(ErrorKind::Corrupt, message)
    })
}

/// Writes beside the file and renames, so that a crash leaves a whole file or none.
fn create(path: &Path, node: NodeId) -> std::io::Result<()> {
    let text = toml::to_string(&IdentityFile { node: node.to_string() });
    let text = text.map_err(std::io::Error::other)?;
    let beside = path.with_extension("toml.new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
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
        fs::write(layout.identity(), "node = 'x'").expect("written");
        let error = open().expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("node.toml"), "{error}");
    }

    #[test]
    fn a_half_written_id_is_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(dir.path()).expect("a layout");
        fs::write(dir.path().join("node.toml.new"), "node = ").expect("written");
        Identity::open(&layout, host(None), &SystemEntropy).expect("made");
    }
}
