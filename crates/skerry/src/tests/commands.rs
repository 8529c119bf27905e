//! Documents, texts and exit codes of every command but import and export.

use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use serde_json::json;

use super::*;

/// Volumes of a long listing: more than one message holds.
const LISTED: usize = 2100;

/// Overwrites the middle of all segments. Gives their number.
async fn tear_segments(store: &InMemory) -> usize {
    let all: Vec<_> = store.list(None).try_collect().await.expect("lists");
    let segments = all.iter().filter(|object| object.location.as_ref().starts_with("streams/"));
    let mut torn = 0;
    for object in segments {
        let whole = store.get(&object.location).await.expect("gets").bytes().await.expect("reads");
        let mut bytes = whole.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0xee);
        store.put(&object.location, bytes.into()).await.expect("puts");
        torn += 1;
    }
    torn
}

#[test]
fn a_volume_is_the_document_that_is_promised() {
    let node = Node::start();
    let made = node.json(&["volume", "create", "db", "--size", "10G"]);
    let expected = json!({
        "name": "db",
        "id": made["id"],
        "state": "free",
        "failure": null,
        "owner": null,
        "held_here": false,
        "deleted": false,
        "size_bytes": 10_737_418_240_u64,
        "block_size_bytes": 4096,
        "used_bytes": 0,
        "stored_bytes": 0,
        "flush": "local",
        "created_at": made["created_at"],
        "clients": 0,
        "undestaged_bytes": 0,
        "undestaged_age_s": null,
        "snapshots": 0,
    });
    assert_eq!(made, expected);
    assert_eq!(node.json(&["volume", "show", "db"]), expected);
    assert_eq!(node.json(&["volume", "list"]), json!([expected]));

    let flags = ["--size", "1536", "--block-size", "64K", "--flush", "bucket"];
    let other = node.json(&[&["volume", "create", "b"], flags.as_slice()].concat());
    assert_eq!(other["size_bytes"], 1536);
    assert_eq!(other["block_size_bytes"], 65536);
    assert_eq!(other["flush"], "bucket");
}

#[test]
fn snapshots_and_differences_are_the_documents_that_are_promised() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    let unnamed = node.json(&["snapshot", "create", "db"]);
    let expected = json!({
        "name": unnamed["name"],
        "volume": "db",
        "created_at": unnamed["created_at"],
        "size_bytes": 1_048_576,
        "state": unnamed["state"],
    });
    assert_eq!(unnamed, expected);
    let first = format!("db@{}", unnamed["name"].as_str().expect("a name"));
    std::fs::write(node.path("image"), [7; 4096]).expect("a file");
    node.ok(&["import", &node.file("image"), "db", "--force"]);
    node.ok(&["snapshot", "create", "db@full"]);
    assert_eq!(node.json(&["snapshot", "list", "db"]).as_array().map(Vec::len), Some(2));
    assert_eq!(node.json(&["volume", "show", "db"])["snapshots"], 2);
    let there = node.json(&["snapshot", "diff", &first, "db@full"]);
    assert_eq!(there, json!([{ "offset": 0, "length": 4096, "zero": false }]));
    let back = node.json(&["snapshot", "diff", "db@full", &first]);
    assert_eq!(back, json!([{ "offset": 0, "length": 4096, "zero": true }]));
    let same = node.json(&["snapshot", "diff", "db@full", "db@full"]);
    assert_eq!(same, json!([]));
    node.ok(&["snapshot", "delete", "db@full"]);
    node.fails(&["snapshot", "delete", "db@full"], 3, "db@full");
}

#[test]
fn rollback_names_the_snapshot_that_keeps_what_was() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.ok(&["snapshot", "create", "db@a"]);
    let text = node.ok(&["volume", "rollback", "db@a"]);
    let (_, kept) = text.trim().split_once("kept as ").expect("it is named");
    node.ok(&["snapshot", "delete", kept.trim_end_matches('.')]);
    let kept = node.json(&["volume", "rollback", "db@a"]);
    let all = node.json(&["snapshot", "list", "db"]);
    let names: Vec<_> = all.as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    assert!(names.contains(&&kept["name"]) && names.len() == 2, "{kept} in {all}");
}

#[test]
fn volumes_are_changed() {
    let node = Node::start();
    node.ok(&["volume", "create", "a", "--size", "1M"]);
    assert_eq!(node.json(&["volume", "resize", "a", "2M"])["size_bytes"], 2 << 20);
    node.fails(&["volume", "resize", "a", "1M"], 6, "--shrink");
    assert_eq!(node.json(&["volume", "resize", "a", "1M", "--shrink"])["size_bytes"], 1 << 20);
    assert_eq!(node.json(&["volume", "rename", "a", "b"])["name"], "b");
    node.ok(&["snapshot", "create", "b@s"]);
    let clone = node.json(&["volume", "clone", "b@s", "c", "--size", "4M"]);
    assert_eq!((&clone["name"], &clone["size_bytes"]), (&json!("c"), &json!(4 << 20)));
    assert_eq!(node.json(&["volume", "clone", "b@s", "d"])["size_bytes"], 1 << 20);
    let deleted = node.json(&["volume", "delete", "c"]);
    assert_eq!(deleted, json!({ "deleted": "c", "snapshots_left": 0 }));
    node.fails(&["volume", "show", "c"], 3, "volume c");
    let released = node.json(&["volume", "release", "b"]);
    assert_eq!(released, json!({ "released": "b", "held_by": HOST, "may_lose": false }));
}

