//! A program that does jobs: payload on its standard input, result from its standard output,
//! outcome by its exit code.
//!
//! Each attempt runs the program once, in a process group of its own. So a signal for the worker
//! reaches no program, and the end of an attempt leaves none of its processes behind.

mod attempt;
mod groups;
mod start;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use skerry_client::{Failure, Task};
use tokio::process::Command;

use attempt::{Attempt, Ended};
use groups::Groups;
use start::Starts;

/// Says a line for people.
pub(crate) type Say = dyn Fn(String) + Send + Sync;

/// A program with its arguments.
pub(crate) struct Program {
    /// The program and its arguments.
    words: Vec<OsString>,
    /// Exit codes after which no other try would help.
    give_up: Vec<u8>,
    starts: Starts,
    groups: Arc<Groups>,
}

impl Program {
    /// Takes a program that can be found in the directories of `path`.
    ///
    /// # Errors
    /// If there is no such program: else each job would fail for it.
    pub(crate) fn new(
        words: Vec<OsString>,
        give_up: Vec<u8>,
        path: &OsStr,
        say: Box<Say>,
    ) -> io::Result<Self> {
        let name = words.first().map(PathBuf::from).unwrap_or_default();
        let is_path = name.components().count() > 1 || name.is_absolute();
        let is_there = if is_path {
            is_program(&name)
        } else {
            std::env::split_paths(path).any(|dir| is_program(&dir.join(&name)))
        };
        let starts = Starts::new(say);
        let groups = Arc::default();
        if is_there { Ok(Self { words, give_up, starts, groups }) } else { Err(not_there(&name)) }
    }

    /// Kills what runs, before it returns. Nothing begins afterwards.
    pub(crate) fn end_all(&self) {
        self.groups.end_all();
    }

    /// Does a job. When this is dropped, the processes are killed.
    pub(crate) async fn run(&self, task: Task) -> Result<Bytes, Failure> {
        if task.stop.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let spawn = || self.command(&task).and_then(|mut command| command.spawn());
        let attempt = tokio::select! {
            attempt = self.starts.start(|| Attempt::start(&self.groups, spawn)) => attempt,
            () = task.stop.cancelled() => return Err(Failure::Cancelled),
        };
        let mut attempt = attempt.map_err(|error| {
            Failure::retry("CannotStart", format!("the program can't be started: {error}"))
        })?;
        let ended = attempt.done(task.payload, &task.stop).await;
        match self.outcome(ended) {
            // A program may have done its work before it heard.
            Err(_) if task.stop.is_cancelled() => Err(Failure::Cancelled),
            outcome => outcome,
        }
    }

    fn command(&self, task: &Task) -> io::Result<Command> {
        let (name, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(name);
        let metadata = serde_json::to_string(&task.metadata)?;
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.env("SKERRY_JOB_ID", &task.id).env("SKERRY_JOB_TENANT", &task.tenant);
        command.env("SKERRY_JOB_ATTEMPT", task.attempt.to_string());
        command.env("SKERRY_JOB_METADATA", metadata);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn outcome(&self, ended: io::Result<Ended>) -> Result<Bytes, Failure> {
        let ended = ended.map_err(|error| Failure::retry("Lost", error.to_string()))?;
        let code = match (ended.status.code(), ended.status.signal()) {
            (Some(0), _) => return Ok(ended.result.into()),
            (Some(code), _) => format!("exit {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        let why = String::from_utf8_lossy(&ended.why).trim().to_owned();
        let why = if why.is_empty() { format!("the program ended with {code}") } else { why };
        let is_final = ended
            .status
            .code()
            .is_some_and(|code| u8::try_from(code).is_ok_and(|code| self.give_up.contains(&code)));
        Err(if is_final { Failure::give_up(code, why) } else { Failure::retry(code, why) })
    }
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

fn not_there(name: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} is no program that can be run", name.display()),
    )
}
