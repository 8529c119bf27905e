//! Recovery of changed bytes. Damage to a place that was surely durable is an error that names it.
//! At the very end it can't be told from a torn write.
use crate::common::{Record, append_durable, drive, file_of, open, recover, settle, small};
use skerry_log::{Disk, Error, ErrorKind, Log, LogPosition, RECORDS_START, Verified, sim::SimDisk};

fn record(group: u32, fill: u8, bytes: usize) -> Record {
    Record { group, kind: 3, payload: vec![fill; bytes] }
}

/// A fresh log with this many durable records of about 1 KiB each, the log dropped.
fn written(count: u8) -> (SimDisk, Vec<LogPosition>) {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    let positions = (0..count).map(|n| append_durable(&log, &record(0, n, 900))).collect();
    disk.kill();
    (disk, positions)
}

fn positions_of(disk: &SimDisk) -> Vec<LogPosition> {
    recover(disk, 2).unwrap().1.into_iter().map(|(position, _)| position).collect()
}

/// Asserts that opening fails, closed, and names this place.
fn assert_damaged_at(disk: &SimDisk, name: &str, offset: u64, what: &str) {
    let error = recover(disk, 3).map(|(_, found)| found).expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
    let Error::Damaged { file, offset: at, .. } = &error else { panic!("{what}: {error}") };
    assert_eq!((file.as_str(), *at), (name, offset), "{what}: {error}");
}

#[test]
fn a_flipped_bit_that_a_later_record_covers_is_damage() {
    let (disk, positions) = written(4);
    let (name, offset) = file_of(&disk, positions[1]);
    // Header and payload of the record; a change of its padding harms nothing.
    for at in 0..(64 + 900) {
        disk.kill();
        disk.flip_bit(&name, offset + at, (at % 8) as u8).unwrap();
        assert_damaged_at(&disk, &name, offset, &format!("byte {at} of the record"));
        disk.flip_bit(&name, offset + at, (at % 8) as u8).unwrap();
    }
    assert_eq!(positions_of(&disk), positions, "with all bits back, all is well");
}

#[test]
fn a_flipped_bit_in_the_last_record_ends_the_log_there() {
    let (disk, positions) = written(4);
    let (name, offset) = file_of(&disk, positions[3]);
    disk.flip_bit(&name, offset + 70, 1).unwrap();
    assert_eq!(positions_of(&disk), positions[..3]);
    // And the record stays away, even if the bit comes back.
    disk.kill();
    disk.flip_bit(&name, offset + 70, 1).unwrap();
    assert_eq!(positions_of(&disk), positions[..3]);
}

#[test]
fn a_mark_covers_the_last_record() {
    for close in [false, true] {
        let disk = SimDisk::new();
        let (log, _) = recover(&disk, 1).unwrap();
        let last = append_durable(&log, &record(0, 1, 900));
        if close {
            drive(&log, log.close()).unwrap();
        } else {
            log.note_quiet();
            settle(&log).unwrap();
        }
        disk.kill();
        let (name, offset) = file_of(&disk, last);
        disk.flip_bit(&name, offset + 100, 0).unwrap();
        assert_damaged_at(&disk, &name, offset, "marked");
    }
}

#[test]
fn being_quiet_costs_one_mark_and_no_more() {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    record(0, 1, 100).append(&log).unwrap();
    log.note_quiet();
    settle(&log).unwrap();
    assert_eq!(log.durable_position(), log.end_position());
    let (operations, end) = (disk.operations(), log.end_position());
    for _ in 0..3 {
        log.note_quiet();
        settle(&log).unwrap();
    }
    assert_eq!((disk.operations(), log.end_position()), (operations, end));
    assert_eq!(log.counters().records, 1, "a mark is no record of the caller");
}

/// A log of several files; positions by file.
fn several_files() -> (SimDisk, Vec<LogPosition>) {
    let (disk, positions) = written(18);
    let files: std::collections::BTreeSet<_> =
        positions.iter().map(|position| position.as_u64() >> 32).collect();
    assert!(files.len() >= 3);
    (disk, positions)
}

#[test]
fn damage_in_a_file_that_was_complete_is_found_even_at_its_end() {
    let (disk, positions) = several_files();
    let boundary = positions.windows(2).find(|p| p[0].as_u64() >> 32 != p[1].as_u64() >> 32);
    let last_of_first = boundary.unwrap()[0];
    let (name, offset) = file_of(&disk, last_of_first);
    disk.flip_bit(&name, offset + 500, 4).unwrap();
    assert_damaged_at(&disk, &name, offset, "last record of a complete file");
    let (_log, mut recovery) = open(&disk, 4).unwrap();
    while recovery.next().is_ok_and(|record| record.is_some()) {}
    let (log, _) = open(&disk, 5).unwrap();
    assert!(matches!(log.append(0, 0, &[]), Err(Error::Recovering)), "it takes nothing");
}

