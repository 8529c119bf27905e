//! The end of a connection: set once, seen by all.

use tokio::sync::watch;

use super::Error;

/// The first error of a connection.
#[derive(Debug)]
pub(super) struct End(watch::Sender<Option<Error>>);

impl Default for End {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl End {
    /// Ends the connection. A second end changes nothing.
    pub(super) fn set(&self, error: Error) {
        self.0.send_if_modified(|end| match end {
            Some(_) => false,
            None => {
                *end = Some(error);
                true
            }
        });
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> Error {
        let mut seen = self.0.subscribe();
        let end = seen.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(Error::Closed)
    }
}
