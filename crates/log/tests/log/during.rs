//! Appends and trims between any two disk operations of a commit, then a loss of power. All on one
//! thread: the disk itself calls back.
use std::{io, sync::Arc};

use crate::common::{Record, Reference, append_durable, env, read_all, small};
use parking_lot::Mutex;
use skerry_log::{
    Disk, DiskFile, Error, Log, LogPosition, ReadOutcome, Verified,
    sim::{SimDisk, SimRng},
};
use skerry_testkit::Search;

type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

/// Calls the hook before every read and write, and around every sync, but not from within it.
#[derive(Clone)]
struct Hooked<T> {
    inner: T,
    hook: Hook,
}

impl<T> Hooked<T> {
    fn call(&self) {
        let taken = self.hook.lock().take();
        if let Some(mut hook) = taken {
            hook();
            *self.hook.lock() = Some(hook);
        }
    }

    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(Hooked { inner: file, hook: Arc::clone(&self.hook) })
    }
}

impl Disk for Hooked<SimDisk> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.call();
        Ok(self.file(self.inner.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.inner.open(name)?))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
}

impl DiskFile for Hooked<Box<dyn DiskFile>> {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.call();
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.call();
        self.inner.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.call();
        self.inner.sync()?;
        self.call();
        Ok(())
    }
}

struct Between {
    log: Log,
    rng: SimRng,
    model: Arc<Mutex<Reference>>,
}

impl Between {
    fn run(&mut self) {
        let mut model = self.model.lock();
        for _ in 0..self.rng.below(6) {
            let record = Record::random(&mut self.rng, 4000);
            match record.append(&self.log) {
                Ok(position) => model.appended(position, record),
                Err(Error::Full { .. } | Error::Failed { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if self.rng.chance(50) {
            let (group, below) = (self.rng.below(4) as u32, self.log.durable_position());
            self.log.trim(group, below);
            model.trim(group, below);
        }
        model.durable = self.log.durable_position();
        model.check_reads(&self.log, &mut self.rng);
    }
}

fn one_life(disk: &SimDisk, model: &Arc<Mutex<Reference>>, rng: &mut SimRng) {
    let hook = Hook::default();
    let hooked = Hooked { inner: disk.clone(), hook: Arc::clone(&hook) };
    let (log, recovery) = Log::open(Arc::new(hooked), small(), env(rng.next_u64())).unwrap();
    model.lock().recovered(&read_all(recovery).unwrap());
    for group in 0..4 {
        log.trim(group, LogPosition::MAX);
        model.lock().trim(group, log.end_position());
    }
    let between = Between { log: log.clone(), rng: rng.clone(), model: Arc::clone(model) };
    let between = Mutex::new(between);
    *hook.lock() = Some(Box::new(move || between.lock().run()));
    disk.stop_after(rng.below(60));
    for _ in 0..30 {
        if rng.chance(30) {
            log.request_sync(LogPosition::MAX);
        }
        if log.commit_once().is_err() {
            break;
        }
    }
    // The hook holds the log, and the log the hook.
    *hook.lock() = None;
    model.lock().durable = log.durable_position();
    disk.crash(rng.next_u64());
}

#[test]
fn whatever_comes_between_two_disk_operations() {
    let mut appended = 0;
    Search { name: "log: during commits", percent: 5, least: 300 }.run(|seed| {
        let mut rng = SimRng::new(seed);
        let (disk, model) = (SimDisk::new(), Arc::new(Mutex::new(Reference::default())));
        for _ in 0..4 {
            one_life(&disk, &model, &mut rng);
            appended += model.lock().records.len();
        }
    });
    assert!(appended > 10);
}

/// Between finding the file and reading it, the record is trimmed and its file used again.
#[test]
fn a_read_that_loses_the_race_says_so() {
    let disk = SimDisk::new();
    let hook = Hook::default();
    let hooked = Hooked { inner: disk.clone(), hook: Arc::clone(&hook) };
    let (log, _) = Log::open(Arc::new(hooked), small(), env(1)).unwrap();
    let record = |fill| Record { group: 1, kind: 1, payload: vec![fill; 3000] };
    for verified in [false, true] {
        let position = append_durable(&log, &record(1));
        let racer = log.clone();
        *hook.lock() = Some(Box::new(move || {
            let files = small().cap_bytes / small().file_bytes;
            for _ in 0..2 * files * 3 {
                racer.trim(1, LogPosition::MAX);
                append_durable(&racer, &record(2));
            }
        }));
        if verified {
            assert_eq!(log.read_verified(position).unwrap(), Verified::Recycled);
        } else {
            let outcome = log.read(position, 0, &mut [0; 3000]).unwrap();
            assert_eq!(outcome, ReadOutcome::Recycled);
        }
        *hook.lock() = None;
    }
}
