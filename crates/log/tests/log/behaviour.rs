//! Tests of the open log: room, waiting, low-water marks, reuse, failure, and the disk operations
//! that each of these costs.
use crate::common::{Record, append_durable, drive, open_with, poll_now, recover, settle, small};
use skerry_log::{
    Disk, Error, ErrorKind, FullReason, Log, LogPosition, MemDisk, Progress, ReadOutcome, Settings,
    Verified, sim::SimDisk,
};

fn record(group: u32, bytes: usize) -> Record {
    Record { group, kind: 0, payload: vec![group as u8; bytes] }
}

fn fresh() -> (SimDisk, Log) {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    settle(&log).unwrap();
    (disk, log)
}

/// Appends until the log is full for want of files, everything durable.
fn fill(log: &Log, group: u32) -> Vec<LogPosition> {
    let mut positions = Vec::new();
    loop {
        match record(group, 3000).append(log) {
            Ok(position) => positions.push(position),
            Err(Error::Full { .. }) => {
                settle(log).unwrap();
                if poll_now(log.wait_room(3000).unwrap()).is_pending() {
                    return positions;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_durable_append_is_one_write_and_one_sync() {
    let (disk, log) = fresh();
    append_durable(&log, &record(0, 700));
    settle(&log).unwrap();
    let before = disk.operations();
    append_durable(&log, &record(0, 700));
    assert_eq!(disk.operations() - before, 2);
    let before = disk.operations();
    let positions: Vec<_> = (0..4).map(|_| record(0, 100).append(&log).unwrap()).collect();
    let last = positions[3];
    drive(&log, log.wait_durable(last)).unwrap();
    assert_eq!(disk.operations() - before, 2, "four appends share a commit");
}

/// A single waiter syncs by itself, at the cost of the committer, and leaves nothing undone. One of
/// several waits.
#[test]
fn a_lone_sync_needs_no_committer() {
    let (disk, log) = fresh();
    append_durable(&log, &record(0, 700));
    settle(&log).unwrap();
    let before = disk.operations();
    let position = record(0, 700).append(&log).unwrap();
    assert!(log.try_sync(position).unwrap());
    assert!(log.durable_position() > position);
    assert_eq!(disk.operations() - before, 2);
    assert!(log.try_sync(position).unwrap(), "it is durable already");
    assert_eq!(disk.operations() - before, 2);

    let position = record(0, 700).append(&log).unwrap();
    assert!(poll_now(log.wait_durable(position)).is_pending());
    assert!(!log.try_sync(position).unwrap(), "the committer was asked already");
    assert!(!log.try_sync(log.end_position()).unwrap(), "nothing is there");
    drive(&log, log.close()).unwrap();
    assert!(log.try_sync(position).unwrap());
}

/// Lone syncs over a whole file leave the preparation of files to the committer, and tell it.
#[test]
fn lone_syncs_go_on_over_a_change_of_file() {
    let (disk, log) = fresh();
    let mut synced = 0;
    for _ in 0..40 {
        let position = append_when_possible(&log, &record(0, 900));
        synced += u32::from(log.try_sync(position).unwrap());
        drive(&log, log.wait_durable(position)).unwrap();
        log.trim(0, position);
    }
    assert!(synced >= 20, "{synced} of 40");
    disk.crash(3);
    let (_, found) = recover(&disk, 2).unwrap();
    assert!(!found.is_empty());
}

fn append_when_possible(log: &Log, record: &Record) -> LogPosition {
    loop {
        match record.append(log) {
            Ok(position) => return position,
            Err(Error::Full { .. }) => settle(log).unwrap(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_change_of_file_costs_two_syncs_and_a_header() {
    let (disk, log) = fresh();
    append_durable(&log, &record(0, 7600));
    settle(&log).unwrap();
    let (before, switches) = (disk.operations(), log.counters().switches);
    let second = record(0, 7600).append(&log).unwrap();
    let done = log.wait_durable(second);
    log.commit_once().unwrap();
    assert_eq!(log.counters().switches, switches + 1);
    // Header write and sync, record write; then the preparation with which the commit ended.
    assert!(disk.operations() - before <= 3 + 4, "{}", disk.operations() - before);
    drive(&log, done).unwrap();
}

#[test]
fn an_idle_log_does_nothing() {
    let (disk, log) = fresh();
    append_durable(&log, &record(0, 10));
    settle(&log).unwrap();
    let before = disk.operations();
    assert_eq!(log.commit_once().unwrap(), Progress::Idle);
    assert_eq!(disk.operations(), before);
}

#[test]
fn it_is_full_at_its_cap_and_has_room_again_after_a_trim() {
    let (disk, log) = fresh();
    let positions = fill(&log, 1);
    let files = small().cap_bytes / small().file_bytes;
    assert_eq!(disk.list().unwrap().len() as u64, files, "the cap is on files too");
    assert!(log.used_bytes() > log.cap_bytes() - small().file_bytes);
    let full = record(1, 3000).append(&log).unwrap_err();
    assert!(matches!(full, Error::Full { reason: FullReason::Files }), "{full}");
    assert_eq!(full.kind(), ErrorKind::Full);

    log.trim(1, positions[positions.len() / 2]);
    let (_, ()) = ((), drive(&log, log.wait_room(3000).unwrap()).unwrap());
    append_durable(&log, &record(1, 3000));
    assert_eq!(disk.list().unwrap().len() as u64, files, "files are used again");
}

#[test]
fn a_full_disk_is_a_full_log_until_it_has_room_again() {
    let (disk, log) = fresh();
    disk.set_full(true);
    let positions = fill(&log, 1);
    assert_eq!(disk.list().unwrap().len(), 2, "the present file and the next were there already");
    drive(&log, log.wait_durable(*positions.last().unwrap())).unwrap();
    let operations = disk.operations();
    settle(&log).unwrap();
    assert_eq!(disk.operations(), operations, "it does not go on trying by itself");
    disk.set_full(false);
    drive(&log, log.wait_room(3000).unwrap()).unwrap();
    append_durable(&log, &record(1, 3000));
    assert!(fill(&log, 1).len() > positions.len());
}

#[test]
fn a_full_disk_needs_no_more_than_what_a_trim_gives_back() {
    let (disk, log) = fresh();
    disk.set_full(true);
    for _ in 0..50 {
        let position = drive(&log, log.append_waiting(1, 0, &[&[1; 3000]])).unwrap().position;
        drive(&log, log.wait_durable(position)).unwrap();
        log.trim(1, LogPosition::MAX);
    }
    assert_eq!(disk.list().unwrap().len(), 2);
}

#[test]
fn one_stuck_group_pins_only_the_files_that_hold_its_records() {
    let (_disk, log) = fresh();
    let stuck = append_durable(&log, &record(7, 100));
    let mut cycled = 0;
    for _ in 0..200 {
        let position = drive(&log, log.append_waiting(1, 0, &[&[1; 3000]])).unwrap().position;
        drive(&log, log.wait_durable(position)).unwrap();
        log.trim(1, position);
        cycled += 1;
    }
    assert_eq!(cycled, 200, "50 times the log's cap went through");
    let mut buf = [0; 100];
    assert_eq!(log.read(stuck, 0, &mut buf).unwrap(), ReadOutcome::Read);
    assert_eq!(buf, [7; 100]);
}

#[test]
fn files_in_the_middle_may_be_gone_at_recovery() {
    let (disk, log) = fresh();
    let oldest = append_durable(&log, &record(7, 100));
    let mut newest = oldest;
    for _ in 0..100 {
        newest = drive(&log, log.append_waiting(1, 0, &[&[1; 3000]])).unwrap().position;
        drive(&log, log.wait_durable(newest)).unwrap();
        log.trim(1, newest);
    }
    disk.crash(5);
    let (log, found) = recover(&disk, 2).unwrap();
    assert_eq!(found.first().map(|(position, _)| *position), Some(oldest));
    assert_eq!(found.last().map(|(position, _)| *position), Some(newest));
    assert!(found.len() < 20, "the middle is gone: {}", found.len());
    log.trim(1, newest);
    log.trim(7, LogPosition::MAX);
    assert!(matches!(log.read_verified(oldest), Ok(Verified::Recycled)));
}

#[test]
fn a_trim_lets_go_of_what_was_appended_and_no_more() {
    let (disk, log) = fresh();
    append_durable(&log, &record(1, 3000));
    log.trim(1, LogPosition::MAX);
    let later = append_durable(&log, &record(1, 3000));
    log.trim(1, later);
    fill(&log, 2);
    let mut buf = [0; 3000];
    assert_eq!(log.read(later, 0, &mut buf).unwrap(), ReadOutcome::Read);
    disk.crash(1);
    let (_, found) = recover(&disk, 3).unwrap();
    assert!(found.iter().any(|(position, _)| *position == later));
}

#[test]
fn a_trim_during_recovery_lets_go_of_nothing_that_was_not_read_yet() {
    let (disk, log) = fresh();
    let positions = fill(&log, 1);
    drive(&log, log.close()).unwrap();
    disk.kill();
    let (log, mut recovery) = open_with(&disk, small(), 2).unwrap();
    let first = recovery.next().unwrap().unwrap().position;
    log.trim(1, first);
    log.trim(2, LogPosition::MAX);
    let mut found = vec![first];
    let mut buf = [0; 3000];
    while let Some(record) = recovery.next().unwrap() {
        found.push(record.position);
    }
    assert_eq!(found, positions);
    for position in positions {
        assert_eq!(log.read(position, 0, &mut buf).unwrap(), ReadOutcome::Read);
    }
}

#[test]
fn reads_say_when_a_file_was_recycled() {
    let (_disk, log) = fresh();
    let first = append_durable(&log, &record(1, 3000));
    let mut buf = [0; 8];
    for _ in 0..6 {
        append_durable(&log, &record(1, 3000));
    }
    assert_eq!(log.read(first, 2, &mut buf).unwrap(), ReadOutcome::Read);
    log.trim(1, LogPosition::MAX);
    assert_eq!(log.read(first, 2, &mut buf).unwrap(), ReadOutcome::Recycled);
    assert_eq!(log.read_verified(first).unwrap(), Verified::Recycled);
    let nowhere = log.read(log.end_position(), 0, &mut buf).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Invalid);
}

#[test]
fn records_are_read_from_memory_before_they_are_written() {
    let (disk, log) = fresh();
    let before = disk.operations();
    let positions: Vec<_> = (1..6).map(|group| record(group, 2000).append(&log).unwrap()).collect();
    for (group, position) in (1..6).zip(&positions) {
        let mut buf = [0; 500];
        assert_eq!(log.read(*position, 1500, &mut buf).unwrap(), ReadOutcome::Read);
        assert_eq!(buf, [group; 500]);
        let Verified::Record(whole) = log.read_verified(*position).unwrap() else { panic!() };
        assert_eq!(whole.payload, [group; 2000]);
    }
    assert_eq!(disk.operations(), before, "nothing was written for it");
}

#[test]
fn memory_is_bounded_by_the_buffers() {
    let (_disk, log) = fresh();
    let mut bytes = 0;
    let full = loop {
        match record(0, 1000).append(&log) {
            Ok(_) => bytes += 1536,
            Err(error) => break error,
        }
    };
    // The change of file comes first here, so either limit may hold; never more than the buffers.
    assert_eq!(full.kind(), ErrorKind::Full);
    assert!(bytes <= small().buffers * small().buffer_bytes);
    let room = log.wait_room(1000).unwrap();
    settle(&log).unwrap();
    assert!(poll_now(room).is_ready());
}

#[test]
fn a_failed_operation_closes_the_log_and_its_cause_is_kept() {
    for (operations, what) in [(0, "write"), (1, "fdatasync")] {
        let (disk, log) = fresh();
        let durable = append_durable(&log, &record(0, 10));
        settle(&log).unwrap();
        let lost = record(0, 700).append(&log).unwrap();
        let waiting = log.wait_durable(lost);
        let room = log.wait_room(1).unwrap();
        disk.fail_after(operations, 3);
        let error = drive(&log, waiting).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.to_string().contains(what), "{error}");
        let begun = disk.operations();
        for refused in [
            log.append(0, 0, &[]).map(drop).unwrap_err(),
            drive(&log, room).unwrap_err(),
            drive(&log, log.wait_durable(lost)).unwrap_err(),
            drive(&log, log.close()).unwrap_err(),
            log.commit_once().map(drop).unwrap_err(),
        ] {
            assert_eq!(refused.to_string(), error.to_string());
        }
        assert_eq!(disk.operations(), begun, "nothing is written any more");
        drive(&log, log.wait_durable(durable)).unwrap();
        let mut buf = [0; 700];
        let _ = log.read(lost, 0, &mut buf).unwrap();
        assert_eq!(log.read(durable, 0, &mut buf[..10]).unwrap(), ReadOutcome::Read);
    }
}

#[test]
fn dropped_waiters_are_forgotten_and_wrong_positions_refused() {
    let (_disk, log) = fresh();
    let position = record(0, 10).append(&log).unwrap();
    assert!(poll_now(log.wait_durable(position)).is_pending());
    let wrong = drive(&log, log.wait_durable(log.end_position())).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
    drive(&log, log.wait_durable(position)).unwrap();
}

#[test]
fn too_long_a_record_and_bad_settings_are_refused() {
    let (_disk, log) = fresh();
    let longest = small().max_payload_bytes();
    append_durable(&log, &record(0, longest));
    assert!(matches!(record(0, longest + 1).append(&log), Err(Error::TooLong { .. })));
    assert!(matches!(log.wait_room(longest + 1), Err(Error::TooLong { .. })));
    for bad in [
        Settings { file_bytes: 1000, ..small() },
        Settings { cap_bytes: 16 << 10, ..small() },
        Settings { cap_bytes: u64::MAX, ..small() },
        Settings { buffers: 1, ..small() },
        Settings { buffer_bytes: 0, ..small() },
        Settings { fill_piece_bytes: 0, ..small() },
    ] {
        let error = open_with(&SimDisk::new(), bad.clone(), 1).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad:?}");
    }
    assert!(Settings::default().max_payload_bytes() >= 1 << 20);
}

#[test]
fn settings_may_change_between_openings() {
    let (disk, log) = fresh();
    let positions = fill(&log, 1);
    drive(&log, log.close()).unwrap();
    disk.kill();
    let larger = Settings { file_bytes: 32 << 10, cap_bytes: 64 << 10, ..small() };
    let (log, mut recovery) = open_with(&disk, larger, 2).unwrap();
    let mut found = Vec::new();
    while let Some(record) = recovery.next().unwrap() {
        found.push(record.position);
    }
    assert_eq!(found, positions);
    assert!(matches!(record(1, 10).append(&log), Err(Error::Full { .. })), "it is over its cap");
    assert!(poll_now(log.wait_room(10).unwrap()).is_pending());
    log.trim(1, LogPosition::MAX);
    append_durable(&log, &record(1, 5000));
    drive(&log, log.close()).unwrap();
    disk.kill();
    drop(recover(&disk, 4).unwrap());
    disk.kill();
    let smaller = Settings { cap_bytes: 32 << 10, ..small() };
    let (log, mut recovery) = open_with(&disk, smaller, 3).unwrap();
    while recovery.next().unwrap().is_some() {}
    // The next header, after a change of file, lists the files that are left.
    for _ in 0..4 {
        log.trim(1, LogPosition::MAX);
        append_durable(&log, &record(1, 5000));
    }
    drive(&log, log.close()).unwrap();
    disk.kill();
    // An opening removes the free files that the cap has no room for.
    let (_, mut recovery) =
        open_with(&disk, Settings { cap_bytes: 32 << 10, ..small() }, 5).unwrap();
    while recovery.next().unwrap().is_some() {}
    assert_eq!(disk.list().unwrap().len(), 2, "what the cap has no room for is removed");
}

#[test]
fn a_disk_in_memory_serves_while_the_process_lives() {
    let disk = std::sync::Arc::new(MemDisk::new());
    let (log, _) = Log::open(disk.clone(), small(), crate::common::env(1)).unwrap();
    let positions = fill(&log, 3);
    drive(&log, log.close()).unwrap();
    let (_, mut recovery) = Log::open(disk, small(), crate::common::env(2)).unwrap();
    let mut found = 0;
    while recovery.next().unwrap().is_some() {
        found += 1;
    }
    assert_eq!(found, positions.len());
}

/// A group's records are found among others', over several files, while the log goes on.
#[test]
fn a_groups_records_are_read_while_the_log_is_in_use() {
    let (_disk, log) = fresh();
    let mut wanted = Vec::new();
    for i in 0..5u8 {
        append_durable(&log, &record(1, 3000));
        let mine = Record { group: 2, kind: 7, payload: vec![i; 1000 + usize::from(i)] };
        wanted.push((append_durable(&log, &mine), mine.payload));
    }
    settle(&log).unwrap();
    let mut records = log.group_records(2);
    for (position, payload) in &wanted {
        let found = records.next().unwrap().expect("one more");
        assert_eq!((found.position, found.group, found.kind), (*position, 2, 7));
        assert_eq!(found.payload, payload);
    }
    assert!(records.next().unwrap().is_none());
    let files: std::collections::BTreeSet<u64> =
        wanted.iter().map(|(position, _)| position.as_u64() >> 32).collect();
    assert!(files.len() > 1, "all of it is in one file");
    assert!(log.group_records(3).next().unwrap().is_none());
}

/// After a close, unneeded records are gone and needed ones are there, wherever the machine dies.
#[test]
fn a_log_of_which_nothing_is_needed_is_closed_empty() {
    for files in [false, true] {
        for is_needed in [false, true] {
            for stop in 0.. {
                let (disk, log) = fresh();
                if files {
                    // Several files, and room made in them.
                    let positions = fill(&log, 1);
                    log.trim(1, LogPosition::from_u64(positions[positions.len() - 1].as_u64() + 1));
                    settle(&log).unwrap();
                }
                append_durable(&log, &record(2, 700));
                append_durable(&log, &record(3, 700));
                log.trim(2, LogPosition::MAX);
                if !is_needed {
                    log.trim(3, LogPosition::MAX);
                }
                disk.stop_after(stop);
                let closed = drive(&log, log.close()).is_ok();
                drop(log);
                disk.crash(stop);
                let (_, records) = recover(&disk, stop + 10).unwrap();
                let has = |group| records.iter().any(|(_, found)| found.group == group);
                assert!(!is_needed || has(3), "what is needed is lost after {stop} operations");
                if closed {
                    assert_eq!(records.is_empty(), !is_needed, "after {stop} operations");
                    break;
                }
            }
        }
    }
}
