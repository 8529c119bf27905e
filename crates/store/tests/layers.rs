//! The folders of `src` are layers: no file names a module of a layer above its own.

use std::path::Path;

use skerry_testkit::layers::{Rows, faults};

/// The layers from above; all other modules are leaves.
const ROWS: Rows<'_> =
    &[&["lib"], &["fsck"], &["space"], &["refs"], &["map", "blocks"], &["objects"], &["cache"]];

#[test]
fn no_layer_imports_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert_eq!(faults(&src, ROWS).expect("the source"), [""; 0]);
}
