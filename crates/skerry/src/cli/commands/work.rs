//! `skerry jobs work`: a program does the jobs of a task group.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_api::{Error, ErrorKind, Result};
use skerry_client::{Contact, Worker};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::cli::args::jobs::WorkArgs;
use crate::cli::program::Program;
use crate::daemon::serve::raise_open_files;
use crate::daemon::signals::{ORDERS, any, signals};
use crate::values::invalid;

/// Time after which the command says again that it has no node.
const AGAIN: Duration = Duration::from_secs(60);

/// The directories of programs if the environment names none.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Says a line for people. A reader that stalls or has gone neither stops nor ends the worker.
fn say(text: String) {
    tokio::task::spawn_blocking(move || {
        let _ = writeln!(std::io::stderr(), "skerry: {text}");
    });
}

/// Works until a signal, and then until the programs that run have ended; a second signal ends
/// them.
pub(super) async fn run(context: &Context<'_>, args: WorkArgs) -> Result<()> {
    // Each program has three pipes.
    raise_open_files();
    let mut signals = signals()?;
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into());
    let program = Program::new(args.command, args.give_up, &path, Box::new(say));
    let program = Arc::new(program.map_err(|error| invalid(error.to_string()))?);
    let _end = EndAll(program.clone());
    let stop = CancellationToken::new();
    let teller = Teller::new(format!("jobs of {:?} at {}", args.group, context.address));
    let mut worker = Worker::new(context.address.clone(), args.group)
        .concurrency(args.concurrency)
        .watch(move |contact| teller.tell(contact));
    if let Some(name) = args.name {
        worker = worker.name(name);
    }
    let working = worker.run(stop.clone(), move |task| {
        let program = program.clone();
        async move { program.run(task).await }
    });
    let mut working = std::pin::pin!(working);
    tokio::select! {
        ended = &mut working => return ended,
        () = any(&mut signals) => {}
    }
    say("stopping when the jobs that run have ended; another signal ends them".to_owned());
    stop.cancel();
    // A terminal that closes sends several SIGHUPs.
    signals.truncate(ORDERS);
    tokio::select! {
        ended = &mut working => ended,
        () = any(&mut signals) => {
            let message = "told twice to stop: killed the programs; other workers get their jobs";
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

/// Kills what runs when the command ends, however it ends: a program must not outlive its worker.
struct EndAll(Arc<Program>);

impl Drop for EndAll {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

/// Says whether the worker has a node.
struct Teller {
    of: String,
    last: Mutex<Option<Said>>,
}

/// The last line.
struct Said {
    is_up: bool,
    at: Instant,
}

impl Teller {
    fn new(of: String) -> Self {
        Self { of, last: Mutex::default() }
    }

    /// Says what is new, and from time to time that there is no node.
    fn tell(&self, contact: Contact<'_>) {
        let is_up = matches!(contact, Contact::Made);
        let mut last = self.last.lock();
        if last
            .as_ref()
            .is_some_and(|last| last.is_up == is_up && (is_up || last.at.elapsed() < AGAIN))
        {
            return;
        }
        *last = Some(Said { is_up, at: Instant::now() });
        match contact {
            Contact::Made => say(format!("waiting for {}", self.of)),
            Contact::Lost(error) => say(format!("no {}: {error}; asking again", self.of)),
        }
    }
}
