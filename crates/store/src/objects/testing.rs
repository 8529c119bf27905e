//! Helpers of this crate's own tests: a seeded source of randomness, a stopped clock, an open
//! bucket.

use crate::objects::bucket::{Bucket, Env};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use std::sync::Arc;
use std::time::Duration;

/// Random bytes by seed.
pub(crate) struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

/// A clock that stands still.
pub(crate) struct Stopped;

impl Clock for Stopped {
    fn boot(&self) -> Duration {
        Duration::from_secs(1)
    }
    fn wall_ms(&self) -> u64 {
        1_000_000
    }
}

/// Clock and randomness for a test.
pub(crate) fn env(seed: u64) -> Env {
    Env {
        clock: Arc::new(Stopped),
        entropy: Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(seed)))),
    }
}

/// A new bucket in `store`.
pub(crate) async fn bucket_in(store: Arc<dyn ObjectStore>, seed: u64) -> Bucket {
    Bucket::open(store, env(seed), true).await.expect("a new bucket")
}

/// A new bucket in memory.
pub(crate) async fn memory_bucket(seed: u64) -> Bucket {
    bucket_in(Arc::new(InMemory::new()), seed).await
}

/// Extra actions of a store in memory.
#[async_trait::async_trait]
pub(crate) trait Hook: Send + Sync + 'static {
    /// Runs before an object is put; an error prevents the put.
    async fn putting(&self, _inner: &InMemory, _at: &Path) -> Result<()> {
        Ok(())
    }
    /// Runs before an object is deleted. An error prevents the deletion.
    async fn deleting(&self, _at: &Path) -> Result<()> {
        Ok(())
    }
    /// Runs after an object was read.
    async fn got(&self, _inner: &InMemory, _at: &Path, bytes: Bytes) -> Bytes {
        bytes
    }
    /// Runs before objects are listed.
    async fn listing(&self, _inner: &InMemory, _prefix: Option<&Path>) {}
}

/// A store in memory with a hook.
pub(crate) struct Hooked<H> {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) hook: Arc<H>,
}

impl<H: Hook> Hooked<H> {
    pub(crate) fn new(hook: H) -> Self {
        Self { inner: Arc::new(InMemory::new()), hook: Arc::new(hook) }
    }
}

impl<H> std::fmt::Debug for Hooked<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl<H> std::fmt::Display for Hooked<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

#[async_trait::async_trait]
impl<H: Hook> ObjectStore for Hooked<H> {
    async fn put_opts(&self, at: &Path, load: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.hook.putting(&self.inner, at).await?;
        self.inner.put_opts(at, load, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(at, options).await?;
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let bytes = self.hook.got(&self.inner, at, got.bytes().await?).await;
        let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, hook) = (self.inner.clone(), self.hook.clone());
        let deleted = locations.then(move |at| {
            let (inner, hook) = (inner.clone(), hook.clone());
            async move {
                let at = at?;
                hook.deleting(&at).await?;
                inner.delete(&at).await.map(|()| at)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, hook, prefix) = (self.inner.clone(), self.hook.clone(), prefix.cloned());
        let listed = async move {
            hook.listing(&inner, prefix.as_ref()).await;
            let listed = inner.list(prefix.as_ref()).try_collect::<Vec<_>>().await;
            futures::stream::iter(listed.unwrap_or_default().into_iter().map(Ok))
        };
        futures::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Flips a bit of each read, this many times.
#[derive(Default)]
pub(crate) struct Flips(pub(crate) std::sync::atomic::AtomicUsize);

#[async_trait::async_trait]
impl Hook for Flips {
    async fn got(&self, _inner: &InMemory, _at: &Path, bytes: Bytes) -> Bytes {
        use std::sync::atomic::Ordering::Relaxed;
        let flips = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.get_mut(70).filter(|_| flips) {
            *byte ^= 4;
        }
        bytes.into()
    }
}