/// Once, the command did not say that data and the name stay.
#[test]
fn a_deletion_says_which_snapshots_remain() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.ok(&["snapshot", "create", "db@a"]);
    node.ok(&["snapshot", "create", "db@b"]);
    let text = node.ok(&["volume", "delete", "db"]);
    for said in ["2 of its snapshots", "skerry snapshot list db", "delete db --snapshots"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(node.json(&["volume", "delete", "db"])["snapshots_left"], 2);
    assert_eq!(node.ok(&["volume", "delete", "db", "--snapshots"]), "deleted volume db\n");
}

#[test]
fn people_get_tables() {
    let node = Node::start();
    assert!(node.ok(&["volume", "list"]).contains("skerry volume create"));
    node.ok(&["volume", "create", "db", "--size", "10G"]);
    node.ok(&["snapshot", "create", "db@a"]);
    let list = node.ok(&["volume", "list"]);
    assert!(list.starts_with("NAME  SIZE    USED  FLUSH"), "{list}");
    assert!(list.contains("\ndb    10 GiB  0 B   local"), "{list}");
    assert!(node.ok(&["snapshot", "list", "db"]).contains("db@a  10 GiB"));
    assert!(node.ok(&["volume", "show", "db"]).contains("(10737418240 bytes)"));
    assert!(node.ok(&["status"]).contains("memory://"));
}

#[test]
fn status_is_a_document() {
    let node = Node::start();
    let status = node.json(&["status"]);
    assert_eq!(status["bucket_url"], "memory://");
    assert!(status["log_cap_bytes"].as_u64() > Some(0), "{status}");
    assert_eq!(status["parked"], json!([]));
}

#[test]
fn a_check_that_finds_something_ends_with_corrupt() {
    let node = Node::start();
    assert_eq!(node.json(&["fsck"])["problems"], json!([]));
    std::fs::write(node.path("image"), [7; 8192]).expect("a file");
    node.ok(&["import", &node.file("image"), "db"]);
    node.runtime.block_on(node.engine.open_volumes()[0].drain()).expect("drains");
    let tears = tear_segments(&node.store);
    assert!(node.runtime.block_on(tears) > 0, "a segment is torn");
    let ran = node.run(&["fsck", "--json"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    let report: Value = serde_json::from_str(&ran.out).expect("a document");
    assert_eq!(report["problems_total"], report["problems"].as_array().map_or(0, Vec::len));
    assert_ne!(report["problems_total"], 0);
}

#[test]
fn errors_end_with_their_codes_and_say_what_to_do() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.fails(&["volume", "create", "db", "--size", "1M"], 4, "choose another name");
    node.fails(&["volume", "show", "nothing"], 3, "nothing");
    let client = node.attach("db");
    node.fails(&["volume", "delete", "db"], 5, "detach");
    drop(client);
    let long = "x".repeat(129);
    for bad in ["", ".a", "a/b", "a b", "ä", "a@b", &long] {
        node.fails(&["volume", "create", bad, "--size", "1M"], 6, "not a valid name");
    }
    for (size, said) in [
        ("0", "zero"),
        ("-1", "not a size"),
        ("1000", "multiple of 512"),
        ("1.5G", "not a size"),
        ("2000P", "1 EiB"),
        ("99999999999999999999", "not a size"),
    ] {
        node.fails(&["volume", "create", "v", "--size", size], 6, said);
        node.fails(&["volume", "resize", "db", size], 6, said);
    }
    let block = ["volume", "create", "v", "--size", "1M", "--block-size", "3K"];
    node.fails(&block, 6, "4K, 8K");
    node.fails(&["volume", "rollback", "db"], 6, "db@SNAPSHOT");
    node.fails(&["snapshot", "diff", "a@x", "b@y"], 6, "one volume");
    node.fails(&["volume", "create", "db"], 2, "--size");
    node.fails(&["volume", "frobnicate"], 2, "frobnicate");
    node.fails(&["--api", "nowhere", "status"], 2, "unix:PATH or HOST:PORT");
    node.fails(&["--api", "a:1", "--api", "b:1", "status"], 6, "more than once");
}

#[test]
fn a_node_that_does_not_run_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().to_str().expect("a path");
    let ran = run(&["volume", "list", "--data", data], &|_| None);
    assert_eq!(ran.code, 7, "{ran:?}");
    let said = format!("no node answers at unix:{data}/api.sock");
    assert!(ran.err.contains(&said) && ran.err.contains("skerry serve"), "{ran:?}");

    let long = format!("{data}/{}", "x".repeat(100));
    let ran = run(&["volume", "list", "--data", &long], &|_| None);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(ran.err.contains("--data"), "{ran:?}");
}