#[test]
fn a_damaged_header_of_any_live_file_is_found() {
    let (disk, positions) = several_files();
    let mut names: Vec<_> = positions.iter().map(|&p| file_of(&disk, p).0).collect();
    names.dedup();
    for name in &names {
        disk.flip_bit(name, 20, 0).unwrap();
        let error = recover(&disk, 6).map(drop).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {error}");
        disk.flip_bit(name, 20, 0).unwrap();
    }
    assert_eq!(positions_of(&disk), positions);
}

#[test]
fn a_missing_live_file_is_found() {
    let (disk, positions) = several_files();
    let (name, _) = file_of(&disk, positions[0]);
    disk.remove(&name).unwrap();
    let error = recover(&disk, 6).map(drop).expect_err("a file is gone");
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

#[test]
fn a_file_of_another_log_or_of_a_newer_format_is_refused() {
    let (disk, positions) = written(2);
    let (other, _) = written(1);
    let foreign = {
        let (log, _) = recover(&other, 77).unwrap();
        append_durable(&log, &record(0, 0, 10));
        SimDisk::new()
    };
    let (log, _) = open(&foreign, 1234).unwrap();
    drop(log);
    disk.install("slot-000009.log", &foreign.contents("slot-000000.log").unwrap());
    let error = recover(&disk, 1).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    disk.remove("slot-000009.log").unwrap();

    let (name, _) = file_of(&disk, positions[0]);
    let mut bytes = disk.contents(&name).unwrap();
    for (version, said) in [
        (skerry_log::FILE_FORMAT_VERSION as u8 + 1, "a newer program"),
        (skerry_log::FILE_FORMAT_VERSION as u8 - 1, "an older program"),
    ] {
        bytes[8] = version;
        let crc = crc32c::crc32c(&bytes[..4092]).to_le_bytes();
        bytes[4092..4096].copy_from_slice(&crc);
        disk.install(&name, &bytes);
        let error = recover(&disk, 1).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

/// Everything in the file of `position` is stale: its records are trimmed, and it was used again.
#[test]
fn records_of_an_earlier_use_never_come_back() {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    let mut reused = 0;
    for turn in 0..60_u8 {
        let position = append_durable(&log, &record(0, turn, 2500));
        log.trim(0, position);
        settle(&log).unwrap();
        let stale_bytes = stale_records(&disk, position);
        reused += u32::from(stale_bytes > 0);
        // Opens a copy of the present medium.
        let copy = SimDisk::new();
        for name in disk.list().unwrap() {
            copy.install(&name, &disk.contents(&name).unwrap());
        }
        let found = positions_of(&copy);
        assert_eq!(found.last(), Some(&position));
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(found.len() <= 15, "no more than the live files hold: {}", found.len());
    }
    assert!(reused > 20, "only {reused} looks at a file with stale records behind the new ones");
    assert!(disk.list().unwrap().len() as u64 <= small().cap_bytes / small().file_bytes);
}

/// Number of records of earlier uses behind `position` in its file.
fn stale_records(disk: &SimDisk, position: LogPosition) -> usize {
    let (name, offset) = file_of(disk, position);
    let bytes = disk.contents(&name).unwrap();
    let sectors = bytes[offset as usize..].chunks(512).skip(1);
    sectors.filter(|sector| sector.starts_with(b"SKLR")).count()
}

#[test]
fn a_stale_record_behind_a_torn_one_is_left_for_good() {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    let first = append_durable(&log, &record(0, 1, 900));
    // Two records in one write, of which the first is torn: the second is whole.
    let torn = record(0, 2, 900).append(&log).unwrap();
    let behind = record(0, 3, 900).append(&log).unwrap();
    log.commit_once().unwrap();
    let (name, offset) = file_of(&disk, torn);
    disk.flip_bit(&name, offset + 200, 0).unwrap();
    for _ in 0..3 {
        disk.kill();
        let (_, found) = recover(&disk, 2).unwrap();
        let positions: Vec<_> = found.into_iter().map(|(position, _)| position).collect();
        assert_eq!(positions, [first], "nothing at {behind}");
    }
    // Even when the torn place heals.
    disk.flip_bit(&name, offset + 200, 0).unwrap();
    assert_eq!(positions_of(&disk), [first]);
}

#[test]
fn a_verified_read_sees_what_a_plain_one_does_not_look_for() {
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    let position = append_durable(&log, &record(5, 1, 900));
    assert!(matches!(log.read_verified(position), Ok(Verified::Record(found)) if found.group == 5));
    let (name, offset) = file_of(&disk, position);
    for at in [3, 30, 64, 963] {
        disk.flip_bit(&name, offset + at, 2).unwrap();
        let error = log.read_verified(position).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}: {error}");
        let error = log.window().read(position).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at} in a window: {error}");
        disk.flip_bit(&name, offset + at, 2).unwrap();
    }
    assert!(u64::from(RECORDS_START) <= offset);
    let _: &Log = &log;
}

#[test]
fn a_damaged_log_is_left_as_it_is() {
    let (disk, positions) = several_files();
    let (name, offset) = file_of(&disk, positions[2]);
    disk.flip_bit(&name, offset + 300, 4).unwrap();
    let images = |disk: &SimDisk| -> Vec<_> {
        disk.list().unwrap().iter().map(|name| disk.contents(name).unwrap()).collect()
    };
    let before: Vec<_> = images(&disk).into_iter().filter(|bytes| !bytes.is_empty()).collect();
    for _ in 0..3 {
        assert_damaged_at(&disk, &name, offset, "an old record");
    }
    let after: Vec<_> = images(&disk).into_iter().filter(|bytes| !bytes.is_empty()).collect();
    assert!(before == after);
    disk.flip_bit(&name, offset + 300, 4).unwrap();
    assert_eq!(positions_of(&disk), positions);
}

#[test]
fn a_whole_record_with_the_wrong_number_is_damage() {
    let (disk, positions) = written(4);
    let (name, offset) = file_of(&disk, positions[1]);
    let mut bytes = disk.contents(&name).unwrap();
    let header = &mut bytes[offset as usize..offset as usize + 64];
    header[24] += 1;
    let crc = crc32c::crc32c(&header[..60]).to_le_bytes();
    header[60..].copy_from_slice(&crc);
    disk.install(&name, &bytes);
    assert_damaged_at(&disk, &name, offset, "renumbered");
}

/// Two copies of a log went on apart; then a file of one came to the other.
#[test]
fn a_file_of_a_log_that_went_another_way_is_damage() {
    let (disk, _) = written(2);
    let other = SimDisk::new();
    for name in disk.list().unwrap() {
        other.install(&name, &disk.contents(&name).unwrap());
    }
    let go_on = |disk: &SimDisk, seed| {
        let (log, _) = recover(disk, seed).unwrap();
        append_durable(&log, &record(0, 9, 900))
    };
    let (ours, theirs) = (go_on(&disk, 50), go_on(&other, 51));
    assert_eq!(ours, theirs);
    disk.kill();
    drop(recover(&disk, 52).unwrap());
    disk.kill();
    let (name, _) = file_of(&disk, ours);
    disk.install(&name, &other.contents(&file_of(&other, theirs).0).unwrap());
    assert_damaged_at(&disk, &name, 0, "a file of the other");
}

/// A flipped byte in a record hides only the pieces that it touches from a reader.
#[test]
fn what_is_read_is_verified() {
    const FIRST: u64 = 3000;
    let disk = SimDisk::new();
    let (log, _) = recover(&disk, 1).unwrap();
    let payload: Vec<u8> = (0..FIRST as usize + 4096).map(|n| (n / 7) as u8).collect();
    let position = append_durable(&log, &Record { group: 0, kind: 3, payload: payload.clone() });
    append_durable(&log, &record(0, 1, 900));
    let (name, offset) = file_of(&disk, position);
    let payload_at = 64 + 2 * 4;
    let pieces = [0..FIRST, FIRST..payload.len() as u64];
    for at in [0, 5, 48, 63, 64, 71, 72, 72 + FIRST - 1, 72 + FIRST, 72 + FIRST + 4095] {
        disk.flip_bit(&name, offset + at, 3).unwrap();
        for piece in &pieces {
            let bytes = &payload[piece.start as usize..piece.end as usize];
            let mut buf = vec![0; bytes.len()];
            let read = log.read(position, piece.start as u32, &mut buf);
            let is_touched = at < payload_at || piece.contains(&(at - payload_at));
            match read {
                Ok(_) => {
                    assert!(!is_touched && buf == bytes, "byte {at} reached a reader of {piece:?}")
                }
                Err(error) => {
                    assert!(is_touched, "byte {at}, {piece:?}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Damaged);
                }
            }
        }
        disk.flip_bit(&name, offset + at, 3).unwrap();
    }
    let Verified::Record(read) = log.read_verified(position).unwrap() else { panic!("recycled") };
    assert_eq!(read.payload, payload);
}
