//! A log has every operation, tells where it breaks off, and replays at a chosen speed.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_core::env::Clock as _;
use skerry_device::memory::MemoryDevice;
use skerry_device::wrap::record::{
    Action, End, Keep, Log, LogError, Operation, Record, Replayed, Speed, replay,
};
use skerry_device::{Attempt, Device};
use skerry_testkit::seeds::Search;

use crate::model::{self, SIZE_BYTES};
use crate::stage::{Call, Stage, TestClock};

const MS: Duration = Duration::from_millis(1);

/// A file in memory, which may fail.
#[derive(Clone, Default)]
struct File(Arc<Mutex<(Vec<u8>, bool)>>);

impl File {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().0.clone()
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.0.lock();
        if file.1 {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "full"));
        }
        file.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn recording(below: Arc<dyn Device>, keep: Keep) -> (Record, File, Arc<TestClock>) {
    let (file, clock) = (File::default(), Arc::new(TestClock::default()));
    let record = Record::new(below, clock.clone(), keep, file.clone()).expect("begins");
    (record, file, clock)
}

fn memory() -> Arc<MemoryDevice> {
    Arc::new(MemoryDevice::new(SIZE_BYTES))
}

/// All operations of a log, and its end or the text of its error.
fn read(bytes: &[u8]) -> (Vec<Operation>, Result<End, String>) {
    let mut operations = Vec::new();
    let mut log = match Log::open(bytes) {
        Ok(log) => log,
        Err(error) => return (operations, Err(error.to_string())),
    };
    loop {
        match log.next_operation() {
            Ok(Some(operation)) => operations.push(operation),
            Ok(None) => return (operations, Ok(log.end().expect("an end"))),
            Err(error) => return (operations, Err(error.to_string())),
        }
    }
}

/// A log of some writes, and the bytes that they leave.
fn some_log(seed: u64, writes: usize) -> (Vec<u8>, Vec<u8>) {
    let memory = memory();
    let (record, file, clock) = recording(memory.clone(), Keep::Bytes);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut model = vec![0; SIZE_BYTES as usize];
    for _ in 0..writes {
        let offset = rng.random_range(0..SIZE_BYTES - 9000);
        let data: Vec<u8> = (0..rng.random_range(1..9000)).map(|_| rng.random()).collect();
        block_on(record.write(offset, data.clone().into())).expect("writes");
        model[offset as usize..][..data.len()].copy_from_slice(&data);
        clock.forward(rng.random_range(0..20) * MS);
    }
    record.finish().expect("ends");
    (file.bytes(), model)
}

#[test]
fn keeps_the_rules_of_a_device() {
    for keep in [Keep::Places, Keep::Bytes] {
        model::check("record", |seed| recording(Stage::yielding(SIZE_BYTES, seed), keep).0);
        model::check("record, fast path", |_| recording(memory(), keep).0);
    }
}

#[test]
fn every_operation_is_there_once_with_its_time() {
    for (below, keep) in
        [(memory() as Arc<dyn Device>, Keep::Bytes), (Stage::new(SIZE_BYTES), Keep::Places)]
    {
        let (record, file, clock) = recording(below, keep);
        clock.forward(5 * MS);
        if let Attempt::WouldBlock = record.try_write(100, &[7; 3]) {
            block_on(record.write(100, vec![7; 3].into())).expect("writes");
        }
        clock.forward(MS);
        if let Attempt::WouldBlock = record.try_read(200, &mut [0; 50]) {
            block_on(model::read(&record, 200, 50));
        }
        block_on(record.zero(300, 4000)).expect("zeros");
        if let Attempt::WouldBlock = record.try_flush() {
            block_on(record.flush()).expect("flushes");
        }
        record.finish().expect("ends");
        block_on(record.flush()).expect("passes, and is not recorded");
        let write = match keep {
            Keep::Bytes => Action::Write { offset: 100, data: vec![7; 3].into() },
            Keep::Places => Action::WriteAt { offset: 100, len: 3 },
        };
        let expected = [
            (5 * MS, write),
            (6 * MS, Action::Read { offset: 200, len: 50 }),
            (6 * MS, Action::Zero { offset: 300, len: 4000 }),
            (6 * MS, Action::Flush),
        ];
        let expected = expected.map(|(at, action)| Operation { at, action });
        assert_eq!(read(&file.bytes()), (expected.to_vec(), Ok(End::Whole)));
        let bytes = file.bytes();
        let log = Log::open(&bytes[..]).expect("a log");
        assert_eq!(log.size_bytes(), SIZE_BYTES);
    }
}

/// Wherever a log is cut, what was before is read, and the log is torn.
#[test]
fn a_torn_tail_is_seen() {
    let (bytes, _) = some_log(1, 200);
    let (whole, end) = read(&bytes);
    assert_eq!((whole.len(), end), (200, Ok(End::Whole)));
    let mut counts = Vec::new();
    for cut in (1..bytes.len()).step_by(bytes.len() / 50).chain([bytes.len() - 1]) {
        let (operations, end) = read(&bytes[..cut]);
        if operations.is_empty() && end.is_err() {
            assert!(cut < 100, "no log after {cut} bytes: {end:?}");
            continue;
        }
        assert_eq!(end, Ok(End::Torn), "cut at {cut} of {}", bytes.len());
        assert!(operations == whole[..operations.len()], "cut at {cut}");
        counts.push(operations.len());
    }
    assert!(counts.is_sorted() && counts[counts.len() / 2] > 50, "{counts:?}");
}

