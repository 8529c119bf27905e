//! The one door to an object store: create-if-absent, ranged reads, listing, deletion.
//!
//! Nothing above this file calls the store itself. A failed call is made again here, and nowhere
//! below, as [`skerry_core::retry`] decides and as long as the handle's patience lasts. Callers
//! with more patience repeat above, call by call. A create is repeated *with the same bytes*, and a
//! comparison of bytes then tells the meaning of "exists". Objects are never updated in place.
//!
//! Must hold: a [`Created`] is given only when the object under the name is known. Every other
//! outcome is an error, after which the object may or may not be there, now or later.

use self::descriptor::Seen;
use crate::error::{Error, Result};
use crate::objects::health::Health;
use crate::objects::line::{CALL_TIMEOUT, LARGE_BYTES_MIN, Line};
use crate::objects::local::LocalDir;
use crate::objects::tries::Tries;
use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use skerry_core::env::{Clock, Entropy};
use skerry_core::id::BucketId;
use skerry_core::names::{self, Object};
use skerry_core::position::{Number, SegmentKey};
use skerry_core::retry::{Patience, Verdict};
use skerry_core::{FormatError, envelope};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

mod descriptor;

/// The largest object that [`Bucket::get`] reads whole, bytes: twice the largest that Skerry
/// writes.
pub const OBJECT_BYTES_MAX: u64 = 2 * envelope::ENVELOPE_BYTES_MAX as u64;

/// Objects up to this size are compared whole after an uncertain create, bytes.
const COMPARE_WHOLE_BYTES_MAX: usize = 1 << 20;
/// Of larger ones, the bytes at either end that are compared.
const COMPARE_END_BYTES: usize = 64 << 10;

/// Time and randomness, passed in.
#[derive(Clone)]
pub struct Env {
    /// Reads the time.
    pub clock: Arc<dyn Clock>,
    /// Makes ids, nonces and jitter.
    pub entropy: Arc<dyn Entropy>,
}

/// The object under a name after a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Created {
    /// The object has the given bytes.
    Ours,
    /// The object has other bytes.
    Theirs,
}

/// The bytes of an object to be, in one or many pieces. Cloning it copies nothing.
#[derive(Debug, Clone)]
pub struct Payload(PutPayload);

macro_rules! payload_from {
    ($($from:ty => $how:expr),* $(,)?) => {$(
        impl From<$from> for Payload {
            fn from(from: $from) -> Self {
                Self($how(from))
            }
        }
    )*};
}

payload_from! {
    PutPayload => |whole| whole,
    Bytes => PutPayload::from,
    Vec<u8> => PutPayload::from,
    &'static [u8] => PutPayload::from,
    Vec<Bytes> => PutPayload::from_iter,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its whole name, as [`Bucket::get`] takes it.
    pub name: String,
    /// Its size, bytes.
    pub size: u64,
}

#[derive(Clone)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    env: Env,
    patience: Patience,
    health: Arc<Health>,
    line: Arc<Line>,
    desc: Arc<Seen>,
}

/// An opened bucket: one of Skerry, in a known format.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
    local: Option<Arc<LocalDir>>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bucket({} in {})", self.inner.desc.id, self.inner.store)
    }
}

impl Bucket {
    /// Opens the bucket in `store`, with a command's patience. Makes one of an empty place if
    /// `create`.
    ///
    /// # Errors
    /// [`Error::NoBucket`] for an empty place unless `create`. [`Error::Foreign`] for a place that
    /// holds other objects. [`Error::Format`] for a damaged descriptor or a newer format.
    pub async fn open(store: Arc<dyn ObjectStore>, env: Env, create: bool) -> Result<Self> {
        Self::open_with(store, env, create, Patience::COMMAND).await
    }

