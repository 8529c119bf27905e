//! A shard's database is split by ranges of hashes and merged again without a row being read, by
//! SlateDB's projection and union. The maker of a child drops the rows that are the shard's own
//! (`f`, `p`). It writes the descriptor anew, with an incarnation that is not below the parents'.

use crate::common::{Place, Split, lease};
use async_trait::async_trait;
use bytes::Bytes;
use skerry_jobs::hash::{HashRange, TenantHash};
use skerry_jobs::job::{JobError, JobRef, JobState};
use skerry_jobs::keys;
use skerry_jobs::name::{Group, JobId, Tenant};
use skerry_jobs::retry::RetryPolicy;
use skerry_jobs::shard::{Leased, Outcome, Shard};
use skerry_jobs::spec::JobSpec;
use slatedb::admin::{Admin, CloneSourceSpec};
use slatedb::manifest::VersionedManifest;
use slatedb::object_store::path::Path;
use slatedb::wal::{WalAdmin, WalError, WalGc};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

const TENANTS: usize = 20;

/// SlateDB looks at a log in the object store, and would find nothing in ours. So the maker of a
/// child reads the descriptor: it names a log that may have what the database lacks.
struct Applied;

#[async_trait]
impl WalAdmin for Applied {
    fn garbage_collector(&self, _: &Path) -> Arc<dyn WalGc> {
        unreachable!("nothing is collected here")
    }

    async fn delete_wal(&self, _: &Path, _: bool) -> Result<Vec<String>, WalError> {
        Ok(Vec::new())
    }

    async fn is_empty(&self, _: &Path, _: u64, _: u64) -> Result<bool, WalError> {
        Ok(true)
    }

