//! A store that fails on purpose, for simulators. A seed decides, so that a run can be repeated.
//!
//! A call may fail before it does anything, fail after it did (the response is lost), or be slow. A
//! PUT or DELETE whose response was lost may take effect only later. A store may die, for a while
//! or for good, or after its n-th call. Stored bytes are never wrong: that is for other tests.
//!
//! It spawns nothing: late writes land just before a later call of any client, or at
//! [`Faults::land_all`]. A seed with the same calls in the same order gives the same faults.

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Likelihood of each fault, in a thousand calls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// Calls that fail and do nothing.
    pub error_before: u32,
    /// Calls that act and then report failure.
    pub response_lost: u32,
    /// Writes that take effect only later, of a thousand whose response is lost.
    pub late: u32,
    /// Calls that are slow.
    pub slow: u32,
    /// Delay of a slow call, milliseconds.
    pub slow_ms: Range<u64>,
    /// The most calls, of any client, until a late write lands.
    pub late_calls_max: u32,
    /// True to deny writes: the credentials ran out, or the disk is full.
    pub deny_writes: bool,
    /// True to deny deletes, as a key without that right does.
    pub deny_deletes: bool,
    /// All calls fail with this refusal, and do nothing.
    pub refusal: Option<Refusal>,
    /// Number of calls after which everything fails, until [`Faults::revive`].
    pub stop_after: Option<u64>,
}

impl FaultPlan {
    /// Some of every fault, in a tenth of all calls.
    pub fn rough() -> Self {
        Self {
            error_before: 40,
            response_lost: 40,
            late: 500,
            slow: 50,
            slow_ms: 1..5_000,
            late_calls_max: 20,
            deny_writes: false,
            deny_deletes: false,
            refusal: None,
            stop_after: None,
        }
    }
}

/// The store's reason to refuse all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The store is busy.
    Busy,
    /// The store denies access.
    Denied,
    /// The store is full.
    Full,
    /// The store says that the bucket itself is missing.
    Away,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Busy, Self::Denied, Self::Full, Self::Away];

    /// The error of `object_store` for it.
    fn error(self) -> Error {
        let path = "it".to_owned();
        match self {
            Self::Busy => lost(),
            Self::Denied => Error::PermissionDenied { path, source: "denied on purpose".into() },
            Self::Full => {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
                Error::Generic { store: "faulty", source }
            }
            Self::Away => Error::NotFound { path, source: "NoSuchBucket (on purpose)".into() },
        }
    }
}

/// A write that has not landed.
enum Late {
    Put(Path, PutPayload, PutOptions),
    Delete(Path),
}

struct State {
    plan: FaultPlan,
    rng: StdRng,
    calls: u64,
    dead: bool,
    late: Vec<(u64, Late)>,
    faults: u64,
}

/// Fate of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fate {
    slow: Option<Duration>,
    /// True if it happens now.
    happens: bool,
    /// The later call after which it happens.
    happens_after: Option<u64>,
    /// True if the caller gets an answer.
    answers: bool,
}

impl State {
    fn draw(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.rng.random_range(0..1000) < of_thousand
    }

    fn fate(&mut self, writes: bool) -> Fate {
        self.calls += 1;
        let stopped = self.plan.stop_after.is_some_and(|n| self.calls > n);
        let mut fate = Fate { slow: None, happens: true, happens_after: None, answers: true };
        if self.dead || stopped || self.plan.refusal.is_some() {
            return Fate { happens: false, answers: false, ..fate };
        }
        if self.draw(self.plan.slow) && !self.plan.slow_ms.is_empty() {
            let ms = self.rng.random_range(self.plan.slow_ms.clone());
            fate.slow = Some(Duration::from_millis(ms));
        }
        if self.draw(self.plan.error_before) {
            (fate.happens, fate.answers) = (false, false);
        } else if self.draw(self.plan.response_lost) {
            fate.answers = false;
            if writes && self.draw(self.plan.late) {
                let after = self.rng.random_range(1..=self.plan.late_calls_max.max(1));
                fate.happens = false;
                fate.happens_after = Some(self.calls + u64::from(after));
            }
        }
        self.faults += u64::from(!fate.answers);
        fate
    }

