//! Copies of a node: a cloned host, a template, a data directory that was moved. Of two nodes with
//! one identity, one serves.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;

use skerry_testkit::tool::Tool;
use skerry_testkit::{NbdClient, NodeSettings};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const IN_USE: i32 = 5;

/// The flag with which a node goes on in the place of another.
const GO_ON: &str = "--in-its-place";

fn host_name() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned())
}

/// Nodes with data directories of their own, over one bucket.
struct Fleet {
    bucket: TempDir,
    dir: TempDir,
}

impl Fleet {
    fn new() -> io::Result<Self> {
        Ok(Self { bucket: TempDir::new()?, dir: TempDir::new()? })
    }

    /// A node that uses a bucket in its own data directory.
    fn alone(&self, name: &str) -> NodeSettings {
        NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), self.dir.path().join(name))
    }

    fn at(&self, name: &str) -> NodeSettings {
        self.alone(name).bucket_dir(self.bucket.path())
    }
}

/// Copies a data directory over another.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    Tool::new("rm").arg("-rf").arg(to).run()?;
    Tool::new("cp").arg("-a").arg(from).arg(to).run()?;
    Ok(())
}

/// Makes the copy a node of its own, as a refusal advises.
fn make_its_own(node: &NodeSettings) -> io::Result<()> {
    for own in ["node.toml", "last-start", "log-place", "log"] {
        Tool::new("rm").arg("-rf").arg(node.data().join(own)).run()?;
    }
    Ok(())
}

/// A host is cloned with its data directory. Of two nodes with one identity, the second refuses,
/// and the first goes on.
#[test]
fn a_copy_of_a_node_is_refused_and_told_what_to_do() -> Outcome {
    let fleet = Fleet::new()?;
    let (one, two) = (fleet.at("one"), fleet.at("two"));
    let first = one.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &[])?)?;
    writer.write(0, &[1; 4096])?;
    writer.flush()?;
    // While the node runs, and after it was started again.
    for _ in 0..2 {
        copy(one.data(), two.data())?;
        let (code, said) = two.start_refused()?;
        assert_eq!(code, IN_USE, "{said}");
        assert!(said.contains(GO_ON) && said.contains(&host_name()?), "{said}");
    }
    writer.write(4096, &[2; 4096])?;
    writer.flush()?;
    let first = first.stop()?.start()?;
    let (code, said) = two.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");

    // As advised, it becomes a node of its own, which sees the volume and does not take it.
    make_its_own(&two)?;
    let second = two.start()?;
    let reader = NbdClient::connect(&second.uri("disk"))?;
    assert!(reader.info().is_read_only());
    let mut writer = NbdClient::connect(&first.uri("disk"))?;
    assert_eq!(writer.read(0, 8192)?, [[1; 4096], [2; 4096]].concat());
    second.stop()?;
    first.stop()?;
    Ok(())
}

/// A data directory that was moved goes on when a person confirms it; then the one that was left
/// refuses.
#[test]
fn a_moved_node_goes_on_when_it_is_told_and_loses_nothing() -> Outcome {
    let fleet = Fleet::new()?;
    let (one, two) = (fleet.at("one"), fleet.at("two"));
    let first = one.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &[])?)?;
    writer.write(0, &[1; 4096])?;
    writer.flush()?;
    first.kill()?;
    // Acknowledged writes are in the log alone, and come along.
    copy(one.data(), two.data())?;
    Tool::new("rm").arg("-rf").arg(one.data().join("log")).run()?;
    two.start_refused()?;
    let second = two.clone().arg(GO_ON).start()?;
    let mut client = NbdClient::connect(&second.uri("disk"))?;
    assert_eq!(client.read(0, 4096)?, [1; 4096]);
    let (code, said) = one.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");
    Ok(())
}

/// A template's node was started on its own bucket alone. It knows of no start on the shared one,
/// and neither do its copies.
#[test]
fn copies_of_a_template_are_refused_on_a_bucket_that_the_first_one_has_met() -> Outcome {
    let fleet = Fleet::new()?;
    fleet.alone("template").start()?.stop()?;
    let (one, two) = (fleet.at("one"), fleet.at("two"));
    for node in [&one, &two] {
        copy(fleet.alone("template").data(), node.data())?;
    }
    let first = one.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &[])?)?;
    writer.write(0, &[1; 4096])?;
    writer.flush()?;
    // The copy that has not started yet is refused, also when the first was started again.
    for _ in 0..2 {
        let (code, said) = two.start_refused()?;
        assert_eq!(code, IN_USE, "{said}");
        assert!(said.contains(GO_ON) && said.contains(&host_name()?), "{said}");
    }
    writer.write(4096, &[2; 4096])?;
    writer.flush()?;
    make_its_own(&two)?;
    let second = two.start()?;
    assert!(NbdClient::connect(&second.uri("disk"))?.info().is_read_only());
    second.stop()?;
    let first = first.stop()?.start()?;
    let mut reader = NbdClient::connect(&first.uri("disk"))?;
    assert_eq!(reader.read(0, 8192)?, [[1; 4096], [2; 4096]].concat());
    Ok(())
}

