use super::*;
use crate::error::ErrorKind;
use crate::objects::faulty::{FaultPlan, Faulty, Refusal};
use crate::objects::testing::bucket_in;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result as StoreResult,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Fault of a store in conditional creates.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    /// The store overwrites.
    IgnoresMode,
    /// The store looks, and then writes.
    NotAtomic,
    /// The store answers a range with the whole object.
    IgnoresRange,
}

#[derive(Debug)]
struct Broken(InMemory, Wrong);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a broken store")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Broken {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> StoreResult<PutResult> {
        if self.1 == Wrong::IgnoresRange {
            return self.0.put_opts(location, payload, opts).await;
        }
        if self.1 == Wrong::NotAtomic && opts.mode == PutMode::Create {
            if self.0.head(location).await.is_ok() {
                let path = location.to_string();
                return Err(StoreError::AlreadyExists { path, source: "there".into() });
            }
            tokio::task::yield_now().await;
        }
        self.0.put(location, payload).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let whole = self.1 == Wrong::IgnoresRange;
        let range = options.range.clone().filter(|_| !whole);
        self.0.get_opts(location, GetOptions { range, ..options }).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

async fn left_overs(bucket: &Bucket) -> usize {
    bucket.list(names::PROBE).await.expect("a listing").len()
}

#[tokio::test(start_paused = true)]
async fn good_stores_pass_and_are_left_clean() {
    let dir = tempfile::tempdir().expect("a directory");
    let local = LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
    let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
    for store in stores {
        let bucket = bucket_in(store, 1).await;
        probe(&bucket).await.expect("a good store");
        assert_eq!(left_overs(&bucket).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn stores_that_cannot_be_trusted_are_refused() {
    for (wrong, says) in [
        (Wrong::IgnoresMode, "ignores create-if-absent"),
        (Wrong::NotAtomic, "ignores create-if-absent"),
        (Wrong::IgnoresRange, "range"),
    ] {
        let bucket = bucket_in(Arc::new(Broken(InMemory::new(), wrong)), 2).await;
        let error = probe(&bucket).await.expect_err("a broken store");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("a broken store"), "{wrong:?}: {text}");
        assert_eq!(left_overs(&bucket).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shaky_store_is_called_unavailable_and_never_unfit() {
    for seed in 0..40 {
        let faulty = Faulty::new(Arc::new(InMemory::new()), seed, FaultPlan::default());
        let faults = faulty.faults();
        let bucket = bucket_in(Arc::new(faulty), seed).await;
        faults.set_plan(FaultPlan::rough());
        if let Err(error) = probe(&bucket).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "seed {seed}: {error}");
        }
    }
}

/// A key that may not delete fails at that for good. Left-overs are not worth a guest's patience.
#[tokio::test(start_paused = true)]
async fn left_overs_are_given_up_soon() {
    let faulty = Faulty::new(Arc::new(InMemory::new()), 1, FaultPlan::default());
    let faults = faulty.faults();
    let bucket = bucket_in(Arc::new(faulty), 1).await;
    faults.set_plan(FaultPlan { refusal: Some(Refusal::Denied), ..FaultPlan::default() });
    let wait_max = Duration::from_secs(600);
    let patient = bucket.with_patience(Patience { wait_max: Some(wait_max), ..Patience::GUEST });
    let probed = tokio::time::timeout(wait_max + Duration::from_secs(60), probe(&patient)).await;
    let error = probed.expect("it ends with its patience").expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