    fn due(&mut self, all: bool) -> Vec<Late> {
        let calls = self.calls;
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition(|(after, _)| all || *after <= calls);
        self.late = later;
        let due: Vec<(u64, Late)> = due;
        due.into_iter().map(|(_, late)| late).collect()
    }
}

/// The handle on a faulty store's faults. Clones share everything.
#[derive(Clone)]
pub struct Faults {
    store: Arc<dyn ObjectStore>,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        write!(f, "Faults({} calls, {} failed)", state.calls, state.faults)
    }
}

impl Faults {
    /// Changes the plan from the next call on.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state.lock().plan = plan;
    }

    /// Makes everything fail without effect from now on.
    pub fn kill(&self) {
        self.state.lock().dead = true;
    }

    /// Makes the store work again. Removes [`FaultPlan::stop_after`] from the plan.
    pub fn revive(&self) {
        let mut state = self.state.lock();
        state.dead = false;
        state.plan.stop_after = None;
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Failed calls so far.
    pub fn failed(&self) -> u64 {
        self.state.lock().faults
    }

    /// Writes that have not landed.
    pub fn late(&self) -> usize {
        self.state.lock().late.len()
    }

    /// Lands all late writes.
    pub async fn land_all(&self) {
        let due = self.state.lock().due(true);
        self.land(due).await;
    }

    async fn land(&self, due: Vec<Late>) {
        for late in due {
            // No caller waits for the answer; "exists" and "not found" are as good as any.
            let _ = match late {
                Late::Put(path, payload, opts) => {
                    self.store.put_opts(&path, payload, opts).await.map(drop)
                }
                Late::Delete(path) => self.store.delete(&path).await,
            };
        }
    }

    /// Decides about a call, after late writes have landed and its delay is over.
    async fn begin(&self, writes: bool) -> Fate {
        let due = self.state.lock().due(false);
        self.land(due).await;
        let fate = self.state.lock().fate(writes);
        if let Some(slow) = fate.slow {
            tokio::time::sleep(slow).await;
        }
        fate
    }

    /// The error of a call that was refused, or whose answer is lost.
    fn no_answer(&self) -> Error {
        self.state.lock().plan.refusal.map_or_else(lost, Refusal::error)
    }

    fn later(&self, after: Option<u64>, late: Late) {
        if let Some(after) = after {
            self.state.lock().late.push((after, late));
        }
    }

    async fn delete_one(&self, path: Path) -> Result<Path> {
        let fate = self.begin(true).await;
        if self.state.lock().plan.deny_deletes {
            let path = path.to_string();
            return Err(Error::PermissionDenied { path, source: "denied on purpose".into() });
        }
        self.later(fate.happens_after, Late::Delete(path.clone()));
        let result = if fate.happens { self.store.delete(&path).await } else { Ok(()) };
        if fate.answers { result.map(|()| path) } else { Err(self.no_answer()) }
    }
}

/// A store with faults.
pub struct Faulty {
    faults: Faults,
}

impl Faulty {
    /// Puts faults in front of `store`.
    pub fn new(store: Arc<dyn ObjectStore>, seed: u64, plan: FaultPlan) -> Self {
        let state = State {
            plan,
            rng: StdRng::seed_from_u64(seed),
            calls: 0,
            dead: false,
            late: Vec::new(),
            faults: 0,
        };
        Self { faults: Faults { store, state: Arc::new(Mutex::new(state)) } }
    }

    /// The handle on its faults.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }
}

