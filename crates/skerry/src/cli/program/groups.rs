//! The process groups of the programs that run, so that the end of the worker leaves none of them.
//!
//! A dropped attempt kills its group, too. But the attempts are tasks, and a runtime that is shut
//! down drops them some time later, or never if the process ends before.

use std::collections::HashSet;
use std::io;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// The groups that run.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    groups: HashSet<Pid>,
    /// True once all were ended: no other may begin.
    is_over: bool,
}

impl Groups {
    /// Starts a child that leads a group of its own. Gives the group, too.
    ///
    /// # Errors
    /// Those of `spawn`, or another if all were ended.
    pub(super) fn start(
        &self,
        spawn: impl FnOnce() -> io::Result<Child>,
    ) -> io::Result<(Child, Option<Pid>)> {
        // No program starts beside the end of all.
        let mut running = self.0.lock();
        if running.is_over {
            return Err(io::Error::other("the worker ends"));
        }
        let child = spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        running.groups.extend(group);
        Ok((child, group))
    }

    /// Sends a signal to a group that runs.
    pub(super) fn signal(&self, group: Pid, signal: Signal) {
        if self.0.lock().groups.contains(&group) {
            // It may have ended.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Kills what is left of a group.
    pub(super) fn end(&self, group: Pid) {
        if self.0.lock().groups.remove(&group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Kills all groups. No other begins.
    pub(super) fn end_all(&self) {
        let mut running = self.0.lock();
        running.is_over = true;
        for group in running.groups.drain() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use tokio::process::Command;

    use super::*;

    fn sleep() -> io::Result<Child> {
        Command::new("sleep").arg("1000").process_group(0).spawn()
    }

    #[tokio::test]
    async fn the_end_of_all_leaves_none_and_lets_none_begin() {
        let groups = Groups::default();
        let (mut one, _) = groups.start(sleep).expect("starts");
        let (mut other, group) = groups.start(sleep).expect("starts");
        groups.end(group.expect("a group"));
        assert_eq!(other.wait().await.expect("ends").signal(), Some(9));
        groups.end_all();
        assert_eq!(one.wait().await.expect("ends").signal(), Some(9));
        assert!(groups.start(|| unreachable!("it is over")).is_err());
    }
}
