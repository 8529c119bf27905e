//! The machine and the directory in which this node runs: they tell a copy of it from itself.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use skerry_api::Result;
use skerry_core::start::StartPlace;
use skerry_core::wire::{Hash16, hash16};

use crate::home::layout::{Layout, failed};

/// The file with the id that a system made at its installation.
const MACHINE_ID: &str = "/etc/machine-id";
/// The file with the id of the hardware; only root may read it.
const HARDWARE_ID: &str = "/sys/class/dmi/id/product_uuid";

/// The present place of a data directory's node.
pub(crate) fn place(layout: &Layout) -> Result<StartPlace> {
    place_of(layout.data())
}

/// Gives a directory's present place.
pub(crate) fn place_of(dir: &Path) -> Result<StartPlace> {
    let found = fs::metadata(dir).map_err(|error| failed("can't be looked at", dir, &error))?;
    Ok(StartPlace {
        machine: id_in(Path::new(MACHINE_ID)),
        hardware: id_in(Path::new(HARDWARE_ID)),
        directory: found.ino(),
    })
}

/// The hash of an id, since machines' ids are private. Zero if there is none, or none yet.
fn id_in(path: &Path) -> Hash16 {
    let text = fs::read_to_string(path).unwrap_or_default();
    match text.trim() {
        "" | "uninitialized" => Hash16::default(),
        id => hash16(format!("skerry: {id}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_directory_is_another_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| {
            let layout = Layout::new(&dir.path().join(name)).expect("a layout");
            layout.create().expect("made");
            place(&layout).expect("a place")
        };
        assert_eq!(at("one"), at("one"));
        assert!(at("two").difference(&at("one")).is_some());
    }

    #[test]
    fn an_id_that_is_not_there_is_not_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("id");
        assert_eq!(id_in(&file), [0; 16]);
        fs::write(&file, "uninitialized\n").expect("written");
        assert_eq!(id_in(&file), [0; 16]);
        fs::write(&file, "x\n").expect("written");
        assert_ne!(id_in(&file), [0; 16]);
    }
}
