//! Scheduled snapshots of a real node. They are taken in time, the newest are kept, and nothing
//! else is touched. This holds over a kill of the node, a rename, and another node that holds the
//! volume, until the schedule or the volume ends.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use skerry_testkit::{NodeSettings, PATIENCE, SkerryNode};

type Outcome = Result<(), Box<dyn Error>>;

/// Interval between two looks: much less than the time between two snapshots.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Every second, the newest two.
const FLAGS: [&str; 4] = ["--every", "1s", "--keep", "2"];

fn settings() -> io::Result<NodeSettings> {
    NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))
}

/// Looks until the wanted state is there.
fn until<T>(
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        if let Some(found) = look()? {
            return Ok(found);
        }
        runtime.block_on(async { tokio::time::sleep(LOOK_INTERVAL).await });
    }
    Err(format!("waited in vain: {what}").into())
}

fn texts(all: &Value, field: &str) -> Vec<String> {
    let all = all.as_array().into_iter().flatten();
    all.filter_map(|one| Some(one[field].as_str()?.to_owned())).collect()
}

/// A volume's snapshots, named by the schedule, and named by people.
fn snapshots(
    node: &SkerryNode,
    volume: &str,
) -> Result<(BTreeSet<String>, Vec<String>), Box<dyn Error>> {
    let all = texts(&node.json(&["snapshot", "list", volume])?, "name");
    let (ours, theirs): (Vec<_>, _) = all.into_iter().partition(|name| name.starts_with("auto-"));
    Ok((ours.into_iter().collect(), theirs))
}

/// Jobs of schedules that have not ended. Lists waiting ones twice: the second look finds the
/// successor of a job that ran at the first.
fn pending(node: &SkerryNode) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut all = Vec::new();
    for state in ["scheduled", "running", "scheduled"] {
        let found = node.json(&["jobs", "list", "--tenant", "system", "--state", state])?;
        all.extend(found.as_array().cloned().unwrap_or_default());
    }
    let mut seen = BTreeSet::new();
    all.retain(|job: &Value| seen.insert(job["id"].to_string()));
    Ok(all)
}

/// Waits until a schedule has taken `count` new snapshots; at no look is there more than one too
/// many.
fn see_more(
    node: &SkerryNode,
    volume: &str,
    seen: &mut BTreeSet<String>,
    count: usize,
    keep: usize,
) -> Outcome {
    let wanted = seen.len() + count;
    until("more snapshots", || {
        let (ours, _) = snapshots(node, volume)?;
        assert!(ours.len() <= keep + 1, "{ours:?}");
        seen.extend(ours);
        Ok((seen.len() >= wanted).then_some(()))
    })
}

#[test]
fn a_schedule_goes_on_over_a_kill_until_it_is_ended() -> Outcome {
    let node = settings()?.start()?;
    node.create("disk", "1M", &[])?;
    node.cli(&["snapshot", "create", "disk@auto-mine"])?;
    let made = node.json(&[&["snapshot", "schedule", "disk"], FLAGS.as_slice()].concat())?;
    assert_eq!((&made["volume"], &made["every_s"]), (&json!("disk"), &json!(1)), "{made}");
    let mut seen = BTreeSet::new();
    seen.extend(["auto-mine".to_owned()]);
    see_more(&node, "disk", &mut seen, 4, 3)?;
    let oldest = seen.iter().next().cloned();
    let node = node.kill()?.start()?;
    see_more(&node, "disk", &mut seen, 3, 3)?;
    let shown = node.json(&["snapshot", "schedule", "disk"])?;
    assert_eq!((&shown["since"], &shown["keep"]), (&made["since"], &json!(2)), "{shown}");
    let listed = node.json(&["snapshot", "schedules"])?;
    assert_eq!(texts(&listed, "volume"), ["disk"], "{listed}");

    assert_eq!(node.json(&["snapshot", "schedule", "disk", "--off"])?["was_on"], json!(true));
    assert_eq!(pending(&node)?, Vec::<Value>::new());
    let (ours, _) = snapshots(&node, "disk")?;
    assert!(ours.contains("auto-mine"), "somebody else's snapshot went: {ours:?}");
    assert!(!ours.contains(&oldest.unwrap_or_default()), "the oldest is still there: {ours:?}");
    assert_eq!(node.json(&["snapshot", "schedule", "disk", "--off"])?["was_on"], json!(false));
    assert_eq!(node.json(&["snapshot", "schedules"])?, json!([]));
    node.settings().cli(&["snapshot", "schedule", "disk"])?.refused(3)?;
    node.stop()?;
    Ok(())
}

