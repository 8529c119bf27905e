//! Commands about jobs.

use serde_json::json;
use skerry_api::v1;
use skerry_client::{Jobs, NewJob};
use tokio::runtime::Runtime;

use super::*;

impl Node {
    /// Asks for something by the client library.
    pub(super) fn ask<T>(&self, asked: impl AsyncFnOnce(Jobs) -> skerry_api::Result<T>) -> T {
        let address = Address::Unix(self.path("api.sock"));
        let runtime = Runtime::new().expect("a runtime");
        let answer = runtime.block_on(async { asked(Jobs::connect(&address).await?).await });
        answer.expect("an answer")
    }

    fn show(&self, id: &str) -> v1::Job {
        self.ask(async |jobs| jobs.show("default", id).await)
    }
}

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
    let jobs = (0..2100).map(|n| NewJob::new("").id(n.to_string()));
    node.ask(async |client| client.enqueue_all(jobs).await);
    let many = ["--filter", "state=scheduled", "--yes"];
    let text = node.ok(&[&["jobs", "cancel"], many.as_slice()].concat());
    assert_eq!(text, "cancelled 2100 jobs\n");
    let dry = node.json(&["jobs", "delete", "--filter", "state=cancelled", "--dry-run"]);
    assert_eq!(dry["matched"], 2100);
}

#[test]
fn every_option_of_a_job_can_be_set() {
    let node = Node::with_jobs();
    let options = ["--retries", "9", "--backoff", "1s..1h,x3,jitter=0%", "--limit", "api=3"];
    let limits = ["--rate", "smtp=10/1m,burst=5", "--floating", "gpu=2,every=1m,group=g"];
    node.ok(&[&["jobs", "enqueue", "--id", "a"], &options[..], &limits[..]].concat());
    let job = node.show("a");
    let spec = job.spec.expect("a specification");
    let retry = v1::RetryPolicy {
        retries: Some(9),
        initial_ms: Some(1_000),
        max_ms: Some(3_600_000),
        factor_percent: Some(300),
        jitter_percent: Some(0),
    };
    assert_eq!(spec.retry, Some(retry));
    let names: Vec<_> = spec.limits.iter().map(|limit| limit.name.as_str()).collect();
    assert_eq!(names, ["api", "smtp", "gpu"]);
    let rate = v1::RateLimit { count: 10, per_ms: 60_000, burst: 5 };
    assert_eq!(spec.limits[1].kind, Some(v1::limit::Kind::Rate(rate)));
    let enqueue = ["jobs", "enqueue", "--rate", "smtp=10"];
    node.fails(&enqueue, 6, "it has no time; write NAME=COUNT/TIME");
}

/// A failed attempt of the next job of a task group.
pub(super) async fn fail_next(jobs: Jobs, group: &str, message: &str) -> skerry_api::Result<()> {
    let (group, worker) = (group.to_owned(), "w".to_owned());
    let lease = v1::LeaseJobsRequest { group, worker, max: 1, wait_ms: 60_000 };
    let leased = jobs.raw().lease_jobs(lease).await?.into_inner().jobs;
    let (code, message) = ("E1".to_owned(), message.to_owned());
    let failed = v1::outcome::End::Failed(v1::JobError { code, message, r#final: false });
    let outcomes =
        leased.into_iter().map(|job| v1::Outcome { lease: job.lease, end: Some(failed.clone()) });
    let report = v1::ReportJobsRequest { outcomes: outcomes.collect(), next: None };
    jobs.raw().report_jobs(report).await.map(drop).map_err(Into::into)
}

#[test]
fn a_listing_says_why_jobs_wait_and_what_went_wrong() {
    let node = Node::with_jobs();
    node.ok(&["jobs", "enqueue", "--id", "again", "--group", "g", "--backoff", "1h"]);
    node.ask(async |jobs| fail_next(jobs, "g", "no\nsuch address").await);
    node.ok(&["jobs", "pause", "held"]);
    enqueue(&node, "held", &["held"], &[]);
    enqueue(&node, "idle", &["turn"], &[]);
    let listed = node.json(&["jobs", "list"]);
    let jobs = listed.as_array().expect("an array");
    let of = |id: &str| jobs.iter().find(|job| job["id"] == id).expect("it is listed");
    let again = of("again");
    let error = json!({ "code": "E1", "message": "no\nsuch address", "final": false });
    assert_eq!(again["last_error"], error);
    assert_eq!(again["next_start_at"], again["start_at"]);
    assert!(again["waits_for"].as_str().is_some_and(|why| why.contains("its time")), "{again}");
    let held = of("held");
    assert_eq!((&held["last_error"], &held["next_start_at"]), (&Value::Null, &Value::Null));
    assert!(held["waits_for"].as_str().is_some_and(|why| why.contains("paused")), "{held}");
    assert!(of("turn")["waits_for"].as_str().is_some_and(|why| why.contains("turn")));

    let text = node.ok(&["jobs", "list"]);
    assert_eq!(text.lines().count(), 4, "an error stays in its line: {text}");
    let line = text.lines().find(|line| line.contains("again")).expect("it is listed");
    assert!(line.contains("E1: no\\nsuch address"), "{line}");
    assert!(line.contains(again["next_start_at"].as_str().expect("a time")), "{line}");
}
