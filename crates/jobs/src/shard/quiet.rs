//! What a shard does when nothing is written for a while: deletions that only its log has go to its files, if they free
//! much, and if much has expired since the files were made, they are told the time. Only then can a merge
//! (`crate::reclaim`) take away what is gone.

use super::Inner;
use crate::reclaim::{BYTES_MIN, QUIET_MS};
use std::sync::Weak;
use std::time::Duration;

/// Looks now and then whether something was written since.
pub(super) async fn watch(inner: Weak<Inner>) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(QUIET_MS)).await;
        let Some(shard) = inner.upgrade() else { return };
        if shard.failure.borrow().is_some() {
            return;
        }
        let store = shard.store.clone();
        drop(shard);
        let written = store.written();
        let is_quiet = std::mem::replace(&mut seen, written.batches) == written.batches;
        let has_much = || written.freed_bytes >= BYTES_MIN || store.expires_unseen();
        if is_quiet
            && has_much()
            && let Err(error) = store.tell_files().await
        {
            tracing::debug!(%error, "what is gone stays in the files of a quiet shard");
            return;
        }
    }
}