#[test]
fn a_schedule_is_changed_and_follows_its_volume_until_that_is_deleted() -> Outcome {
    let node = settings()?.start()?;
    node.create("disk", "1M", &[])?;
    let mut seen = BTreeSet::new();
    let first = node.json(&[&["snapshot", "schedule", "disk"], FLAGS.as_slice()].concat())?;
    see_more(&node, "disk", &mut seen, 2, 2)?;
    let set = ["snapshot", "schedule", "disk", "--every", "1s", "--keep", "4"];
    let second = node.json(&set)?;
    assert_ne!(first["since"], second["since"]);
    let chains: BTreeSet<_> =
        pending(&node)?.iter().map(|job| job["metadata"]["since"].to_string()).collect();
    assert_eq!(chains.len(), 1, "{chains:?}");
    see_more(&node, "disk", &mut seen, 2, 4)?;
    node.cli(&["volume", "rename", "disk", "other"])?;
    see_more(&node, "other", &mut seen, 4, 4)?;
    assert_eq!(texts(&node.json(&["snapshot", "schedules"])?, "volume"), ["other"]);
    // A stop in between does not end it either.
    let node = node.stop()?.start()?;
    see_more(&node, "other", &mut seen, 1, 4)?;

    node.cli(&["volume", "delete", "other", "--snapshots"])?;
    until("the end of the schedule", || Ok(pending(&node)?.is_empty().then_some(())))?;
    assert_eq!(node.json(&["snapshot", "schedules"])?, json!([]));
    // One of the same name is another volume.
    node.create("other", "1M", &[])?;
    node.settings().cli(&["snapshot", "schedule", "other"])?.refused(3)?;
    node.stop()?;
    Ok(())
}

#[test]
fn a_volume_that_another_node_holds_ends_no_schedule() -> Outcome {
    let dir = tempfile::tempdir()?;
    let here = settings()?.bucket_dir(dir.path().join("bucket")).start()?;
    here.create("disk", "1M", &[])?;
    here.json(&[&["snapshot", "schedule", "disk"], FLAGS.as_slice()].concat())?;
    see_more(&here, "disk", &mut BTreeSet::new(), 1, 2)?;
    let there = settings()?.bucket_dir(dir.path().join("bucket")).start()?;
    there.cli(&["volume", "release", "disk", "--force"])?;
    there.cli(&["snapshot", "create", "disk@theirs"])?;
    until("two times that failed", || {
        let failed = |job: &&Value| job["attempts"][0]["error"]["code"] == json!("fenced");
        Ok((pending(&here)?.iter().filter(failed).count() >= 2).then_some(()))
    })?;
    let is_later = |job: &Value| job["attempts"] == json!([]);
    assert!(pending(&here)?.iter().any(is_later), "nothing follows: {:?}", pending(&here)?);

    there.cli(&["volume", "release", "disk"])?;
    let (before, _) = snapshots(&there, "disk")?;
    let mut seen = before;
    see_more(&here, "disk", &mut seen, 2, 3)?;
    assert_eq!(snapshots(&here, "disk")?.1, ["theirs"]);
    here.stop()?;
    there.stop()?;
    Ok(())
}

#[test]
fn what_is_asked_for_wrongly_is_refused() -> Outcome {
    let node = settings()?.start()?;
    node.create("disk", "1M", &[])?;
    let refused = |flags: &[&str], code| {
        let words = [&["snapshot", "schedule"], flags].concat();
        node.settings().cli(&words)?.refused(code)
    };
    assert!(refused(&["none"], 3)?.contains("none"));
    assert!(refused(&["disk"], 3)?.contains("--every"));
    refused(&["none", "--off"], 3)?;
    refused(&["disk", "--every", "1h"], 2)?;
    refused(&["disk", "--every", "1h", "--keep", "2", "--off"], 2)?;
    refused(&["disk", "--every", "0s", "--keep", "2"], 6)?;
    refused(&["disk", "--every", "-1h", "--keep", "2"], 6)?;
    refused(&["disk", "--every", "1h", "--keep", "1001"], 6)?;
    refused(&["disk@snap", "--every", "1h", "--keep", "1"], 6)?;
    assert_eq!(pending(&node)?, Vec::<Value>::new());

    let hourly = node.json(&["snapshot", "schedule", "disk", "--every", "1h", "--keep", "24"])?;
    let next = hourly["next_at"].as_str().unwrap_or_default();
    assert!(next.ends_with(":00:00.000Z"), "{hourly}");
    // The node stops, though a worker is connected.
    node.stop()?;
    Ok(())
}