    async fn clone_wal(
        &self,
        _: &Path,
        _: VersionedManifest,
        _: &Path,
    ) -> Result<(u64, u64), WalError> {
        Ok((0, 0))
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

async fn rows(place: &Place) -> Rows {
    let db = place.database().await;
    let mut found = db.scan(..).await.expect("reads");
    let mut rows = Rows::new();
    while let Some(row) = found.next().await.expect("reads") {
        rows.insert(row.key.to_vec(), row.value.to_vec());
    }
    db.close().await.expect("closes");
    rows
}

/// The rows that a child has of its parents'.
fn within(rows: &Rows, hashes: HashRange) -> Rows {
    let is_in = |key: &[u8]| {
        let hash = key.get(1..9).and_then(|hash| hash.first_chunk().copied());
        let is_own = [keys::DESCRIPTOR[0], keys::PAUSED].contains(&key[0]);
        !is_own && hash.is_some_and(|hash| hashes.contains(TenantHash(u64::from_be_bytes(hash))))
    };
    rows.iter()
        .filter(|(key, _)| is_in(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Makes a child of these parents, with these hashes.
async fn make(place: &Place, parents: &[&str], hashes: HashRange) {
    let admin = Admin::builder(place.path.clone(), place.store.clone()).build();
    let mut sources = parents.iter().map(|path| CloneSourceSpec::new(*path));
    let mut builder = admin.create_clone_builder_from_source(sources.next().expect("a parent"));
    for more in sources {
        builder = builder.with_source(more);
    }
    let bytes = |bound: Bound<Vec<u8>>| bound.map(Bytes::from);
    builder
        .with_wal_admin(Arc::new(Applied))
        .with_segment_filter(|letter| letter != keys::DESCRIPTOR && letter != [keys::PAUSED])
        .with_segment_projection(move |letter| {
            let (first, end) = hashes.keys(letter.first().copied().unwrap_or_default());
            (bytes(first), bytes(end))
        })
        .build()
        .await
        .expect("the child is made");
}

/// A descriptor, as `docs/jobs.md` has it.
fn descriptor(hashes: HashRange, incarnation: u64) -> Vec<u8> {
    let mut out = [&b"SKRJ"[..], &2u16.to_le_bytes(), &[0; 2]].concat();
    for number in [incarnation, hashes.first, hashes.last] {
        out.extend(number.to_le_bytes());
    }
    out.extend([0; 16]);
    let sum = crc32c::crc32c(&out);
    out.extend(sum.to_le_bytes());
    out
}

async fn describe(place: &Place, hashes: HashRange, incarnation: u64) {
    let db = place.database().await;
    db.put(keys::DESCRIPTOR, descriptor(hashes, incarnation)).await.expect("writes");
    db.close().await.expect("closes");
}

fn incarnation(rows: &Rows) -> u64 {
    let found = &rows[keys::DESCRIPTOR];
    u64::from_le_bytes(found[8..16].try_into().expect("eight bytes"))
}

fn tenant(n: usize) -> Tenant {
    Tenant::new(&format!("tenant-{n}")).expect("a name")
}

fn named(id: &str) -> Option<JobId> {
    Some(JobId::new(id).expect("a name"))
}

fn of_group(name: &str) -> Group {
    Group::new(name).expect("a name")
}

/// Enqueues jobs of every kind, of each tenant; gives the running ones.
async fn fill(shard: &Shard) -> Vec<Leased> {
    let metadata = vec![("kind".to_owned(), "x".to_owned())];
    for n in 0..TENANTS {
        let spec =
            || JobSpec { tenant: tenant(n), metadata: metadata.clone(), ..JobSpec::default() };
        let group = of_group("ends");
        for id in ["done", "dead"] {
            let (id, retry) = (named(id), RetryPolicy::NEVER);
            let ends = JobSpec { id, retry, group: group.clone(), ..spec() };
            shard.enqueue(ends).await.expect("takes it");
        }
        for got in crate::common::lease_of(shard, &group, 2, Duration::ZERO).await {
            let error = JobError { code: "E".into(), message: "no".into(), is_final: true };
            let outcome = match &got.job.spec.id {
                Some(id) if id.as_str() == "dead" => Outcome::Failed(error),
                _ => Outcome::Succeeded("yes".into()),
            };
            shard.report(got.ticket(), outcome).await.expect("holds");
        }
        let runs = JobSpec { group: of_group("runs"), id: named("runs"), ..spec() };
        shard.enqueue(runs).await.expect("takes it");
        shard.enqueue(JobSpec { id: named("waits"), ..spec() }).await.expect("takes it");
        shard.enqueue(spec()).await.expect("takes one without a name");
    }
    shard.pause(&of_group("paused")).await.expect("pauses");
    crate::common::lease_of(shard, &of_group("runs"), TENANTS as u32, Duration::ZERO).await
}

/// Checks that a shard has all rows of the tenants in its range, and none of others.
async fn has_its_own(shard: &Shard, hashes: HashRange, running: &[Leased]) {
    for n in 0..TENANTS {
        let is_here = hashes.contains(TenantHash::of(&tenant(n)));
        for (id, state) in [
            ("done", JobState::Succeeded),
            ("dead", JobState::Failed),
            ("runs", JobState::Running),
            ("waits", JobState::Scheduled),
        ] {
            let name = JobRef::Named(JobId::new(id).expect("a name"));
            let found = shard.show(&tenant(n), &name).await.ok();
            assert_eq!(found.map(|job| job.state), is_here.then_some(state), "{id} of {n}");
        }
    }
    for leased in running {
        let is_here = hashes.contains(leased.lease.hash);
        assert_eq!(shard.heartbeat(leased.lease).is_ok(), is_here, "{:?}", leased.lease);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_split_and_merged_by_ranges_of_hashes() {
    let mut parent = Place::new();
    parent.apply_log = true;
    let shard = parent.open().await;
    let running = fill(&shard).await;
    assert_eq!(running.len(), TENANTS);
    // Everything goes to the database's files.
    shard.close().await.expect("closes");
    let before = rows(&parent).await;
    let mut children = Vec::new();
    for number in 0..2 {
        let hashes = HashRange::part(number, 2);
        let mut child = parent.beside(&format!("child-{number}"));
        child.apply_log = true;
        child.hashes = hashes;
        make(&child, &["shard"], hashes).await;
        let there = rows(&child).await;
        assert!(!there.is_empty());
        assert_eq!(there, within(&before, hashes), "child {number}");
        let refused = child.try_open(false).await.err().expect("it has no descriptor");
        assert!(refused.message().contains("not finished"), "{refused}");
        describe(&child, hashes, incarnation(&before)).await;
        let shard = child.open_as(hashes).await;
        has_its_own(&shard, hashes, &running).await;
        for n in 0..TENANTS {
            let more = JobSpec { tenant: tenant(n), id: named("more"), ..JobSpec::default() };
            if hashes.contains(TenantHash::of(&tenant(n))) {
                assert!(shard.enqueue(more).await.expect("takes it").is_new);
            }
        }
        shard.close().await.expect("closes");
        children.push(child);
    }
    let (low, high) = (rows(&children[0]).await, rows(&children[1]).await);
    let merged = parent.beside("merged");
    make(&merged, &["child-0", "child-1"], HashRange::ALL).await;
    let both: Rows =
        within(&low, HashRange::ALL).into_iter().chain(within(&high, HashRange::ALL)).collect();
    assert_eq!(rows(&merged).await, both);
    describe(&merged, HashRange::ALL, incarnation(&low).max(incarnation(&high))).await;
    let shard = merged.open().await;
    has_its_own(&shard, HashRange::ALL, &running).await;
    for leased in &running {
        let done = shard.report(leased.ticket(), Outcome::Succeeded("at last".into())).await;
        done.expect("the lease holds");
    }
    let rest = lease(&shard, 1000, Duration::ZERO).await;
    assert_eq!(rest.len(), 3 * TENANTS, "waiting, without a name, and more");
    for got in rest {
        shard.report(got.ticket(), Outcome::Succeeded("".into())).await.expect("holds");
    }
    assert_eq!(shard.counts().active, 0);
}

/// Rows that only a log on a local disk has are in no child, and SlateDB does not notice. The
/// parent's descriptor shows it: the maker of a child first closes the parent with its log applied.
#[tokio::test]
async fn what_only_a_local_log_has_is_in_no_child() {
    let mut split = Split::new();
    let shard = split.open(false).await.expect("opens");
    shard.enqueue(crate::common::spec("only in the log")).await.expect("takes it");
    split.disk.kill();
    drop(shard);
    let child = split.place.beside("child");
    make(&child, &["shard"], HashRange::ALL).await;
    assert!(rows(&child).await.is_empty(), "the job was in the log alone");
    split.disk.crash(1);
    let shard = split.open(false).await.expect("opens");
    shard.close().await.expect("closes, and applies the log");
    let child = split.place.beside("second child");
    make(&child, &["shard"], HashRange::ALL).await;
    let there = rows(&child).await;
    assert_eq!(there.keys().filter(|key| key[0] == keys::ACTIVE).count(), 1, "{there:?}");
}