#[test]
fn a_recorder_that_dies_leaves_what_it_let_out() {
    let (record, file, _) = recording(memory(), Keep::Bytes);
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let data: Vec<u8> = (0..4096).map(|_| rng.random()).collect();
        block_on(record.write(0, data.into())).expect("writes");
    }
    drop(record);
    let (operations, end) = read(&file.bytes());
    assert_eq!(end, Ok(End::Torn));
    assert!((100..200).contains(&operations.len()), "{}", operations.len());
}

/// Every flipped bit is seen: the log ends there, or is read as it was.
#[test]
fn a_flipped_bit_gives_no_wrong_operation() {
    let (bytes, _) = some_log(1, 5);
    let whole = read(&bytes).0;
    let mut seen = 0;
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let (operations, end) = read(&damaged);
        assert!(operations == whole[..operations.len()], "at {at}");
        seen += usize::from(end != Ok(End::Whole));
    }
    assert!(seen * 7 > bytes.len() * 9 / 10, "{seen} were seen");
}

/// Bytes that are no log, in the right compression, give an error and take no memory.
#[test]
fn other_bytes_are_refused() {
    assert!(matches!(Log::open(&b"not compressed"[..]), Err(LogError::NoLog)));
    assert!(matches!(Log::open(&[][..]), Err(LogError::NoLog)));
    let zipped = |plain: &[u8]| zstd::encode_all(plain, 1).expect("compresses");
    assert!(matches!(Log::open(&zipped(&[7; 500])[..]), Err(LogError::NoLog)));
    let plain = zstd::decode_all(&some_log(1, 2).0[..]).expect("a stream");
    let mut newer = plain.clone();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..24]).to_le_bytes();
    newer[24..28].copy_from_slice(&crc);
    assert!(matches!(Log::open(&zipped(&newer)[..]), Err(LogError::Version(9))));
    for (at, byte) in [(28, 9), (29, 77), (35, 0xff), (36, 1), (60, 1), (100, 1)] {
        let mut damaged = plain.clone();
        damaged[at] ^= byte;
        let (operations, end) = read(&zipped(&damaged));
        assert!(operations.is_empty() && end.is_err(), "at {at}: {end:?}");
    }
}

#[test]
fn a_log_that_can_not_be_written_fails_no_operation() {
    let (record, file, _) = recording(memory(), Keep::Bytes);
    file.0.lock().1 = true;
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let data: Vec<u8> = (0..4096).map(|_| rng.random()).collect();
        block_on(record.write(0, data.into())).expect("writes");
    }
    assert_eq!(record.finish().map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
}

#[test]
fn a_replay_ends_with_the_same_bytes_at_any_speed() {
    let search = Search { name: "record: replays", percent: 0, least: 20 };
    search.run(|seed| {
        let (bytes, model) = some_log(seed, 60);
        for speed in [Speed::Times(1.0), Speed::Times(7.5), Speed::Unbounded] {
            for under_way_max in [1, 8] {
                let stage = Stage::yielding(SIZE_BYTES, seed);
                let replayed = run(&bytes, &stage, speed, under_way_max).0;
                assert_eq!((replayed.operations, replayed.errors), (60, 0));
                assert!(stage.bytes() == model, "{speed:?}, {under_way_max} at once");
            }
        }
    });
}

/// Replays a log; gives the outcome, and the time that it took.
fn run(bytes: &[u8], stage: &Stage, speed: Speed, under_way_max: usize) -> (Replayed, Duration) {
    let clock = TestClock::default();
    let mut log = Log::open(bytes).expect("a log");
    let done = replay(&mut log, stage, speed, under_way_max, (&clock, &clock));
    let replayed = block_on(clock.run(done)).expect("replays");
    assert_eq!(log.end(), Some(End::Whole));
    (replayed, clock.boot())
}

#[test]
fn speed_divides_the_times() {
    let (record, file, clock) = recording(memory(), Keep::Places);
    for _ in 0..3 {
        clock.forward(60 * MS);
        block_on(record.write(0, vec![1; 512].into())).expect("writes");
        block_on(model::read(&record, 4096, 100));
    }
    record.finish().expect("ends");
    let times = [
        (Speed::Times(1.0), 180 * MS),
        (Speed::Times(3.0), 60 * MS),
        (Speed::Times(0.5), 360 * MS),
        (Speed::Unbounded, Duration::ZERO),
    ];
    for (speed, time) in times {
        let stage = Stage::new(SIZE_BYTES);
        let (replayed, took) = run(&file.bytes(), &stage, speed, 4);
        assert_eq!(took, time, "{speed:?}");
        let bytes = 3 * 612;
        assert_eq!(replayed, Replayed { operations: 6, bytes, ..Replayed::default() });
        assert!(stage.bytes()[..512].iter().any(|byte| *byte != 0), "bytes of its own");
    }
}

#[test]
fn errors_of_the_device_are_counted() {
    let (bytes, _) = some_log(1, 10);
    let stage = Stage::new(SIZE_BYTES);
    stage.fail(&[Call::Write]);
    assert_eq!(run(&bytes, &stage, Speed::Unbounded, 4).0.errors, 10);
    let small = Stage::new(4096);
    let replayed = run(&bytes, &small, Speed::Unbounded, 4).0;
    assert_eq!((replayed.operations, replayed.errors > 0), (10, true));
}
