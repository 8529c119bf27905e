//! Commands against a node whose bucket is in memory: real sockets, real gRPC, the real command
//! line.

mod commands;
mod images;
mod job_import;
mod job_schema;
mod jobs;
mod metrics;
mod node;
mod schedules;
mod schema;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::Value;
use skerry_api::Address;
use skerry_store::objects::faulty::{FaultPlan, Faults, Faulty};
use skerry_store::objects::url::OpenStore;
use skerry_volume::Device;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::daemon::announcer::Announcer;
use crate::daemon::api_server::ApiServer;
use crate::daemon::engine_host::EngineHost;
use crate::daemon::listeners::Listeners;
use crate::daemon::serve::serve;
use crate::daemon::wiring;
use crate::env::SystemEntropy;
use crate::home::identity::Identity;
use crate::home::layout::Layout;
use crate::jobs::{JobsHost, Opener};
use crate::rpc::gate::Starting;
use crate::settings::{Listen, Seconds, Settings};

/// Name of the host of each node.
const HOST: &str = "n";

/// A node in a directory of its own, until it is dropped.
struct Node {
    dir: tempfile::TempDir,
    /// The store under its bucket.
    store: Arc<InMemory>,
    /// Makes the store fail.
    faults: Faults,
    /// Its engine, and the runtime of that.
    engine: Arc<skerry_volume::Engine>,
    runtime: Handle,
    /// Its output when it served.
    ready: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<skerry_api::Result<()>>>,
}

/// The result of a command.
#[derive(Debug)]
struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Hands on the output.
struct Lines(mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8(bytes.to_vec()).map_err(io::Error::other)?;
        self.0.send(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the engine of a node over this store.
async fn engine_over(
    store: Arc<dyn ObjectStore>,
    settings: &Settings,
    starting: &Starting,
) -> skerry_api::Result<EngineHost> {
    let layout = Layout::new(&settings.data)?;
    let me = Identity::open(&layout, HOST.to_owned(), &SystemEntropy)?;
    let store = OpenStore { store, local_root: None, display: "memory://".to_owned() };
    let started = wiring::start_engine_over(store, settings, &layout, &me, starting).await?;
    Ok(started.engine)
}

impl Node {
    fn start() -> Self {
        Self::over(Arc::default(), false)
    }

    /// Starts a node that takes jobs too.
    fn with_jobs() -> Self {
        Self::over(Arc::default(), true)
    }

    /// Starts a node over a store that others may have used.
    fn over(store: Arc<InMemory>, jobs: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = settings_of(&dir);
        let faulty = Faulty::new(store.clone(), 1, FaultPlan::default());
        let (faults, stop) = (faulty.faults(), CancellationToken::new());
        let (sender, receiver) = mpsc::channel();
        let (engines, opened) = mpsc::channel();
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let layout = Layout::new(&settings.data)?;
                let mut listeners = Listeners::bind(&settings, &layout).await?;
                let api = ApiServer::start(std::mem::take(&mut listeners.api));
                let engine = engine_over(Arc::new(faulty), &settings, &api.starting()).await?;
                let told = engines.send((engine.engine.clone(), Handle::current()));
                told.map_err(io::Error::other).expect("the test waits");
                let mut out = Lines(sender);
                let announcer = &mut Announcer::new(&mut out, &|_| None);
                let me = Identity::open(&layout, HOST.to_owned(), &SystemEntropy)?;
                let jobs = match jobs {
                    true => Some(JobsHost::start(Opener::new(&settings, &layout, &me)?).await),
                    false => None,
                };
                serve(&settings, engine, jobs, api, listeners, stopping, announcer).await
            })
        });
        let (engine, runtime) = opened.recv().expect("the engine starts");
        let ready = receiver.recv().expect("the node serves");
        Self { dir, store, faults, engine, runtime, ready, stop, thread: Some(thread) }
    }

    /// Attaches a client to a volume.
    fn attach(&self, volume: &str) -> Arc<Device> {
        let target = volume.parse().expect("a target");
        self.runtime.block_on(self.engine.open_device(&target)).expect("attaches")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The text of a path in the node's directory.
    fn file(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path").to_owned()
    }

    fn run(&self, args: &[&str]) -> Ran {
        let data = self.dir.path().to_str().expect("a path").to_owned();
        run(args, &|name| (name == "SKERRY_DATA").then(|| data.clone()))
    }

    /// Runs a command that must succeed; gives its output.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        assert_eq!(ran.err, "", "{args:?}");
        ran.out
    }

    /// Runs a command that must succeed, with `--json`; gives the document.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<_> = args.iter().chain(&["--json"]).copied().collect();
        serde_json::from_str(&self.ok(&args)).expect("a document")
    }

    /// Runs a command that must end with this code and this message.
    #[track_caller]
    fn fails(&self, args: &[&str], code: u8, said: &str) {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.err.starts_with("skerry: "), "{args:?}: {ran:?}");
        assert!(ran.err.contains(said), "{args:?}: {ran:?}");
    }

    /// Stops it, as a signal would, once its bucket answers.
    fn stop(&mut self) {
        self.faults.set_plan(FaultPlan::default());
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("a clean end");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

/// Settings of a node in this directory: sockets in it, and a short stop.
fn settings_of(dir: &tempfile::TempDir) -> Settings {
    let mut settings = Settings { data: dir.path().to_owned(), ..Settings::default() };
    settings.node.shutdown_drain_s = Seconds(1);
    settings.bucket.guest_wait_s = Some(Seconds(1));
    settings.nbd.listen = Some(vec![Listen(Address::Unix(dir.path().join("nbd.sock")))]);
    settings.metrics.listen = Some(Listen(Address::Tcp("127.0.0.1:0".to_owned())));
    settings
}

fn run(args: &[&str], variable: crate::settings::Variable<'_>) -> Ran {
    let args = ["skerry"].iter().chain(args).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = crate::cli::commands::main(args, variable, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code, out: text(out), err: text(err) }
}
