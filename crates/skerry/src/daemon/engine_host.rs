//! The engine of a node, with its parts that run beside it.

use std::sync::Arc;

use skerry_api::Result;
use skerry_store::objects::meter::Counters;
use skerry_volume::Engine;

use crate::api_error::of_engine;
use crate::background::Background;
use crate::home::lock::Lock;
use crate::home::log_place::LogPlace;

/// Keeps the engine, the counters of its store, and its threads.
pub(crate) struct EngineHost {
    /// Serves the volumes.
    pub(crate) engine: Arc<Engine>,
    /// Counts the calls of the bucket.
    pub(crate) store: Arc<Counters>,
    /// Notes the log's place.
    pub(crate) log_place: LogPlace,
    /// Computes for the engine.
    pub(crate) _background: Background,
    /// Commits the log; ends with the engine.
    pub(crate) _committer: skerry_log::CommitterThread,
    /// Keeps every other node off the log.
    pub(crate) _log_lock: Option<Lock>,
}

impl EngineHost {
    /// Makes everything durable and stops.
    ///
    /// # Errors
    /// The engine's own: something is not in the bucket yet.
    pub(crate) async fn shutdown(&self) -> Result<()> {
        self.engine.shutdown().await.map_err(of_engine)?;
        self.log_place.end(self.engine.is_drained());
        Ok(())
    }
}
