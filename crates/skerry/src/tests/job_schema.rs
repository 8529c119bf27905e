//! The documents of jobs have the fields that the tables of `docs/json.md` list.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

const PAGE: &str = include_str!("../../../../docs/json.md");
/// The heading from which on the tables are held.
const START: &str = "\n## Jobs\n";

/// The fields of each table, by its heading: the name, and true if it is optional.
fn tables() -> BTreeMap<&'static str, Vec<(&'static str, bool)>> {
    let (_, page) = PAGE.split_once(START).expect("the jobs' part");
    let mut tables: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut heading = "";
    for line in page.lines() {
        if let Some(found) = line.strip_prefix("### ") {
            heading = found.trim_matches('`');
        }
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [name, kind, _] = cells[..]
            && name.starts_with('`')
        {
            let field = (name.trim_matches('`'), kind.starts_with("optional "));
            tables.entry(heading).or_default().push(field);
        }
    }
    tables
}

/// Checks that a document has the fields of a table, and no other.
#[track_caller]
fn hold(table: &str, document: &Value) {
    let tables = tables();
    let fields = tables.get(table).unwrap_or_else(|| panic!("no table {table}"));
    let object = document.as_object().unwrap_or_else(|| panic!("{table}: {document}"));
    for (name, is_optional) in fields {
        assert!(*is_optional || object.contains_key(*name), "{table}: {name}: {document}");
    }
    for name in object.keys() {
        assert!(fields.iter().any(|(listed, _)| listed == name), "{table}: {name} is not listed");
    }
}

#[test]
fn documents_have_the_fields_that_the_page_lists() {
    let node = Node::with_jobs();
    let limits = ["--limit", "a=1", "--rate", "b=1/1s", "--floating", "c=1,every=1m,group=other"];
    let made = ["jobs", "enqueue", "--id", "a", "--group", "g", "--meta", "k=v", "--backoff", "1h"];
    node.ok(&[&made[..], &limits].concat());
    node.ask(async |jobs| super::jobs::fail_next(jobs, "g", "lost").await);
    let shown = node.json(&["jobs", "show", "a"]);
    hold("Job", &shown);
    assert_eq!(shown["payload"], json!(""));
    hold("Job", &node.json(&["jobs", "list", "--tenant", "default", "--meta", "k=v"])[0]);
    hold("Retry", &shown["retry"]);
    let limits = shown["limits"].as_array().expect("limits");
    limits.iter().for_each(|limit| hold("Limit", limit));
    hold("Attempt", &shown["attempts"][0]);
    hold("Error of an attempt", &shown["last_error"]);
    hold("Many jobs", &node.json(&["jobs", "cancel", "--filter", "group=g", "--dry-run"]));
    std::fs::write(node.path("lines"), "{}").expect("a file");
    hold("jobs import", &node.json(&["jobs", "import", &node.file("lines")]));
    let stats = node.json(&["jobs", "stats"]);
    hold("jobs stats", &stats["groups"][0]);
    let nodes = node.json(&["jobs", "nodes"]);
    let tables = tables();
    let listed = &tables["jobs nodes"];
    for document in [&nodes["nodes"][0], &nodes["shards"][0]] {
        for name in document.as_object().expect("a document").keys() {
            assert!(listed.iter().any(|(field, _)| field == name), "{name} is not listed");
        }
    }
}

/// Bytes that are no text can be restored.
#[test]
fn a_payload_that_is_no_text_is_in_base64_too() {
    let node = Node::with_jobs();
    std::fs::write(node.path("payload"), b"\xff\x00").expect("a file");
    node.ok(&["jobs", "enqueue", "--id", "a", "--file", &node.file("payload")]);
    let shown = node.json(&["jobs", "show", "a"]);
    assert_eq!(
        (&shown["payload"], &shown["payload_base64"]),
        (&json!("\u{fffd}\0"), &json!("/wA="))
    );
}