/// A node whose note of its last start was lost looks like a copy: it goes on when a person
/// confirms that it is none.
#[test]
fn a_node_that_lost_its_note_goes_on_when_it_is_told() -> Outcome {
    let fleet = Fleet::new()?;
    let node = fleet.at("one");
    let first = node.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &[])?)?;
    writer.write(0, &[1; 4096])?;
    writer.flush()?;
    first.kill()?;
    fs::remove_file(node.data().join("last-start"))?;
    let (code, said) = node.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");
    node.clone().arg(GO_ON).start()?.kill()?;
    let again = node.start()?;
    assert_eq!(NbdClient::connect(&again.uri("disk"))?.read(0, 4096)?, [1; 4096]);
    Ok(())
}

/// A node is copied while it runs, and the copy goes on in its place and writes. Later writes of
/// the first one are kept for people: they are never merged onto the copy's state when the first
/// takes the place back.
#[test]
fn what_was_written_beside_a_copy_is_parked() -> Outcome {
    let fleet = Fleet::new()?;
    let (one, two) = (fleet.at("one"), fleet.at("two"));
    let block = |n: u8| [n; 4096];
    let first = one.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &[])?)?;
    writer.write(0, &block(1))?;
    writer.flush()?;
    copy(one.data(), two.data())?;
    // On a host of its own the copy would have the log at the first one's path.
    fs::remove_file(two.data().join("log-place"))?;
    for at in [1u8, 3] {
        writer.write(u64::from(at) * 4096, &block(at))?;
        writer.flush()?;
    }
    first.kill()?;

    let second = two.clone().arg(GO_ON).start()?;
    let mut writer = NbdClient::connect(&second.uri("disk"))?;
    assert_eq!(writer.read(0, 4096)?, block(1), "what the copy had of the log comes along");
    writer.write(2 * 4096, &block(2))?;
    writer.flush()?;
    drop(writer);
    second.stop()?;

    let (code, said) = one.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");
    let first = one.clone().arg(GO_ON).start()?;
    let mut reader = NbdClient::connect(&first.uri("disk"))?;
    let wanted = [block(1), block(0), block(2), block(0)].concat();
    assert_eq!(reader.read(0, 4 * 4096)?, wanted, "two histories in one");
    let parked = first.json(&["status"])?["parked"].to_string();
    assert!(parked.contains("never merged"), "{parked}");
    // Nor does another start merge it.
    drop(reader);
    first.kill()?;
    let first = one.start()?;
    assert_eq!(NbdClient::connect(&first.uri("disk"))?.read(0, 4 * 4096)?, wanted);
    Ok(())
}

/// Two nodes with one settings file, and so with one log; and a copy of a node whose log is
/// elsewhere.
#[test]
fn a_log_that_another_node_uses_is_left_alone() -> Outcome {
    let fleet = Fleet::new()?;
    let log = fleet.dir.path().join("log");
    let with_log = |node: NodeSettings| node.arg("--log").arg(&log);
    let (one, two) = (with_log(fleet.at("one")), with_log(fleet.at("two")));
    let first = one.start()?;
    let mut writer = NbdClient::connect(&first.create("disk", "64M", &[])?)?;
    writer.write(0, &[1; 4096])?;
    writer.flush()?;
    let (code, said) = two.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");
    for path in [log.as_path(), one.data(), two.data()] {
        assert!(said.contains(&path.display().to_string()), "{said}");
    }
    writer.write(4096, &[2; 4096])?;
    writer.flush()?;
    // The advice to a copy does not name the first node's files for removal.
    copy(one.data(), two.data())?;
    let (code, said) = two.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");
    assert!(said.contains("--log") && !said.contains(&format!(", {}.", log.display())), "{said}");
    let first = first.kill()?.start()?;
    let mut reader = NbdClient::connect(&first.uri("disk"))?;
    assert_eq!(reader.read(0, 8192)?, [[1; 4096], [2; 4096]].concat());
    drop(reader);
    first.stop()?;

    // Nor does a copy without a common bucket touch the log.
    let log = fleet.dir.path().join("other");
    let with_log = |node: NodeSettings| node.arg("--log").arg(&log);
    let (one, two) = (with_log(fleet.alone("three")), with_log(fleet.alone("four")));
    let first = one.start()?;
    first.create("disk", "64M", &[])?;
    copy(one.data(), two.data())?;
    let (code, said) = two.start_refused()?;
    assert_eq!(code, IN_USE, "{said}");
    first.stop()?;
    Ok(())
}