    /// As [`Bucket::open`], with another patience.
    pub async fn open_with(
        store: Arc<dyn ObjectStore>,
        env: Env,
        create: bool,
        patience: Patience,
    ) -> Result<Self> {
        let (health, line, desc) = (Arc::default(), Arc::default(), Arc::new(Seen::none()));
        let unnamed = Inner { store, env, patience, health, line, desc };
        let desc = Arc::new(unnamed.open_desc(create).await?);
        Ok(Self { inner: Arc::new(Inner { desc, ..unnamed }), local: None })
    }

    /// Says that the bucket is this local directory, so that segments are read from its files.
    pub fn with_local_dir(self, dir: Arc<LocalDir>) -> Self {
        Self { local: Some(dir), ..self }
    }

    /// This bucket with another patience.
    pub fn with_patience(&self, patience: Patience) -> Self {
        let inner = Inner { patience, ..(*self.inner).clone() };
        Self { inner: Arc::new(inner), local: self.local.clone() }
    }

    /// The trouble that the store has now, for people; none if all is well.
    pub fn failing(&self) -> Option<String> {
        self.inner.health.failing()
    }

    /// The local directory of this bucket, if [`Bucket::with_local_dir`] gave one.
    pub fn local_dir(&self) -> Option<&Arc<LocalDir>> {
        self.local.as_ref()
    }

    /// The bucket's id.
    pub fn id(&self) -> BucketId {
        self.inner.desc.id
    }

    /// The source of randomness.
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.inner.env.entropy
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.env.clock
    }

    /// Clock and randomness together.
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Sixteen fresh random bytes, for a new object.
    pub fn nonce(&self) -> [u8; 16] {
        self.inner.env.entropy.id_bytes()
    }

    /// Creates an object unless one is there. The payload must have a nonce within the first 64
    /// KiB, as every envelope and segment has: it tells two writers' objects apart. After an error,
    /// call again with the same bytes: that is safe, and finds out.
    ///
    /// # Errors
    /// Kind `Unavailable` after the last try: the object may be there, now or later.
    pub async fn create(&self, name: &str, payload: impl Into<Payload>) -> Result<Created> {
        self.inner.create(name, payload.into().0).boxed().await
    }

    /// Reads the whole object; `None` if it is missing.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.inner.get(name).boxed().await
    }

    /// Reads the bytes of `range` that the object has: fewer at its end, none beyond it. `None` if
    /// it is missing.
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        self.inner.get_range(name, range).boxed().await
    }

    /// True if the object exists.
    pub async fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.size(name).await?.is_some())
    }

    /// The object's size, bytes, if it exists.
    pub async fn size(&self, name: &str) -> Result<Option<u64>> {
        self.inner.size(name).boxed().await
    }

    /// Lists all objects whose name begins with `prefix/`, sorted by name.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.inner.list(prefix).boxed().await
    }

    /// True if the stream has a data number from `from` on. One page of a listing, for a stream of
    /// any length.
    pub async fn has_data_from(&self, from: SegmentKey) -> Result<bool> {
        match &self.local {
            Some(dir) => dir.has_data_from(from).await,
            None => self.inner.has_data_from(from).boxed().await,
        }
    }

    /// Deletes an object. A missing one is no error.
    pub async fn delete(&self, name: &str) -> Result<()> {
        if let (Some(dir), Object::Segment(key)) = (&self.local, names::parse(name)) {
            dir.forget(key);
        }
        self.inner.delete(name).boxed().await
    }

    /// Makes the next read open a local bucket's file of a segment anew: another may stand in its
    /// place by now.
    pub(crate) fn forget_file(&self, key: SegmentKey) {
        if let Some(dir) = &self.local {
            dir.forget(key);
        }
    }

    /// Reads bytes of a segment that must be there; fewer only at its end.
    pub(crate) async fn segment_range(&self, key: SegmentKey, range: Range<u64>) -> Result<Bytes> {
        if let Some(dir) = &self.local {
            return dir.read(key, range).await;
        }
        let name = names::segment(key);
        self.get_range(&name, range).await?.ok_or(Error::NotFound { object: name })
    }
}

