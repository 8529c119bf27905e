//! `jobs export` and `jobs import`.

use serde_json::json;

use super::*;

/// Runs an import that must fail with this code. Gives its document, and what it said.
#[track_caller]
fn refused(node: &Node, args: &[&str]) -> (Value, String) {
    let ran = node.run(&[&["jobs", "import", "--json"], args].concat());
    assert_eq!(ran.code, 6, "{ran:?}");
    (serde_json::from_str(&ran.out).expect("a document"), ran.err)
}

#[test]
fn what_was_exported_is_imported_once() {
    let from = Node::with_jobs();
    std::fs::write(from.path("payload"), b"\xff\x00").expect("a file");
    let payload = from.file("payload");
    let options = ["--limit", "a=1", "--rate", "b=1/1s", "--backoff", "1h", "--meta", "k=v"];
    let file = ["jobs", "enqueue", "--id", "a", "--group", "g", "--file", &payload];
    from.ok(&[&file[..], &options].concat());
    from.ask(async |jobs| super::jobs::fail_next(jobs, "g", "lost").await);
    let given = from.json(&["jobs", "enqueue", "--tenant", "acme", "x"])["id"].clone();
    let given = given.as_str().expect("an id");
    from.ok(&["jobs", "enqueue", "--id", "c"]);
    from.ok(&["jobs", "cancel", "c"]);

    let to = Node::with_jobs();
    let lines = to.path("lines");
    std::fs::write(&lines, from.ok(&["jobs", "export"])).expect("a file");
    let lines = to.file("lines");
    let (_, said) = refused(&to, &[&lines]);
    assert!(said.contains(given) && said.contains("the broker's own"), "{said}");
    let import = ["jobs", "import", "--id-prefix", "from/", &lines];
    let first = to.json(&import);
    assert_eq!(first["refused_total"], 0, "{first}");
    let again = to.json(&import);
    assert_eq!((&again["imported"], &again["existing"]), (&json!(0), &json!(3)), "{again}");
    for id in ["a", "c"] {
        assert_eq!(to.json(&["jobs", "show", id]), from.json(&["jobs", "show", id]));
    }
    let id = format!("from/{given}");
    let shown = to.json(&["jobs", "show", "--tenant", "acme", &id]);
    assert_eq!((&shown["payload"], &shown["state"]), (&json!("x"), &json!("scheduled")));
}

#[test]
fn a_refused_line_is_named_and_keeps_out_no_other_that_may_go_on() {
    let node = Node::with_jobs();
    let lines = [
        r#"{"id": "a", "payload": "x"}"#,
        "",
        r#"{"id": "b", "priority": 100}"#,
        r#"{"id": "c"}"#,
        "no JSON",
        r#"{"id": "d"}"#,
    ];
    std::fs::write(node.path("lines"), lines.join("\n")).expect("a file");
    let file = node.file("lines");
    let (document, said) = refused(&node, &[&file]);
    assert!(said.contains("line 3: priority 100"), "{said}");
    assert_eq!(document["imported"], 2, "of a part that is sent, the good jobs are there");
    node.fails(&["jobs", "show", "d"], 3, "d");

    let (document, _) = refused(&node, &[&file, "--keep-going"]);
    assert_eq!((&document["imported"], &document["existing"]), (&json!(1), &json!(2)));
    let refused = document["refused"].as_array().expect("an array");
    let numbers: Vec<_> = refused.iter().map(|one| one["line"].clone()).collect();
    assert_eq!(numbers, [json!(3), json!(5)], "{document}");
    assert_eq!(node.json(&["jobs", "show", "d"])["state"], "scheduled");
}

#[test]
fn an_import_has_more_lines_than_a_call() {
    let node = Node::with_jobs();
    let lines: Vec<_> = (0..2500).map(|n| json!({ "id": n.to_string() }).to_string()).collect();
    std::fs::write(node.path("lines"), lines.join("\n")).expect("a file");
    assert_eq!(node.json(&["jobs", "import", &node.file("lines")])["imported"], 2500);
    assert_eq!(node.ok(&["jobs", "export"]).lines().count(), 2500);
}
