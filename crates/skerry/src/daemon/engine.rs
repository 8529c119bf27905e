//! The engine that a node serves, with what runs beside it.

use std::sync::Arc;

use skerry_api::Result;
use skerry_store::objects::meter::Counters;
use skerry_volume::Engine;

use crate::api_error::of_engine;
use crate::background::Background;
use crate::home::lock::Lock;
use crate::home::log_place::LogPlace;

/// A node, the counters of its store, and the threads beside it.
pub(crate) struct Engine {
    /// Serves the volumes.
    pub(crate) node: Arc<Engine>,
    /// Counts the calls of the bucket.
    pub(crate) store: Arc<Counters>,
    /// Notes the log's place.
    pub(crate) log_place: LogPlace,
    /// Computes for the node.
    pub(crate) _background: Background,
    /// Commits the log; ends with the engine.
    pub(crate) _committer: skerry_log::CommitterThread,
    /// Keeps every other node off the log.
    pub(crate) _log_lock: Option<Lock>,
}

impl Engine {
    /// Makes everything durable and stops.
    ///
    /// # Errors
    /// The node's own: something is not in the bucket yet.
    pub(crate) async fn shutdown(&self) -> Result<()> {
        self.node.shutdown().await.map_err(of_engine)?;
        self.log_place.end(self.node.is_drained());
        Ok(())
    }
}
