//! Commands against a served engine in memory: real sockets, real gRPC, the real command line.

mod commands;
mod images;
mod node;
mod schedules;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde_json::Value;
use skerry_api::Address;
use tokio_util::sync::CancellationToken;

use crate::daemon::api_server::ApiServer;
use crate::daemon::listeners::Listeners;
use crate::fake::Fake;
use crate::home::layout::Layout;
use crate::jobs::{JobsHost, Opener};
use crate::settings::{Listen, Seconds, Settings};

/// A node over [`Fake`], in a directory of its own, until it is dropped.
struct Node {
    dir: tempfile::TempDir,
    fake: Fake,
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

impl Node {
    fn start() -> Self {
        Self::start_with(false)
    }

    /// Starts a node that takes jobs too.
    fn with_jobs() -> Self {
        Self::start_with(true)
    }

    fn start_with(jobs: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut settings = Settings { data: dir.path().to_owned(), ..Settings::default() };
        settings.node.shutdown_drain_s = Seconds(1);
        settings.nbd.listen = Some(vec![Listen(Address::Unix(dir.path().join("nbd.sock")))]);
        settings.metrics.listen = Some(Listen(Address::Tcp("127.0.0.1:0".to_owned())));
        let (fake, stop) = (Fake::default(), CancellationToken::new());
        let (sender, receiver) = mpsc::channel();
        let (engine, stopping) = (fake.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let layout = Layout::new(&settings.data)?;
                let mut listeners = Listeners::bind(&settings, &layout).await?;
                let api = ApiServer::start(std::mem::take(&mut listeners.api));
                let engine = std::sync::Arc::new(engine);
                let out = &mut Lines(sender);
                let (node, host) = (skerry_core::id::NodeId([1; 16]), "n".to_owned());
                let me = crate::home::identity::Identity { node, host };
                let jobs = match jobs {
                    true => Some(JobsHost::start(Opener::new(&settings, &layout, &me)?).await),
                    false => None,
                };
                crate::daemon::serve::serve(&settings, engine, jobs, api, listeners, stopping, out)
                    .await
            })
        });
        let ready = receiver.recv().expect("the node serves");
        Self { dir, fake, ready, stop, thread: Some(thread) }
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

    /// Stops it, as a signal would.
    fn stop(&mut self) {
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

fn run(args: &[&str], variable: crate::settings::Variable<'_>) -> Ran {
    let args = ["skerry"].iter().chain(args).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = crate::cli::commands::main(args, variable, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code, out: text(out), err: text(err) }
}
