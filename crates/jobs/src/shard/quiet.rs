//! What a shard does now and then, whatever else is written: deletions that only its log has go to its files, if they free
//! much, and if much has expired since the files were made, they are told the time. Only then can a merge
//! (`crate::reclaim`) take away what is gone.

use super::Inner;
use crate::reclaim::{BYTES_MIN, QUIET_MS};
use std::sync::Weak;
use std::time::Duration;

/// Looks every ten minutes whether there is much to win.
pub(super) async fn watch(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_millis(QUIET_MS)).await;
        let Some(shard) = inner.upgrade() else { return };
        if shard.failure.borrow().is_some() {
            return;
        }
        let store = shard.store.clone();
        drop(shard);
        let has_much = store.freed_bytes() >= BYTES_MIN || store.expires_unseen();
        if has_much && let Err(error) = store.tell_files().await {
            // It is tried again, unless the shard is out of service.
            tracing::debug!(%error, "what is gone stays in the files of a shard");
        }
    }
}
