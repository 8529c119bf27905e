//! Schedules over a node whose bucket can be told to hang.

use std::time::Duration;

use serde_json::json;
use skerry_core::env::Clock as _;
use skerry_testkit::PATIENCE;

use super::*;
use crate::env::SystemClock;

/// Interval between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Delay of the bucket's answers while it hangs, milliseconds.
const HANG_MS: u64 = 3_000;

/// The ids of the jobs of schedules that are in a state.
fn jobs(node: &Node, state: &str) -> Vec<String> {
    let listed = node.json(&["jobs", "list", "--tenant", "system", "--state", state]);
    let ids = listed.as_array().into_iter().flatten();
    ids.filter_map(|job| Some(job["id"].as_str()?.to_owned())).collect()
}

/// Gives a volume that hangs a schedule, and waits until a worker has a job of it.
fn hanging(node: &Node) -> String {
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.ok(&["snapshot", "schedule", "db", "--every", "1s", "--keep", "2"]);
    let slow = FaultPlan { slow: 1000, slow_ms: HANG_MS..HANG_MS + 1, ..FaultPlan::default() };
    node.faults.set_plan(slow);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        if let Some(id) = jobs(node, "running").pop() {
            return id;
        }
        runtime.block_on(async { tokio::time::sleep(LOOK_INTERVAL).await });
    }
    panic!("no job of the schedule runs");
}

#[test]
fn a_job_that_is_called_off_while_it_runs_is_not_followed() {
    let node = Node::with_jobs();
    let id = hanging(&node);
    // By hand: only the worker looks again.
    node.ok(&["jobs", "cancel", "--tenant", "system", &id]);
    node.fails(&["jobs", "await", "--tenant", "system", &id, "--timeout", "60"], 5, "cancelled");
    assert_eq!((jobs(&node, "scheduled"), jobs(&node, "running")), (vec![], vec![]));
}

/// The node's own jobs are shown to those who ask for them.
#[test]
fn jobs_of_the_node_itself_are_listed_by_their_tenant() {
    let node = Node::with_jobs();
    hanging(&node);
    node.ok(&["jobs", "enqueue", "--id", "mine"]);
    let listed = node.json(&["jobs", "list"]);
    let ids: Vec<_> = listed.as_array().into_iter().flatten().map(|job| &job["id"]).collect();
    assert_eq!(ids, ["mine"]);
}

#[test]
fn a_schedule_ends_while_its_volume_hangs() {
    let node = Node::with_jobs();
    hanging(&node);
    let ended = node.json(&["snapshot", "schedule", "db", "--off"]);
    assert_eq!(ended, json!({ "off": "db", "was_on": true }));
    assert_eq!((jobs(&node, "scheduled"), jobs(&node, "running")), (vec![], vec![]));
}

/// A key that may not delete causes an error, and costs no snapshot.
#[test]
fn snapshots_go_on_where_nothing_can_be_deleted() {
    let node = Node::with_jobs();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.faults.set_plan(FaultPlan { deny_deletes: true, ..FaultPlan::default() });
    node.ok(&["snapshot", "schedule", "db", "--every", "1s", "--keep", "1"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let taken = || node.json(&["snapshot", "list", "db"]).as_array().map_or(0, Vec::len);
    // The second snapshot is one too many.
    while taken() < 4 {
        assert!(tokio::time::Instant::now() < deadline, "{} snapshots", taken());
        runtime.block_on(async { tokio::time::sleep(LOOK_INTERVAL).await });
    }
    node.ok(&["snapshot", "schedule", "db", "--off"]);
}

#[test]
fn what_holds_no_schedule_is_a_dead_letter_and_disturbs_nobody() {
    let node = Node::with_jobs();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    let shown = node.json(&["volume", "show", "db"]);
    let id = shown["id"].as_str().expect("an id");
    let meta = format!("volume={id}");
    let mine = ["jobs", "enqueue", "--tenant", "system", "--group", "skerry/snapshots"];
    node.ok(&[mine.as_slice(), &["--id", "junk", "--meta", &meta, "{}"]].concat());
    node.fails(&["jobs", "await", "--tenant", "system", "junk", "--timeout", "60"], 5, "failed");
    assert_eq!(jobs(&node, "failed"), ["junk"]);
    node.fails(&["snapshot", "schedule", "db"], 3, "no schedule");
    let made = node.json(&["snapshot", "schedule", "db", "--every", "1d", "--keep", "7"]);
    assert_eq!((&made["volume_id"], &made["every_s"]), (&json!(id), &json!(86_400)));
    assert_eq!(node.json(&["snapshot", "schedules"]), json!([made]));
    assert!(node.ok(&["snapshot", "schedules"]).contains("1d"));
}

/// A node that was started with a clock that was ahead, and is started again with a right one.
#[test]
fn a_clock_that_was_ahead_ends_no_schedule() {
    let node = Node::with_jobs();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.ok(&["snapshot", "schedule", "db", "--every", "1h", "--keep", "9"]);
    let id = jobs(&node, "scheduled").pop().expect("the first");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let hasten = |now_ms: u64| {
        runtime.block_on(async {
            let address = Address::Unix(node.path("api.sock"));
            let schedules = crate::schedule::Schedules::connect(&address).await.expect("connected");
            schedules.hasten(now_ms).await.expect("looked")
        })
    };
    let now_ms = SystemClock.wall_ms();
    assert_eq!(hasten(now_ms), 0, "it waits for its time");
    assert_eq!(hasten(now_ms - 7_200_000), 1, "as seen by the right clock");
    node.ok(&["jobs", "await", "--tenant", "system", &id, "--timeout", "60"]);
    let second = jobs(&node, "scheduled").pop().expect("the next");
    assert_eq!(hasten(now_ms - 7_200_000), 1);
    node.ok(&["jobs", "await", "--tenant", "system", &second, "--timeout", "60"]);

    // The right clock comes to the time of the first job. Its successor is there, has ended before
    // its time, and is done again.
    let shown = node.json(&["jobs", "show", "--tenant", "system", &id]);
    let document = shown["payload"].as_str().expect("a payload").to_owned();
    node.ok(&["jobs", "delete", "--tenant", "system", &id]);
    let mine = ["jobs", "enqueue", "--tenant", "system", "--group", "skerry/snapshots"];
    node.ok(&[mine.as_slice(), &["--id", &id, &document]].concat());
    node.ok(&["jobs", "await", "--tenant", "system", &id, "--timeout", "60"]);
    assert!(jobs(&node, "scheduled").contains(&second), "{:?}", jobs(&node, "scheduled"));
}
