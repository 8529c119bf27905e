//! Import and export: the image comes out as it went in, holes stay holes, and nothing is
//! overwritten by chance.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::Ordering::Relaxed;

use std::time::Duration;

use futures::StreamExt as _;
use skerry_api::v1::import_volume_request::Message;
use skerry_api::{Client, v1};
use skerry_store::objects::faulty::Refusal;
use skerry_testkit::PATIENCE;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::*;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

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
    let volumes = node.engine.open_volumes();
    let flushes: u64 = volumes.iter().map(|volume| volume.io.flushes.load(Relaxed)).sum();
    assert_eq!(flushes, 1, "an import that returned is durable");

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

/// Once, they made a file of the name `-`.
#[test]
fn a_dash_is_standard_output_and_no_file() {
    let node = Node::start();
    let image = [vec![b'a'; 4096], vec![0; 256 << 10], vec![b'b'; 512]].concat();
    std::fs::write(node.path("in"), &image).expect("a file");
    node.ok(&["import", &node.file("in"), "disk"]);
    node.fails(&["import", "-", "other"], 6, "./-");
    if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        eprintln!("skipped: standard output is a terminal");
        return;
    }
    assert!(node.ok(&["export", "disk", "-"]).into_bytes() == image);
    let ran = node.run(&["export", "disk", "-", "--json"]);
    assert!(ran.code == 6 && ran.err.contains("--json can't"), "{ran:?}");
    node.fails(&["export", "nothing", "-"], 3, "nothing");
}

#[test]
fn a_volume_that_exists_is_written_over() {
    let node = Node::start();
    std::fs::write(node.path("ones"), vec![1; 8192]).expect("a file");
    node.ok(&["import", &node.file("ones"), "disk"]);
    // Zeros must replace older data, and the data behind must stay.
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
    let client = node.attach("busy");
    node.fails(&["import", &image, "busy", "--force"], 5, "disconnect");
    drop(client);

    node.fails(&["export", "busy", &image], 4, "--force");
    assert_eq!(std::fs::read(&image).expect("untouched"), vec![1; 4096]);
    node.fails(&["export", "nothing", &node.file("out")], 3, "nothing");
    assert!(!node.path("out").exists(), "no file for a volume that isn't there");
    node.fails(&["export", "busy", "/dev/null"], 6, "regular file");
}

/// Last week's backup is there until this week's is whole.
#[test]
fn an_export_that_fails_leaves_the_file_that_it_would_replace() {
    let first = Node::start();
    std::fs::write(first.path("image"), vec![1; 9 << 20]).expect("a file");
    first.ok(&["import", &first.file("image"), "disk"]);
    first.ok(&["snapshot", "create", "disk@s"]);
    let store = first.store.clone();
    drop(first);
    // Nothing of it is in this node's memory.
    let node = Node::over(store, false);
    let _reader = node.attach("disk@s");
    std::fs::write(node.path("backup"), "last week's").expect("a file");
    node.faults.set_plan(FaultPlan { refusal: Some(Refusal::Busy), ..FaultPlan::default() });
    node.fails(&["export", "disk@s", &node.file("backup"), "--force"], 7, "bucket");
    assert_eq!(std::fs::read(node.path("backup")).expect("there"), b"last week's");
    node.fails(&["export", "disk@s", &node.file("new")], 7, "bucket");
    assert!(!node.path("new").exists(), "half an export");
    let left = std::fs::read_dir(node.dir.path()).expect("a directory").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().ends_with(".skerry-export")),
        "{left:?}"
    );
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

