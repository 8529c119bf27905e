//! The engine of streams knows no payload: no file in `src/streams` or beside it names a type of
//! disks. The folders of `src/streams` and `src/disk` are layers: no file names a module of a
//! layer above its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use skerry_testkit::layers::{Rows, faults_below};

/// Names that only payloads may use, and tests of the engine. A node's descriptor has a block size,
/// which the engine copies into the heads of segments.
const OF_PAYLOADS: [&str; 10] = [
    "crate::disk",
    "skerry_core::batch",
    "skerry_core::entry",
    "skerry_core::extents",
    "skerry_core::frame",
    "skerry_core::overlay",
    "skerry_core::size",
    "skerry_store::blocks",
    "skerry_store::map::tree",
    "ctx.blocks",
];

/// Exceptions in the generic part: it carries the payloads' reader of blocks, and shows both names
/// in the crate's interface.
const CARRIED: [(&str, &str); 2] =
    [("src/context.rs", "skerry_store::blocks"), ("src/lib.rs", "crate::disk")];

/// A folder of this crate.
fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The lines of the source files of a folder, each with its file and number.
fn lines_of(path: &str) -> Vec<(String, usize, String)> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder(path)).expect("a folder of the engine") {
        let entry = entry.expect("an entry").path();
        if entry.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&entry).expect("a source file");
        let file = format!("{path}/{}", entry.file_name().unwrap_or_default().display());
        let numbered = text.lines().enumerate();
        lines.extend(numbered.map(|(number, line)| (file.clone(), number + 1, line.to_owned())));
    }
    lines
}

/// As [`lines_of`], with all folders below it but that of tests.
fn lines_below(path: &str) -> Vec<(String, usize, String)> {
    let mut lines = lines_of(path);
    for entry in fs::read_dir(folder(path)).expect("a folder of the engine") {
        let entry = entry.expect("an entry").path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && name != "tests" {
            lines.extend(lines_below(&format!("{path}/{name}")));
        }
    }
    lines.retain(|(file, ..)| !file.ends_with("/tests.rs"));
    lines
}

#[test]
fn the_engine_of_streams_names_no_payload() {
    let mut files = BTreeSet::new();
    for (file, number, line) in lines_of("src").into_iter().chain(lines_below("src/streams")) {
        let is_carried =
            CARRIED.iter().any(|(carrier, name)| *carrier == file && line.contains(name));
        let found = OF_PAYLOADS.iter().find(|name| line.contains(**name));
        assert!(found.is_none() || is_carried, "{file}, line {number}: {line}");
        files.insert(file);
    }
    assert!(files.contains("src/context.rs") && files.len() > 25, "{files:?}");
}

/// The layers of streams from above; all other modules are leaves.
const OF_STREAMS: Rows<'_> =
    &[&["mod", "tests"], &["engine"], &["snapshots"], &["write"], &["stream"], &["tails"]];

/// The layers of disks from above.
const OF_DISKS: Rows<'_> = &[&["mod"], &["attach", "volumes", "fsck"], &["extents"]];

#[test]
fn no_layer_imports_one_above_it() {
    let below = |path, root, rows| faults_below(&folder(path), root, rows).expect("the source");
    assert_eq!(below("src/streams", "crate::streams::", OF_STREAMS), [""; 0]);
    assert_eq!(below("src/disk", "crate::disk::", OF_DISKS), [""; 0]);
}
