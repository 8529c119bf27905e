//! Waiting for a bucket that fails for a reason that can pass, as for a slow disk.
//!
//! The bucket's door repeats each call for moments only. Callers that need the answer wait here,
//! between whole attempts. So an attempt sees changes meanwhile: the volume was taken over, rolled
//! back or closed, or the node stops. `skerry_core::retry` decides the times.

use crate::context::Context;
use crate::error::{Error, Result};
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use skerry_core::retry::{Patience, Trouble, Verdict};
use skerry_store::objects::tries::Tries;
use std::sync::atomic::Ordering;

/// One caller's waiting.
pub(crate) struct Waiting<'a> {
    ctx: &'a Context,
    tries: Tries,
    /// True if a stop of the node ends it. If not, the stop has a time limit of its own.
    ends_with_node: bool,
}

impl Context {
    /// For a guest, as long as the settings allow.
    pub(crate) fn guest_waits(&self) -> Waiting<'_> {
        let patience = Patience { wait_max: self.settings.guest_wait_max, ..Patience::GUEST };
        Waiting { ctx: self, tries: Tries::new(patience), ends_with_node: true }
    }

    /// For work that must get into the bucket in the end.
    pub(crate) fn work_waits(&self) -> Waiting<'_> {
        Waiting { ctx: self, tries: Tries::new(Patience::GUEST), ends_with_node: false }
    }
}

impl Waiting<'_> {
    /// Takes in a failed attempt. Waits until the next, or fails with its error.
    pub(crate) async fn after(&mut self, error: Error) -> Result<()> {
        if self.ends_with_node && self.ctx.stopping.load(Ordering::Acquire) {
            return Err(error);
        }
        match self.tries.wait(error.trouble(), &**self.ctx.bucket.entropy()).await {
            Verdict::After(_) => Ok(()),
            Verdict::GiveUp | Verdict::Permanent => Err(error),
        }
    }
}

impl<P: Payload> Stream<P> {
    /// [`Stream::check_fence`] for a guest: if the owner of the stream can't be told, the guest
    /// waits.
    pub(crate) async fn check_fence_patiently(&self) -> Result<()> {
        let mut waiting = self.ctx.guest_waits();
        while let Err(error) = self.check_fence().await {
            waiting.after(error).await?;
            self.check_in_service()?;
        }
        Ok(())
    }

    /// Waits before the store is tried again, after any error: the log keeps what the store does
    /// not take. Fails if the volume went out of service meanwhile.
    pub(crate) async fn wait_for_store(
        &self,
        waiting: &mut Waiting<'_>,
        error: &skerry_store::Error,
    ) -> Result<()> {
        tracing::debug!(volume = %self.name(), %error, "the bucket does not take it; trying again");
        waiting.tries.wait(worth_waiting(error.trouble()), &**self.ctx.bucket.entropy()).await;
        self.check_in_service()
    }

    /// Fails if the volume is out of service.
    pub(crate) fn check_in_service(&self) -> Result<()> {
        match &self.state.lock().failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }
}

/// Waits even for trouble that seems permanent, until people mend it: giving up would lose the
/// writes' way out.
fn worth_waiting(trouble: Trouble) -> Trouble {
    if trouble.can_pass() { trouble } else { Trouble::Away }
}
