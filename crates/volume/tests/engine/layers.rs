//! The engine of streams knows no payload: no file of `src/streams` names what is of disks.

use std::fs;
use std::path::Path;

/// What only payloads may name, tests of the engine among them. A node's descriptor says a block size, which the engine
/// copies into the heads of segments.
const OF_PAYLOADS: [&str; 10] = [
    "crate::disk",
    "skerry_core::batch",
    "skerry_core::entry",
    "skerry_core::extents",
    "skerry_core::frame",
    "skerry_core::overlay",
    "skerry_core::size",
    "skerry_store::blocks",
    "skerry_store::tree",
    "ctx.blocks",
];

#[test]
fn the_engine_of_streams_names_no_payload() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/streams");
    let mut files = 0;
    for entry in fs::read_dir(dir).expect("the engine's folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let found = OF_PAYLOADS.iter().find(|name| line.contains(**name));
            assert_eq!(found, None, "{}, line {}: {line}", path.display(), number + 1);
        }
    }
    assert!(files > 20, "only {files} files were looked at");
}
