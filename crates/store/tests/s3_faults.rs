//! A bucket on a real S3 client and a server that fails. Faults that can pass are retried, and told
//! from answers.

use object_store::ObjectStore;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::retry::{Patience, Trouble};
use skerry_store::objects::bucket::{Bucket, Created, Env};
use skerry_store::objects::url::{StoreOptions, open};
use skerry_testkit::BadS3;
use skerry_testkit::s3_faults::{Call, Fault};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Calls that fail before one works: more than a command's patience has for faults that people must
/// mend.
const CALLS: u64 = 3;
/// As long as a test may last.
const EVER: u64 = u64::MAX;

/// Faults that can pass, for calls that read.
const READ_FAULTS: [Fault; 11] = [
    Fault::Refuse(503, "SlowDown"),
    Fault::Refuse(500, "InternalError"),
    Fault::Refuse(429, "TooManyRequests"),
    Fault::Refuse(403, "RequestTimeTooSkewed"),
    Fault::Refuse(403, "AccessDenied"),
    Fault::Refuse(400, "ExpiredToken"),
    Fault::Refuse(404, "NoSuchBucket"),
    Fault::Text(404, "404 page not found"),
    Fault::Text(404, ""),
    Fault::CutBody,
    Fault::LoseAnswer,
];

struct Outside(Mutex<StdRng>);

impl Clock for Outside {
    fn boot(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_ms(&self) -> u64 {
        0
    }
}

impl Entropy for Outside {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().expect("not poisoned").fill_bytes(out);
    }
}

fn store(server: &BadS3) -> Arc<dyn ObjectStore> {
    let settings = server.options().map(|(name, value)| (name.to_owned(), value)).into();
    let options = StoreOptions { settings, ..StoreOptions::default() };
    open("s3://things/a", &options).expect("opens").store
}

async fn bucket(server: &BadS3) -> Bucket {
    let outside = Arc::new(Outside(Mutex::new(StdRng::seed_from_u64(1))));
    let env = Env { clock: outside.clone(), entropy: outside };
    let quick = Patience { backoff_first: Duration::from_millis(1), ..Patience::GUEST };
    Bucket::open_with(store(server), env, true, quick).await.expect("a bucket")
}

#[tokio::test]
async fn every_call_is_made_again_while_the_reason_can_pass() {
    let server = BadS3::start().expect("a server");
    let bucket = bucket(&server).await;
    let body = vec![7u8; 100_000];
    assert_eq!(bucket.create("x/1", body.clone()).await.expect("created"), Created::Ours);
    for fault in READ_FAULTS {
        let before = server.failed();
        server.fail(Call::Read, fault, CALLS);
        assert_eq!(bucket.get("x/1").await.expect("read"), Some(body.clone().into()), "{fault:?}");
        server.fail(Call::Read, fault, CALLS);
        let range = bucket.get_range("x/1", 5..50_000).await.expect("read");
        assert_eq!(range, Some(body[5..50_000].to_vec().into()), "{fault:?}");
        // A HEAD has no body that could be cut or say more.
        if fault != Fault::CutBody {
            server.fail(Call::Read, fault, CALLS);
            assert_eq!(bucket.size("x/1").await.expect("looked for"), Some(100_000), "{fault:?}");
        }
        server.fail(Call::List, fault, CALLS);
        assert_eq!(bucket.list("x").await.expect("listed").len(), 1, "{fault:?}");
        server.fail(Call::Delete, fault, CALLS);
        bucket.delete("x/2").await.expect("deleted");
        assert!(server.failed() >= before + 4 * CALLS, "{fault:?}: nothing went wrong");
        server.mend();
    }
}

