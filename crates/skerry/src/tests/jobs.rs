//! Commands about jobs.

use serde_json::json;

use super::*;

/// zsh takes `~` for a home directory. Scripts may still have ids of the form before.
#[test]
fn an_id_that_the_node_gave_needs_no_quotes_and_its_form_before_works() {
    let node = Node::with_jobs();
    let made = node.json(&["jobs", "enqueue", "x"]);
    let id = made["id"].as_str().expect("an id");
    let digits = id.strip_prefix('_').expect("the form of given ids");
    assert_eq!(digits.len(), 16, "{id}");
    for before in [format!("~{digits}"), format!("~{}", digits.trim_start_matches('0'))] {
        assert_eq!(node.json(&["jobs", "show", &before])["id"], *id);
        node.fails(&["jobs", "await", &before, "--timeout", "0"], 7, &before);
    }
    node.ok(&["jobs", "cancel", &format!("~{digits}")]);
    node.fails(&["jobs", "await", &format!("~{digits}")], 5, id);
    node.fails(&["jobs", "enqueue", "--id", id], 6, "the broker's own");
}

/// Enqueues jobs with these ids in a task group.
fn enqueue(node: &Node, group: &str, ids: &[&str], more: &[&str]) {
    for id in ids {
        node.ok(&[&["jobs", "enqueue", "--group", group, "--id", id], more].concat());
    }
}

/// The ids of the jobs that a filter finds.
fn found(node: &Node, filter: &[&str]) -> Vec<String> {
    let listed = node.json(&[&["jobs", "list"], filter].concat());
    let ids = listed.as_array().into_iter().flatten();
    ids.filter_map(|job| Some(job["id"].as_str()?.to_owned())).collect()
}

#[test]
fn a_filter_changes_the_jobs_that_a_listing_shows() {
    let node = Node::with_jobs();
    enqueue(&node, "mail", &["a", "b", "c"], &["--meta", "user=1"]);
    enqueue(&node, "other", &["d"], &[]);
    enqueue(&node, "mail", &["a"], &["--tenant", "acme"]);
    let mail = ["--filter", "group=mail"];
    assert_eq!(found(&node, &mail).len(), 4);
    let mine = ["--tenant", "default", "--filter", "group=mail"];
    assert_eq!(found(&node, &mine), ["a", "b", "c"]);

    let cancel = [&["jobs", "cancel"], mine.as_slice()].concat();
    node.fails(&cancel, 6, "--yes");
    let dry = node.json(&[&cancel[..], &["--dry-run"]].concat());
    let expected = json!({ "matched": 3, "done": 0, "told": 0, "skipped": 0, "dry_run": true });
    assert_eq!(dry, expected);
    assert_eq!(found(&node, &["--state", "scheduled"]).len(), 5, "nothing changed");
    assert_eq!(node.ok(&[&cancel[..], &["--yes"]].concat()), "cancelled 3 jobs\n");
    assert_eq!(node.ok(&[&cancel[..], &["--yes"]].concat()), "cancelled 0 jobs\n");
    assert_eq!(found(&node, &["--state", "scheduled"]).len(), 2);

    let restart = ["jobs", "restart", "--yes", "--filter", "state=cancelled"];
    let entry = ["--filter", "tenant=default", "--filter", "meta.user=1"];
    node.fails(&["jobs", "restart", "--yes", "--filter", "group=mail"], 6, "state=STATE");
    let done = node.json(&[&restart[..], &entry].concat());
    assert_eq!((&done["done"], &done["skipped"]), (&json!(3), &json!(0)));
    let delete = ["jobs", "delete", "--yes", "--filter", "state=scheduled"];
    let old = ["--filter", "older-than=1h"];
    assert_eq!(node.ok(&[&delete[..], &old].concat()), "deleted 0 jobs\n");
    assert_eq!(node.ok(&delete), "deleted 5 jobs\n");
    assert_eq!(found(&node, &[]), Vec::<String>::new());
}

/// More jobs than a page has, and more than are asked for at once.
#[test]
fn a_filter_changes_more_jobs_than_a_page_has() {
    let node = Node::with_jobs();
    let jobs: Vec<_> =
        (0..2100).map(|n| skerry_client::NewJob::new("").id(n.to_string())).collect();
    let address = format!("unix:{}", node.path("api.sock").display()).parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = skerry_client::Jobs::connect(&address).await.expect("connects");
        client.enqueue_all(jobs).await.expect("enqueues")
    });
    let many = ["--filter", "state=scheduled", "--yes"];
    let text = node.ok(&[&["jobs", "cancel"], many.as_slice()].concat());
    assert_eq!(text, "cancelled 2100 jobs\n");
    let dry = node.json(&["jobs", "delete", "--filter", "state=cancelled", "--dry-run"]);
    assert_eq!(dry["matched"], 2100);
}
