//! The gate of the API: every call passes it before its handler.
//!
//! While the node starts, the gate refuses calls and tells what the node waits for. When the node
//! stops, the gate ends the calls that still run, and waits for their ends, for a bounded time. The
//! node writes nothing for a command that has ended.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use skerry_api::{Error, ErrorKind};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::service::Routes;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// The present step of a node's start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Starting(Arc<Mutex<String>>);

impl Starting {
    /// Sets the present step.
    pub(crate) fn say(&self, text: impl Into<String>) {
        *self.0.lock() = text.into();
    }

    fn refusal(&self) -> Status {
        let text = self.0.lock().clone();
        Error::new(ErrorKind::Unavailable, format!("the node is starting: {text}")).into()
    }
}

/// Running calls, and the order to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    end: CancellationToken,
    tracker: TaskTracker,
}

impl Calls {
    /// Runs a part of a call that has to clean up when its client goes or the node stops. It must
    /// heed [`Self::ended`].
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.tracker.spawn(work)
    }

    /// Gives the token that is cancelled when calls have to end.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.end.clone()
    }

    /// Ends all calls, and waits for them, for `time_max` at most.
    pub(crate) async fn end(&self, time_max: Duration) {
        self.end.cancel();
        self.tracker.close();
        if tokio::time::timeout(time_max, self.tracker.wait()).await.is_err() {
            tracing::warn!(calls = self.tracker.len(), "commands did not end in time");
        }
    }
}

/// The gate. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Default)]
struct Inner {
    starting: Starting,
    routes: OnceLock<Routes>,
    calls: Calls,
}

impl Gate {
    /// Place for the node's present step, until the gate is opened.
    pub(crate) fn starting(&self) -> Starting {
        self.0.starting.clone()
    }

    /// The running calls.
    pub(crate) fn calls(&self) -> Calls {
        self.0.calls.clone()
    }

    /// Lets calls through from now on.
    pub(crate) fn open(&self, routes: Routes) {
        // The gate is opened once.
        let _ = self.0.routes.set(routes);
    }
}

impl Inner {
    async fn answer(&self, request: Request) -> Response {
        let Some(mut routes) = self.routes.get().cloned() else {
            return self.starting.refusal().into_http();
        };
        let _running = self.calls.tracker.token();
        tokio::select! {
            biased;
            () = self.calls.end.cancelled() => stopping().into_http(),
            // The routes have no errors of their own.
            Ok(response) = routes.call(request) => response,
        }
    }
}

impl Service<Request> for Gate {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let gate = self.0.clone();
        Box::pin(async move { Ok(gate.answer(request).await) })
    }
}

/// The answer to calls that end with the node.
pub(crate) fn stopping() -> Status {
    Error::new(ErrorKind::Unavailable, "the node stops; try again").into()
}
