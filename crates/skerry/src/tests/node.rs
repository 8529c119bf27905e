//! A node's services besides commands, and its end.

use bytes::Bytes;
use skerry_device::{Content, Geometry};
use skerry_serve::{ClientInfo, ExportInfo, Exports as _, OpenError};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::daemon::exports::NodeExports;

pub(super) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn client() -> ClientInfo {
    ClientInfo { connection: 1, peer: "unix".to_owned() }
}

#[test]
fn it_says_where_it_serves_and_leaves_nothing_behind() {
    let mut node = Node::start();
    let (nbd, api) = (node.file("nbd.sock"), node.file("api.sock"));
    let said = format!("ready nbd=unix:{nbd} api=unix:{api} metrics=tcp:127.0.0.1:");
    assert!(node.ready.starts_with(&said), "{}", node.ready);
    assert!(node.ready.ends_with('\n'));
    node.stop();
    assert!(node.engine.is_drained(), "the engine was shut down");
    assert!(!node.path("nbd.sock").exists() && !node.path("api.sock").exists());
    node.fails(&["status"], 7, "no node answers");
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let node = Node::start();
    node.ok(&["volume", "create", "db", "--size", "1M"]);
    let _client = node.attach("db");
    let address = node.ready.trim().rsplit_once("tcp:").expect("an address").1;
    let page = get(address, "/metrics");
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.to_lowercase().contains("content-type: application/openmetrics-text"), "{page}");
    for line in [
        "# TYPE skerry_undestaged_bytes gauge",
        "skerry_undestaged_bytes{volume=\"db\"}",
        "skerry_log_records_total ",
        "skerry_log_sync_seconds_bucket{le=\"+Inf\"} ",
        "skerry_log_sync_seconds_count ",
        // Alerts of `docs/alerts.yml` ask for these.
        "skerry_log_failing 0",
        "skerry_bucket_failing 0",
        "skerry_needs_attention 0",
        "skerry_log_used_bytes ",
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    assert!(get(address, "/").starts_with("HTTP/1.1 404"));
}

#[test]
fn the_standings_of_shards_are_a_metric() {
    let node = Node::with_jobs();
    let address = node.ready.trim().rsplit_once("tcp:").expect("an address").1;
    let page = get(address, "/metrics");
    for line in ["{standing=\"open\"} 1.0", "{standing=\"failed\"} 0.0"] {
        assert!(page.contains(&format!("skerry_jobs_shards{line}")), "{line}: {page}");
    }
}

#[test]
fn health_is_served() {
    let node = Node::start();
    let endpoint = format!("unix:{}", node.file("api.sock"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let status = runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(endpoint)?.connect().await?;
        let request = HealthCheckRequest { service: "skerry.v1.Control".to_owned() };
        let answer = HealthClient::new(channel).check(request).await?;
        Ok::<_, Box<dyn std::error::Error>>(answer.into_inner().status())
    });
    assert_eq!(status.expect("an answer"), ServingStatus::Serving);
}

/// An engine over this store, in a directory of its own.
async fn engine(store: &Arc<InMemory>) -> (EngineHost, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let started = engine_over(store.clone(), &settings_of(&dir), &Starting::default()).await;
    (started.expect("starts"), dir)
}

fn new_volume(block_size_bytes: u64) -> skerry_volume::CreateVolume {
    let name = "db".parse().expect("a name");
    skerry_volume::CreateVolume { name, size_bytes: 1 << 20, block_size_bytes, flush: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_and_snapshots_are_exports() {
    let (engine, _dir) = engine(&Arc::default()).await;
    engine.engine.create_volume(new_volume(4096)).await.expect("made");
    let exports = NodeExports::new(engine.engine.clone());
    let db = exports.open("db", &client()).await.expect("opened").device;
    db.write(4096, Bytes::from(vec![7; 4096])).await.expect("written");
    db.write(8192, Bytes::from(vec![8; 4096])).await.expect("written");
    db.zero(0, 8192).await.expect("zeroed");

    let name = "db".parse().expect("a name");
    engine.engine.create_snapshot(&name, Some(&"s".parse().expect("a name"))).await.expect("taken");
    assert_eq!(exports.list().await, Ok(vec!["db".to_owned(), "db@s".to_owned()]));
    let snapshot = exports.open("db@s", &client()).await.expect("opened");
    let geometry =
        Geometry { size_bytes: 1 << 20, sector_bytes: 512, block_bytes: 4096, read_only: true };
    assert_eq!(snapshot.info, ExportInfo::new("db@s", geometry));
    let snapshot = snapshot.device;
    let mut bytes = vec![0; 8192];
    assert_eq!(snapshot.read(4096, &mut bytes).await, Ok(Content::Data));
    assert!(bytes[..4096] == [0; 4096] && bytes[4096..] == [8; 4096]);
    let extents = snapshot.status(0, 1 << 20, 1024).await.expect("a status");
    let holes: Vec<_> = extents.iter().map(|extent| (extent.length, extent.hole)).collect();
    assert_eq!(holes, [(8192, true), (4096, false), ((1 << 20) - 12288, true)]);

    for absent in ["nothing", "db@nothing", "", "..", "db@", "a/b"] {
        let error = exports.open(absent, &client()).await.err().expect("not there");
        assert_eq!(error, OpenError::NotFound { name: absent.to_owned() });
    }
    engine.shutdown().await.expect("stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn describing_a_volume_or_a_snapshot_opens_nothing() {
    let store = Arc::default();
    let (db, s) = ("db".parse().expect("a name"), "s".parse().expect("a name"));
    let (first, _first_dir) = engine(&store).await;
    first.engine.create_volume(new_volume(8192)).await.expect("made");
    first.engine.create_snapshot(&db, Some(&s)).await.expect("taken");
    first.engine.release_volume(&db, false).await.expect("released");
    first.shutdown().await.expect("stops");
    let (engine, _dir) = engine(&store).await;
    let exports = NodeExports::new(engine.engine.clone());
    let info = exports.describe("db", &client()).await.expect("described");
    let geometry =
        Geometry { size_bytes: 1 << 20, sector_bytes: 512, block_bytes: 8192, read_only: false };
    assert_eq!(info, ExportInfo::new("db", geometry));
    let snapshot = exports.describe("db@s", &client()).await.expect("described");
    assert_eq!(snapshot, ExportInfo::new("db@s", Geometry { read_only: true, ..geometry }));
    for absent in ["no", "db@no", "no@s"] {
        let error = exports.describe(absent, &client()).await.err();
        assert_eq!(error, Some(OpenError::NotFound { name: absent.to_owned() }));
    }
    assert!(engine.engine.open_volumes().is_empty(), "opening a volume claims it");
    let shown = engine.engine.show_volume(&db).await.expect("shown");
    assert_eq!(shown.owner, None, "it is claimed by nobody");
    engine.shutdown().await.expect("stops");
}
