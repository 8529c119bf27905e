//! Import and export: what goes in comes out, holes stay holes, and nothing is overwritten by chance.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::*;

/// Writes a sparse image: 3 MiB and 100 bytes, with data in three places, the last one at its end.
fn sparse_image(node: &Node, name: &str) -> Vec<u8> {
    let file = std::fs::File::create(node.path(name)).expect("a file");
    file.set_len((3 << 20) + 100).expect("sized");
    for (offset, byte) in [(0, 1), ((1 << 20) + 5000, 2), ((3 << 20) + 50, 3)] {
        file.write_all_at(&[byte; 40], offset).expect("written");
    }
    let mut content = std::fs::read(node.path(name)).expect("the image");
    content.resize(content.len().next_multiple_of(512), 0);
    content
}

#[test]
fn what_is_imported_is_exported() {
    let node = Node::start();
    let content = sparse_image(&node, "in");
    let imported = node.json(&["import", &node.file("in"), "disk"]);
    assert_eq!(imported["created"], true);
    assert_eq!(imported["size_bytes"], content.len());
    let data = imported["data_bytes"].as_u64().expect("a number");
    assert!(data <= 3 * (64 << 10), "{data} bytes of data");
    assert_eq!(node.fake.flushes_and_end().0, 1, "an import that returned is durable");

    node.ok(&["export", "disk", &node.file("out")]);
    assert!(std::fs::read(node.path("out")).expect("the export") == content);
    let stored = std::fs::metadata(node.path("out")).expect("metadata").blocks() * 512;
    assert!(stored < 1 << 20, "{stored} bytes are stored of a sparse volume");

    node.ok(&["snapshot", "create", "disk@s"]);
    std::fs::write(node.path("other"), [9; 512]).expect("a file");
    node.ok(&["import", &node.file("other"), "disk", "--force"]);
    node.ok(&["export", "disk@s", &node.file("out"), "--force"]);
    assert!(std::fs::read(node.path("out")).expect("the export") == content);
}

#[test]
fn a_volume_that_exists_is_written_over() {
    let node = Node::start();
    std::fs::write(node.path("ones"), vec![1; 8192]).expect("a file");
    node.ok(&["import", &node.file("ones"), "disk"]);
    // Zeros must replace what was there, and what lies behind must stay.
    std::fs::write(node.path("zeros"), vec![0; 4096]).expect("a file");
    node.fails(&["import", &node.file("zeros"), "disk"], 4, "--force");
    let text = node.ok(&["import", &node.file("zeros"), "disk", "--force"]);
    assert!(text.contains("wrote over"), "{text}");
    node.ok(&["export", "disk", &node.file("out")]);
    let expected = [vec![0; 4096], vec![1; 4096]].concat();
    assert!(std::fs::read(node.path("out")).expect("the export") == expected);
}

#[test]
fn what_must_not_be_written_over_is_refused() {
    let node = Node::start();
    std::fs::write(node.path("image"), vec![1; 4096]).expect("a file");
    let image = node.file("image");
    node.ok(&["volume", "create", "small", "--size", "512"]);
    node.fails(&["import", &image, "small", "--force"], 6, "skerry volume resize small 4096");
    node.ok(&["volume", "create", "busy", "--size", "1M"]);
    node.fake.set_clients("busy", 1);
    node.fails(&["import", &image, "busy", "--force"], 5, "disconnect");

    node.fails(&["export", "busy", &image], 4, "--force");
    assert_eq!(std::fs::read(&image).expect("untouched"), vec![1; 4096]);
    node.fails(&["export", "nothing", &node.file("out")], 3, "nothing");
    assert!(!node.path("out").exists(), "no file for a volume that isn't there");
    node.fails(&["export", "busy", "/dev/null"], 6, "regular file");
}

#[test]
fn images_that_can_not_be_read_are_named() {
    let node = Node::start();
    node.fails(&["import", "/no/such.raw", "disk"], 3, "/no/such.raw");
    node.fails(&["import", &node.file("."), "disk"], 6, "directory");
    std::fs::write(node.path("empty"), "").expect("a file");
    node.fails(&["import", &node.file("empty"), "disk"], 6, "must not be zero");
    for (format, magic) in
        [("qcow2", b"QFI\xfb".as_slice()), ("VDI", b"<<< QEMU"), ("VHD", b"conectix")]
    {
        let image = [magic, &[0; 512][magic.len()..]].concat();
        std::fs::write(node.path(format), image).expect("a file");
        node.fails(&["import", &node.file(format), "disk"], 6, "qemu-img");
    }
    node.fails(&["volume", "show", "disk"], 3, "disk");
    node.ok(&["import", &node.file("qcow2"), "disk", "--raw"]);
}

#[test]
fn large_images_pass_in_pieces() {
    let node = Node::start();
    let content: Vec<u8> = (0..9 << 20).map(|at: u32| (at / 4099) as u8 | 1).collect();
    std::fs::write(node.path("in"), &content).expect("a file");
    node.ok(&["import", &node.file("in"), "disk"]);
    node.ok(&["export", "disk", &node.file("out")]);
    assert!(std::fs::read(node.path("out")).expect("the export") == content);
}
