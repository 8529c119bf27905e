//! The signals that stop a node.

use std::task::Poll;

use skerry_api::{Error, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::daemon::log_lines::{LAST_LINES_TIME_MAX, Lines};
use crate::exit;

/// Linux's description of a process, for the process itself.
const OWN_STATUS_FILE: &str = "/proc/self/status";

/// Gives a token that the first SIGTERM, SIGINT or SIGHUP cancels. A SIGTERM or SIGINT after it
/// ends the process at once. A SIGHUP does not: a shell and then the kernel each send one when a
/// terminal closes, and systemd may send one behind its SIGTERM.
pub(crate) fn stop_signals(lines: Lines) -> Result<CancellationToken> {
    let mut signals = signals()?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        any(&mut signals).await;
        stopping.cancel();
        signals.truncate(ORDERS);
        any(&mut signals).await;
        tracing::warn!("told twice to stop: ending at once");
        lines.finish(LAST_LINES_TIME_MAX);
        std::process::exit(exit::code(ErrorKind::Unavailable).into());
    });
    Ok(stop)
}

/// Number of signals that are orders a second time, too: the first ones.
pub(crate) const ORDERS: usize = 2;

/// Gives the signals that ask a process to end: SIGTERM, SIGINT, and SIGHUP unless it is ignored.
pub(crate) fn signals() -> Result<Vec<Signal>> {
    let mut kinds = vec![SignalKind::terminate(), SignalKind::interrupt()];
    // A process that was started by `nohup` outlives its terminal.
    if !ignores_hangup(&std::fs::read_to_string(OWN_STATUS_FILE).unwrap_or_default()) {
        kinds.push(SignalKind::hangup());
    }
    let signals = kinds.into_iter().map(signal).collect::<std::io::Result<_>>();
    signals.map_err(|error| Error::new(ErrorKind::Unavailable, format!("no signals: {error}")))
}

/// Waits for any of the signals.
pub(crate) async fn any(signals: &mut [Signal]) {
    std::future::poll_fn(|cx| {
        let is_ready = signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// True if a process ignores SIGHUP, by its status.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_nohup_started_ignores_the_end_of_its_terminal() {
        let status = |mask: &str| format!("Name:\tskerry\nSigBlk:\t0\nSigIgn:\t{mask}\n");
        assert!(ignores_hangup(&status("0000000000000001")));
        assert!(ignores_hangup(&status("0000000000001001")));
        assert!(!ignores_hangup(&status("0000000000001000")));
        assert!(!ignores_hangup(""));
    }
}
