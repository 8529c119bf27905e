//! Jobs of a node that is lost. Another node shows their owner, takes them over with one command,
//! and has them until they are taken back. A node that comes back finds out that it was relieved,
//! and still serves its volumes.

use std::error::Error;
use std::io;
use std::time::Duration;

use serde_json::Value;
use skerry_testkit::{NodeSettings, PATIENCE, SkerryNode};

type Outcome = Result<(), Box<dyn Error>>;

/// Interval between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

fn settings(bucket: &std::path::Path) -> io::Result<NodeSettings> {
    Ok(NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.bucket_dir(bucket))
}

fn ids(node: &SkerryNode, tenant: &str) -> io::Result<Vec<String>> {
    let all = node.json(&["jobs", "list", "--tenant", tenant])?;
    let all = all.as_array().into_iter().flatten();
    Ok(all.filter_map(|job| Some(job["id"].as_str()?.to_owned())).collect())
}

/// The ids of this node and of the others.
fn nodes(node: &SkerryNode) -> Result<(String, Vec<String>), Box<dyn Error>> {
    let found = node.json(&["jobs", "nodes"])?;
    let mut all = found["nodes"].as_array().cloned().unwrap_or_default();
    // A database that was given up is shown, and has no node.
    all.retain(|node| node["node"] != "");
    let (here, others): (Vec<Value>, _) = all.into_iter().partition(|node| node["here"] == true);
    let id = |node: &Value| node["node"].as_str().unwrap_or_default().to_owned();
    let here = here.first().map(id).unwrap_or_default();
    Ok((here, others.iter().map(id).collect()))
}

fn is_relieved(node: &SkerryNode) -> io::Result<bool> {
    let standing = node.json(&["jobs", "nodes"])?["shards"][0].clone();
    Ok(standing["standing"] == "elsewhere")
}

#[test]
fn a_lost_nodes_jobs_are_taken_over_and_back() -> Outcome {
    let bucket = tempfile::tempdir()?;
    let lost = settings(bucket.path())?.start()?;
    lost.create("disk", "1M", &[])?;
    lost.cli(&["jobs", "enqueue", "--id", "mail", "a letter"])?;
    lost.cli(&["snapshot", "schedule", "disk", "--every", "1h", "--keep", "2"])?;
    let (lost_id, others) = nodes(&lost)?;
    assert!(others.is_empty(), "{others:?}");
    let lost = lost.kill()?;

    let node = settings(bucket.path())?.start()?;
    let (own_id, others) = nodes(&node)?;
    assert_eq!(others, std::slice::from_ref(&lost_id), "the lost node's jobs are seen from here");
    assert!(ids(&node, "default")?.is_empty(), "they are not this node's");
    let nobody = node.settings().cli(&["jobs", "take-over", "nobody"])?;
    assert_ne!(nobody.code(), 0);
    let said = node.process().stderr_tail();
    assert!(said.contains("other nodes have some in this bucket"), "the start warns: {said}");
    // This node's own jobs would be given up.
    node.cli(&["jobs", "enqueue", "--id", "own"])?;
    let refused = node.settings().cli(&["jobs", "take-over", &lost_id])?.ok();
    let refused = refused.expect_err("this node has jobs").to_string();
    assert!(refused.contains("of its own"), "{refused}");
    node.cli(&["jobs", "delete", "own"])?;
    node.cli(&["jobs", "take-over", &lost_id])?;
    assert_eq!(ids(&node, "default")?, ["mail"]);
    assert_eq!(ids(&node, "system")?.len(), 1, "the schedule goes on here");
    assert_eq!(nodes(&node)?, (own_id.clone(), Vec::new()));

    // The node was not lost after all. It serves its volume, and leaves the jobs alone, also after
    // a restart of the other.
    let back = lost.start()?;
    assert!(is_relieved(&back)?);
    let refused = back.settings().cli(&["jobs", "list"])?.ok().expect_err("they are elsewhere");
    assert!(refused.to_string().contains("took this node's jobs over"), "{refused}");
    assert_eq!(back.json(&["volume", "show", "disk"])?["name"], "disk");
    let node = node.stop()?.start()?;
    assert_eq!(ids(&node, "default")?, ["mail"]);
    assert!(is_relieved(&back)?);

    back.cli(&["jobs", "take-over"])?;
    assert_eq!(ids(&back, "default")?, ["mail"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // The other gave its own database up for these jobs, and begins anew when it finds out.
    while ids(&node, "default").ok().is_none_or(|ids| !ids.is_empty()) {
        assert!(tokio::time::Instant::now() < deadline, "the other does not begin anew");
        runtime.block_on(async { tokio::time::sleep(LOOK_INTERVAL).await });
    }
    back.cli(&["jobs", "enqueue", "--id", "more"])?;
    node.cli(&["jobs", "enqueue", "--id", "new"])?;
    assert_eq!(ids(&node, "default")?, ["new"]);
    assert_eq!(nodes(&node)?, (own_id, vec![lost_id]));
    Ok(())
}