/// A create gets the owner of the object right, whatever happens to the answer.
#[tokio::test]
async fn a_create_knows_whose_object_it_is_over_lost_answers() {
    let server = BadS3::start().expect("a server");
    let bucket = bucket(&server).await;
    for (number, fault) in READ_FAULTS.into_iter().enumerate() {
        let (name, ours, theirs) = (format!("x/{number}"), vec![1u8; 900], vec![2u8; 900]);
        server.fail(Call::Write, fault, CALLS);
        server.fail(Call::Read, fault, CALLS);
        let made = bucket.create(&name, ours.clone()).await.expect("created");
        assert_eq!(made, Created::Ours, "{fault:?}");
        server.mend();
        server.fail(Call::Write, fault, CALLS);
        let late = bucket.create(&name, theirs).await.expect("not created");
        assert_eq!(late, Created::Theirs, "{fault:?}");
        server.mend();
        assert_eq!(bucket.get(&name).await.expect("read"), Some(ours.into()), "{fault:?}");
    }
}

/// A missing bucket does not count as an empty one.
#[tokio::test]
async fn nothing_is_said_of_objects_while_the_bucket_is_away() {
    let server = BadS3::start().expect("a server");
    let patient = bucket(&server).await;
    let bucket = patient.with_patience(Patience::LOOK);
    assert!(!bucket.exists("x/none").await.expect("it is not there"));
    assert_eq!(bucket.get("x/none").await.expect("it is not there"), None);
    for call in [Call::Read, Call::Write, Call::List, Call::Delete] {
        server.fail(call, Fault::Refuse(404, "NoSuchBucket"), EVER);
    }
    let errors = [
        bucket.get("x/none").await.err(),
        bucket.size("x/none").await.err(),
        bucket.list("x").await.err(),
        bucket.delete("x/none").await.err(),
        bucket.create("x/none", vec![1]).await.err(),
    ];
    for error in errors {
        assert_eq!(error.expect("an error").trouble(), Trouble::Away);
    }
    assert!(bucket.failing().expect("it fails").contains("NoSuchBucket"));
    server.mend();
    bucket.list("x").await.expect("back");
    assert_eq!(bucket.failing(), None);
}

/// A 404 without a code counts once the store lists its objects: some stores never say more.
#[tokio::test]
async fn a_vague_404_counts_where_the_store_lists() {
    let server = BadS3::start().expect("a server");
    let bucket = bucket(&server).await.with_patience(Patience::LOOK);
    assert_eq!(bucket.create("x/2", vec![1]).await.expect("created"), Created::Ours);
    server.fail(Call::Read, Fault::Text(404, ""), EVER);
    for name in ["x/1", "x/3", "y"] {
        assert_eq!(bucket.get(name).await.expect("it is not there"), None);
        assert_eq!(bucket.size(name).await.expect("it is not there"), None);
    }
    let error = bucket.get("x/2").await.expect_err("it is listed");
    assert_eq!(error.trouble(), Trouble::Busy);
    server.fail(Call::List, Fault::Text(404, ""), EVER);
    assert!(bucket.get("x/1").await.expect_err("away").is_unavailable());
    server.fail(Call::Write, Fault::Text(404, ""), EVER);
    let error = bucket.create("x/1", vec![1]).await.expect_err("away");
    assert_eq!(error.trouble(), Trouble::Away);
}

/// A key may do everything but delete: nothing is ever collected, and `failing` says so.
#[tokio::test]
async fn a_key_that_may_not_delete_is_told_of() {
    let server = BadS3::start().expect("a server");
    let bucket = bucket(&server).await.with_patience(Patience::COMMAND);
    assert_eq!(bucket.create("x/1", vec![1]).await.expect("created"), Created::Ours);
    server.fail(Call::Delete, Fault::Refuse(403, "AccessDenied"), EVER);
    assert_eq!(bucket.delete("x/1").await.expect_err("denied").trouble(), Trouble::Denied);
    bucket.get("x/1").await.expect("reads");
    let told = bucket.failing().expect("it fails at deleting");
    assert!(told.contains("denies deleting x/1"), "{told}");
}
