//! The daemon: takes the data directory, listens, starts the engine, serves, and stops.
//!
//! Must hold: nothing is served before the directory is locked and the engine has recovered. Until
//! then commands hear what the start waits for. "ready" is printed once everything can be used. A
//! stop answers clients before it ends them, and makes everything durable after the last of them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use skerry_api::{Error, ErrorKind, Result};
use skerry_serve::nbd::{Limits, Server as NbdServer, SessionThreads};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::daemon::announcer::Announcer;
use crate::daemon::api_server::ApiServer;
use crate::daemon::engine_host::EngineHost;
use crate::daemon::exports::NodeExports;
use crate::daemon::listeners::{Listener, Listeners};
use crate::daemon::log_lines::Lines;
use crate::daemon::signals::stop_signals;
use crate::daemon::wiring;
use crate::daemon::wiring::Started;
use crate::env::SystemEntropy;
use crate::home::claim::{Claim, LOOK_INTERVAL};
use crate::home::identity::{self, Identity};
use crate::home::layout::Layout;
use crate::home::lock::Lock;
use crate::jobs::{JobsHost, Opener};
use crate::metrics;
use crate::metrics::scrape;
use crate::schedule::SnapshotWorker;
use crate::settings::Settings;

/// Runs a node until it is told to stop.
pub(crate) async fn main(
    settings: Settings,
    lines: &Lines,
    announcer: &mut Announcer<'_>,
) -> Result<()> {
    announcer.starting();
    raise_open_files();
    let stop = stop_signals(lines.clone())?;
    let layout = Layout::new(&settings.data)?;
    // The node's files hold its guests' data: no other user may read them. In a bucket that several
    // users share the operator decides, and the node's own directories keep others out.
    if layout.bucket_elsewhere(&settings).is_none() {
        umask(Mode::from_raw_mode(0o077));
    }
    layout.create()?;
    let host = identity::host(settings.node.name.as_deref());
    let _lock = Lock::take(&layout, &host)?;
    let identity = Identity::open(&layout, host, &SystemEntropy)?;
    for dir in layout.open_to_others(&settings) {
        let dir = dir.display();
        tracing::warn!(
            "{dir} is open to other users, and holds what guests write: chmod 700 {dir}"
        );
    }
    let mut listeners = Listeners::bind(&settings, &layout).await?;
    // From here on commands hear what the start waits for.
    let api = ApiServer::start(std::mem::take(&mut listeners.api));
    let starting = api.starting();
    let Started { engine, claim } = tokio::select! {
        started = wiring::start_engine(&settings, &layout, &identity, &starting) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    starting.say("it opens its jobs");
    let overtaken = claim.map(|claim| stop_when_overtaken(claim, stop.clone()));
    let jobs = match settings.jobs.enabled {
        true => Some(JobsHost::start(Opener::new(&settings, &layout, &identity)?).await),
        false => None,
    };
    let served = serve(&settings, engine, jobs, api, listeners, stop, announcer).await;
    the_end(served, overtaken.as_ref().and_then(|why| why.get()))
}

/// Gives the error of the node's end. A copy in its place comes before other failures.
fn the_end(served: Result<()>, overtaken: Option<&Error>) -> Result<()> {
    let Some(why) = overtaken else { return served };
    if let Err(error) = served {
        tracing::error!(%error, "the node did not stop well");
    }
    Err(why.clone())
}

/// Stops the node when a copy of it has been started. Gives the reason.
fn stop_when_overtaken(claim: Claim, stop: CancellationToken) -> Arc<OnceLock<Error>> {
    let why = Arc::new(OnceLock::new());
    let told = why.clone();
    tokio::spawn(async move {
        let error = claim.overtaken(LOOK_INTERVAL).await;
        // Set once, before anything that may fail and keep the node serving.
        let _ = told.set(error.clone());
        stop.cancel();
        tracing::error!(%error, "a copy of this node has taken its place: stopping");
    });
    why
}

/// Raises the limit of open files as far as the system allows. A log has up to 480 files of two
/// descriptors each, and every client is one.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, limit = ?limit.current, "the limit of open files stays as it is");
    }
}

/// Serves an engine until `stop`, and then stops it.
pub(crate) async fn serve(
    settings: &Settings,
    engine: EngineHost,
    jobs: Option<Arc<JobsHost>>,
    api: ApiServer,
    listeners: Listeners,
    stop: CancellationToken,
    announcer: &mut Announcer<'_>,
) -> Result<()> {
    let ready = ready_line(&api, &listeners);
    let serving = Serving::start(settings, &engine, jobs.clone(), api, listeners).await?;
    announcer.ready(&ready)?;
    stop.cancelled().await;
    announcer.stopping();
    serving.stop(Duration::from_secs(settings.node.shutdown_drain_s.0)).await;
    if let Some(jobs) = jobs {
        jobs.stop().await;
    }
    engine.shutdown().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Starts a thread for each processor; more than a few dozen connections share them.
fn session_threads() -> Result<SessionThreads> {
    let count = std::thread::available_parallelism().map_or(1, |count| count.get());
    SessionThreads::start(count).map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("no threads for connections: {error}"))
    })
}

