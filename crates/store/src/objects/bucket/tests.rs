use super::*;
use crate::error::ErrorKind;
use crate::objects::faulty::{FaultPlan, Faulty};
use crate::objects::testing::{Hook, Hooked, bucket_in, env, memory_bucket};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use skerry_core::descriptor::{BucketDesc, Features};
use skerry_core::id::BucketId;

/// Checks the rules of every bucket, in any store.
async fn conforms(bucket: &Bucket) {
    let body = Bytes::from_static(b"0123456789");
    assert_eq!(bucket.get("a/b").await.expect("get"), None);
    assert_eq!(bucket.get_range("a/b", 0..4).await.expect("get"), None);
    assert_eq!(bucket.get_range("a/b", 4..4).await.expect("get"), None);
    assert!(!bucket.exists("a/b").await.expect("exists"));
    assert_eq!(bucket.list("a").await.expect("list"), vec![]);
    bucket.delete("a/b").await.expect("delete of nothing");

    assert_eq!(bucket.create("a/b", body.clone()).await.expect("create"), Created::Ours);
    assert_eq!(
        bucket.create("a/b", Bytes::from_static(b"9876543210")).await.expect("create"),
        Created::Theirs
    );
    assert_eq!(
        bucket.create("a/b", Bytes::from_static(b"short")).await.expect("create"),
        Created::Theirs
    );
    assert_eq!(bucket.get("a/b").await.expect("get"), Some(body.clone()));
    // Again with the same bytes, as after an error of the first call: it is ours.
    let pieces = PutPayload::from_iter([body.slice(..3), body.slice(3..)]);
    assert_eq!(bucket.create("a/b", pieces).await.expect("create"), Created::Ours);

    for (range, expected) in
        [(2..5, 2..5), (0..10, 0..10), (8..99, 8..10), (10..11, 0..0), (50..99, 0..0), (3..3, 0..0)]
    {
        let got = bucket.get_range("a/b", range.clone()).await.expect("get");
        assert_eq!(got, Some(body.slice(expected)), "{range:?}");
    }

    for name in ["a/c", "a/d/e", "ab/c"] {
        assert_eq!(bucket.create(name, body.clone()).await.expect("create"), Created::Ours);
    }
    let names: Vec<_> = bucket.list("a").await.expect("list");
    let names: Vec<_> = names.iter().map(|l| (l.name.as_str(), l.size)).collect();
    assert_eq!(names, vec![("a/b", 10), ("a/c", 10), ("a/d/e", 10)]);

    bucket.delete("a/b").await.expect("delete");
    bucket.delete("a/b").await.expect("delete twice");
    assert_eq!(bucket.get("a/b").await.expect("get"), None);
    assert_eq!(bucket.create("a/b", body).await.expect("create"), Created::Ours);
    let bad = bucket.get("a//b").await.expect_err("no such name is possible");
    assert_eq!(bad.kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn memory_conforms() {
    conforms(&memory_bucket(1).await).await;
}

#[tokio::test]
async fn local_directory_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = LocalFileSystem::new_with_prefix(dir.path()).expect("a store").with_fsync(true);
    conforms(&bucket_in(Arc::new(store), 2).await).await;
}

#[tokio::test(start_paused = true)]
async fn a_shaky_store_conforms_given_patience() {
    for seed in 0..30 {
        let plan = FaultPlan { error_before: 150, response_lost: 150, ..FaultPlan::default() };
        let faulty = Faulty::new(Arc::new(InMemory::new()), seed, plan);
        let faults = faulty.faults();
        let bucket = Bucket::open_with(Arc::new(faulty), env(seed), true, Patience::GUEST).await;
        conforms(&bucket.unwrap_or_else(|error| panic!("seed {seed}: {error}"))).await;
        assert!(faults.failed() > 0, "seed {seed}: nothing went wrong");
    }
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_calls_are_timed() {
    let faulty = Faulty::new(Arc::new(InMemory::new()), 1, FaultPlan::default());
    let faults = faulty.faults();
    let bucket = bucket_in(Arc::new(faulty), 1).await;
    let tries = |before: u64| faults.calls() - before;
    faults.kill();
    let before = faults.calls();
    let error = bucket.create("a/b", vec![1]).await.expect_err("dead");
    assert!(error.to_string().contains("creating a/b"), "{error}");
    // After 50, 100, 200, 400, 800 and 1000 ms at most; then 3 s are over, or one more is made.
    assert!((6..=9).contains(&tries(before)), "{}", tries(before));
    let before = faults.calls();
    assert!(bucket.delete("a/b").await.is_err());
    assert!((6..=9).contains(&tries(before)), "{}", tries(before));
    let before = faults.calls();
    assert!(bucket.with_patience(Patience::LOOK).get("a/b").await.is_err());
    assert!((2..=4).contains(&tries(before)), "{}", tries(before));
    assert!(bucket.failing().expect("it does").contains("reading a/b"));
    faults.revive();
    let hang = FaultPlan { slow: 1000, slow_ms: 3_600_000..3_600_001, ..FaultPlan::default() };
    faults.set_plan(hang);
    let error = bucket.get("a/b").await.expect_err("an hour is too long");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no answer within 60s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn large_objects_are_compared_at_both_ends() {
    let bucket = memory_bucket(3).await;
    let ours = vec![7u8; 3 << 20];
    assert_eq!(bucket.create("x", ours.clone()).await.expect("create"), Created::Ours);
    assert_eq!(bucket.create("x", ours.clone()).await.expect("create"), Created::Ours);
    for at in [0, (64 << 10) - 1, (3 << 20) - 1] {
        let mut theirs = ours.clone();
        theirs[at] = 8;
        assert_eq!(bucket.create("x", theirs).await.expect("create"), Created::Theirs, "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn buckets_open_again_and_others_are_refused() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let none = Bucket::open(store.clone(), env(1), false).await.expect_err("nothing is there");
    assert!(matches!(none, Error::NoBucket { .. }));
    let id = Bucket::open(store.clone(), env(1), true).await.expect("made").id();
    for create in [true, false] {
        assert_eq!(Bucket::open(store.clone(), env(2), create).await.expect("opens").id(), id);
    }
    assert!(!id.is_none());

    let good = store
        .get(&Path::from(names::descriptor(1)))
        .await
        .expect("there")
        .bytes()
        .await
        .expect("read");
    for (what, bytes) in [
        ("damaged", [&good[..good.len() - 1], &[!good[good.len() - 1]]].concat()),
        ("cut short", good[..20].to_vec()),
    ] {
        store.put(&Path::from(names::descriptor(1)), bytes.into()).await.expect("put");
        let error = Bucket::open(store.clone(), env(1), true).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
    }
    store.put(&Path::from(names::descriptor(1)), "some file of mine".into()).await.expect("put");
    let error = Bucket::open(store.clone(), env(1), true).await.expect_err("foreign");
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    store.delete(&Path::from(names::descriptor(1))).await.expect("delete");
    store.put(&Path::from("photos/1.jpg"), "x".into()).await.expect("put");
    let error = Bucket::open(store.clone(), env(1), true).await.expect_err("not empty");
    assert!(error.to_string().contains("photos/1.jpg"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_newer_bucket_is_refused_as_newer() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let desc = BucketDesc {
        id: BucketId([1; 16]),
        features: Features { reader: 1 << 40, ..Features::default() },
        created_ms: 0,
    };
    store.put(&Path::from(names::descriptor(1)), desc.encode([0; 16]).into()).await.expect("put");
    let error = Bucket::open(store, env(1), true).await.expect_err("newer");
    assert!(error.to_string().contains("newer Skerry"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn left_overs_of_a_probe_make_no_place_foreign() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    store.put(&Path::from("probe/0123"), "x".into()).await.expect("put");
    Bucket::open(store, env(1), true).await.expect("as good as empty");
}

/// A node at work on a bucket finds out that a feature was raised, and so does a later one.
#[tokio::test(start_paused = true)]
async fn a_feature_is_raised_on_a_bucket_in_use() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let bucket = Bucket::open(store.clone(), env(1), true).await.expect("made");
    let ignorable = Features { ignorable: 1 << 3, ..Features::default() };
    let other = Bucket::open(store.clone(), env(2), false).await.expect("opens");
    for raised in [bucket.raise(ignorable).await, other.raise(ignorable).await] {
        assert_eq!(raised.expect("raised").features, ignorable);
    }
    other.check_features().await.expect("it may be ignored");
    let later = Bucket::open(store.clone(), env(3), false).await.expect("opens");
    assert_eq!(later.id(), bucket.id());
    // A newer version raises a bit that a writer must know.
    let newer = BucketDesc {
        id: bucket.id(),
        features: Features { writer: 1, ..ignorable },
        created_ms: 0,
    };
    let bytes = newer.encode([7; 16]);
    let number = Path::from(names::descriptor(3));
    store.put(&number, bytes.into()).await.expect("put");
    for bucket in [&bucket, &other, &later] {
        let error = bucket.check_features().await.expect_err("a newer Skerry is at work");
        assert!(error.to_string().contains("newer Skerry"), "{error}");
        bucket.raise(ignorable).await.expect_err("it can't be read");
    }
    Bucket::open(store, env(4), false).await.expect_err("it can't be read");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_of_a_former_layout_is_refused_with_what_to_do() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let desc = BucketDesc { id: BucketId([1; 16]), features: Features::default(), created_ms: 0 };
    store.put(&Path::from("bucket"), desc.encode([0; 16]).into()).await.expect("put");
    let error = Bucket::open(store, env(1), true).await.expect_err("another layout");
    assert!(error.to_string().contains("export its volumes"), "{error}");
}

/// Makes the bucket while another node looks whether the place is empty.
struct MadeMeanwhile(Bytes);

#[async_trait::async_trait]
impl Hook for MadeMeanwhile {
    async fn listing(&self, inner: &InMemory, prefix: Option<&Path>) {
        if prefix.is_none() {
            let name = Path::from(names::descriptor(1));
            inner.put(&name, self.0.clone().into()).await.expect("made");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_nodes_make_one_bucket() {
    let features = Features::default();
    let made = BucketDesc { id: BucketId([7; 16]), features, created_ms: 1 };
    let store = Hooked::new(MadeMeanwhile(made.encode([1; 16])));
    assert_eq!(bucket_in(Arc::new(store), 1).await.id(), made.id);
}
