//! The store of the jobs' database fails for a while, in each way that can pass. Acknowledged jobs
//! are there afterwards, and callers wait or are told to ask again.

use std::error::Error;
use std::io;
use std::thread;
use std::time::Duration;

use skerry_testkit::s3_faults::{Call, Fault};
use skerry_testkit::{BadS3, NodeSettings, PATIENCE, SkerryNode};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const FAULTS: [Fault; 5] = [
    Fault::Refuse(503, "SlowDown"),
    Fault::Refuse(403, "AccessDenied"),
    Fault::Refuse(404, "NoSuchBucket"),
    Fault::CutBody,
    Fault::LoseAnswer,
];
const CALL_KINDS: [Call; 4] = [Call::Read, Call::Write, Call::List, Call::Delete];
/// Until the test ends it.
const EVER: u64 = u64::MAX;
/// Failing calls before the store is mended.
const CALLS: u64 = 3;
/// A call that callers make again.
const UNAVAILABLE: i32 = 7;
/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Starts a node with its volumes on its disk, and the jobs' database on the server.
fn settings(server: &BadS3, dir: &TempDir) -> io::Result<NodeSettings> {
    let config = dir.path().join("skerry.toml");
    let mut text = "[database]\nbackend = 's3'\npath = 'things/jobs/%shard%'\n".to_owned();
    text.push_str("[database.options]\n");
    for (name, value) in server.options() {
        text.push_str(&format!("{name} = '{value}'\n"));
    }
    std::fs::write(&config, text)?;
    let settings = NodeSettings::new(env!("CARGO_BIN_EXE_skerry"), dir.path().join("data"));
    Ok(settings.arg("--config").arg(config))
}

fn fail_all(server: &BadS3, fault: Fault) -> u64 {
    CALL_KINDS.into_iter().for_each(|call| server.fail(call, fault, EVER));
    server.failed()
}

/// Asks again until the shard is open.
fn enqueue(node: &SkerryNode, id: &str) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let said = node.settings().cli(&["jobs", "enqueue", "--id", id])?;
        if said.code() != UNAVAILABLE || tokio::time::Instant::now() > deadline {
            return said.ok().map(drop);
        }
        runtime.block_on(async { tokio::time::sleep(LOOK_INTERVAL).await });
    }
}

fn has_all(node: &SkerryNode, acknowledged: &[String], fault: Fault) -> Outcome {
    let listed = node.json(&["jobs", "list"])?;
    let listed = listed.as_array().into_iter().flatten();
    let ids: Vec<_> = listed.filter_map(|job| job["id"].as_str()).collect();
    for id in acknowledged {
        assert!(ids.contains(&id.as_str()), "{id} is lost over {fault:?}: {ids:?}");
    }
    Ok(())
}

#[test]
fn jobs_outlive_every_fault_of_their_store_that_can_pass() -> Outcome {
    let (server, dir) = (BadS3::start()?, TempDir::new()?);
    let mut node = settings(&server, &dir)?.start()?;
    let mut acknowledged = Vec::new();
    for (number, fault) in FAULTS.into_iter().enumerate() {
        let id = |what: &str| format!("{what}-{number}");
        enqueue(&node, &id("before"))?;
        acknowledged.push(id("before"));
        let before = fail_all(&server, fault);
        let (caller, during) = (node.settings().clone(), id("during"));
        let calling = thread::spawn(move || caller.cli(&["jobs", "enqueue", "--id", &during]));
        if !matches!(fault, Fault::CutBody) {
            server.wait_failed(before + 1)?;
        }
        server.mend();
        let said = calling.join().map_err(|_| "the caller panicked")??;
        match said.code() {
            0 => acknowledged.push(id("during")),
            code => assert_eq!(code, UNAVAILABLE, "{fault:?}: {said:?}"),
        }
        enqueue(&node, &id("after"))?;
        acknowledged.push(id("after"));
        has_all(&node, &acknowledged, fault)?;
        // The node opens the database while its store fails.
        let down = node.kill()?;
        let before = fail_all(&server, fault);
        let starting = thread::spawn(move || down.start());
        server.wait_failed(before + CALLS)?;
        server.mend();
        node = starting.join().map_err(|_| "the start panicked")??;
        enqueue(&node, &id("opened"))?;
        acknowledged.push(id("opened"));
        has_all(&node, &acknowledged, fault)?;
    }
    node.stop()?;
    Ok(())
}