/// The error that a failed try means.
fn failure(action: &'static str, name: &str, error: &object_store::Error) -> Error {
    Error::from_store(action, name, error)
}

/// Gives the store's answer to a call, or an error if it gave none in time.
fn in_time<T>(
    action: &'static str,
    name: &str,
    done: Result<object_store::Result<T>, Duration>,
) -> Result<T> {
    match done {
        Ok(done) => done.map_err(|error| failure(action, name, &error)),
        Err(time) => Err(Error::Unavailable {
            action,
            object: name.to_owned(),
            detail: format!("no answer within {time:?}"),
        }),
    }
}

impl Inner {
    /// Finds an object that is no left-over of a probe. If there is one, the place is not empty.
    async fn first_object(&self) -> Result<Option<String>> {
        let looked = self.retried("listing", || async {
            let mut stream = self.store.list(None);
            while let Some(meta) = self.next(&mut stream, "the whole bucket").await? {
                let name = meta.location.to_string();
                if names::parse(&name) != Object::Probe {
                    return Ok(Some(name));
                }
            }
            Ok(None)
        });
        Ok(looked.await?.flatten())
    }

    async fn create(&self, name: &str, payload: PutPayload) -> Result<Created> {
        let path = parse(name)?;
        let options = PutOptions::from(PutMode::Create);
        let len = payload.content_length();
        // A large object is sent again at once after its first failure, however long it waited for
        // its turn. Otherwise its caller would begin anew with more than this object.
        let mut tries = (len < LARGE_BYTES_MIN).then(|| Tries::new(self.patience));
        loop {
            let put = || self.store.put_opts(&path, payload.clone(), options.clone());
            let sent = self.line.send(len, put).await;
            let error = match in_time("creating", name, sent) {
                Ok(_) => {
                    self.health.answered("creating");
                    return Ok(Created::Ours);
                }
                // An earlier try, of this call or of one before it, may have made it.
                Err(Error::Exists { .. }) => match self.compare(name, &payload).await {
                    Ok(Some(created)) => {
                        self.health.answered("creating");
                        return Ok(created);
                    }
                    // It existed and does not now. No node deletes an object that is being created,
                    // but a store may answer late. Try again like after any other failure.
                    Ok(None) => Error::Unavailable {
                        action: "creating",
                        object: name.to_owned(),
                        detail: "the store said that it exists, and did not find it".to_owned(),
                    },
                    Err(error) => error,
                },
                // A create misses no object: the answer is not from the store, or not about its
                // bucket.
                Err(Error::NotFound { object }) => away("creating", object),
                Err(error) => error,
            };
            let tries = tries.get_or_insert_with(|| Tries::new(self.patience));
            self.await_next(tries, "creating", error).await?;
        }
    }

