//! The log on a real directory, with its real committer thread.
use std::{path::Path, sync::Arc};

use crate::common::{env, small};
use futures::executor::block_on;
use skerry_log::{Disk, FileDisk, Log, LogPosition, ReadOutcome, Recovery, Settings, sim::SimRng};

fn open(dir: &Path, settings: Settings, seed: u64) -> (Log, Recovery) {
    Log::open(Arc::new(FileDisk::new(dir)), settings, env(seed)).unwrap()
}

#[test]
fn it_survives_a_clean_stop_and_a_dropped_process() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("LOCK"), b"not the log's").unwrap();
    let mut expected: Vec<(LogPosition, Vec<u8>)> = Vec::new();
    for life in 0..4_u8 {
        let (log, mut recovery) = open(dir.path(), small(), life.into());
        let mut found = Vec::new();
        while let Some(record) = recovery.next().unwrap() {
            found.push((record.position, record.payload.to_vec()));
        }
        assert!(found == expected, "life {life}: {} records of {}", found.len(), expected.len());
        let committer = log.spawn_committer().unwrap();
        let payload = vec![life; 3000];
        let position = block_on(log.append_waiting(0, 0, &[&payload])).unwrap().position;
        block_on(log.wait_durable(position)).unwrap();
        expected.push((position, payload));
        let mut buf = [0; 1000];
        assert_eq!(log.read(position, 2000, &mut buf).unwrap(), ReadOutcome::Read);
        assert_eq!(buf, [life; 1000]);
        if life % 2 == 0 {
            block_on(log.close()).unwrap();
        }
        drop(committer);
    }
}

#[test]
fn files_are_filled_with_zeros_to_their_size_and_stay_so() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { file_bytes: 1 << 20, cap_bytes: 4 << 20, ..Settings::default() };
    let (log, _) = open(dir.path(), settings, 1);
    while log.commit_once().unwrap() == skerry_log::Progress::Worked {}
    let sizes = || {
        let disk = FileDisk::new(dir.path());
        let mut names = disk.list().unwrap();
        names.sort();
        names.iter().map(|name| disk.open(name).unwrap().len().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(), [1 << 20; 2], "the present file and the next");
    let position = log.append(0, 0, &[&[1; 5000]]).unwrap().position;
    log.request_sync(position);
    log.commit_once().unwrap();
    assert!(log.durable_position() > position);
    assert_eq!(sizes(), [1 << 20; 2]);
    assert_eq!(log.counters().filled_bytes, 2 << 20);
}

#[test]
fn default_settings_open_quickly_on_an_empty_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(dir.path(), Settings::default(), 1);
    let filled = log.counters().filled_bytes;
    assert!(
        filled <= Settings::default().fill_piece_bytes as u64,
        "{filled} bytes before it opens"
    );
}

/// Writes around the page cache and through it, in turns and side by side in one page, make one
/// file.
#[test]
fn writes_around_the_cache_and_through_it_are_one_file() {
    // On a real disk if the machine has one: file systems in memory have no direct IO.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = FileDisk::new(dir.path()).create("f").unwrap();
    let mut rng = SimRng::new(7);
    let mut memory = vec![0; 66 << 10];
    let aligned = memory.as_ptr().align_offset(4096);
    let mut expected = vec![0; 256 << 10];
    file.write_at(0, &expected).unwrap();
    for turn in 0..600_u32 {
        let len = 512 * (1 + rng.below(if turn % 8 == 0 { 120 } else { 12 })) as usize;
        let at = 512 * rng.below((expected.len() - len) as u64 / 512) as usize;
        // At last, from memory that direct IO refuses.
        let from = if turn < 500 { aligned } else { aligned + 1 };
        let bytes = &mut memory[from..from + len];
        bytes.fill_with(|| rng.next_u64() as u8);
        if rng.chance(50) {
            file.write_around(at as u64, bytes).unwrap();
        } else {
            file.write_at(at as u64, bytes).unwrap();
        }
        expected[at..at + len].copy_from_slice(bytes);
        match rng.below(4) {
            0 => file.sync().unwrap(),
            1 => file.forget_cached(0, 0).unwrap(),
            _ => {}
        }
        let mut found = vec![0; expected.len()];
        file.read_at(0, &mut found).unwrap();
        assert!(found == expected, "turn {turn}: {len} bytes at {at}");
    }
}
