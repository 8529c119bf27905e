//! A store in the cloud that gets a new client when access is denied. The client's keys may have
//! expired or been replaced early, and a client keeps them until their time is over.
//!
//! The denied call fails; its caller repeats it with fresh keys. Calls under way end with the old
//! client.

use crate::error::{Error as StoreError, Result as StoreResult};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::RwLock;
use skerry_core::retry::Trouble;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Age from which on a denied delete replaces a client.
const DELETE_RENEWAL_MIN: Duration = Duration::from_secs(60);

/// Makes a client.
type Make = Box<dyn Fn() -> StoreResult<Arc<dyn ObjectStore>> + Send + Sync>;

/// A store with a client that can be replaced. Clones share it.
#[derive(Clone)]
pub(crate) struct Renewing {
    make: Arc<Make>,
    current: Arc<RwLock<Client>>,
}

#[derive(Clone)]
struct Client {
    number: u64,
    store: Arc<dyn ObjectStore>,
    made: Instant,
}

impl Renewing {
    /// Makes a store whose clients `make` makes, and its first client.
    pub(crate) fn new(
        make: impl Fn() -> StoreResult<Arc<dyn ObjectStore>> + Send + Sync + 'static,
    ) -> StoreResult<Self> {
        let current = RwLock::new(Client { number: 0, store: make()?, made: Instant::now() });
        Ok(Self { make: Arc::new(Box::new(make)), current: Arc::new(current) })
    }

    fn client(&self) -> Client {
        self.current.read().clone()
    }

    /// As [`Self::judge`], for a delete. Keys that may do everything but delete are common. Fresh
    /// ones would not help, and each client has its own connections.
    fn judge_delete<T>(&self, client: &Client, answer: Result<T>) -> Result<T> {
        if client.made.elapsed() < DELETE_RENEWAL_MIN {
            return answer;
        }
        self.judge(client.number, answer)
    }

    /// Looks at a client's answer. Replaces a client that was denied, once.
    fn judge<T>(&self, number: u64, answer: Result<T>) -> Result<T> {
        let Err(error) = &answer else { return answer };
        if StoreError::from_store("asking", "it", error).trouble() != Trouble::Denied {
            return answer;
        }
        let mut current = self.current.write();
        if current.number == number {
            match (self.make)() {
                Ok(store) => {
                    *current = Client { number: number + 1, store, made: Instant::now() };
                }
                // The old one is as good as none, and there is no better.
                Err(error) => tracing::debug!(%error, "no fresh client"),
            }
        }
        answer
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Renewing({:?})", self.client().store)
    }
}

impl fmt::Display for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client().store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Renewing {
    async fn put_opts(&self, at: &Path, load: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let client = self.client();
        self.judge(client.number, client.store.put_opts(at, load, opts).await)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let client = self.client();
        self.judge(client.number, client.store.put_multipart_opts(at, opts).await)
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let client = self.client();
        self.judge(client.number, client.store.get_opts(at, options).await)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.then(move |at| {
            let this = this.clone();
            async move {
                let (client, at) = (this.client(), at?);
                this.judge_delete(&client, client.store.delete(&at).await.map(|()| at))
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, this) = (self.client(), self.clone());
        let listed = client.store.list(prefix);
        listed.map(move |one| this.judge(client.number, one)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, this) = (self.client(), self.clone());
        let listed = client.store.list_with_offset(prefix, offset);
        listed.map(move |one| this.judge(client.number, one)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let client = self.client();
        self.judge(client.number, client.store.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let client = self.client();
        self.judge(client.number, client.store.copy_opts(from, to, options).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::faulty::{FaultPlan, Faulty};
    use object_store::memory::InMemory;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The first client has expired keys; the next is good.
    #[tokio::test]
    async fn a_client_that_is_denied_is_made_anew_once() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let made = Arc::new(AtomicU64::new(0));
        let counter = made.clone();
        let store = Renewing::new(move || {
            let is_first = counter.fetch_add(1, Ordering::Relaxed) == 0;
            let plan = FaultPlan { deny_writes: is_first, ..FaultPlan::default() };
            Ok(Arc::new(Faulty::new(objects.clone(), 1, plan)) as Arc<dyn ObjectStore>)
        });
        let store = store.expect("a store");
        let at = Path::from("a");
        let stale = store.client();
        assert!(store.put(&at, "1".into()).await.is_err());
        store.put(&at, "1".into()).await.expect("fresh keys");
        // A call that began with the old client changes nothing.
        let late = stale.store.put(&at, "1".into()).await;
        assert!(store.judge(stale.number, late).is_err());
        assert!(store.get(&Path::from("b")).await.is_err(), "it is not there");
        assert_eq!(made.load(Ordering::Relaxed), 2);
    }

    /// Once, each denied delete threw away the connections of all other calls.
    #[tokio::test(start_paused = true)]
    async fn a_key_that_may_not_delete_is_fetched_again_once_a_minute() {
        let made = Arc::new(AtomicU64::new(0));
        let counter = made.clone();
        let store = Renewing::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let plan = FaultPlan { deny_deletes: true, ..FaultPlan::default() };
            Ok(Arc::new(Faulty::new(Arc::new(InMemory::new()), 1, plan)) as Arc<dyn ObjectStore>)
        });
        let store = store.expect("a store");
        for minutes in 1..4 {
            for _ in 0..5 {
                assert!(store.delete(&Path::from("a")).await.is_err());
            }
            assert_eq!(made.load(Ordering::Relaxed), minutes);
            tokio::time::sleep(DELETE_RENEWAL_MIN).await;
        }
    }
}