#[test]
fn the_node_is_found_by_flag_or_environment() {
    let node = Node::start();
    let data = node.dir.path().to_str().expect("a path");
    let api = format!("unix:{data}/api.sock");
    let none = |_: &str| None;
    assert_eq!(run(&["status", "--data", data], &none).code, 0);
    assert_eq!(run(&["--api", &api, "status"], &none).code, 0);
    let variable = |name: &str| (name == "SKERRY_API").then(|| api.clone());
    assert_eq!(run(&["status"], &variable).code, 0);
    // A flag is stronger than the environment.
    assert_eq!(run(&["status", "--data", "/no/such"], &variable).code, 7);
}

#[test]
fn listings_may_be_long() {
    let node = Node::start();
    for number in 0..LISTED {
        let new = skerry_volume::CreateVolume {
            name: format!("{number:0100}").parse().expect("a name"),
            size_bytes: 512,
            block_size_bytes: 4096,
            flush: None,
        };
        node.runtime.block_on(node.engine.create_volume(new)).expect("made");
    }
    assert_eq!(node.json(&["volume", "list"]).as_array().map(Vec::len), Some(LISTED));
}

/// A name without `@` is a volume, or a snapshot whose volume was left out.
#[test]
fn a_name_without_its_volume_is_answered_with_the_right_form() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    node.ok(&["snapshot", "create", "db@good"]);
    node.ok(&["snapshot", "create", "db@better"]);
    for args in [
        &["snapshot", "delete", "good"][..],
        &["snapshot", "diff", "good", "db@better"],
        &["snapshot", "diff", "db@better", "good"],
        &["volume", "clone", "good", "new"],
        &["volume", "rollback", "good"],
    ] {
        node.fails(args, 6, "good@SNAPSHOT");
        node.fails(args, 6, "there is db@good\n");
    }
    node.fails(&["snapshot", "delete", "db"], 6, "there is db@good, db@better\n");
    node.fails(&["snapshot", "delete", "none"], 6, "if that is the snapshot's name\n");
    let data = node.file("none");
    node.fails(&["--data", &data, "snapshot", "delete", "good"], 6, "good@SNAPSHOT");
}

#[test]
fn names_are_completed_from_the_node() {
    let node = Node::start();
    for name in ["db", "dc", "x"] {
        node.ok(&["volume", "create", name, "--size", "1M"]);
    }
    node.ok(&["snapshot", "create", "db@a"]);
    node.ok(&["snapshot", "create", "dc@b"]);
    let complete = |words: &[&str]| node.ok(&[&["complete-names", "--"], words].concat());
    assert_eq!(complete(&["volume", "show", ""]), "db\ndc\nx\n");
    assert_eq!(complete(&["volume", "show", "d"]), "db\ndc\n");
    assert_eq!(complete(&["volume", "show", "d@"]), "");
    assert_eq!(complete(&["snapshot", "delete", ""]), "db@a\ndc@b\n");
    assert_eq!(complete(&["snapshot", "delete", "dc@"]), "dc@b\n");
    assert_eq!(complete(&["export", "db"]), "db\ndb@a\n");
    // No node, no word: nothing, and no error.
    assert_eq!(complete(&["--data", "/nowhere", "volume", "show", ""]), "");
    assert_eq!(complete(&["volume", "show", "--api", "nowhere", ""]), "");
    assert_eq!(complete(&[]), "");
    for number in 0..17 {
        let name = format!("many-{number}");
        node.ok(&["volume", "create", &name, "--size", "1M"]);
        node.ok(&["snapshot", "create", &format!("{name}@s")]);
    }
    assert!(complete(&["snapshot", "delete", ""]).contains("many-3@\n"));
    assert_eq!(complete(&["snapshot", "delete", "many-3"]), "many-3@s\n");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell], &|_| None);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("rollback"), "{shell}");
    }
}

#[test]
fn a_node_without_jobs_has_no_schedules() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    let set = ["snapshot", "schedule", "db", "--every", "1h", "--keep", "24"];
    node.fails(&set, 7, "[jobs]");
    node.fails(&["snapshot", "schedule", "db"], 7, "[jobs]");
    node.fails(&["snapshot", "schedule", "db", "--off"], 7, "[jobs]");
    node.fails(&["snapshot", "schedules"], 7, "[jobs]");
    node.fails(&["snapshot", "schedule", "none"], 3, "none");
}
