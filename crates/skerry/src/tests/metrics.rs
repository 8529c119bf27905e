//! The metrics of a node are the ones that the table of `docs/operating.md` lists. The alerts and
//! the dashboard ask for no other.

use std::collections::{BTreeMap, BTreeSet};

use super::node::get;
use super::*;

const PAGE: &str = include_str!("../../../../docs/operating.md");
const ALERTS: &str = include_str!("../../../../docs/alerts.yml");
const DASHBOARD: &str = include_str!("../../../../docs/dashboard.json");
/// Beginning of each metric.
const PREFIX: &str = "skerry_";

/// The metrics and types of a page, without the `_total` of counters.
type Kinds = BTreeMap<String, String>;

/// The name under which samples of a metric stand, without what its type adds.
fn family(sample: &str, kind: &str) -> String {
    let ends: &[&str] = match kind {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_count", "_sum"],
        _ => &[],
    };
    ends.iter().find_map(|end| sample.strip_suffix(end)).unwrap_or(sample).to_owned()
}

fn served() -> Kinds {
    let node = Node::with_jobs();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    let _client = node.attach("db");
    let address = node.ready.trim().rsplit_once("tcp:").expect("an address").1;
    let page = get(address, "/metrics");
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

fn listed() -> Kinds {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `skerry_"));
    let parsed = rows.map(|row| {
        let (name, rest) = row.split_once("` | ").expect("a name");
        let (kind, _) = rest.split_once(',').expect("a type and a unit");
        (family(&format!("{PREFIX}{name}"), kind), kind.to_owned())
    });
    parsed.collect()
}

/// The names in a text that begin as a metric does.
fn named(text: &str) -> BTreeSet<&str> {
    let is_of_name = |char: char| char == '_' || char.is_ascii_alphanumeric();
    let words = text.split(|char| !is_of_name(char));
    words.filter(|word| word.starts_with(PREFIX)).collect()
}

/// The metrics that a text asks for. Fails on a name that no metric has.
#[track_caller]
fn asked(text: &str, kinds: &Kinds) -> BTreeSet<String> {
    let find = |name: &str| {
        let found = kinds.iter().find(|(metric, kind)| {
            let is_plain = *kind == "gauge" && name == **metric;
            is_plain || (name != **metric && family(name, kind) == **metric)
        });
        found.unwrap_or_else(|| panic!("no metric has a sample {name}")).0.clone()
    };
    named(text).into_iter().map(find).collect()
}

#[test]
fn the_page_of_metrics_is_the_table_of_the_docs() {
    let mut listed = listed();
    // It stands there only while a client is connected over NBD.
    assert_eq!(listed.remove("skerry_nbd_clients").as_deref(), Some("gauge"));
    assert_eq!(served(), listed);
}

#[test]
fn alerts_and_the_dashboard_ask_for_metrics_that_exist() {
    let kinds = listed();
    assert!(asked(ALERTS, &kinds).len() > 5);
    let shown = asked(DASHBOARD, &kinds);
    let hidden: Vec<_> = kinds.keys().filter(|metric| !shown.contains(*metric)).collect();
    assert!(hidden.is_empty(), "the dashboard lacks {hidden:?}");
    serde_json::from_str::<Value>(DASHBOARD).expect("JSON");
}
