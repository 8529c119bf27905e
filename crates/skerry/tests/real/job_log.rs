//! The log of jobs on the disk of the node's log, by one setting.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use skerry_testkit::{NodeSettings, SkerryNode};

type Outcome = Result<(), Box<dyn Error>>;

/// A node in a directory of its own that can be started with several settings files.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> io::Result<Self> {
        Ok(Self { dir: tempfile::tempdir()? })
    }

    /// Starts the node with these settings of jobs.
    fn start(&self, jobs: &str) -> io::Result<SkerryNode> {
        let config = self.dir.path().join("skerry.toml");
        std::fs::write(&config, format!("[jobs]\n{jobs}\n"))?;
        let node = NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), self.dir.path().join("data"));
        node.arg("--config").arg(&config).start()
    }

    fn logs(&self) -> PathBuf {
        self.dir.path().join("data/log/jobs")
    }
}

fn state(node: &SkerryNode, id: &str) -> io::Result<serde_json::Value> {
    Ok(node.json(&["jobs", "show", id])?["state"].clone())
}

#[test]
fn a_new_database_has_a_local_log_and_keeps_it() -> Outcome {
    let host = Host::new()?;
    let node = host.start("log = 'local'")?;
    node.cli(&["jobs", "enqueue", "--id", "a"])?;
    assert_eq!(std::fs::read_dir(host.logs())?.count(), 1);
    node.kill()?;
    // Without the setting, too: what the log has is not left behind.
    let node = host.start("")?;
    assert_eq!(state(&node, "a")?, "scheduled");
    node.stop()?;
    let node = host.start("")?;
    node.cli(&["jobs", "enqueue", "--id", "b"])?;
    node.kill()?;

    let away = host.dir.path().join("away");
    std::fs::rename(host.logs(), &away)?;
    for setting in ["", "log = 'local'"] {
        let node = host.start(setting)?;
        let refused = node.settings().cli(&["jobs", "show", "a"])?.refused(7)?;
        assert!(refused.contains("another log"), "{refused}");
        node.kill()?;
    }
    std::fs::rename(&away, host.logs())?;
    let node = host.start("")?;
    assert_eq!(state(&node, "b")?, "scheduled", "the refused starts changed nothing");
    node.cli(&["jobs", "enqueue", "--id", "c"])?;
    node.kill()?;

    std::fs::rename(host.logs(), &away)?;
    let node = host.start("give_up_wal = true")?;
    assert_eq!(state(&node, "a")?, "scheduled", "a clean stop had brought it into the database");
    node.settings().cli(&["jobs", "show", "c"])?.refused(3)?;
    node.stop()?;
    Ok(())
}

#[test]
fn a_database_that_was_made_without_a_local_log_keeps_none() -> Outcome {
    let host = Host::new()?;
    let node = host.start("")?;
    node.cli(&["jobs", "enqueue", "--id", "a"])?;
    node.kill()?;
    let node = host.start("log = 'local'")?;
    assert_eq!(state(&node, "a")?, "scheduled");
    let said = node.process().stderr_tail();
    assert!(said.contains("has its log in its own store"), "{said}");
    node.stop()?;
    // After a clean stop no log has anything alone.
    let node = host.start("log = 'local'")?;
    assert_eq!(state(&node, "a")?, "scheduled");
    assert!(!host.logs().exists());
    node.stop()?;
    Ok(())
}

#[test]
fn a_local_log_ends_when_its_directory_is_deleted_after_a_clean_stop() -> Outcome {
    let host = Host::new()?;
    let node = host.start("log = 'local'")?;
    node.cli(&["jobs", "enqueue", "--id", "a"])?;
    node.stop()?;
    std::fs::remove_dir_all(host.logs())?;
    let node = host.start("")?;
    assert_eq!(state(&node, "a")?, "scheduled");
    node.cli(&["jobs", "enqueue", "--id", "b"])?;
    assert!(!host.logs().exists());
    node.kill()?;
    let node = host.start("log = 'local'")?;
    assert_eq!(state(&node, "b")?, "scheduled", "the store's log has it");
    node.stop()?;
    Ok(())
}

#[test]
fn a_node_without_a_log_has_none_for_jobs() -> Outcome {
    let host = Host::new()?;
    let config = host.dir.path().join("skerry.toml");
    std::fs::write(&config, "[jobs]\nlog = 'local'\n")?;
    let node = NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), host.dir.path().join("data"));
    let node = node.arg("--config").arg(&config).arg("--no-log");
    let (code, refused) = node.start_refused()?;
    assert_eq!(code, 6);
    assert!(refused.contains("this node has no log"), "{refused}");
    Ok(())
}
