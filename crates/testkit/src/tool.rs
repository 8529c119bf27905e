//! Running a tool to its end, with a good report of failures.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::skip;

/// A command line, built word by word.
#[derive(Debug)]
pub struct Tool {
    command: Command,
}

impl Tool {
    /// The tool `name`, from the path or from Debian's directories of file-system tools.
    #[must_use]
    pub fn new(name: &str) -> Tool {
        Tool { command: Command::new(skip::have(name).unwrap_or_else(|_| PathBuf::from(name))) }
    }

    /// Adds one word.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Tool {
        self.command.arg(word);
        self
    }

    /// Adds the words of `text`, which are separated by spaces and hold none themselves.
    #[must_use]
    pub fn words(mut self, text: &str) -> Tool {
        self.command.args(text.split_ascii_whitespace());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Tool {
        self.command.env(name, value);
        self
    }

    /// Runs it, with any status.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn output(mut self) -> io::Result<Output> {
        self.command.output().map_err(|error| {
            io::Error::new(error.kind(), format!("start {:?}: {error}", self.command))
        })
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// When it can't be started or fails; the error holds its command line and its output.
    pub fn run(mut self) -> io::Result<String> {
        let output = self.command.output()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(stdout);
        }
        Err(io::Error::other(format!(
            "{:?} failed ({}):\n{stdout}{}",
            self.command,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )))
    }

    /// Runs it and returns its standard error and output. It must fail.
    ///
    /// # Errors
    /// When it can't be started, or succeeds.
    pub fn run_refused(mut self) -> io::Result<String> {
        let output = self.command.output()?;
        if output.status.success() {
            return Err(io::Error::other(format!("{:?} succeeded, and must not", self.command)));
        }
        let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        Ok(text)
    }
}
