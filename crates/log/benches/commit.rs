//! Measures a durable append beside bare loops of write + fdatasync on one disk, and the rate of
//! appends without a waiting caller. Prints figures; asserts nothing.
//!
//! `cargo bench -p skerry-log -- [DIR] [SECONDS]`: DIR must lie on the disk to be measured.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop at the first error")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use skerry_log::{Disk, Env, Error, FileDisk, Log, LogPosition, MemDisk, Settings};

/// A block and the header that a caller puts before it.
const HEADER_BYTES: usize = 40;
const BLOCK_BYTES: usize = 4096;
/// Length of such a record in a file.
const RECORD_BYTES: usize = 4608;
/// Many short rounds, each compared with the bare loop of its own round: the disk's speed changes.
const ROUNDS: usize = 25;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let dir = arguments.first().map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"),
        PathBuf::from,
    );
    let seconds = arguments.get(1).map_or(0.2, |text| text.parse().unwrap());
    let scratch = tempfile::tempdir_in(&dir).unwrap();
    let lasts = Duration::from_secs_f64(seconds);
    println!(
        "{ROUNDS} rounds in turn of {seconds} s each in {}; median (lowest, highest)",
        dir.display()
    );

    let append = File::create(scratch.path().join("append")).unwrap();
    let overwrite = filled_file(&scratch.path().join("overwrite"));
    let log_dir = scratch.path().join("log");
    std::fs::create_dir(&log_dir).unwrap();
    let log = open(Arc::new(FileDisk::new(&log_dir)));
    let committer = log.spawn_committer().unwrap();
    warm_up(&log);

    let mut figures = [const { Vec::new() }; 5];
    let mut end = 0;
    for _ in 0..ROUNDS {
        figures[0].push(bare_loop(&append, lasts, |_| {
            end += RECORD_BYTES as u64;
            end - RECORD_BYTES as u64
        }));
        figures[1]
            .push(bare_loop(&overwrite, lasts, |turn| (turn % FILL_RECORDS) * RECORD_BYTES as u64));
        figures[2].push(durable_appends(&log, 1, lasts));
        figures[3].push(durable_appends(&log, 4, lasts));
        figures[4].push(durable_appends(&log, 16, lasts));
    }
    let names = [
        "bare append + fdatasync",
        "bare overwrite + fdatasync",
        "log, 1 waiter",
        "log, 4 waiters",
        "log, 16 waiters",
    ];
    for (name, own) in names.iter().zip(&figures) {
        let ratios: Vec<f64> = own.iter().zip(&figures[1]).map(|(own, base)| own / base).collect();
        print_figure(name, own, "/s", Some(median(&ratios)));
    }
    print_syncs(&log);
    block_on(log.close()).unwrap();
    drop(committer);

    throughput("append, 1 thread, files", Arc::new(FileDisk::new(&log_dir)), lasts);
    throughput("append, 1 thread, memory", Arc::new(MemDisk::new()), lasts);
}

const FILL_RECORDS: u64 = 14_000;

fn filled_file(path: &Path) -> File {
    let file = File::create(path).unwrap();
    for piece in 0..64 {
        file.write_all_at(&vec![0; 1 << 20], piece << 20).unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn settings() -> Settings {
    Settings { cap_bytes: 1 << 30, ..Settings::default() }
}

fn open(disk: Arc<dyn Disk>) -> Log {
    let mut seed = std::process::id().into();
    let started = Instant::now();
    let env = Env::new(
        move || {
            seed = u64::wrapping_mul(seed, 0x5851_f42d_4c95_7f2d).wrapping_add(1);
            seed
        },
        move || started.elapsed().as_nanos() as u64,
    );
    let (log, mut recovery) = Log::open(disk, settings(), env).unwrap();
    while recovery.next().unwrap().is_some() {}
    log
}

/// Fills two files, so that the figures are of reused files, as in long service.
fn warm_up(log: &Log) {
    let block = vec![0x5a; BLOCK_BYTES];
    let mut last = LogPosition::ZERO;
    for _ in 0..3 * FILL_RECORDS {
        last = append(log, &block);
    }
    block_on(log.wait_durable(last)).unwrap();
    log.trim(0, last);
}

fn append(log: &Log, block: &[u8]) -> LogPosition {
    loop {
        match log.append(0, 1, &[&[7; HEADER_BYTES], block]) {
            Ok(done) => return done.position,
            Err(Error::Full { .. }) => {
                block_on(log.wait_room(BLOCK_BYTES + HEADER_BYTES).unwrap()).unwrap()
            }
            Err(error) => panic!("{error}"),
        }
        // Trims everything all the time, so room comes back.
        log.trim(0, log.durable_position());
    }
}

fn bare_loop(file: &File, lasts: Duration, mut place: impl FnMut(u64) -> u64) -> f64 {
    let record = vec![0x5a; RECORD_BYTES];
    let started = Instant::now();
    let mut turns = 0;
    while started.elapsed() < lasts {
        file.write_all_at(&record, place(turns)).unwrap();
        file.sync_data().unwrap();
        turns += 1;
    }
    turns as f64 / started.elapsed().as_secs_f64()
}

fn durable_appends(log: &Log, waiters: usize, lasts: Duration) -> f64 {
    let started = Instant::now();
    let worker = |_| {
        let log = log.clone();
        move || {
            let block = vec![0x5a; BLOCK_BYTES];
            let mut turns = 0_u64;
            while started.elapsed() < lasts {
                let position = append(&log, &block);
                block_on(log.wait_durable(position)).unwrap();
                turns += 1;
                if turns.is_multiple_of(1024) {
                    log.trim(0, log.durable_position());
                }
            }
            turns
        }
    };
    let threads: Vec<_> = (0..waiters).map(|index| thread::spawn(worker(index))).collect();
    let turns: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    turns as f64 / started.elapsed().as_secs_f64()
}

fn throughput(name: &str, disk: Arc<dyn Disk>, lasts: Duration) {
    let log = open(disk);
    let committer = log.spawn_committer().unwrap();
    warm_up(&log);
    let block = vec![0x5a; BLOCK_BYTES];
    let figures: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            let mut turns = 0_u64;
            while started.elapsed() < lasts {
                for _ in 0..256 {
                    let _ = append(&log, &block);
                }
                log.trim(0, log.durable_position());
                turns += 256;
            }
            turns as f64 / started.elapsed().as_secs_f64()
        })
        .collect();
    print_figure(name, &figures, " records/s", None);
    block_on(log.close()).unwrap();
    drop(committer);
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn print_figure(name: &str, figures: &[f64], unit: &str, ratio: Option<f64>) {
    let low = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let high = figures.iter().copied().fold(0.0, f64::max);
    let middle = median(figures);
    let ratio = ratio.map_or_else(String::new, |ratio| format!("  {ratio:.2} x overwrite"));
    println!("{name:<28} {middle:>9.0}{unit} ({low:.0}, {high:.0}){ratio}");
}

fn print_syncs(log: &Log) {
    let counted = log.counters();
    println!(
        "log: {} records, {} syncs, {:.0} us per sync, {:.2} records per sync",
        counted.records,
        counted.syncs,
        counted.sync_ns as f64 / counted.syncs as f64 / 1000.0,
        counted.records as f64 / counted.syncs as f64,
    );
}
