//! The fence: checks whether this node still owns a volume's stream.
//!
//! A node that was suspended may have been declared dead meanwhile. So the owner looks after any
//! gap of its boot-time clock, and at regular intervals while the store answers. It looks at every
//! number from the lowest not known to be durable to the next unused. It does so before it
//! acknowledges or serves reads.
//!
//! A hypervisor that suspends the whole machine may stop its clocks too: then no gap shows. So the
//! regular looks do not depend on a gap. Their interval bounds the vain acknowledgements of such a
//! node.

use crate::error::{Error, ErrorKind, Result};
use crate::settings::EngineSettings;
use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use crate::streams::tails::parking::Fate;
use crate::streams::tails::tail;
use skerry_core::env::Clock;
use skerry_core::position::Number;
use skerry_core::retry::Patience;
use skerry_core::takeover::{self, Found};
use skerry_log::LogPosition;
use skerry_store::objects::bucket::Bucket;
use skerry_store::objects::segment_io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Number of looks for one request: a machine too busy to run this without gaps must still get on.
const LOOKS_MAX: usize = 4;
/// Time for which a client waits for an optional look.
const OPTIONAL_LOOK: Duration = Duration::from_secs(1);
/// A volume without requests is looked at only once in this many intervals.
const IDLE_INTERVALS: u32 = 6;

/// A volume's knowledge of its ownership.
#[derive(Debug)]
pub(crate) struct Fence {
    /// Gap after which the owner looks, if the store answers.
    glimpse: Duration,
    /// Gap after which the owner must have looked.
    gap: Duration,
    /// The greatest age of the last look.
    interval: Duration,
    /// Beginning of the last look, nanoseconds of the boot-time clock.
    looked_ns: AtomicU64,
    /// True if a request came since the last regular look.
    used: AtomicBool,
    /// Time of the last check, nanoseconds of the boot-time clock.
    seen_ns: AtomicU64,
    /// Number of suspicions raised, and the number that a look has settled.
    suspicions: AtomicU64,
    settled: AtomicU64,
    /// For suspicions up to this one, a failed look is no answer: the gap was so long.
    certain: AtomicU64,
    delayed: AtomicBool,
    /// The first data number that was never used.
    pub(crate) next_number: AtomicU64,
    checking: tokio::sync::Mutex<()>,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Fence {
    pub(crate) fn new(clock: &Arc<dyn Clock>, settings: &EngineSettings) -> Self {
        Self {
            glimpse: settings.glimpse_gap,
            gap: settings.suspend_gap,
            interval: settings.fence_interval,
            looked_ns: AtomicU64::new(nanos(clock.boot())),
            used: AtomicBool::new(false),
            seen_ns: AtomicU64::new(nanos(clock.boot())),
            suspicions: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            certain: AtomicU64::new(0),
            delayed: AtomicBool::new(false),
            next_number: AtomicU64::new(1),
            checking: tokio::sync::Mutex::new(()),
        }
    }

    /// True if the owner must look at the stream before it acknowledges or serves anything.
    pub(crate) fn must_check(&self, clock: &Arc<dyn Clock>) -> bool {
        self.used.store(true, Ordering::Relaxed);
        let now = self.note_time(clock);
        let looked = self.looked_ns.load(Ordering::Acquire);
        // While the volume is in use, `watch_fence` looks before this is so.
        if now.saturating_sub(looked) > 2 * nanos(self.interval) && !self.is_suspect() {
            self.suspicions.fetch_add(1, Ordering::AcqRel);
        }
        self.is_suspect()
    }

    /// Notes the time, and suspects a gap. Gives the time.
    pub(crate) fn note_time(&self, clock: &Arc<dyn Clock>) -> u64 {
        let now = nanos(clock.boot());
        let seen = self.seen_ns.load(Ordering::Acquire);
        let gap = now.saturating_sub(seen);
        if gap > nanos(self.glimpse) {
            let is_certain = gap > nanos(self.gap);
            // Before and after: no reader may see the suspicion without its certainty.
            let number = self.suspicions.load(Ordering::Acquire) + 1;
            self.certain.fetch_max(if is_certain { number } else { 0 }, Ordering::AcqRel);
            // First the suspicion, then the time: a reader of the new time sees the suspicion.
            let number = self.suspicions.fetch_add(1, Ordering::AcqRel) + 1;
            self.certain.fetch_max(if is_certain { number } else { 0 }, Ordering::AcqRel);
        }
        self.seen_ns.store(now, Ordering::Release);
        now
    }

    fn is_suspect(&self) -> bool {
        self.suspicions.load(Ordering::Acquire) > self.settled.load(Ordering::Acquire)
    }

    /// Notes how full the log is.
    pub(crate) fn note_pressure(&self, percent: u64, from_percent: u64) {
        self.delayed.store(percent > from_percent, Ordering::Relaxed);
    }

    /// True if writers must be delayed.
    pub(crate) fn is_delayed(&self) -> bool {
        self.delayed.load(Ordering::Relaxed)
    }
}

/// Lives while a tail is on its way out of the log.
struct Leaving<'a>(&'a AtomicUsize);

impl<'a> Leaving<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Looks at the stream of a volume at regular intervals, as long as it is in service.
pub(crate) async fn watch_fence<P: Payload>(volume: Weak<Stream<P>>) {
    let mut idle = 0;
    loop {
        let Some(interval) = volume.upgrade().map(|open| open.ctx.settings.fence_interval) else {
            return;
        };
        tokio::time::sleep(interval).await;
        let Some(open) = volume.upgrade() else { return };
        if open.state.lock().failure.is_some() {
            return;
        }
        idle += 1;
        if !open.fence.used.swap(false, Ordering::Relaxed) && idle < IDLE_INTERVALS {
            continue;
        }
        idle = 0;
        match tokio::time::timeout(interval, open.look_for_seal()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(volume = %open.name(), %error, "the stream could not be looked at");
            }
            Err(_) => tracing::debug!(volume = %open.name(), "the bucket does not answer a look"),
        }
    }
}

