//! The patience of a start with the bucket. If the bucket is away, the node's log may hold writes
//! that its guests were promised.
//!
//! A start waits for a known bucket as guests wait: any failure may pass. At the first use a wrong
//! address, name or key is likelier, and a person wants an answer.

use std::time::Duration;

use skerry_api::{ErrorKind, Result};
use skerry_core::retry::Patience;

use crate::rpc::gate::Starting;
use crate::settings::BucketSettings;

/// The patience of a start.
#[derive(Debug, Clone)]
pub(crate) struct StartPatience {
    /// A guest's patience; none for an unknown bucket.
    guest: Option<Patience>,
    starting: Starting,
}

impl StartPatience {
    /// For a bucket that the node has used before, or has not.
    pub(crate) fn new(settings: &BucketSettings, is_known: bool, starting: Starting) -> Self {
        let wait_max = settings.guest_wait_s.map(|wait| Duration::from_secs(wait.0));
        Self { guest: is_known.then_some(Patience { wait_max, ..Patience::GUEST }), starting }
    }

    /// Does work that needs the bucket: with a command's patience at first, then with a guest's.
    ///
    /// # Errors
    /// The errors of the last attempt.
    pub(crate) async fn attempt<T>(
        &self,
        mut work: impl AsyncFnMut(Patience) -> Result<T>,
    ) -> Result<T> {
        match (work(Patience::COMMAND).await, self.guest) {
            (Err(error), Some(patience)) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(%error, "the node waits for its bucket, as its guests do");
                self.starting.say(format!("it waits for its bucket: {error}"));
                let done = work(patience).await;
                if done.is_ok() {
                    tracing::info!("the bucket is back");
                    self.starting.say("its bucket is back");
                }
                done
            }
            (done, _) => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Seconds;
    use skerry_api::Error;

    /// The patience of each attempt at work that fails with `kind`.
    async fn attempts(is_known: bool, kind: ErrorKind) -> Vec<Patience> {
        let settings = BucketSettings { guest_wait_s: Some(Seconds(7)), ..Default::default() };
        let mut made = Vec::new();
        let starting = Starting::default();
        let patience = StartPatience::new(&settings, is_known, starting);
        let failed = patience.attempt(async |patience| {
            made.push(patience);
            Err::<(), _>(Error::new(kind, "no".to_owned()))
        });
        assert_eq!(failed.await.expect_err("it fails").kind(), kind);
        made
    }

    #[tokio::test]
    async fn only_a_known_bucket_that_does_not_answer_is_waited_for() {
        let wait_max = Some(Duration::from_secs(7));
        let guest = Patience { wait_max, ..Patience::GUEST };
        assert_eq!(attempts(true, ErrorKind::Unavailable).await, [Patience::COMMAND, guest]);
        assert_eq!(attempts(false, ErrorKind::Unavailable).await, [Patience::COMMAND]);
        for kind in [ErrorKind::Invalid, ErrorKind::InUse, ErrorKind::Corrupt] {
            assert_eq!(attempts(true, kind).await, [Patience::COMMAND], "{kind:?}");
        }
    }
}