    /// Says whether the object under `name` is `payload`.
    ///
    /// Up to 1 MiB, it compares everything. Of larger objects, it compares the length and 64 KiB at
    /// either end. Only segments are that large. Each build of a segment draws a random nonce,
    /// which its head begins with, and never changes. So an equal nonce means equal bytes. The
    /// comparison of the other end notices a store that mangles bytes.
    async fn compare(&self, name: &str, payload: &PutPayload) -> Result<Option<Created>> {
        let len = payload.content_length();
        let Some(there) = self.size(name).await? else { return Ok(None) };
        if there != len as u64 {
            return Ok(Some(Created::Theirs));
        }
        let end = if len <= COMPARE_WHOLE_BYTES_MAX { len } else { COMPARE_END_BYTES };
        for range in [0..end, (len - COMPARE_END_BYTES.min(len)).max(end)..len] {
            let wide = range.start as u64..range.end as u64;
            if wide.is_empty() {
                continue;
            }
            let Some(bytes) = self.get_range(name, wide).await? else { return Ok(None) };
            if !slice_equals(payload, range, &bytes) {
                return Ok(Some(Created::Theirs));
            }
        }
        Ok(Some(Created::Ours))
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let path = parse(name)?;
        self.retried("reading", || async {
            let fetch = async {
                let got = self.read(&path, self.store.get(&path)).await?;
                if got.meta.size > OBJECT_BYTES_MAX {
                    return Ok(Err(got.meta.size));
                }
                got.bytes().await.map(Ok)
            };
            match self.timed("reading", name, fetch).await? {
                Ok(bytes) => Ok(bytes),
                Err(size) => Err(too_large(name, size)),
            }
        })
        .await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        if range.start >= range.end {
            return Ok(self.size(name).await?.map(|_| Bytes::new()));
        }
        let path = parse(name)?;
        self.retried("reading", || async {
            let wanted = GetOptions::new().with_range(Some(GetRange::Bounded(range.clone())));
            let got = self.read(&path, self.store.get_opts(&path, wanted));
            let fetch = async { got.await?.bytes().await };
            match self.timed("reading", name, fetch).await {
                // Stores answer a range that begins beyond the end with errors of various kinds and
                // words. A store in other trouble should not get twice the calls.
                Err(error) if error.is_transient() && error.is_of_range() => {
                    match self.size_once(&path, name).await {
                        Ok(size) if size <= range.start => Ok(Bytes::new()),
                        _ => Err(error),
                    }
                }
                other => other,
            }
        })
        .await
    }

