//! A shard is opened with its own log only, and a refused node has changed nothing.

use crate::common::{Place, Split, named, spec, tenant};
use skerry_core::start;
use skerry_jobs::ErrorKind;
use skerry_jobs::database::DatabaseLog;
use skerry_jobs::hash::HashRange;
use skerry_jobs::keys;
use skerry_jobs::opening::{MemoryNote, NoteFile as _};
use skerry_jobs::shard::{Shard, ShardParts};
use skerry_log::Disk as _;
use skerry_log::sim::SimDisk;
use slatedb::Db;
use slatedb::config::{FlushOptions, FlushType};

/// Kills the machine of a split, and starts it again.
fn crash(split: &Split, shard: Shard) {
    split.disk.kill();
    drop(shard);
    split.disk.crash(1);
}

/// Makes another node with the same database, and a copy of the log and its note.
fn copy(split: &Split) -> Split {
    let disk = SimDisk::new();
    for name in split.disk.list().expect("a list") {
        disk.install(&name, &split.disk.contents(&name).expect("there"));
    }
    let note = MemoryNote::default();
    note.write(&split.note.read().expect("reads").expect("there is one")).expect("written");
    Split { place: same(&split.place), disk, note, at: split.at }
}

/// Makes another node for the same database.
fn same(place: &Place) -> Place {
    place.beside(&place.path)
}

/// Checks that an opening is refused with the name and the advice.
#[track_caller]
fn refused(opened: skerry_jobs::Result<Shard>) {
    let Err(error) = opened else { panic!("it opens") };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains("the jobs' shard at "), "{error}");
    assert!(error.message().contains("give_up_wal"), "{error}");
}

async fn takes(shard: &Shard, id: &str) {
    shard.enqueue(spec(id)).await.expect("takes it");
}

async fn has(shard: &Shard, ids: &[&str]) {
    for id in ids {
        assert!(shard.show(&tenant(), &named(id)).await.is_ok(), "{id} is lost");
    }
}

/// Once, jobs acknowledged since the copy was made were lost silently, and came back later onto
/// newer state.
#[tokio::test]
async fn a_copy_of_a_log_is_refused_and_fences_nobody() {
    let mut node = Split::new();
    let shard = node.open(false).await.expect("opens");
    takes(&shard, "before").await;
    crash(&node, shard);
    let mut twin = copy(&node);
    let shard = node.open(false).await.expect("opens");
    takes(&shard, "since").await;
    refused(twin.open(false).await);
    refused(twin.open(true).await);
    shard.close().await.expect("nobody fenced it, so that its log is applied");
    // It was not the last to open the database, also after a clean stop.
    refused(twin.open(false).await);
    let shard = node.open(false).await.expect("opens");
    has(&shard, &["before", "since"]).await;
    crash(&node, shard);
    // A person gives up the right log's rows: then the right log is the wrong one.
    let mut other = Split { disk: SimDisk::new(), note: MemoryNote::default(), ..copy(&node) };
    refused(other.open(false).await);
    let taken = other.open(true).await.expect("given up");
    takes(&taken, "elsewhere").await;
    refused(node.open(false).await);
    refused(node.open(true).await);
    has(&taken, &["before", "elsewhere"]).await;
}

/// Once, a node could not come back to its own log when another had had the database meanwhile.
#[tokio::test]
async fn after_a_clean_stop_another_node_may_open_and_the_first_may_come_back() {
    let mut first = Split::new();
    let shard = first.open(false).await.expect("opens");
    takes(&shard, "first").await;
    shard.close().await.expect("closes");
    let mut second = Split { disk: SimDisk::new(), note: MemoryNote::default(), ..copy(&first) };
    let shard = second.open(false).await.expect("opens");
    takes(&shard, "second").await;
    refused(first.open(false).await);
    shard.close().await.expect("closes");
    let shard = first.open(false).await.expect("comes back");
    has(&shard, &["first", "second"]).await;
    takes(&shard, "back").await;
    crash(&first, shard);
    let shard = first.open(false).await.expect("opens after a crash");
    has(&shard, &["first", "second", "back"]).await;
}

/// A copy that was made while the node ran has the same notes, at another place.
#[tokio::test]
async fn a_log_at_another_place_is_refused_unless_it_was_moved() {
    let at =
        |machine: u8| start::StartPlace { machine: [machine; 16], ..start::StartPlace::default() };
    let mut node = Split { at: at(1), ..Split::new() };
    let shard = node.open(false).await.expect("opens");
    takes(&shard, "one").await;
    crash(&node, shard);
    node.at = at(2);
    for give_up in [false, true] {
        let error = node.open(give_up).await.err().expect("it may be a copy");
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.message().contains("--in-its-place"), "{error}");
    }
    node.place.is_log_moved = true;
    let shard = node.open(false).await.expect("it was moved");
    has(&shard, &["one"]).await;
    crash(&node, shard);
    node.place.is_log_moved = false;
    let shard = node.open(false).await.expect("it is there now");
    has(&shard, &["one"]).await;
}

