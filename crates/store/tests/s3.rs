//! A bucket on a real S3 client and server: moto, started here on a free port and ended by its pid.
//!
//! Skips, and says so, where moto is missing.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_core::retry::Patience;
use skerry_store::ErrorKind;
use skerry_store::objects::bucket::{Bucket, Created, Env};
use skerry_store::objects::probe::probe;
use skerry_store::objects::url::{StoreOptions, open};
use skerry_testkit::{S3Server, skip};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

fn env(seed: u64) -> Env {
    let outside = Arc::new(Outside(Mutex::new(StdRng::seed_from_u64(seed))));
    Env { clock: outside.clone(), entropy: outside }
}

fn options(server: &S3Server) -> StoreOptions {
    let settings = server.options().map(|(name, value)| (name.to_owned(), value)).into();
    StoreOptions { settings, ..StoreOptions::default() }
}

#[tokio::test]
async fn a_bucket_on_s3_keeps_its_promises() {
    let moto = match S3Server::start() {
        Ok(moto) => moto,
        Err(reason) => return skip::announce("a_bucket_on_s3_keeps_its_promises", &reason),
    };
    let opened = open("s3://things/a/prefix", &options(&moto)).expect("opens");
    let bucket = Bucket::open(opened.store, env(1), true).await.expect("a bucket");
    probe(&bucket).await.expect("moto is a good store");

    let body = vec![7u8; 2 << 20];
    assert_eq!(bucket.get("streams/x/1").await.expect("get"), None);
    assert_eq!(bucket.create("streams/x/1", body.clone()).await.expect("put"), Created::Ours);
    assert_eq!(bucket.create("streams/x/1", body.clone()).await.expect("put"), Created::Ours);
    assert_eq!(bucket.create("streams/x/1", vec![8u8; 9]).await.expect("put"), Created::Theirs);
    for (range, len) in [(10..20, 10), (2_097_150..3_000_000, 2), (2_097_152..2_097_160, 0)] {
        let got = bucket.get_range("streams/x/1", range.clone()).await.expect("get");
        assert_eq!(got.map(|bytes| bytes.len()), Some(len), "{range:?}");
    }
    let listed = bucket.list("streams").await.expect("list");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].size), ("streams/x/1", 2 << 20));
    bucket.delete("streams/x/1").await.expect("delete");
    bucket.delete("streams/x/1").await.expect("delete again");
    assert!(!bucket.exists("streams/x/1").await.expect("head"));

    let again = open("s3://things/a/prefix/", &options(&moto)).expect("opens");
    let again = Bucket::open(again.store, env(2), false).await.expect("it is there");
    assert_eq!(again.id(), bucket.id());
}

#[tokio::test]
async fn a_profile_is_a_key() {
    let moto = match S3Server::start() {
        Ok(moto) => moto,
        Err(reason) => return skip::announce("a_profile_is_a_key", &reason),
    };
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("keys");
    let mut options = options(&moto);
    options.settings.remove("access_key_id").expect("moto has one");
    options.settings.remove("secret_access_key").expect("moto has one");
    let file_name = file.to_str().expect("UTF-8").to_owned();
    options.environment.insert("AWS_SHARED_CREDENTIALS_FILE".to_owned(), file_name);
    // A metadata service that isn't there.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let nowhere = format!("http://127.0.0.1:{port}");
    options.settings.insert("metadata_endpoint".to_owned(), nowhere);

    let opened = open("s3://things/profile", &options).expect("opens");
    let error = Bucket::open_with(opened.store, env(4), true, Patience::LOOK).await;
    let text = error.expect_err("there is no key").to_string();
    assert!(text.contains("no credential: set access_key_id"), "{text}");

    let keys = "[default]\naws_access_key_id = x\naws_secret_access_key = x\n";
    std::fs::write(&file, keys).expect("written");
    let opened = open("s3://things/profile", &options).expect("opens");
    Bucket::open(opened.store, env(5), true).await.expect("a bucket");
}

#[tokio::test]
async fn an_unreachable_bucket_is_unavailable() {
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
    let mut options = StoreOptions::default();
    let endpoint = format!("http://127.0.0.1:{port}");
    for (name, value) in [
        ("endpoint", endpoint.as_str()),
        ("access_key_id", "a"),
        ("secret_access_key", "b"),
        ("allow_http", "true"),
    ] {
        options.settings.insert(name.to_owned(), value.to_owned());
    }
    let opened = open("s3://things", &options).expect("opens");
    let error = Bucket::open_with(opened.store, env(3), true, Patience::LOOK).await;
    let error = error.expect_err("nobody listens there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
