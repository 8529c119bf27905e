//! Helpers of the log's tests: opening on a simulated disk, seeds, and a naïve reference.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "shared by tests only")]

use std::{
    collections::{BTreeMap, HashSet},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use skerry_log::{
    Disk, Env, Error, Log, LogPosition, Progress, Recovery, Settings,
    sim::{SimDisk, SimRng},
};

/// Small files and buffers, so that rare events happen often.
pub(crate) fn small() -> Settings {
    Settings {
        file_bytes: 16 << 10,
        cap_bytes: 80 << 10,
        spare_bytes: 32 << 10,
        buffer_bytes: 8 << 10,
        buffers: 3,
        write_threshold_bytes: 4 << 10,
        unsynced_bytes_max: 16 << 10,
        fill_ahead_bytes: 4 << 10,
        fill_piece_bytes: 2 << 10,
    }
}

pub(crate) fn env(seed: u64) -> Env {
    let mut rng = SimRng::new(seed);
    Env::new(move || rng.next_u64(), || 0)
}

pub(crate) fn open(disk: &SimDisk, seed: u64) -> Result<(Log, Recovery), Error> {
    open_with(disk, small(), seed)
}

pub(crate) fn open_with(
    disk: &SimDisk,
    settings: Settings,
    seed: u64,
) -> Result<(Log, Recovery), Error> {
    Log::open(Arc::new(disk.clone()) as Arc<dyn Disk>, settings, env(seed))
}

/// Opens, reads everything, and gives the records.
pub(crate) fn recover(
    disk: &SimDisk,
    seed: u64,
) -> Result<(Log, Vec<(LogPosition, Record)>), Error> {
    let (log, recovery) = open(disk, seed)?;
    Ok((log, read_all(recovery)?))
}

/// Reads all surviving records.
pub(crate) fn read_all(mut recovery: Recovery) -> Result<Vec<(LogPosition, Record)>, Error> {
    let mut found = Vec::new();
    while let Some(record) = recovery.next()? {
        let (group, kind) = (record.group, record.kind);
        found.push((record.position, Record { group, kind, payload: record.payload.to_vec() }));
    }
    Ok(found)
}

/// A record for the caller.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) group: u32,
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "(group {} kind {} {} bytes)", self.group, self.kind, self.payload.len())
    }
}

impl Record {
    pub(crate) fn random(rng: &mut SimRng, longest: u64) -> Self {
        let length = match rng.below(8) {
            0 => 0,
            1 => 448,
            2..=5 => rng.below(longest.min(1200) + 1),
            _ => rng.below(longest + 1),
        };
        let mut payload = vec![0; length as usize];
        payload.chunks_mut(8).for_each(|chunk| {
            let random = rng.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        });
        Self { group: rng.below(4) as u32, kind: rng.below(256) as u8, payload }
    }

    /// Appends the record, cut into parts at a place that depends on its content.
    pub(crate) fn append(&self, log: &Log) -> Result<LogPosition, Error> {
        let cut = self.payload.len() / 3;
        let (head, rest) = self.payload.split_at(cut);
        log.append(self.group, self.kind, &[head, rest]).map(|done| done.position)
    }
}

/// Polls once, with a waker that does nothing.
pub(crate) fn poll_now<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Steps the committer until there is nothing left to do.
pub(crate) fn settle(log: &Log) -> Result<(), Error> {
    while log.commit_once()? == Progress::Worked {}
    Ok(())
}

/// Drives a future of a log by stepping its committer.
pub(crate) fn drive<T>(
    log: &Log,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        let _ = log.commit_once();
    }
}

/// Appends a record and makes it durable.
pub(crate) fn append_durable(log: &Log, record: &Record) -> LogPosition {
    let position = record.append(log).unwrap();
    drive(log, log.wait_durable(position)).unwrap();
    position
}

