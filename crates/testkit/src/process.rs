//! A child process whose events a test awaits, and which never outlives its guard.
//!
//! A thread reads its standard output and error, another waits for its end. The wait leaves the
//! process a zombie until it holds the lock. So a signal sent under that lock can't reach another
//! process with a reused pid.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open};

use crate::PATIENCE;

/// Number of kept lines of each output: enough for a failing program's last messages.
const LINES_MAX: usize = 1000;

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stdout: Output,
    stderr: Output,
    ended: Option<ExitStatus>,
}

/// The end of an output.
#[derive(Debug, Default)]
struct Output {
    lines: VecDeque<String>,
    /// Number of lines dropped from the front.
    dropped: u64,
    /// Number of the first line that no `wait_line` has looked at.
    seen: u64,
    closed: bool,
}

impl Output {
    fn push(&mut self, line: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.dropped += 1;
        }
        self.lines.push_back(line);
    }

    fn next_unseen(&mut self) -> Option<&String> {
        let at = self.seen.max(self.dropped) - self.dropped;
        let line = self.lines.get(usize::try_from(at).ok()?)?;
        self.seen = self.dropped + at + 1;
        Some(line)
    }
}

impl Process {
    /// Starts `command` with its input and outputs piped to this guard.
    ///
    /// # Errors
    /// When the program can't be started; the error names it.
    pub fn spawn(command: &mut Command) -> io::Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("start {name}: {error}")))?;
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared::default());
        let stdin = child.stdin.take();
        let mut threads = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            threads.push(follow(pipe, shared.clone(), |state| &mut state.stdout));
        }
        if let Some(pipe) = child.stderr.take() {
            threads.push(follow(pipe, shared.clone(), |state| &mut state.stderr));
        }
        threads.push(reap(child, pid, shared.clone()));
        Ok(Process { name, pid, stdin, shared, threads })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Takes the standard input; dropping it closes it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Waits for a line of standard output that `wanted` accepts. Skips earlier lines.
    ///
    /// # Errors
    /// When the output ends or `PATIENCE` runs out first; the error holds the output.
    pub fn wait_line(&self, mut wanted: impl FnMut(&str) -> bool) -> io::Result<String> {
        let mut state = self.shared.state.lock();
        loop {
            while let Some(line) = state.stdout.next_unseen() {
                if wanted(line) {
                    return Ok(line.clone());
                }
            }
            if state.stdout.closed {
                drop(state);
                let status = self.wait_within(PATIENCE)?;
                return Err(self.failure(&format!("ended ({status}) before the line came")));
            }
            if self.shared.changed.wait_for(&mut state, PATIENCE).timed_out() {
                drop(state);
                return Err(self.failure("did not print the line that was waited for"));
            }
        }
    }

    /// Sends a signal. Does nothing when the process has ended.
    pub fn signal(&self, signal: Signal) {
        let state = self.shared.state.lock();
        if state.ended.is_none() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Stops the process as a suspended host would (SIGSTOP).
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a suspended process go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// When it does not end, which only an uninterruptible wait in the kernel could cause.
    pub fn kill(&self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Asks it to end (SIGTERM), and waits for that.
    ///
    /// # Errors
    /// When it does not end in `PATIENCE`.
    pub fn terminate(&self) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in `PATIENCE`.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        self.wait_within(PATIENCE)
    }

    /// Waits for its end, but not longer than `limit`.
    ///
    /// # Errors
    /// When it is still running after that.
    pub fn wait_within(&self, limit: Duration) -> io::Result<ExitStatus> {
        let mut state = self.shared.state.lock();
        let _ =
            self.shared.changed.wait_while_for(&mut state, |state| state.ended.is_none(), limit);
        let ended = state.ended;
        drop(state);
        ended.ok_or_else(|| self.failure("does not end"))
    }

    /// Waits for its end and for the end of its standard error: one may come before the other.
    ///
    /// # Errors
    /// When it still runs after a while, or another process holds its standard error.
    pub fn wait_drained(&self) -> io::Result<ExitStatus> {
        let mut state = self.shared.state.lock();
        let open = |state: &mut State| state.ended.is_none() || !state.stderr.closed;
        let late = self.shared.changed.wait_while_for(&mut state, open, PATIENCE).timed_out();
        let ended = state.ended.filter(|_| !late);
        drop(state);
        ended.ok_or_else(|| self.failure("does not end"))
    }

    /// True if it has not ended yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.state.lock().ended.is_none()
    }

    /// The last lines of standard output.
    #[must_use]
    pub fn stdout_tail(&self) -> String {
        join(&self.shared.state.lock().stdout.lines)
    }

    /// The last lines of standard error.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        join(&self.shared.state.lock().stderr.lines)
    }

    fn failure(&self, what: &str) -> io::Error {
        let (stdout, stderr) = (self.stdout_tail(), self.stderr_tail());
        io::Error::other(format!(
            "{} (pid {}) {what}\n--- its output ---\n{stdout}--- its errors ---\n{stderr}---",
            self.name,
            self.pid()
        ))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        self.signal(Signal::KILL);
        let _ = self.wait_within(PATIENCE);
        // A grandchild that holds the pipe may keep the readers waiting; they end with it. Only the
        // reaper, the last of the threads, is sure to end.
        if let Some(reaper) = self.threads.pop() {
            let _ = reaper.join();
        }
    }
}

