//! Real threads: waiting appenders, readers, a trimmer, and the committer, on a log so small that
//! room always runs out. A lost wake-up would hang the test; a watchdog turns that into a failure.
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::common::{env, small};
use futures::executor::block_on;
use parking_lot::Mutex;
use skerry_log::{
    Disk, Error, FileDisk, Log, LogPosition, MemDisk, ReadOutcome, Verified, sim::SimRng,
};

const APPENDERS: u32 = 6;
const READERS: u64 = 2;
/// Number of an appender's records that are kept, for the readers.
const KEPT: usize = 2;
/// Much longer than a run ever takes; only a hang gets there.
const WATCHDOG: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Shared {
    /// The untrimmed records of each appender.
    kept: [Mutex<VecDeque<(LogPosition, u64)>>; APPENDERS as usize],
    done: AtomicBool,
    reads: AtomicU64,
    full: AtomicU64,
}

fn payload(group: u32, number: u64) -> Vec<u8> {
    let mut rng = SimRng::new(number << 8 | u64::from(group));
    let length = rng.below(1000) as usize + 8;
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

/// An appender that waits for room, or is done, holds no records. Otherwise all could wait for each
/// other for ever.
fn append(log: &Log, shared: &Shared, group: u32, bytes: &[u8]) -> LogPosition {
    loop {
        match log.append(group, 1, &[bytes]) {
            Ok(done) => return done.position,
            Err(Error::Full { .. }) => {
                shared.full.fetch_add(1, Ordering::Relaxed);
                let_go(log, shared, group);
                block_on(log.wait_room(bytes.len()).unwrap()).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn appender(log: &Log, shared: &Shared, group: u32, count: u64) {
    let kept = &shared.kept[group as usize];
    let mut before = LogPosition::ZERO;
    for number in 0..count {
        let bytes = payload(group, number);
        let position = append(log, shared, group, &bytes);
        assert!(position > before);
        before = position;
        if number % 3 != 0 {
            block_on(log.wait_durable(position)).unwrap();
            assert!(log.durable_position() > position);
        }
        let mut kept = kept.lock();
        kept.push_back((position, number));
        while kept.len() > KEPT {
            kept.pop_front();
        }
        log.trim(group, kept[0].0);
    }
    let_go(log, shared, group);
}

fn let_go(log: &Log, shared: &Shared, group: u32) {
    shared.kept[group as usize].lock().clear();
    log.trim(group, LogPosition::MAX);
}

fn reader(log: &Log, shared: &Shared, seed: u64) {
    let mut rng = SimRng::new(seed);
    while !shared.done.load(Ordering::Relaxed) {
        let group = rng.below(u64::from(APPENDERS)) as u32;
        let kept = &shared.kept[group as usize];
        let Some((position, number)) = kept.lock().front().copied() else {
            thread::yield_now();
            continue;
        };
        let expected = payload(group, number);
        let from = rng.below(expected.len() as u64) as usize;
        let mut buf = vec![0; expected.len() - from];
        let outcome = log.read(position, from as u32, &mut buf).unwrap();
        let verified = log.read_verified(position).unwrap();
        if let Some(seen) = log.window().read(position).unwrap() {
            assert!(seen == expected, "{position} reads otherwise in a window");
        }
        // Recycled is a right answer only for a record that is no longer kept.
        let still = kept.lock().front().is_some_and(|(first, _)| *first <= position);
        match outcome {
            ReadOutcome::Read => assert!(buf == expected[from..], "{position} reads otherwise"),
            ReadOutcome::Recycled => assert!(!still, "{position} is kept, and recycled"),
        }
        match verified {
            Verified::Record(record) => assert!(record.payload == expected),
            Verified::Recycled => assert!(!still, "{position} is kept, and recycled"),
        }
        shared.reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn storm(disk: Arc<dyn Disk>, count: u64) {
    let (log, _) = Log::open(disk, small(), env(1)).unwrap();
    let committer = log.spawn_committer().unwrap();
    let shared = Shared::default();
    thread::scope(|scope| {
        let (log, shared) = (&log, &shared);
        for seed in 0..READERS {
            scope.spawn(move || reader(log, shared, seed));
        }
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|group| scope.spawn(move || appender(log, shared, group, count)))
            .collect();
        let outcomes: Vec<_> = appenders.into_iter().map(|thread| thread.join()).collect();
        shared.done.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    block_on(log.close()).unwrap();
    drop(committer);
    assert_eq!(log.counters().records, count * u64::from(APPENDERS));
    assert!(shared.reads.load(Ordering::Relaxed) > 0);
    assert!(shared.full.load(Ordering::Relaxed) > 0, "room never ran out");
}

fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(WATCHDOG) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a wake-up was lost: nothing moves"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn many_threads_on_a_disk_in_memory() {
    watched(|| storm(Arc::new(MemDisk::new()), 5000));
}

#[test]
fn many_threads_on_a_directory() {
    watched(|| {
        let dir = tempfile::tempdir().unwrap();
        storm(Arc::new(FileDisk::new(dir.path())), 500);
    });
}

#[test]
fn a_failure_wakes_everybody() {
    watched(|| {
        let disk = skerry_log::sim::SimDisk::new();
        let (log, _) = Log::open(Arc::new(disk.clone()), small(), env(1)).unwrap();
        let committer = log.spawn_committer().unwrap();
        disk.stop_after(40);
        thread::scope(|scope| {
            for group in 0..4 {
                let log = log.clone();
                scope.spawn(move || {
                    let failed = loop {
                        let appended = block_on(log.append_waiting(group, 0, &[&[0; 900]]));
                        let waited = appended.and_then(|a| block_on(log.wait_durable(a.position)));
                        if let Err(error) = waited {
                            break error;
                        }
                    };
                    assert_eq!(failed.kind(), skerry_log::ErrorKind::Failed, "{failed}");
                });
            }
        });
        drop(committer);
    });
}

/// A record that no flush asks for is soon in its file, even a single one, and without a sync. So
/// it outlives the process.
#[test]
fn a_record_that_is_not_asked_for_is_written_all_the_same() {
    watched(|| {
        let (log, _) = Log::open(Arc::new(MemDisk::new()), small(), env(1)).unwrap();
        let committer = log.spawn_committer().unwrap();
        for count in 1..5 {
            let position = log.append(1, 0, &[&[7; 100]]).unwrap().position;
            while log.counters().writes < count {
                thread::yield_now();
            }
            assert!(log.durable_position() <= position, "it is not synced");
        }
        drop(committer);
    });
}
