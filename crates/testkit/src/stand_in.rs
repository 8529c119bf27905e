//! NBD servers of other projects, to try the kit on and to compare with.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;
use crate::skip;
use crate::uri::NbdUri;

/// A disk that nbdkit serves from memory, on a Unix socket.
#[derive(Debug)]
pub struct Nbdkit {
    uri: NbdUri,
    // Its input keeps it alive: dropping the guard closes the input, and nbdkit ends.
    process: Process,
}

impl Nbdkit {
    /// Serves `plugin` (words of nbdkit's command line, such as `memory 64M`) on a socket in `dir`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(dir: &Path, plugin: &[&str]) -> io::Result<Nbdkit> {
        let socket = dir.join("nbdkit.sock");
        let mut command =
            Command::new(skip::have("nbdkit").unwrap_or_else(|_| PathBuf::from("nbdkit")));
        // nbdkit runs the command when it serves, and ends with the command.
        command.arg("-U").arg(&socket).args(plugin).args(["--run", "echo ready; exec cat"]);
        let process = Process::spawn(&mut command)?;
        process.wait_line(|line| line == "ready")?;
        Ok(Nbdkit { uri: NbdUri::unix(&socket, ""), process })
    }

    /// Its export.
    #[must_use]
    pub fn uri(&self) -> &NbdUri {
        &self.uri
    }
}

impl Drop for Nbdkit {
    fn drop(&mut self) {
        // The server is a child of the guarded process, so the guard lets it end by itself.
        drop(self.process.take_stdin());
        let _ = self.process.wait();
    }
}
