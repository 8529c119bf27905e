//! Announcements of a node: the ready line on standard output, and states for a service manager.
//!
//! A service manager names a Unix datagram socket in `NOTIFY_SOCKET`; sd_notify(3) has the words. A
//! manager that does not listen changes nothing: the node serves on.

use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use skerry_api::{Error, ErrorKind, Result};

use crate::settings::Variable;

/// Names the socket of the service manager.
const MANAGER_VARIABLE: &str = "NOTIFY_SOCKET";

/// Announces the node's states.
pub(crate) struct Announcer<'a> {
    out: &'a mut dyn Write,
    /// Address of the service manager, as the environment has it.
    manager: Option<String>,
}

impl<'a> Announcer<'a> {
    /// Announces on standard output, and to the service manager that the environment names.
    pub(crate) fn new(out: &'a mut dyn Write, variable: Variable<'_>) -> Self {
        let manager = variable(MANAGER_VARIABLE).filter(|address| !address.is_empty());
        Self { out, manager }
    }

    /// Says that the node starts.
    pub(crate) fn starting(&self) {
        self.tell("STATUS=starting; `skerry status` says what the start waits for");
    }

    /// Prints the ready line, and says that the node serves.
    ///
    /// # Errors
    /// `Unavailable` if standard output can't be written.
    pub(crate) fn ready(&mut self, line: &str) -> Result<()> {
        let printed = self.out.write_all(format!("{line}\n").as_bytes());
        printed.and_then(|()| self.out.flush()).map_err(|error| {
            let message = format!("standard output can't be written: {error}");
            Error::new(ErrorKind::Unavailable, message)
        })?;
        self.tell(&format!("READY=1\nSTATUS={line}"));
        Ok(())
    }

    /// Says that the node stops.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: makes everything durable");
    }

    fn tell(&self, state: &str) {
        let Some(manager) = &self.manager else { return };
        if let Err(error) = send(manager, state) {
            tracing::warn!(%error, manager, "the service manager was not told: {state}");
        }
    }
}

/// Longest wait for a service manager whose queue is full: at a boot many units tell it something.
const MANAGER_TIME_MAX: Duration = Duration::from_secs(5);

/// Sends one datagram. Waits for room in its reader's queue, for a bounded time.
fn send(manager: &str, state: &str) -> io::Result<()> {
    let address = match manager.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(manager)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(MANAGER_TIME_MAX))?;
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::log_lines::tests::said_by;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let count = socket.recv(&mut bytes).expect("a datagram");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    /// Announces all states to a manager.
    fn announce(manager: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let variable = |name: &str| (name == MANAGER_VARIABLE).then(|| manager.to_owned());
        let mut announcer = Announcer::new(&mut out, &variable);
        announcer.starting();
        announcer.ready("ready nbd=unix:/run/nbd.sock").expect("printed");
        announcer.stopping();
        out
    }

    #[test]
    fn a_service_manager_hears_each_state() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).expect("bound");
        let name = format!("skerry-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let abstract_one = UnixDatagram::bind_addr(&address).expect("bound");
        let path = path.to_str().expect("text").to_owned();
        for (socket, address) in [(at_path, path), (abstract_one, format!("@{name}"))] {
            assert_eq!(announce(&address), b"ready nbd=unix:/run/nbd.sock\n");
            assert!(received(&socket).starts_with("STATUS=starting"));
            assert_eq!(received(&socket), "READY=1\nSTATUS=ready nbd=unix:/run/nbd.sock");
            assert!(received(&socket).starts_with("STOPPING=1\nSTATUS=stopping"));
        }
    }

    #[test]
    fn a_service_manager_that_is_away_ends_no_node() {
        for address in ["/nowhere/notify", "@skerry-test-none", "vsock:2:1", ""] {
            let mut out = Vec::new();
            let said = said_by(|| out = announce(address));
            assert_eq!(out, b"ready nbd=unix:/run/nbd.sock\n", "{address}");
            assert_eq!(said.contains("was not told"), !address.is_empty(), "{said}");
        }
    }
}
