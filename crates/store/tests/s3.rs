//! A bucket on a real S3 client and server: moto, started here on a free port and ended by its pid.
//!
//! Skips, and says so, where moto is missing: `pip install 'moto[server]'`.
#![allow(clippy::disallowed_methods, reason = "a server that starts takes real time")]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use skerry_core::env::{Clock, Entropy};
use skerry_store::ErrorKind;
use skerry_store::bucket::{Bucket, Created, Env, Patience};
use skerry_store::probe::probe;
use skerry_store::url::{StoreOptions, open};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

struct Moto(Child, u16);

impl Moto {
    /// Starts the server, or says why this test is skipped.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let child = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("SKIPPED: moto_server is missing; pip install 'moto[server]'");
            return None;
        };
        let moto = Self(child, port);
        let begun = Instant::now();
        while moto.put_bucket().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "moto_server did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(moto)
    }

    fn put_bucket(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.1))?;
        let request = "PUT /things HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\
                       Connection: close\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let good = answer.starts_with("HTTP/1.1 200");
        good.then_some(()).ok_or_else(|| std::io::Error::other(answer))
    }

    fn options(&self) -> StoreOptions {
        let endpoint = format!("http://127.0.0.1:{}", self.1);
        let settings = [
            ("endpoint", endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", "someone"),
            ("secret_access_key", "something"),
            ("allow_http", "true"),
        ];
        let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        StoreOptions { settings, environment: Default::default() }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_bucket_on_s3_keeps_its_promises() {
    let Some(moto) = Moto::start() else { return };
    let opened = open("s3://things/a/prefix", &moto.options()).expect("opens");
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

    let again = open("s3://things/a/prefix/", &moto.options()).expect("opens");
    let again = Bucket::open(again.store, env(2), false).await.expect("it is there");
    assert_eq!(again.id(), bucket.id());
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
    let patience = Patience { backoff_first: Duration::from_millis(1), ..Patience::default() };
    let error = Bucket::open_with(opened.store, env(3), true, patience).await;
    let error = error.expect_err("nobody listens there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