    /// Reads an object. A 404 that does not say what is missing counts only once a listing lacks
    /// the object, too.
    async fn read<T>(
        &self,
        path: &Path,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> object_store::Result<T> {
        let error = match call.await {
            Err(error) if Error::is_vague_404(&error) => error,
            other => return other,
        };
        if Error::says_bucket_is_away(&error) {
            return Err(error);
        }
        let mut before = path.to_string();
        let parent = before.rsplit_once('/').map(|(parent, _)| Path::from(parent));
        before.pop();
        let mut listed = self.store.list_with_offset(parent.as_ref(), &Path::from(before));
        while let Some(found) = listed.next().await.transpose()? {
            if found.location == *path {
                let source = format!("it is listed, and reading it gave: {error}").into();
                return Err(object_store::Error::Generic { store: "bucket", source });
            }
            if found.location > *path {
                break;
            }
        }
        let source = "neither read nor listed".into();
        Err(object_store::Error::NotFound { path: path.to_string(), source })
    }

    async fn size(&self, name: &str) -> Result<Option<u64>> {
        let path = parse(name)?;
        self.retried("looking for", || self.size_once(&path, name)).await
    }

    async fn size_once(&self, path: &Path, name: &str) -> Result<u64> {
        let look = async {
            match self.store.head(path).await {
                // The answer to a HEAD has no body: an absent bucket looks like an absent object.
                Err(error) if Error::is_vague_404(&error) => {
                    let wanted = GetOptions::new().with_range(Some(GetRange::Bounded(0..1)));
                    self.read(path, self.store.get_opts(path, wanted)).await.map(|got| got.meta)
                }
                looked => looked,
            }
        };
        Ok(self.timed("looking for", name, look).await?.size)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let path = parse(prefix)?;
        let listed = self.retried("listing", || self.list_once(&path, prefix)).await?;
        Ok(listed.unwrap_or_default())
    }

    async fn list_once(&self, path: &Path, prefix: &str) -> Result<Vec<Listed>> {
        let mut stream = self.store.list(Some(path));
        let mut found = Vec::new();
        while let Some(meta) = self.next(&mut stream, prefix).await? {
            found.push(Listed { name: meta.location.to_string(), size: meta.size });
        }
        found.sort_unstable();
        Ok(found)
    }

    async fn has_data_from(&self, from: SegmentKey) -> Result<bool> {
        let prefix = names::stream_prefix(from.stream);
        let before = SegmentKey { number: Number(from.number.0.saturating_sub(1)), ..from };
        let (path, offset) = (parse(&prefix)?, parse(&names::segment(before))?);
        let look = || async {
            let mut stream = self.store.list_with_offset(Some(&path), &offset);
            while let Some(meta) = self.next(&mut stream, &prefix).await? {
                match names::parse(meta.location.as_ref()) {
                    // Where names are sorted, one page is enough. Elsewhere a gap may go unnoticed.
                    Object::Segment(key) if key.number.is_map_node() => return Ok(false),
                    Object::Segment(key) if key.number >= from.number => return Ok(true),
                    _ => {}
                }
            }
            Ok(false)
        };
        Ok(self.retried("listing", look).await?.unwrap_or_default())
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let path = parse(name)?;
        let delete = || self.timed("deleting", name, self.read(&path, self.store.delete(&path)));
        self.retried("deleting", delete).await?;
        Ok(())
    }

    async fn next<T>(
        &self,
        stream: &mut (impl futures::Stream<Item = object_store::Result<T>> + Unpin),
        prefix: &str,
    ) -> Result<Option<T>> {
        let next = async { stream.next().await.transpose() };
        match self.timed("listing", prefix, next).await {
            // A listing always has an answer, if only an empty one.
            Err(Error::NotFound { object }) => Err(away("listing", object)),
            other => other,
        }
    }

    /// Makes one call to the store, with a bound on its time.
    async fn timed<T>(
        &self,
        action: &'static str,
        name: &str,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let done = tokio::time::timeout(CALL_TIMEOUT, call).await;
        in_time(action, name, done.map_err(|_| CALL_TIMEOUT))
    }

    /// Tries a read until the store answers. A missing object is an answer.
    async fn retried<T, F>(
        &self,
        action: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Result<Option<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut tries = Tries::new(self.patience);
        loop {
            let value = match call().await {
                Ok(value) => Some(value),
                Err(Error::NotFound { .. }) => None,
                Err(error) => {
                    self.await_next(&mut tries, action, error).await?;
                    continue;
                }
            };
            self.health.answered(action);
            return Ok(value);
        }
    }

    /// Waits for the next try after a failed one, or fails if there is none.
    async fn await_next(
        &self,
        tries: &mut Tries,
        action: &'static str,
        error: Error,
    ) -> Result<()> {
        match tries.wait(error.trouble(), &*self.env.entropy).await {
            Verdict::After(_) => {
                tracing::debug!(%error, "a call is made again");
                Ok(())
            }
            Verdict::GiveUp => {
                self.health.failed(action, &error, self.env.clock.boot());
                Err(error)
            }
            Verdict::Permanent => Err(error),
        }
    }
}

/// The meaning of a 404 for a call that needs no object.
fn away(action: &'static str, object: String) -> Error {
    let detail = "the store says that there is no such bucket".to_owned();
    Error::Away { action, object, detail }
}

fn parse(name: &str) -> Result<Path> {
    Path::parse(name).map_err(|error| Error::invalid(format!("{name:?}"), error.to_string()))
}

fn too_large(name: &str, size: u64) -> Error {
    let detail = format!("it has {size} bytes, more than Skerry ever writes");
    Error::format(name, FormatError::invalid("object", detail))
}

/// True if `payload[range]` is `bytes`.
fn slice_equals(payload: &PutPayload, range: Range<usize>, bytes: &[u8]) -> bool {
    if bytes.len() != range.len() {
        return false;
    }
    let (mut at, mut rest) = (0, bytes);
    for chunk in payload.iter() {
        let from = range.start.clamp(at, at + chunk.len()) - at;
        let to = range.end.clamp(at, at + chunk.len()) - at;
        let (head, tail) = rest.split_at(to - from);
        if head != &chunk[from..to] {
            return false;
        }
        (at, rest) = (at + chunk.len(), tail);
    }
    rest.is_empty()
}

#[cfg(test)]
#[path = "bucket/tests.rs"]
mod tests;
