//! A store that counts calls, bytes, errors and latency by kind, and for tests the objects.
//!
//! It changes nothing. The counters are plain atomics that outlive it. Tests take a [`Tally`]
//! before and after and compare; metrics read these numbers.

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use skerry_core::env::Clock;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// PUT, conditional or not.
    Put,
    /// GET of a whole object.
    Get,
    /// GET of a range.
    GetRange,
    /// HEAD.
    Head,
    /// LIST of any number of pages.
    List,
    /// DELETE of one object.
    Delete,
}

impl CallKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Put, Self::Get, Self::GetRange, Self::Head, Self::List, Self::Delete];

    /// The name for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// The upper bounds of the latency histogram's buckets, microseconds; one more bucket is without
/// bound.
pub const LATENCY_BOUNDS_US: [u64; 12] = [
    100, 250, 1_000, 2_500, 10_000, 25_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];

/// The numbers of one kind of call.
#[derive(Debug, Default)]
pub struct CallCounters {
    /// Calls begun.
    pub calls: AtomicU64,
    /// Bytes sent or received in payloads, or objects listed.
    pub bytes: AtomicU64,
    /// Failed calls. A missing or existing object is an answer.
    pub errors: AtomicU64,
    /// Calls that have not ended.
    pub in_flight: AtomicU64,
    /// Time of all ended calls together, microseconds.
    pub time_us: AtomicU64,
    /// Ended calls by latency: not cumulative, see [`LATENCY_BOUNDS_US`].
    pub latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
}

/// The most paths that a recording keeps, so that a forgotten one does not eat the memory.
const PATHS_MAX: usize = 100_000;

/// All numbers of a metered store.
#[derive(Default)]
pub struct Counters {
    kinds: [CallCounters; CallKind::ALL.len()],
    paths: Mutex<Option<Vec<(CallKind, String)>>>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tally().fmt(f)
    }
}

impl Counters {
    /// The numbers of one kind.
    pub fn of(&self, kind: CallKind) -> &CallCounters {
        &self.kinds[kind as usize]
    }

    /// Calls and bytes so far.
    pub fn tally(&self) -> Tally {
        let read = |of: fn(&CallCounters) -> &AtomicU64| {
            CallKind::ALL.map(|kind| of(self.of(kind)).load(Ordering::Relaxed))
        };
        Tally { calls: read(|c| &c.calls), bytes: read(|c| &c.bytes), errors: read(|c| &c.errors) }
    }

    /// Begins to record the objects of calls, the first 100,000 of them.
    pub fn record_paths(&self) {
        *self.paths.lock() = Some(Vec::new());
    }

    /// Takes the calls since [`Counters::record_paths`] or the last call of this method.
    pub fn take_paths(&self) -> Vec<(CallKind, String)> {
        self.paths.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn note_path(&self, kind: CallKind, path: &str) {
        if let Some(paths) = self.paths.lock().as_mut()
            && paths.len() < PATHS_MAX
        {
            paths.push((kind, path.to_owned()));
        }
    }
}

/// Calls and bytes at a moment, or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    calls: [u64; CallKind::ALL.len()],
    bytes: [u64; CallKind::ALL.len()],
    errors: [u64; CallKind::ALL.len()],
}

impl Tally {
    /// Calls of a kind.
    pub fn calls(&self, kind: CallKind) -> u64 {
        self.calls[kind as usize]
    }

    /// Bytes of a kind.
    pub fn bytes(&self, kind: CallKind) -> u64 {
        self.bytes[kind as usize]
    }

    /// Failed calls of a kind.
    pub fn errors(&self, kind: CallKind) -> u64 {
        self.errors[kind as usize]
    }

    /// Calls of all kinds.
    pub fn calls_in_all(&self) -> u64 {
        self.calls.iter().sum()
    }

    /// Gives the difference to `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let minus = |a: [u64; 6], b: [u64; 6]| std::array::from_fn(|i| a[i].saturating_sub(b[i]));
        Self {
            calls: minus(self.calls, earlier.calls),
            bytes: minus(self.bytes, earlier.bytes),
            errors: minus(self.errors, earlier.errors),
        }
    }
}

/// A store that counts the calls to another one.
pub struct Meter {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
}

impl Meter {
    /// Counts the calls to `store`.
    pub fn new(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, counters: Arc::default() }
    }

    /// As [`Self::new`], adding to existing counters, for a store that is opened again, or another.
    pub fn adding_to(
        counters: Arc<Counters>,
        store: Arc<dyn ObjectStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, clock, counters }
    }

    /// The numbers; they outlive the meter.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn begin(&self, kind: CallKind, path: &str) -> Call {
        self.counters.note_path(kind, path);
        self.begin_unnamed(kind)
    }

    fn begin_unnamed(&self, kind: CallKind) -> Call {
        let counters = self.counters.of(kind);
        counters.calls.fetch_add(1, Ordering::Relaxed);
        counters.in_flight.fetch_add(1, Ordering::Relaxed);
        Call {
            counters: self.counters.clone(),
            clock: self.clock.clone(),
            kind,
            begun: self.clock.boot(),
        }
    }
}

