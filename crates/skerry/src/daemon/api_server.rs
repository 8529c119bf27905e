//! The API's server: listens from the start of a node to its end. The [`Gate`] decides about calls.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use skerry_api::Address;
use skerry_api::v1::control_server::ControlServer;
use skerry_api::v1::jobs_server::JobsServer;
use skerry_volume::Engine;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::server::HealthReporter;

use crate::daemon::listeners::Listener;
use crate::jobs::JobsHost;
use crate::rpc::control::{self, ControlService};
use crate::rpc::gate::{Gate, Starting};
use crate::rpc::jobs::JobsService;

/// Requests that one connection may have at once.
const STREAMS_MAX: u32 = 256;
/// Unread bytes on their way on one stream of an import, at most.
const WINDOW_BYTES: u32 = 4 << 20;

/// Interval of keep-alives to a silent peer: a worker that has gone gives its jobs back.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The largest accepted message about jobs, bytes: a batch, each with up to 1 MiB.
const JOBS_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Time for which the end waits for calls to clean up.
const CALLS_TIME_MAX: Duration = Duration::from_secs(10);

/// The control API's service, by whose name clients ask for its health.
type Service = ControlServer<ControlService>;

/// The server.
pub(crate) struct ApiServer {
    addresses: Vec<Address>,
    gate: Gate,
    /// Orders the server to stop.
    stop: CancellationToken,
    tasks: JoinSet<()>,
    health: Option<HealthReporter>,
}

impl ApiServer {
    /// Listens. Until [`Self::open`], calls hear that the node is starting.
    pub(crate) fn start(listeners: Vec<Listener>) -> Self {
        let addresses = listeners.iter().map(Listener::address).collect();
        let (gate, stop, mut tasks) = (Gate::default(), CancellationToken::new(), JoinSet::new());
        for listener in listeners {
            tasks.spawn(serve(gate.clone(), listener, stop.clone()));
        }
        Self { addresses, gate, stop, tasks, health: None }
    }

    /// The address at which it listens.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Place for the node's present step, for calls that come before [`Self::open`].
    pub(crate) fn starting(&self) -> Starting {
        self.gate.starting()
    }

    /// Answers calls from now on.
    pub(crate) async fn open(&mut self, engine: Arc<Engine>, jobs: Option<Arc<JobsHost>>) {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_serving::<Service>().await;
        self.health = Some(reporter);
        let service = ControlService::new(engine, self.gate.calls());
        let control = ControlServer::with_interceptor(service, control::admit);
        let mut routes = Routes::new(health).add_service(control);
        if let Some(host) = jobs {
            let jobs = JobsServer::new(JobsService::new(host, self.stop.clone()));
            routes = routes.add_service(jobs.max_decoding_message_size(JOBS_MESSAGE_BYTES_MAX));
        }
        self.gate.open(routes.prepare());
    }

    /// Tells clients that ask for its health that it is stopping.
    pub(crate) async fn set_not_serving(&self) {
        if let Some(health) = &self.health {
            health.set_not_serving::<Service>().await;
        }
    }

    /// Takes no more calls, and waits for running ones.
    pub(crate) async fn drain(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends the calls that still run, and waits for their ends.
    pub(crate) async fn end(mut self) {
        if !self.tasks.is_empty() {
            tracing::warn!("commands that still ran are cut off");
        }
        self.gate.calls().end(CALLS_TIME_MAX).await;
        self.tasks.shutdown().await;
    }
}

async fn serve(gate: Gate, listener: Listener, stop: CancellationToken) {
    let address = listener.to_string();
    let server = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    let served = match listener {
        Listener::Unix(listener, _file) => {
            let incoming = UnixListenerStream::new(listener);
            server.serve_with_incoming_shutdown(gate, incoming, stop.cancelled()).await
        }
        Listener::Tcp(listener, _) => {
            let at_once = |stream: &TcpStream| {
                // If this fails, the connection is only slower.
                let _ = stream.set_nodelay(true);
            };
            let incoming = TcpListenerStream::new(listener).inspect_ok(at_once);
            server.serve_with_incoming_shutdown(gate, incoming, stop.cancelled()).await
        }
    };
    if let Err(error) = served {
        tracing::error!(%error, address, "the control API has ended");
    }
}