/// Images as they are downloaded: none of them is a raw disk, and each refusal names the tool that
/// unpacks it.
#[test]
fn packed_images_are_refused_with_what_unpacks_them() {
    let node = Node::start();
    let at = |offset: usize, magic: &[u8]| {
        let mut image = vec![0; 4096];
        image[offset..offset + magic.len()].copy_from_slice(magic);
        image
    };
    let fixed_vhd = at(4096 - 512, b"conectix\0\0\0\x02\0\x01\0\0");
    let ova = {
        let mut tar = at(257, b"ustar");
        tar[..8].copy_from_slice(b"disk.ovf");
        tar
    };
    let descriptor = b"# Disk DescriptorFile\nversion=1\n".repeat(20);
    for (name, image, said) in [
        ("raw.gz", at(0, b"\x1f\x8b\x08"), "gzip -dc"),
        ("raw.xz", at(0, b"\xfd7zXZ\0"), "xz -dc"),
        ("raw.zst", at(0, b"\x28\xb5\x2f\xfd"), "zstd -dc"),
        ("raw.bz2", at(0, b"BZh91AY&SY"), "bzip2 -dc"),
        ("raw.lz4", at(0, b"\x04\x22\x4d\x18"), "lz4 -dc"),
        ("raw.zip", at(0, b"PK\x03\x04"), "unzip"),
        ("raw.7z", at(0, b"7z\xbc\xaf\x27\x1c"), "7z x"),
        ("x.ova", ova, "tar -xf"),
        ("x.vmdk", descriptor, "qemu-img convert -f vmdk"),
        ("fixed.vhd", fixed_vhd, "qemu-img convert -f vpc"),
        ("x.vdi", at(64, b"\x7f\x10\xda\xbe"), "qemu-img convert -f vdi"),
        ("x.dmg", at(4096 - 512, b"koly\0\0\0\x04"), "qemu-img convert -f dmg"),
    ] {
        std::fs::write(node.path(name), image).expect("a file");
        node.fails(&["import", &node.file(name), "disk"], 6, said);
        node.fails(&["import", &node.file(name), "disk"], 6, "--raw");
    }
    node.fails(&["volume", "show", "disk"], 3, "disk");
    // An image that only ends or begins like one is a disk.
    for (name, image) in [
        ("text", at(0, b"BZhello")),
        ("end", at(4096 - 512, b"conectix and more")),
        ("boot", at(510, b"\x55\xaa")),
        ("short", vec![b'#'; 3]),
    ] {
        std::fs::write(node.path(name), image).expect("a file");
        node.ok(&["import", &node.file(name), name]);
    }
    // The command that is shown works as it stands.
    std::fs::write(node.path("it's one.gz"), at(0, b"\x1f\x8b\x08")).expect("a file");
    node.fails(&["import", &node.file("it's one.gz"), "disk"], 6, r"it'\''s one.gz' >");
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

/// Sends the head of an import of 1 MiB and a part of its data, and then `then`.
fn part_of_an_import(
    then: impl futures::Stream<Item = v1::ImportVolumeRequest> + Send + 'static,
) -> impl futures::Stream<Item = v1::ImportVolumeRequest> + Send + 'static {
    let head = v1::ImportHead { name: "disk".to_owned(), size_bytes: 1 << 20, overwrite: false };
    let data = v1::Data { offset: 0, bytes: vec![1; 4096].into() };
    let messages = [Message::Head(head), Message::Data(data)]
        .map(|message| v1::ImportVolumeRequest { message: Some(message) });
    futures::stream::iter(messages).chain(then)
}

/// The names of all volumes.
fn volumes(node: &Node) -> Vec<String> {
    let all = node.json(&["volume", "list"]);
    let names = all.as_array().into_iter().flatten();
    names.filter_map(|volume| Some(volume["name"].as_str()?.to_owned())).collect()
}

/// Waits until exactly these volumes exist.
fn wait_for_volumes(runtime: &tokio::runtime::Runtime, node: &Node, wanted: &[&str]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while volumes(node) != wanted {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", volumes(node));
        runtime.block_on(async { tokio::time::sleep(LOOK_INTERVAL).await });
    }
}

#[test]
fn an_import_that_ends_early_leaves_nothing() {
    let node = Node::start();
    let runtime = Runtime::new().expect("a runtime");
    let client = runtime.block_on(Client::connect(&Address::Unix(node.path("api.sock"))));
    let client = client.expect("connected");
    let messages = part_of_an_import(futures::stream::empty());
    let error = runtime.block_on(client.import_volume(messages)).expect_err("too short");
    assert!(error.message().contains("byte 4096"), "{error}");
    assert!(error.message().contains("nothing is left"), "{error}");
    assert_eq!(volumes(&node), Vec::<String>::new());
}

/// An import that waits for its client in the middle of the image.
fn stuck_import(
    node: &Node,
) -> (Runtime, JoinHandle<skerry_api::Result<v1::ImportVolumeResponse>>) {
    let runtime = Runtime::new().expect("a runtime");
    let address = Address::Unix(node.path("api.sock"));
    let importing = runtime.spawn(async move {
        let client = Client::connect(&address).await?;
        client.import_volume(part_of_an_import(futures::stream::pending())).await
    });
    wait_for_volumes(&runtime, node, &["disk.importing"]);
    (runtime, importing)
}

/// A command is killed, or its connection breaks.
#[test]
fn an_import_whose_client_goes_leaves_nothing() {
    let node = Node::start();
    let (runtime, importing) = stuck_import(&node);
    std::fs::write(node.path("image"), [1; 4096]).expect("a file");
    node.fails(&["import", &node.file("image"), "disk"], 4, "another import into disk");
    node.fails(&["import", &node.file("image"), "disk"], 4, "skerry volume delete disk.importing");
    importing.abort();
    wait_for_volumes(&runtime, &node, &[]);
    node.ok(&["import", &node.file("image"), "disk"]);
    assert_eq!(volumes(&node), ["disk"]);
}

/// The node writes nothing for a command once the engine is told to end.
#[test]
fn an_import_ends_with_its_node() {
    let mut node = Node::start();
    let (runtime, importing) = stuck_import(&node);
    node.stop();
    assert_eq!(volumes(&Node::over(node.store.clone(), false)), Vec::<String>::new());
    let answer = runtime.block_on(importing).expect("no panic");
    assert_eq!(answer.expect_err("it was cut off").kind(), skerry_api::ErrorKind::Unavailable);
}