/// An error that leaves open whether the call happened.
fn lost() -> Error {
    let source = "the connection was lost (on purpose)".into();
    Error::Generic { store: "faulty", source }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.faults.store)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.store.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let fate = self.faults.begin(true).await;
        if self.faults.state.lock().plan.deny_writes {
            let path = location.to_string();
            return Err(Error::PermissionDenied { path, source: "denied on purpose".into() });
        }
        let late = Late::Put(location.clone(), payload.clone(), opts.clone());
        self.faults.later(fate.happens_after, late);
        if !fate.happens {
            return Err(self.faults.no_answer());
        }
        let result = self.faults.store.put_opts(location, payload, opts).await;
        if fate.answers { result } else { Err(self.faults.no_answer()) }
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported { source: "nobody here uploads in parts".into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fate = self.faults.begin(false).await;
        if !fate.answers {
            return Err(self.faults.no_answer());
        }
        self.faults.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let faults = self.faults.clone();
        let deleted = locations.then(move |location| {
            let faults = faults.clone();
            async move { faults.delete_one(location?).await }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (faults, prefix) = (self.faults.clone(), prefix.cloned());
        let listed = async move {
            let fate = faults.begin(false).await;
            if !fate.answers {
                let error = faults.no_answer();
                return futures::stream::once(async { Err(error) }).boxed();
            }
            faults.store.list(prefix.as_ref())
        };
        futures::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.faults.begin(false).await;
        if !fate.answers {
            return Err(self.faults.no_answer());
        }
        self.faults.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(Error::NotSupported { source: "nobody here copies".into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::objects::bucket::{Bucket, Created};
    use crate::objects::testing::env;
    use object_store::memory::InMemory;

    async fn rough_bucket(seed: u64) -> (Bucket, Faults) {
        let faulty = Faulty::new(Arc::new(InMemory::new()), seed, FaultPlan::default());
        let faults = faulty.faults();
        let bucket = Bucket::open(Arc::new(faulty), env(seed), true).await.expect("a bucket");
        faults.set_plan(FaultPlan::rough());
        (bucket, faults)
    }

    /// Two writers race for numbers. The one that is told "ours" must be the one that reads back.
    async fn race(seed: u64) -> Vec<(Created, bool)> {
        let (bucket, faults) = rough_bucket(seed).await;
        let mut told = Vec::new();
        for number in 0..40 {
            let name = format!("streams/race/{number}");
            let claim = async |who: u8| loop {
                match bucket.create(&name, vec![who; 100]).await {
                    Ok(created) => break created,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            };
            let (one, two) = tokio::join!(claim(1), claim(2));
            assert_ne!(one, two, "seed {seed}: one winner, not none and not two");
            faults.land_all().await;
            let there = loop {
                if let Ok(there) = bucket.get(&name).await {
                    break there.expect("somebody won");
                }
            };
            assert_eq!(one == Created::Ours, there[0] == 1, "seed {seed}, number {number}");
            told.push((one, there[0] == 1));
        }
        assert!(faults.failed() > 0, "seed {seed}: nothing went wrong");
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_create_never_mistakes_whose_object_it_is() {
        for seed in 0..50 {
            race(seed).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_seed_gives_the_same_run() {
        assert_eq!(race(7).await, race(7).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_store_does_nothing_until_it_is_revived() {
        let (bucket, faults) = rough_bucket(1).await;
        faults.set_plan(FaultPlan { stop_after: Some(faults.calls() + 1), ..FaultPlan::default() });
        assert_eq!(bucket.create("a/1", vec![1]).await.expect("the last call"), Created::Ours);
        let error = bucket.create("a/2", vec![1]).await.expect_err("dead");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(bucket.get("a/1").await.is_err());
        faults.revive();
        assert_eq!(bucket.get("a/2").await.expect("alive"), None);
        faults.kill();
        let before = faults.calls();
        assert!(bucket.list("a").await.is_err());
        assert!(faults.calls() - before > 1, "it is tried again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_write_lands() {
        let (bucket, faults) = rough_bucket(2).await;
        let late = FaultPlan {
            response_lost: 1000,
            late: 1000,
            late_calls_max: 1000,
            ..FaultPlan::default()
        };
        faults.set_plan(late);
        assert!(bucket.create("a/1", vec![1]).await.is_err());
        faults.set_plan(FaultPlan::default());
        assert_eq!(bucket.get("a/1").await.expect("get"), None);
        faults.land_all().await;
        assert!(bucket.get("a/1").await.expect("get").is_some());
    }
}