/// A call under way. Dropping it ends the call, also if the caller gave up.
struct Call {
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
    kind: CallKind,
    begun: Duration,
}

impl Call {
    fn bytes(&self, bytes: u64) {
        self.counters.of(self.kind).bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn done<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(is_failure) {
            self.counters.of(self.kind).errors.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

/// A missing object, or an existing one, is an answer.
fn is_failure(error: &Error) -> bool {
    !matches!(error, Error::NotFound { .. } | Error::AlreadyExists { .. })
}

impl Drop for Call {
    fn drop(&mut self) {
        let counters = self.counters.of(self.kind);
        let took = self.clock.boot().saturating_sub(self.begun).as_micros() as u64;
        counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        counters.time_us.fetch_add(took, Ordering::Relaxed);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < took);
        counters.latency[bucket].fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meter({:?})", self.store)
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Meter {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let call = self.begin(CallKind::Put, location.as_ref());
        call.bytes(payload.content_length() as u64);
        call.done(self.store.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let kind = match (&options.range, options.head) {
            (_, true) => CallKind::Head,
            (Some(_), _) => CallKind::GetRange,
            (None, _) => CallKind::Get,
        };
        let call = self.begin(kind, location.as_ref());
        let result = call.done(self.store.get_opts(location, options).await)?;
        if kind != CallKind::Head {
            call.bytes(result.range.end - result.range.start);
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (store, counters, clock) =
            (self.store.clone(), self.counters.clone(), self.clock.clone());
        let meter = Self { store: store.clone(), counters, clock };
        let call = meter.begin_unnamed(CallKind::Delete);
        // `begin` counts the stream; each object after the first is counted as it comes.
        let mut first = true;
        let locations = locations.inspect(move |location| {
            if let Ok(location) = location {
                meter.counters.note_path(CallKind::Delete, location.as_ref());
            }
            if !std::mem::take(&mut first) {
                meter.counters.of(CallKind::Delete).calls.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deleted = store.delete_stream(locations.boxed());
        deleted.map(move |result| call.done(result)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let call = self.begin(CallKind::List, prefix.map_or("", |p| p.as_ref()));
        let listed = self.store.list(prefix);
        let counted = listed.map(move |meta| {
            call.bytes(1);
            call.done(meta)
        });
        counted.boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let call = self.begin(CallKind::List, prefix.map_or("", |p| p.as_ref()));
        let listed = self.store.list_with_offset(prefix, offset);
        let counted = listed.map(move |meta| {
            call.bytes(1);
            call.done(meta)
        });
        counted.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let call = self.begin(CallKind::List, prefix.map_or("", |p| p.as_ref()));
        call.done(self.store.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::bucket::{Bucket, Created};
    use crate::objects::testing::env;
    use object_store::memory::InMemory;

    #[tokio::test(start_paused = true)]
    async fn calls_and_bytes_are_counted_by_kind() {
        let env = env(1);
        let meter = Meter::new(Arc::new(InMemory::new()), env.clock.clone());
        let counters = meter.counters();
        let bucket = Bucket::open(Arc::new(meter), env, true).await.expect("a bucket");
        let before = counters.tally();
        counters.record_paths();
        assert_eq!(bucket.create("a/x", vec![1; 100]).await.expect("create"), Created::Ours);
        bucket.get("a/x").await.expect("get");
        bucket.get_range("a/x", 10..30).await.expect("get");
        bucket.exists("a/x").await.expect("head");
        bucket.list("a").await.expect("list");
        bucket.delete("a/x").await.expect("delete");
        bucket.get("a/y").await.expect("get");
        let spent = counters.tally().since(&before);
        let expected = [(1, 100, 0), (2, 100, 0), (1, 20, 0), (1, 0, 0), (1, 1, 0), (1, 0, 0)];
        for (kind, expected) in CallKind::ALL.into_iter().zip(expected) {
            let found = (spent.calls(kind), spent.bytes(kind), spent.errors(kind));
            assert_eq!(found, expected, "{kind:?}");
            assert_eq!(counters.of(kind).in_flight.load(Ordering::Relaxed), 0, "{kind:?}");
        }
        assert_eq!(spent.calls_in_all(), 7);
        let paths = counters.take_paths();
        assert_eq!(paths[0], (CallKind::Put, "a/x".to_owned()));
        assert_eq!(paths.last(), Some(&(CallKind::Get, "a/y".to_owned())));
    }
}