/// Once, the jobs of such a log came into the other database, or were dropped.
#[tokio::test]
async fn the_log_of_another_database_is_neither_replayed_nor_let_go() {
    let mut busy = Split::new();
    for life in 0..9 {
        let shard = busy.open(false).await.expect("opens");
        takes(&shard, &format!("busy {life}")).await;
        shard.close().await.expect("closes");
    }
    let mut node = Split::new();
    let shard = node.open(false).await.expect("opens");
    takes(&shard, "one").await;
    crash(&node, shard);
    for other in [same(&busy.place), node.place.beside("new")] {
        let mine = std::mem::replace(&mut node.place, other);
        refused(node.open(false).await);
        refused(node.open(true).await);
        let other = std::mem::replace(&mut node.place, mine);
        if other.path == "new" {
            assert!(other.open().await.counts().active == 0, "nothing came into it");
        }
    }
    let shard = node.open(false).await.expect("opens");
    has(&shard, &["one"]).await;
    let mut busy = Split { place: same(&busy.place), ..busy };
    assert_eq!(busy.open(false).await.expect("opens").counts().active, 9);
}

/// Once, another place for the log lost the old log's rows, and the way back mixed the two.
#[tokio::test]
async fn a_log_in_a_store_is_not_left_behind() {
    let mut node = Split::new();
    let store = same(&node.place);
    let shard = store.open().await;
    takes(&shard, "one").await;
    drop(shard);
    refused(node.open(false).await);
    let shard = store.open().await;
    has(&shard, &["one"]).await;
    for n in 0..9 {
        takes(&shard, &format!("two {n}")).await;
    }
    drop(shard);
    let shard = node.open(true).await.expect("given up");
    takes(&shard, "three").await;
    shard.close().await.expect("closes");
    // The store's log still has the rows that were given up.
    refused(store.try_open(false).await);
    let shard = store.try_open(true).await.expect("given up again");
    has(&shard, &["three"]).await;
    assert!(shard.show(&tenant(), &named("two 8")).await.is_err(), "it was given up");
    drop(shard);
    let mut store = same(&store);
    store.apply_log = true;
    store.open().await.close().await.expect("closes");
    let mut node = Split { place: same(&store), ..Split::new() };
    let shard = node.open(false).await.expect("a clean stop leaves nothing behind");
    has(&shard, &["three"]).await;
}

/// Once, a node that was refused fenced the first node, again and again.
#[tokio::test(start_paused = true)]
async fn another_number_of_shards_fences_nobody() {
    let place = Place::new();
    let shard = place.open().await;
    let wrong = same(&place);
    let refused = wrong.try_open_as(HashRange::part(0, 2)).await.err().expect("it is the only one");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    takes(&shard, "one").await;
    shard.close().await.expect("it is not fenced");
}

/// Brings an older version's descriptor into a database's files. It has the id of a local log.
async fn describe_as_before(db: &Db, log: [u8; 16]) {
    let mut old = [&b"SKRJ"[..], &2_u16.to_le_bytes(), &[0; 2], &1_u64.to_le_bytes()].concat();
    old.extend([0_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat());
    old.extend(log);
    let sum = crc32c::crc32c(&old);
    old.extend(sum.to_le_bytes());
    db.put(keys::DESCRIPTOR, old).await.expect("writes");
    let flush_type = FlushType::MemTable;
    db.flush_with_options(FlushOptions { flush_type }).await.expect("flushes");
}

/// Once, a start with a new version and another place for the log lost rows silently.
#[tokio::test]
async fn an_older_skerrys_log_in_the_own_store_is_not_left_behind() {
    let mut node = Split::new();
    let store = same(&node.place);
    let shard = store.open().await;
    shard.close().await.expect("closes");
    let db = store.database().await;
    describe_as_before(&db, [0; 16]).await;
    db.put([keys::LIMIT; 9], b"a row").await.expect("writes");
    db.flush().await.expect("it is in the log");
    drop(db);
    refused(node.open(false).await);
    drop(store.database().await);
    refused(node.open(false).await);
    let shard = node.open(true).await.expect("given up");
    takes(&shard, "one").await;
    crash(&node, shard);
    node.open(false).await.expect("opens");
}

/// An older version wrote no note, and its descriptor has only the log's id.
#[tokio::test]
async fn the_log_of_an_older_skerry_is_taken() {
    let mut node = Split::new();
    let shard = node.open(false).await.expect("opens");
    takes(&shard, "one").await;
    crash(&node, shard);
    let id = node.log().id();
    node.place.log = DatabaseLog::Local(node.log());
    let db = node.place.database().await;
    describe_as_before(&db, id).await;
    node.disk.kill();
    drop(db);
    node.place.log = DatabaseLog::Same;
    node.disk.crash(1);
    node.note = MemoryNote::default();
    for _ in 0..3 {
        let shard = node.open(false).await.expect("opens");
        has(&shard, &["one"]).await;
        crash(&node, shard);
    }
}

/// Once, a close applied a log against its setting, and the next start was refused all the same.
#[tokio::test]
async fn a_log_that_is_not_to_be_applied_stays_alone() {
    let mut node = Split::new();
    node.place.log = DatabaseLog::Local(node.log());
    let parts = node.place.parts(HashRange::ALL, false).await.expect("opens");
    let shard = Shard::open(ShardParts { apply_log_on_close: false, ..parts }).await;
    let shard = shard.expect("opens");
    takes(&shard, "one").await;
    shard.close().await.expect("closes");
    node.place.log = DatabaseLog::Same;
    let mut without = Split { place: same(&node.place), ..Split::new() };
    refused(without.open(false).await);
    let shard = without.open(true).await.expect("given up");
    assert!(shard.show(&tenant(), &named("one")).await.is_err(), "only the log had it");
}
