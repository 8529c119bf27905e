//! `scripts/run`, which people try first: it builds, starts a node, and names a volume.

use std::error::Error;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use skerry_testkit::{NodeSettings, Process};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

/// The directory has what it would have built, and a cargo that builds nothing.
fn script(dir: &TempDir) -> std::io::Result<Process> {
    let at = |name: &str| dir.path().join(name);
    if !at("cargo").exists() {
        fs::write(at("cargo"), "#!/bin/sh\n")?;
        fs::set_permissions(at("cargo"), fs::Permissions::from_mode(0o755))?;
        fs::create_dir_all(at("target/release"))?;
        symlink(env!("CARGO_BIN_EXE_skerry"), at("target/release/skerry"))?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/run");
    let mut command = Command::new(script);
    command.env("PATH", format!("{}:{path}", dir.path().display()));
    command.env("CARGO_TARGET_DIR", at("target")).env("SKERRY_DATA", at("data"));
    Process::spawn(&mut command)
}

/// Waits until the node serves. Gives the sentence about the volume.
fn said_of_the_volume(script: &Process) -> std::io::Result<String> {
    let said = script.wait_line(|line| line.contains("'disk0'"))?;
    script.wait_line(|line| line.starts_with("Ctrl-C"))?;
    Ok(said)
}

/// Once, it called a volume ready that had been deleted, or made it again.
#[test]
fn a_volume_that_was_deleted_is_not_ready() -> Outcome {
    let dir = TempDir::new()?;
    let cli = NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), dir.path().join("data"));
    let running = script(&dir)?;
    let said = said_of_the_volume(&running)?;
    assert!(said.contains("'disk0' (10 GiB, thin) is ready"), "{said}");
    cli.cli(&["snapshot", "create", "disk0@first"])?.ok()?;
    cli.cli(&["volume", "delete", "disk0"])?.ok()?;
    assert!(running.terminate()?.success());
    let running = script(&dir)?;
    let said = said_of_the_volume(&running)?;
    assert!(said.contains("'disk0' was deleted"), "{said}");
    cli.cli(&["snapshot", "delete", "disk0@first"])?.ok()?;
    assert!(running.terminate()?.success());
    let running = script(&dir)?;
    let said = said_of_the_volume(&running)?;
    assert!(said.contains("no volume 'disk0'"), "{said}");
    assert!(running.terminate()?.success());
    Ok(())
}

/// The shell sends one signal, and so does the kernel. Once, the node took them for two orders, and
/// ended at once.
#[test]
fn the_end_of_its_terminal_ends_its_node_cleanly() -> Outcome {
    let dir = TempDir::new()?;
    let running = script(&dir)?;
    said_of_the_volume(&running)?;
    running.signal(Signal::HUP);
    while !running.stderr_tail().contains("stopping: clients") {
        assert!(running.is_running(), "{}", running.stderr_tail());
        std::thread::yield_now();
    }
    running.signal(Signal::HUP);
    let status = running.wait_drained()?;
    let said = running.stderr_tail();
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("stopped") && !said.contains("told twice"), "{said}");
    assert!(!dir.path().join("data/api.sock").exists(), "the node has ended");
    Ok(())
}

/// Once, the node went on without its script, which wrote to a reader that had gone.
#[test]
fn a_script_that_fails_leaves_no_node() -> Outcome {
    let dir = TempDir::new()?;
    let running = script(&dir)?;
    running.wait_line(|line| line.starts_with("ready "))?;
    running.signal(Signal::PIPE);
    running.wait_drained()?;
    assert!(!dir.path().join("data/api.sock").exists(), "the node has ended");
    Ok(())
}
