//! The engine of streams knows no payload: no file in `src/streams` or beside it names a type of
//! disks.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

/// The lines of the source files of a folder, each with its file and number.
fn lines_of(folder: &str) -> Vec<(String, usize, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder of the engine") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let file = format!("{folder}/{}", path.file_name().unwrap_or_default().display());
        let numbered = text.lines().enumerate();
        lines.extend(numbered.map(|(number, line)| (file.clone(), number + 1, line.to_owned())));
    }
    lines
}

#[test]
fn the_engine_of_streams_names_no_payload() {
    let mut files = BTreeSet::new();
    for (file, number, line) in lines_of("src").into_iter().chain(lines_of("src/streams")) {
        let is_carried =
            CARRIED.iter().any(|(carrier, name)| *carrier == file && line.contains(name));
        let found = OF_PAYLOADS.iter().find(|name| line.contains(**name));
        assert!(found.is_none() || is_carried, "{file}, line {number}: {line}");
        files.insert(file);
    }
    assert!(files.contains("src/context.rs") && files.len() > 25, "{files:?}");
}
