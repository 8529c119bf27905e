//! The output of commands about nodes with jobs, and about this node's shards.

use serde::Serialize;
use skerry_api::v1;

use super::{documents, table};
use crate::values::time;

/// Nodes and shards, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct NodesDocument {
    nodes: Vec<NodeDocument>,
    shards: Vec<ShardDocument>,
}

/// A node with jobs in the bucket, as a document.
#[derive(Debug, Serialize)]
struct NodeDocument {
    node: String,
    host: String,
    database: String,
    taken_at: String,
    here: bool,
}

/// A shard of this node, as a document.
#[derive(Debug, Serialize)]
pub(crate) struct ShardDocument {
    shard: u32,
    standing: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

impl From<&v1::ListJobNodesResponse> for NodesDocument {
    fn from(found: &v1::ListJobNodesResponse) -> Self {
        Self { nodes: documents(&found.nodes), shards: documents(&found.shards) }
    }
}

impl From<&v1::JobNode> for NodeDocument {
    fn from(node: &v1::JobNode) -> Self {
        Self {
            node: node.node.clone(),
            host: node.host.clone(),
            database: node.database.clone(),
            taken_at: time(node.taken_ms),
            here: node.is_here,
        }
    }
}

impl From<&v1::JobShard> for ShardDocument {
    fn from(shard: &v1::JobShard) -> Self {
        Self { shard: shard.number, standing: shard.standing.clone(), reason: shard.reason.clone() }
    }
}

/// Nodes and shards, for people.
pub(crate) fn nodes_text(found: &v1::ListJobNodesResponse) -> String {
    let rows: Vec<_> = found
        .nodes
        .iter()
        .map(|node| {
            let here = if node.is_here { "here" } else { "" };
            let (host, id) = (node.host.clone(), node.node.clone());
            [host, id, node.database.clone(), time(node.taken_ms), here.to_owned()]
        })
        .collect();
    let nodes = table(["HOST", "NODE", "DATABASE", "SINCE", ""], &rows);
    format!("{nodes}\nThis node's shards:\n{}", shards_text(&found.shards))
}

/// Shards, for people.
pub(crate) fn shards_text(shards: &[v1::JobShard]) -> String {
    let rows: Vec<_> = shards
        .iter()
        .map(|shard| [shard.number.to_string(), shard.standing.clone(), shard.reason.clone()])
        .collect();
    table(["SHARD", "STANDING", "REASON"], &rows)
}
