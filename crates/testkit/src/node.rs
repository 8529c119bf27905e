//! A node of Skerry: the binary, a data directory, its command line.
//!
//! The kit knows only what the command line promises. `serve` prints one `ready` line with its
//! addresses. Other commands find the node by `--data`, and exit with a meaningful status.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::uri::NbdUri;

/// Settings of a node's start; one value may start it again.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    bin: PathBuf,
    data: PathBuf,
    wrapper: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    /// Kept as long as anything may use the directory.
    _temporary: Option<Arc<TempDir>>,
}

impl NodeSettings {
    /// As [`NodeSettings::new`], on a fresh data directory that lives as long as its last user.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn temporary(bin: impl AsRef<Path>) -> io::Result<NodeSettings> {
        let dir = tempfile::Builder::new().prefix("skerry-").tempdir()?;
        let settings = NodeSettings::new(bin, dir.path().join("data"));
        Ok(NodeSettings { _temporary: Some(Arc::new(dir)), ..settings })
    }

    /// The binary `bin` (`SKERRY_BIN` overrides it) on the data directory `data`, serving NBD on a
    /// Unix socket in it.
    #[must_use]
    pub fn new(bin: impl AsRef<Path>, data: impl AsRef<Path>) -> NodeSettings {
        let bin = std::env::var_os("SKERRY_BIN").map_or(bin.as_ref().to_path_buf(), PathBuf::from);
        let data = data.as_ref().to_path_buf();
        let mut nbd = OsString::from("unix:");
        nbd.push(data.join("nbd.sock"));
        let settings = NodeSettings {
            bin,
            data,
            wrapper: vec![],
            args: vec![],
            env: vec![],
            _temporary: None,
        };
        settings.arg("--nbd").arg(nbd)
    }

    /// Adds a word to `serve`'s command line.
    #[must_use]
    pub fn arg(mut self, word: impl Into<OsString>) -> NodeSettings {
        self.args.push(word.into());
        self
    }

    /// Keeps the bucket in the local directory `dir`, which other nodes may share.
    #[must_use]
    pub fn bucket_dir(self, dir: impl AsRef<Path>) -> NodeSettings {
        let mut url = OsString::from("file://");
        url.push(dir.as_ref());
        self.arg("--bucket").arg(url)
    }

    /// Sets an environment variable of the node.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> NodeSettings {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts the node by this command, which must end in executing its arguments in its own
    /// process. `setpriv` and `strace -D` do so; then the node has their pid.
    #[must_use]
    pub fn wrapper(mut self, words: &[&str]) -> NodeSettings {
        self.wrapper = words.iter().map(OsString::from).collect();
        self
    }

    /// The binary.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Uses another binary, such as a copy that another user may execute.
    #[must_use]
    pub fn with_bin(mut self, bin: impl AsRef<Path>) -> NodeSettings {
        self.bin = bin.as_ref().to_path_buf();
        self
    }

    /// The export of a volume, or of `volume@snapshot`, whether the node runs or not.
    #[must_use]
    pub fn uri(&self, export: &str) -> NbdUri {
        NbdUri::unix(self.data.join("nbd.sock"), export)
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts the node's process, without waiting until it serves.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(&self) -> io::Result<Process> {
        Process::spawn(&mut self.serve_command())
    }

    /// Starts the node, and waits until it serves.
    ///
    /// # Errors
    /// When it ends instead; the error holds its output.
    pub fn start(&self) -> io::Result<SkerryNode> {
        let process = self.spawn()?;
        let line = process.wait_line(|line| line.starts_with("ready "))?;
        let ready = Ready::parse(&line)?;
        Ok(SkerryNode { settings: self.clone(), process, ready })
    }

    /// Starts the node, which must refuse to serve. Returns its status and its output.
    ///
    /// # Errors
    /// When it serves, or does not end.
    pub fn start_refused(&self) -> io::Result<(i32, String)> {
        let process = self.spawn()?;
        match process.wait_line(|line| line.starts_with("ready ")) {
            Ok(line) => Err(io::Error::other(format!("the node serves, and must not: {line}"))),
            Err(_) => {
                let status = process.wait_drained()?;
                let code = status
                    .code()
                    .ok_or_else(|| io::Error::other(format!("the node died: {status}")))?;
                Ok((code, process.stderr_tail()))
            }
        }
    }

    /// Runs another command of the binary on this data directory.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn cli(&self, words: &[&str]) -> io::Result<CliOutput> {
        let output = Command::new(&self.bin).arg("--data").arg(&self.data).args(words).output()?;
        Ok(CliOutput {
            command: words.join(" "),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command with `--json`; it must succeed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, words: &[&str]) -> io::Result<Value> {
        let words = [&["--json"], words].concat();
        let stdout = self.cli(&words)?.ok()?.stdout;
        serde_json::from_str(&stdout).map_err(|error| {
            io::Error::other(format!("`skerry {}`: {error}: {stdout}", words.join(" ")))
        })
    }

    fn serve_command(&self) -> Command {
        let mut words = self.wrapper.iter().cloned().chain([self.bin.clone().into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("serve").arg("--data").arg(&self.data).args(&self.args);
        command.envs(self.env.iter().cloned());
        command
    }
}

/// Addresses of a serving node, from its `ready` line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ready {
    /// The Unix socket of its exports.
    pub nbd_unix: Option<PathBuf>,
    /// The TCP address of its exports.
    pub nbd_tcp: Option<SocketAddr>,
    /// The Unix socket of its control interface.
    pub api_unix: Option<PathBuf>,
}

impl Ready {
    /// Reads the `ready` line. Skips unknown words.
    ///
    /// # Errors
    /// When an address is malformed.
    pub fn parse(line: &str) -> io::Result<Ready> {
        let mut ready = Ready::default();
        for word in line.split_ascii_whitespace() {
            match word.split_once(':') {
                Some(("nbd=unix", path)) => ready.nbd_unix = Some(PathBuf::from(path)),
                Some(("api=unix", path)) => ready.api_unix = Some(PathBuf::from(path)),
                Some(("nbd=tcp", address)) => {
                    let address = address.parse().map_err(|error| {
                        io::Error::other(format!("the ready line names {address}: {error}"))
                    })?;
                    ready.nbd_tcp = Some(address);
                }
                _ => {}
            }
        }
        Ok(ready)
    }
}

/// Outcome of a command.
#[derive(Debug)]
pub struct CliOutput {
    command: String,
    status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl CliOutput {
    /// Its exit status, -1 if a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// This outcome, if the command succeeded.
    ///
    /// # Errors
    /// When it failed; the error holds its output.
    pub fn ok(self) -> io::Result<CliOutput> {
        if self.status.success() { Ok(self) } else { Err(self.unexpected("succeed")) }
    }

    /// The command's standard error, if it failed with `code`.
    ///
    /// # Errors
    /// When it ended otherwise.
    pub fn refused(self, code: i32) -> io::Result<String> {
        if self.code() == code && !self.stderr.is_empty() {
            return Ok(self.stderr);
        }
        Err(self.unexpected(&format!("exit with {code} and say why")))
    }

    fn unexpected(&self, expected: &str) -> io::Error {
        io::Error::other(format!(
            "`skerry {}` should {expected}; it ended with {}:\n{}{}",
            self.command, self.status, self.stdout, self.stderr
        ))
    }
}

/// A serving node.
#[derive(Debug)]
pub struct SkerryNode {
    settings: NodeSettings,
    process: Process,
    ready: Ready,
}

impl SkerryNode {
    /// Its process, to suspend, resume or look at.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The settings of its start.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The addresses at which it serves.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The export of a volume, or of `volume@snapshot`.
    #[must_use]
    pub fn uri(&self, export: &str) -> NbdUri {
        self.settings.uri(export)
    }

    /// Runs a command against the node; it must succeed.
    ///
    /// # Errors
    /// When it fails; the error holds its output.
    pub fn cli(&self, words: &[&str]) -> io::Result<String> {
        Ok(self.settings.cli(words)?.ok()?.stdout)
    }

    /// Runs a command with `--json` against the node; it must succeed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, words: &[&str]) -> io::Result<Value> {
        self.settings.json(words)
    }

    /// Creates a volume.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self, name: &str, size: &str, more: &[&str]) -> io::Result<NbdUri> {
        self.cli(&[&["volume", "create", name, "--size", size], more].concat())?;
        Ok(self.uri(name))
    }

    /// Kills the node (SIGKILL), and returns its settings.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(self) -> io::Result<NodeSettings> {
        self.process.kill()?;
        Ok(self.settings)
    }

    /// Asks the node to end (SIGTERM). It must drain and succeed. Returns its settings.
    ///
    /// # Errors
    /// When it fails, or does not end.
    pub fn stop(self) -> io::Result<NodeSettings> {
        let status = self.process.terminate()?;
        if status.success() {
            return Ok(self.settings);
        }
        let said = self.process.stderr_tail();
        Err(io::Error::other(format!("the node ended with {status} when asked to end:\n{said}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read_and_unknown_words_are_passed_over() {
        let line = "ready nbd=unix:/d/nbd.sock nbd=tcp:127.0.0.1:10809 api=unix:/d/api.sock x=y";
        let ready = Ready::parse(line).unwrap();
        assert_eq!(ready.nbd_unix.as_deref(), Some(Path::new("/d/nbd.sock")));
        assert_eq!(ready.nbd_tcp, Some("127.0.0.1:10809".parse().unwrap()));
        assert_eq!(ready.api_unix.as_deref(), Some(Path::new("/d/api.sock")));
        assert!(Ready::parse("ready nbd=tcp:nowhere").is_err());
    }
}