/// The name of the file that holds `position`, found by the bytes at rest.
pub(crate) fn file_of(disk: &SimDisk, position: LogPosition) -> (String, u64) {
    let offset = position.as_u64() & 0xffff_ffff;
    for name in disk.list().unwrap() {
        let bytes = disk.contents(&name).unwrap();
        let at = offset as usize + 16;
        if bytes.get(at..at + 8) == Some(&position.as_u64().to_le_bytes()) {
            return (name, offset);
        }
    }
    panic!("no file holds {position}");
}

/// A naïve reference: all appended records of this history, in order.
#[derive(Default)]
pub(crate) struct Reference {
    pub(crate) records: BTreeMap<LogPosition, Record>,
    pub(crate) marks: BTreeMap<u32, LogPosition>,
    /// Records before this position must survive.
    pub(crate) durable: LogPosition,
    /// Positions that a recovery did not give. None may ever come back.
    gone: HashSet<LogPosition>,
    /// End of the newest position ever handed out.
    newest: LogPosition,
}

impl Reference {
    pub(crate) fn appended(&mut self, position: LogPosition, record: Record) {
        assert!(position > self.newest, "{position} is not after {}", self.newest);
        assert!(!self.gone.contains(&position), "{position} was used before");
        self.newest = position;
        self.records.insert(position, record);
    }

    pub(crate) fn trim(&mut self, group: u32, below: LogPosition) {
        let mark = self.marks.entry(group).or_default();
        *mark = (*mark).max(below);
    }

    pub(crate) fn is_trimmed(&self, position: LogPosition, record: &Record) -> bool {
        self.marks.get(&record.group).is_some_and(|mark| position < *mark)
    }

    /// Compares a recovery's records with the allowed ones, and takes them as the new history.
    pub(crate) fn recovered(&mut self, found: &[(LogPosition, Record)]) {
        let mut before = LogPosition::ZERO;
        for (position, record) in found {
            assert!(*position > before, "{position} after {before}: out of order, or twice");
            before = *position;
            assert!(!self.gone.contains(position), "{position} has come back");
            let known = self.records.get(position);
            assert!(known == Some(record), "{position}: found {record:?}, appended {known:?}");
        }
        let found: BTreeMap<_, _> = found.iter().cloned().collect();
        let last = found.keys().next_back().copied().unwrap_or_default();
        for (position, record) in &self.records {
            if found.contains_key(position) {
                continue;
            }
            let inside = *position <= last || *position < self.durable;
            let excused = !inside || self.is_trimmed(*position, record);
            assert!(
                excused,
                "{position} {record:?} is lost (durable {}, last {last})",
                self.durable
            );
            self.gone.insert(*position);
        }
        self.records = found;
        self.durable = LogPosition::MAX;
    }

    /// Reads every untrimmed record back, in all three ways.
    pub(crate) fn check_reads(&self, log: &Log, rng: &mut SimRng) {
        use skerry_log::{ReadOutcome, Verified};
        let mut window = log.window();
        for (position, record) in &self.records {
            let seen = window.read(*position).unwrap().map(<[u8]>::to_vec);
            let from = rng.below(record.payload.len() as u64 + 1) as usize;
            let mut buf = vec![0; record.payload.len() - from];
            let outcome = log.read(*position, from as u32, &mut buf).unwrap();
            let verified = log.read_verified(*position).unwrap();
            if self.is_trimmed(*position, record) && outcome == ReadOutcome::Recycled {
                continue;
            }
            assert_eq!(outcome, ReadOutcome::Read, "{position}");
            assert!(buf == record.payload[from..], "{position} reads otherwise");
            let Verified::Record(whole) = verified else { panic!("{position} is gone") };
            assert!(whole.payload == record.payload);
            assert!(
                seen.as_ref() == Some(&record.payload),
                "{position} reads otherwise in a window"
            );
            assert_eq!((whole.group, whole.kind), (record.group, record.kind));
        }
    }
}
