//! Room on the disk: the log gives unneeded files back. Where a written file is no promise of room
//! (copy on write), records wait for room, as they do everywhere else.
use std::{iter, sync::mpsc, thread, time::Duration};

use crate::common::{
    Record, append_durable, drive, open_with, poll_now, read_all, recover, settle, small,
};
use futures::executor::block_on;
use skerry_log::{Disk, Error, Log, LogPosition, Settings, sim::SimDisk};

/// `QUIET_NOTES` of the log, and some more.
const LONG_QUIET: u32 = 70;
/// Much longer than a run ever takes; only a hang gets there.
const WATCHDOG: Duration = Duration::from_secs(120);

fn record(group: u32, bytes: usize) -> Record {
    Record { group, kind: 0, payload: vec![group as u8; bytes] }
}

fn fresh(disk: &SimDisk) -> Log {
    let (log, _) = recover(disk, 1).unwrap();
    settle(&log).unwrap();
    log
}

/// Appends until the log is full, everything durable.
fn fill(log: &Log, group: u32) -> LogPosition {
    let mut last = LogPosition::ZERO;
    loop {
        match record(group, 3000).append(log) {
            Ok(position) => last = position,
            Err(Error::Full { .. }) => {
                settle(log).unwrap();
                if poll_now(log.wait_room(3000).unwrap()).is_pending() {
                    return last;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Appends. A log without a file for the next use prepares one when an appender asks for room.
fn append_kicking(log: &Log, record: &Record) -> LogPosition {
    record.append(log).unwrap_or_else(|_| {
        settle(log).unwrap();
        record.append(log).unwrap()
    })
}

/// The use of a file that a position is in.
fn use_of(position: LogPosition) -> u64 {
    position.as_u64() >> 32
}

fn files(disk: &SimDisk) -> usize {
    disk.list().unwrap().len()
}

/// The present file, the next one, and the spare ones.
fn files_at_rest() -> usize {
    2 + (small().spare_bytes / small().file_bytes) as usize
}

#[test]
fn a_log_that_needs_nothing_is_small_after_a_clean_stop() {
    let disk = SimDisk::new();
    let log = fresh(&disk);
    fill(&log, 1);
    assert_eq!(files(&disk) as u64, small().cap_bytes / small().file_bytes);
    log.trim(1, LogPosition::MAX);
    settle(&log).unwrap();
    drive(&log, log.close()).unwrap();
    assert!(files(&disk) <= files_at_rest(), "{} files after a clean stop", files(&disk));
    disk.kill();
    let settings = Settings { spare_bytes: 0, ..small() };
    let (log, recovery) = open_with(&disk, settings, 2).unwrap();
    assert!(read_all(recovery).unwrap().is_empty());
    settle(&log).unwrap();
    assert_eq!(files(&disk), 2, "the present file and the next");
}

#[test]
fn a_log_that_needs_nothing_is_small_after_a_long_quiet() {
    let disk = SimDisk::new();
    let log = fresh(&disk);
    fill(&log, 1);
    log.trim(1, LogPosition::MAX);
    log.note_quiet();
    settle(&log).unwrap();
    let full = files(&disk);
    for _ in 0..LONG_QUIET {
        log.note_quiet();
        settle(&log).unwrap();
    }
    assert!(files(&disk) < full && files(&disk) <= files_at_rest(), "{} files", files(&disk));
    let operations = disk.operations();
    log.note_quiet();
    settle(&log).unwrap();
    assert_eq!(disk.operations(), operations, "once is enough");
    fill(&log, 2);
    assert_eq!(files(&disk), full, "and they come again when they are wanted");
}

/// A record ends the quiet, even if the thread that wants it durable carries it out.
#[test]
fn a_record_now_and_then_is_no_long_quiet() {
    let disk = SimDisk::new();
    // So large that no change of file ends the quiet.
    let settings = Settings { file_bytes: 256 << 10, cap_bytes: 1 << 20, ..small() };
    let (log, recovery) = open_with(&disk, settings, 1).unwrap();
    read_all(recovery).unwrap();
    settle(&log).unwrap();
    let mut last = fill(&log, 1);
    log.trim(1, LogPosition::MAX);
    settle(&log).unwrap();
    let full_use = use_of(last);
    while use_of(last) == full_use {
        last = append_durable(&log, &record(1, 100));
    }
    settle(&log).unwrap();
    let full = files(&disk);
    for _ in 0..LONG_QUIET {
        let position = record(1, 100).append(&log).unwrap();
        assert_eq!(use_of(position), use_of(last));
        assert!(log.try_sync(position).unwrap());
        log.trim(1, LogPosition::MAX);
        log.note_quiet();
        settle(&log).unwrap();
    }
    assert_eq!(files(&disk), full);
}

/// Giving files back removes none that a header at rest still lists, wherever the machine dies.
#[test]
fn giving_back_loses_nothing() {
    for stop in 0.. {
        let disk = SimDisk::new();
        let log = fresh(&disk);
        let needed = append_durable(&log, &record(7, 700));
        fill(&log, 1);
        log.trim(1, LogPosition::MAX);
        disk.stop_after(stop);
        let mut is_over = true;
        for _ in 0..LONG_QUIET {
            log.note_quiet();
            is_over &= settle(&log).is_ok();
        }
        is_over &= drive(&log, log.close()).is_ok();
        drop(log);
        disk.crash(stop);
        let (_, records) = recover(&disk, stop + 10).unwrap();
        assert_eq!(records.first().map(|(position, _)| *position), Some(needed), "after {stop}");
        if is_over {
            break;
        }
    }
}

/// With any room, and whether it ends in a record or in a header: no caller sees an error, and no
/// durable record is lost.
#[test]
fn records_wait_for_room_where_rewriting_takes_some() {
    for room in (0..40 << 10).step_by(512) {
        let disk = SimDisk::new();
        disk.copy_on_write(Some(u64::MAX));
        let log = fresh(&disk);
        let first = append_durable(&log, &record(1, 3000));
        disk.copy_on_write(Some(room));
        let mut last = first;
        let mut appended = vec![first];
        while log.stall().is_none() {
            match record(1, 3000).append(&log) {
                Ok(position) => {
                    last = position;
                    appended.push(position);
                }
                Err(error) => assert!(matches!(error, Error::Full { .. }), "{error}"),
            }
            log.request_sync(last);
            settle(&log).unwrap();
        }
        assert_eq!(log.failure(), None, "with room for {room}");
        assert!(log.durable_position() > first && log.durable_position() <= last);
        assert!(poll_now(log.wait_durable(last)).is_pending());
        let operations = disk.operations();
        settle(&log).unwrap();
        assert!(disk.operations() - operations <= 2, "it tries once, and not for ever");
        if room % 1024 == 0 {
            // The machine dies meanwhile.
            let durable = log.durable_position();
            drop(log);
            disk.crash(room);
            disk.copy_on_write(None);
            let (_, records) = recover(&disk, 2).unwrap();
            let is_there = |one: &LogPosition| records.iter().any(|(found, _)| found == one);
            assert!(appended.iter().filter(|one| **one < durable).all(is_there), "with {room}");
            continue;
        }
        disk.copy_on_write(Some(u64::MAX));
        drive(&log, log.wait_durable(last)).unwrap();
        assert_eq!(log.stall(), None);
        log.trim(1, last);
        let position = append_kicking(&log, &record(2, 3000));
        drive(&log, log.wait_durable(position)).unwrap();
    }
}

#[test]
fn files_that_nobody_needs_make_room() {
    let disk = SimDisk::new();
    disk.copy_on_write(Some(u64::MAX));
    let log = fresh(&disk);
    let last = fill(&log, 1);
    log.trim(1, last);
    // A header that no longer lists the files that were let go.
    let position = drive(&log, log.append_waiting(1, 0, &[&[1; 7000]])).unwrap().position;
    drive(&log, log.wait_durable(position)).unwrap();
    let before = files(&disk);
    disk.copy_on_write(Some(0));
    append_durable(&log, &record(1, 3000));
    assert!(files(&disk) < before);
    assert_eq!(log.stall(), None);
}

/// The file for the next use makes room, too. The files that the present header lists can't go
/// before another header is written, which itself takes room.
#[test]
fn the_file_of_the_next_use_makes_room() {
    let disk = SimDisk::new();
    disk.copy_on_write(Some(u64::MAX));
    let log = fresh(&disk);
    let first = append_durable(&log, &record(1, 3000));
    let mut last = first;
    // Every file was written before: the reserved room is used up.
    while use_of(last) < use_of(first) + 8 {
        log.trim(1, last);
        last = append_durable(&log, &record(1, 3000));
        settle(&log).unwrap();
    }
    log.trim(1, LogPosition::MAX);
    settle(&log).unwrap();
    let full_use = use_of(last);
    disk.copy_on_write(Some(0));
    // Into the next file, whose header no longer lists the files that were let go.
    while use_of(last) == full_use {
        last = append_kicking(&log, &record(1, 3000));
        log.request_sync(last);
        settle(&log).unwrap();
        assert_eq!(log.stall(), None, "at {last}");
        assert!(log.durable_position() > last);
    }
    disk.crash(1);
    disk.copy_on_write(None);
    let (_, records) = recover(&disk, 2).unwrap();
    assert!(records.iter().any(|(position, _)| *position == last));
}

/// No header lists the files that are removed to make room. Wherever the machine dies, the log
/// opens with all needed records.
#[test]
fn making_room_loses_nothing() {
    for stop in 0..200 {
        let disk = SimDisk::new();
        disk.copy_on_write(Some(u64::MAX));
        let log = fresh(&disk);
        let needed = append_durable(&log, &record(7, 700));
        for _ in 0..8 {
            append_durable(&log, &record(1, 3000));
            settle(&log).unwrap();
        }
        log.trim(1, LogPosition::MAX);
        settle(&log).unwrap();
        disk.copy_on_write(Some(0));
        disk.stop_after(stop);
        let before = disk.operations();
        for _ in 0..6 {
            let appended = record(1, 3000).append(&log).or_else(|error| match error {
                Error::Full { .. } => settle(&log).and_then(|()| record(1, 3000).append(&log)),
                error => Err(error),
            });
            let Ok(last) = appended else { break };
            log.request_sync(last);
            if settle(&log).is_err() {
                break;
            }
        }
        let is_over = disk.operations() - before <= stop;
        drop(log);
        disk.crash(stop);
        disk.copy_on_write(None);
        let (_, records) = recover(&disk, stop + 10).unwrap();
        assert_eq!(records.first().map(|(position, _)| *position), Some(needed), "after {stop}");
        if is_over {
            return;
        }
    }
    panic!("it is stuck");
}

#[test]
fn a_log_that_waits_for_room_can_be_closed_and_says_why_it_was_not_clean() {
    let disk = SimDisk::new();
    disk.copy_on_write(Some(u64::MAX));
    let log = fresh(&disk);
    let first = append_durable(&log, &record(1, 3000));
    disk.copy_on_write(Some(0));
    while log.stall().is_none() {
        let waiting = append_kicking(&log, &record(1, 3000));
        log.request_sync(waiting);
        settle(&log).unwrap();
    }
    let error = drive(&log, log.close()).unwrap_err();
    assert!(error.to_string().contains("a write"), "{error}");
    disk.kill();
    disk.copy_on_write(None);
    let (_, records) = recover(&disk, 2).unwrap();
    assert!(records.iter().any(|(position, _)| *position == first));
}

/// Without the file of the next use, and without room for it, appenders wait and `stall` says why.
/// The log's own thread finds out when room is back.
#[test]
fn appenders_go_on_by_themselves_when_there_is_room_for_the_next_file() {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    disk.set_full(true);
    let thread = log.spawn_committer().unwrap();
    while record(1, 3000).append(&log).is_ok() {}
    assert_eq!(log.stall(), None, "nobody waits");
    let (sender, receiver) = mpsc::channel();
    let waiting = log.wait_room(3000).unwrap();
    let waiter = thread::spawn(move || sender.send(block_on(waiting)));
    let full = iter::repeat_with(|| log.stall()).find_map(|stall| stall).unwrap();
    assert!(full.contains("space"), "{full}");
    disk.set_full(false);
    receiver.recv_timeout(WATCHDOG).expect("it is tried again").unwrap();
    waiter.join().unwrap().unwrap();
    assert_eq!(log.stall(), None);
    record(1, 3000).append(&log).unwrap();
    drop(thread);
}

/// Where rewriting takes room, a disk without room for a whole file still takes records as far as
/// its room goes.
#[test]
fn a_file_is_used_as_far_as_the_disk_goes() {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    let file_bytes = small().file_bytes;
    disk.copy_on_write(Some(2 * file_bytes - 1024));
    let first = record(1, 3000).append(&log).unwrap();
    let mut last = first;
    while use_of(last) == use_of(first) {
        last = append_kicking(&log, &record(1, 3000));
    }
    log.request_sync(last);
    settle(&log).unwrap();
    assert_eq!(log.stall(), None);
    assert!(log.durable_position() > last);
}

/// A disk that was full is a lower cap only as long as it is full.
#[test]
fn room_that_comes_back_raises_the_cap_again() {
    let disk = SimDisk::new();
    let settings = Settings { cap_bytes: 10 * small().file_bytes, ..small() };
    let (log, recovery) = open_with(&disk, settings, 1).unwrap();
    read_all(recovery).unwrap();
    settle(&log).unwrap();
    for _ in 0..9 {
        append_durable(&log, &record(1, 3000));
        settle(&log).unwrap();
    }
    disk.set_full(true);
    let last = fill(&log, 1);
    let of_cap = || log.used_bytes() * 100 / log.cap_bytes();
    assert!(files(&disk) < 10 && log.used_percent() > of_cap());
    disk.set_full(false);
    log.trim(1, last);
    let mut last = last;
    let full_use = use_of(last);
    // Writes never more than the disk has free.
    while use_of(last) < full_use + 4 {
        last = append_kicking(&log, &record(1, 3000));
        drive(&log, log.wait_durable(last)).unwrap();
        log.trim(1, last);
        settle(&log).unwrap();
    }
    assert_eq!(log.used_percent(), of_cap());
}