/// Waits for the end of a process that another one started. A killed process runs on until the
/// kernel gets to it.
///
/// # Errors
/// When it still runs after `PATIENCE`, or `pid` is no process id.
pub fn wait_foreign(pid: &str) -> io::Result<()> {
    let id = pid.trim().parse().ok().and_then(Pid::from_raw);
    let id = id.ok_or_else(|| io::Error::other(format!("{pid:?} is no process id")))?;
    let process = match pidfd_open(id, PidfdFlags::empty()) {
        // It has ended, and its parent knows.
        Err(Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    let limit = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let ended = || poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit));
    match rustix::io::retry_on_intr(ended)? {
        0 => Err(io::Error::other(format!("process {id} does not end", id = pid.trim()))),
        _ => Ok(()),
    }
}

fn join(lines: &VecDeque<String>) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

fn follow(
    pipe: impl Read + Send + 'static,
    shared: Arc<Shared>,
    which: fn(&mut State) -> &mut Output,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        // Bytes, not `lines()`: a tool's progress bar need not be UTF-8.
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            which(&mut shared.state.lock()).push(text);
            shared.changed.notify_all();
            line.clear();
        }
        which(&mut shared.state.lock()).closed = true;
        shared.changed.notify_all();
    })
}

fn reap(mut child: Child, pid: Pid, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while rustix::process::waitid(WaitId::Pid(pid), options)
            .is_err_and(|error| error == Errno::INTR)
        {}
        let mut state = shared.state.lock();
        state.ended = child.wait().ok();
        drop(state);
        shared.changed.notify_all();
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Process {
        Process::spawn(Command::new("sh").arg("-c").arg(script)).unwrap()
    }

    #[test]
    fn a_line_is_waited_for_and_earlier_ones_are_passed_over() {
        let process = shell("echo one; echo two; exec cat");
        assert_eq!(process.wait_line(|line| line.starts_with('t')).unwrap(), "two");
        assert!(process.is_running());
    }

    #[test]
    fn an_end_before_the_line_is_an_error_that_holds_what_was_said() {
        let process = shell("echo out; echo trouble >&2; exit 3");
        let error = process.wait_line(|_| false).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("out"), "{error}");
        assert_eq!(process.wait().unwrap().code(), Some(3));
    }

    #[test]
    fn kill_is_seen_as_such_and_signals_after_the_end_are_harmless() {
        let process = shell("exec cat");
        process.suspend();
        assert_eq!(process.kill().unwrap().signal(), Some(9));
        process.resume();
        assert!(!process.is_running());
    }

    #[test]
    fn the_end_of_a_process_of_another_is_waited_for() {
        let mut parent = shell("sleep 1000 & echo $!; read line; kill $!; exec cat");
        let pid = parent.wait_line(|_| true).unwrap();
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(wait_foreign("no pid").is_err());
        drop(parent.take_stdin());
        wait_foreign(&pid).unwrap();
        parent.wait().unwrap();
        wait_foreign(&pid).unwrap();
    }

    #[test]
    fn dropping_the_guard_ends_the_process() {
        let process = shell("exec cat");
        let proc_dir = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&proc_dir).exists());
        drop(process);
        assert!(!std::path::Path::new(&proc_dir).exists());
    }
}