impl<P: Payload> Stream<P> {
    /// Looks at the stream as long as there is a suspicion. Fails if it was sealed.
    pub(crate) async fn check_fence(&self) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            if !self.fence.must_check(self.ctx.clock()) {
                return Ok(());
            }
            self.settle_suspicion().await?;
        }
        Ok(())
    }

    async fn settle_suspicion(&self) -> Result<()> {
        let _one = self.fence.checking.lock().await;
        if !self.fence.is_suspect() {
            return Ok(());
        }
        // This look does not settle suspicions that come meanwhile: the store may have answered
        // before.
        let suspicions = self.fence.suspicions.load(Ordering::Acquire);
        let settled = self.fence.settled.load(Ordering::Acquire);
        let is_certain = self.fence.certain.load(Ordering::Acquire) > settled;
        if is_certain {
            self.look_for_seal().await?;
        } else {
            self.glance().await?;
        }
        self.fence.settled.fetch_max(suspicions, Ordering::AcqRel);
        Ok(())
    }

    /// Looks at the stream, if the store answers soon. A short gap mostly means a busy machine, and
    /// an absent bucket must not stop writers for it.
    async fn glance(&self) -> Result<()> {
        let bucket = self.ctx.bucket.with_patience(Patience::LOOK);
        match tokio::time::timeout(OPTIONAL_LOOK, self.look_for_seal_in(&bucket)).await {
            Ok(Err(e)) if e.kind() == ErrorKind::Unavailable => Ok(()),
            Ok(looked) => looked,
            Err(_) => Ok(()),
        }
    }

    /// Looks at every number from the lowest not known to be durable to the next unused.
    pub(crate) async fn look_for_seal(&self) -> Result<()> {
        self.look_for_seal_in(&self.ctx.bucket).await
    }

    async fn look_for_seal_in(&self, bucket: &Bucket) -> Result<()> {
        self.fence.looked_ns.store(nanos(self.ctx.clock().boot()), Ordering::Release);
        let durable = self.state.lock().at;
        let unused = Number(self.fence.next_number.load(Ordering::Acquire));
        for key in takeover::look(&durable, unused) {
            if let Found::Seal(seal) = segment_io::read(bucket, key).await? {
                return Err(self.sealed_by(&seal));
            }
        }
        Ok(())
    }

    /// Finds the meaning of a missing object. Either another node took the volume over and deleted
    /// it, which this node had not noticed; or the object is lost.
    pub(crate) async fn if_missing(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        match self.look_for_seal().await {
            Err(left) if self.has_left() => left,
            // Not `NotFound`: the volume is there, and lacks a part.
            _ => {
                Error::corrupt(format!("volume {}:", self.name()), format!("{error}; put it back"))
            }
        }
    }

    /// Looks before a client attaches to an open volume, since the volume may have been taken over.
    /// A bucket that does not answer soon is no reason to refuse: then nothing is known, as at any
    /// time.
    pub(crate) async fn look_at_attach(&self) {
        if let Ok(Err(error)) = tokio::time::timeout(OPTIONAL_LOOK, self.look_for_seal()).await {
            tracing::debug!(volume = %self.name(), %error, "looked at the stream for a client");
        }
    }

    /// Parks the undestaged records of a volume that is out of service here: in the log they would
    /// take the room of others. If a disk refuses them, it tries again now and then.
    pub(crate) async fn park_tail(&self, fate: Fate) {
        let _leaving = Leaving::begin(&self.ctx.leaving);
        while let Err(error) = self.park_rest(fate).await {
            let line = format!(
                "volume {} is out of service, and its undestaged tail stays in the log: {error}",
                self.desc.id
            );
            self.ctx.note(self.desc.id, line);
            tokio::time::sleep(self.ctx.settings.fence_interval).await;
        }
        self.ctx.unnote(self.desc.id);
        self.ctx.log.trim(self.group, LogPosition::MAX);
        // Parked records of a failed volume are still the volume's, and count as not in the bucket.
        if fate == Fate::Fenced {
            let mut state = self.state.lock();
            (state.undestaged_records, state.undestaged_bytes) = (0, 0);
        }
    }

    async fn park_rest(&self, fate: Fate) -> Result<()> {
        let (last, records) = {
            let state = self.state.lock();
            (state.last_record, state.undestaged_records)
        };
        if records == 0 {
            return Ok(());
        }
        self.ctx.log.wait_durable(LogPosition::from_u64(last)).await?;
        let (ctx, group, from) = (self.ctx.clone(), self.group, self.destaging.vseq());
        let read = move || tail::of_group(&ctx.log, group, from);
        let records = self.ctx.compute(read).await??;
        self.ctx.park(fate, self.desc.id, records).await
    }

    /// Takes the volume out of service because another owner took it. Gives the reason why it is
    /// out of service.
    pub(crate) fn fenced(&self, by: &str) -> Error {
        let why = format!(
            "was taken over by {by}; this node's undestaged tail is never merged (`skerry status` \
             shows its place, if it was on a disk)"
        );
        let error = Error::fenced(self.name(), why);
        self.fail(error.clone());
        // A volume that was released here before, or had failed, keeps that reason.
        self.state.lock().failure.clone().unwrap_or(error)
    }
}
