//! A shard's occasional work, whatever else is written. The shard moves deletions that only its log
//! has to its files, if they free much. It tells the files the time, if much has expired since they
//! were made. Only then can a merge (`crate::reclaim`) remove what is gone.

use super::Inner;
use crate::reclaim::{BYTES_MIN, QUIET_MS};
use std::sync::Weak;
use std::time::Duration;

/// Checks every ten minutes whether there is much to free.
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
            // The next round tries again, unless the shard is out of service.
            tracing::debug!(%error, "deleted rows stay in the files of a shard");
        }
    }
}