/// All servers of the node.
struct Serving {
    nbd: NbdServer,
    api: ApiServer,
    /// Accepts NBD clients.
    tasks: JoinSet<()>,
    /// Takes scheduled snapshots, as a client of the API.
    snapshots: Option<SnapshotWorker>,
    /// Ends last, so that a stop can be watched.
    scraping: Option<JoinHandle<()>>,
}

impl Serving {
    async fn start(
        settings: &Settings,
        engine: &EngineHost,
        jobs: Option<Arc<JobsHost>>,
        mut api: ApiServer,
        listeners: Listeners,
    ) -> Result<Self> {
        let connections_max = settings.nbd.connections_max as usize;
        let limits = Limits { connections_max, ..Limits::default() };
        let exports = Arc::new(NodeExports::new(engine.engine.clone()));
        let nbd = NbdServer::on_threads(exports, limits, session_threads()?);
        let mut tasks = JoinSet::new();
        for listener in listeners.nbd {
            tasks.spawn(serve_nbd(nbd.clone(), listener));
        }
        api.open(engine.engine.clone(), jobs.clone()).await;
        let snapshots = match (&jobs, api.addresses().first().cloned()) {
            (Some(_), Some(address)) => Some(SnapshotWorker::start(address, engine.engine.clone())),
            _ => None,
        };
        let scraping =
            listeners.metrics.map(|listener| serve_metrics(engine, &nbd, jobs, listener));
        Ok(Self { nbd, api, tasks, snapshots, scraping })
    }

    /// Lets clients have their last replies, for this time at most.
    async fn stop(mut self, drain_time_max: Duration) {
        let seconds = drain_time_max.as_secs();
        tracing::info!(seconds, "stopping: clients get their last replies");
        self.api.set_not_serving().await;
        let commands = async {
            if let Some(snapshots) = self.snapshots {
                // The rest of the time is for the others.
                snapshots.stop(drain_time_max / 2).await;
            }
            self.api.drain().await;
        };
        // Slower ones are cut off below.
        let (drained, _) = tokio::join!(
            self.nbd.shutdown(drain_time_max),
            tokio::time::timeout(drain_time_max, commands)
        );
        tracing::info!(finished = drained.finished, cut = drained.cut, "clients have gone");
        self.api.end().await;
        self.tasks.shutdown().await;
        if let Some(scraping) = self.scraping {
            scraping.abort();
        }
    }
}

async fn serve_nbd(server: NbdServer, listener: Listener) {
    match listener {
        Listener::Unix(listener, _file) => server.serve_unix(listener).await,
        Listener::Tcp(listener, _) => server.serve_tcp(listener).await,
    }
}

fn serve_metrics(
    engine: &EngineHost,
    nbd: &NbdServer,
    jobs: Option<Arc<JobsHost>>,
    listener: Listener,
) -> JoinHandle<()> {
    let nbd = nbd.clone();
    let clients = move || nbd.clients().into_iter().collect();
    let registry =
        Arc::new(metrics::registry(engine.engine.clone(), engine.store.clone(), clients, jobs));
    tokio::spawn(async move {
        // Settings allow only TCP here.
        if let Listener::Tcp(listener, _) = listener {
            scrape::serve(listener, registry).await;
        }
    })
}

/// The line that says that volumes can be used, with the addresses.
fn ready_line(api: &ApiServer, listeners: &Listeners) -> String {
    let nbd = listeners.nbd.iter().map(|listener| format!(" nbd={listener}"));
    let api = api.addresses().iter().map(|address| format!(" api={address}"));
    let metrics = listeners.metrics.iter().map(|listener| format!(" metrics={listener}"));
    let addresses: String = nbd.chain(api).chain(metrics).collect();
    format!("ready{addresses}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_was_overtaken_says_so_however_it_ends() {
        let error = |text: &str| Error::new(ErrorKind::Unavailable, text.to_owned());
        let copy = error("a copy");
        assert_eq!(the_end(Err(error("full")), Some(&copy)), Err(copy.clone()));
        assert_eq!(the_end(Ok(()), Some(&copy)), Err(copy));
        assert_eq!(the_end(Err(error("full")), None), Err(error("full")));
        assert_eq!(the_end(Ok(()), None), Ok(()));
    }
}
