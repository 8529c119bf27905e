//! Commands about jobs.

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
