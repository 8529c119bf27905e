//! One run of a program: its pipes, its processes, its end.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::groups::Groups;

/// Time between SIGTERM and SIGKILL for a program whose job was cancelled.
const END_TIME_MAX: Duration = Duration::from_secs(10);
/// Time for which the output of a program that has ended may still come.
const OUTPUT_TIME_MAX: Duration = Duration::from_secs(1);
/// The longest result that is kept, bytes: one more than a node takes, so that it is refused.
const RESULT_BYTES_MAX: usize = (1 << 20) + 1;
/// Bytes of standard error that tell why an attempt failed: its last ones.
const WHY_BYTES_MAX: usize = 4000;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 16 << 10;

/// The end of a program.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Its standard output, cut off.
    pub(super) result: Vec<u8>,
    /// The last of its standard error.
    pub(super) why: Vec<u8>,
}

/// A running program. Its processes are killed when this is dropped.
pub(super) struct Attempt {
    child: Child,
    group: Option<Pid>,
    groups: Arc<Groups>,
}

impl Attempt {
    /// Starts a child that leads a process group of its own.
    ///
    /// # Errors
    /// Those of `spawn`, or another if all groups were ended.
    pub(super) fn start(
        groups: &Arc<Groups>,
        spawn: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<Self> {
        let (child, group) = groups.start(spawn)?;
        Ok(Self { child, group, groups: groups.clone() })
    }

    /// Waits for the program's end, and has no process of its group left. Asks the program to end
    /// when `stop` is cancelled, and then kills it after a while.
    pub(super) async fn done(
        &mut self,
        payload: Bytes,
        stop: &CancellationToken,
    ) -> io::Result<Ended> {
        let (stdin, stdout, stderr) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // A program need not read its payload.
                let _ = stdin.write_all(&payload).await;
            }
        };
        let (mut result, mut why) = (Vec::new(), Vec::new());
        let status = {
            let read = (read_first(stdout, &mut result), read_last(stderr, &mut why));
            let mut pipes = std::pin::pin!(async { tokio::join!(feed, read.0, read.1) });
            let mut ending = std::pin::pin!(end(&self.groups, self.group, stop));
            let mut is_read = false;
            let status = loop {
                tokio::select! {
                    status = self.child.wait() => break status?,
                    _ = &mut pipes, if !is_read => is_read = true,
                    () = &mut ending => {}
                }
            };
            if let Some(group) = self.group.take() {
                self.groups.end(group);
            }
            if !is_read {
                // A process that left the group may keep the pipes.
                let _ = tokio::time::timeout(OUTPUT_TIME_MAX, pipes).await;
            }
            status
        };
        Ok(Ended { status, result, why })
    }
}

/// Ends a group when it is told to; waits for ever then.
async fn end(groups: &Groups, group: Option<Pid>, stop: &CancellationToken) {
    stop.cancelled().await;
    if let Some(group) = group {
        groups.signal(group, Signal::TERM);
        tokio::time::sleep(END_TIME_MAX).await;
        groups.signal(group, Signal::KILL);
    }
    std::future::pending().await
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.groups.end(group);
        }
    }
}

/// Reads to the end, and keeps the first bytes.
async fn read_first(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        let room = RESULT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&piece[..read.min(room)]);
    }
}

/// Reads to the end, passes everything on to standard error, and keeps the last bytes.
async fn read_last(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; PIECE_BYTES];
    let mut to = tokio::io::stderr();
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        kept.extend_from_slice(&piece[..read]);
        kept.drain(..kept.len().saturating_sub(WHY_BYTES_MAX));
        // A reader that has gone is no reason to stop the program.
        let _ = to.write_all(&piece[..read]).await;
        let _ = to.flush().await;
    }
}
