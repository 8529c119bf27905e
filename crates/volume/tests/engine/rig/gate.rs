//! A gate between one incarnation of a node and the store: once it is shut, no call ends.
//!
//! A call that is under way when the gate shuts still happens: a dying machine's last calls arrive.

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// A gate in front of a store.
pub struct Gate {
    store: Arc<dyn ObjectStore>,
    inner: Arc<Inner>,
}

struct Inner {
    shut: AtomicBool,
    calls: AtomicU64,
    shut_after: AtomicU64,
    died: Notify,
    /// Calls for objects with this in their names wait.
    held: Mutex<Option<String>>,
    /// True if only PUTs wait.
    holds_puts_only: AtomicBool,
    changed: Notify,
    /// The next read of an object with this in its name finds nothing.
    missing: Mutex<Option<String>>,
    /// Objects with this in their names can't be deleted.
    locked: Mutex<Option<String>>,
}

impl Gate {
    /// An open gate.
    pub fn new(store: Arc<dyn ObjectStore>) -> Arc<Self> {
        Self::shutting_after(store, u64::MAX)
    }

    /// A gate that shuts when `calls` calls have been let through.
    pub fn shutting_after(store: Arc<dyn ObjectStore>, calls: u64) -> Arc<Self> {
        let inner = Inner {
            shut: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            shut_after: AtomicU64::new(calls),
            died: Notify::new(),
            held: Mutex::default(),
            holds_puts_only: AtomicBool::new(false),
            changed: Notify::new(),
            missing: Mutex::default(),
            locked: Mutex::default(),
        };
        Arc::new(Self { store, inner: Arc::new(inner) })
    }

    /// Shuts when `calls` more have been let through.
    pub fn shut_after(&self, calls: u64) {
        let now = self.inner.calls.load(Ordering::Relaxed);
        self.inner.shut_after.store(now.saturating_add(calls), Ordering::Relaxed);
    }

    /// Shuts now.
    pub fn kill(&self) {
        self.inner.shut.store(true, Ordering::Relaxed);
        self.inner.died.notify_waiters();
    }

    /// Lets calls for objects with `text` in their names wait until this is called with another.
    pub fn hold(&self, text: Option<&str>) {
        self.inner.holds_puts_only.store(false, Ordering::Relaxed);
        *self.inner.held.lock() = text.map(str::to_owned);
        self.inner.changed.notify_waiters();
    }

    /// Lets calls wait that put such objects, and no others.
    pub fn hold_puts(&self, text: &str) {
        self.hold(Some(text));
        self.inner.holds_puts_only.store(true, Ordering::Relaxed);
    }

    /// The next read of an object with `text` in its name finds nothing, as if a collection had
    /// taken it meanwhile.
    pub fn miss_once(&self, text: &str) {
        *self.inner.missing.lock() = Some(text.to_owned());
    }

    /// Denies to delete objects with `text` in their names.
    pub fn lock(&self, text: &str) {
        *self.inner.locked.lock() = Some(text.to_owned());
    }

    /// True if a read has found nothing since.
    pub fn has_missed(&self) -> bool {
        self.inner.missing.lock().is_none()
    }

    /// Number of calls so far.
    pub fn calls(&self) -> u64 {
        self.inner.calls.load(Ordering::Relaxed)
    }

    /// True once it is shut.
    pub fn is_shut(&self) -> bool {
        self.inner.shut.load(Ordering::Relaxed)
    }

    /// Waits until it is shut.
    pub async fn died(&self) {
        let died = self.inner.died.notified();
        tokio::pin!(died);
        died.as_mut().enable();
        if !self.is_shut() {
            died.await;
        }
    }
}

impl Inner {
    async fn pass(&self, at: Option<&Path>) {
        self.pass_as(at, false).await;
    }

    async fn pass_as(&self, at: Option<&Path>, is_put: bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let is_held = match (&*self.held.lock(), at) {
                (Some(text), Some(at)) => at.as_ref().contains(text),
                _ => false,
            };
            let is_held = is_held && (is_put || !self.holds_puts_only.load(Ordering::Relaxed));
            if !is_held {
                break;
            }
            changed.await;
        }
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if calls >= self.shut_after.load(Ordering::Relaxed) {
            self.shut.store(true, Ordering::Relaxed);
            self.died.notify_waiters();
        }
        if self.shut.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.store)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, at: &Path, load: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.pass_as(Some(at), true).await;
        self.store.put_opts(at, load, opts).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.pass(Some(at)).await;
        let missing = self.inner.missing.lock().take_if(|text| at.as_ref().contains(&**text));
        if missing.is_some() {
            let (path, source) = (at.to_string(), "it was collected".into());
            return Err(object_store::Error::NotFound { path, source });
        }
        self.store.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, store) = (self.inner.clone(), self.store.clone());
        let deleted = locations.then(move |at| {
            let (inner, store) = (inner.clone(), store.clone());
            async move {
                let at = at?;
                inner.pass(Some(&at)).await;
                if inner.locked.lock().as_ref().is_some_and(|text| at.as_ref().contains(&**text)) {
                    let (path, source) = (at.to_string(), "it is locked".into());
                    return Err(object_store::Error::PermissionDenied { path, source });
                }
                store.delete(&at).await.map(|()| at)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (inner, store, prefix) = (self.inner.clone(), self.store.clone(), prefix.cloned());
        let listed = async move {
            inner.pass(prefix.as_ref()).await;
            store.list(prefix.as_ref())
        };
        futures::stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.pass(prefix).await;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
