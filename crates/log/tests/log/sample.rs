//! The sample of format 2: it must stay readable, and the code must go on writing the very same
//! bytes. If this fails, the format has changed. Then raise its version, keep the old sample, and
//! add a new one (`SKERRY_WRITE_SAMPLE=1`) and its text in the docs.
use std::{fmt::Write, fs, path::PathBuf};

use crate::common::{Record, append_durable, drive, recover, settle};
use skerry_log::{
    Disk, FILE_FORMAT_VERSION, LogPosition, RECORD_FORMAT_VERSION,
    sim::{SimDisk, SimRng},
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/log/v2")
}

/// A history with everything that the format knows. It has reused files, a middle file gone, marks,
/// a torn end that a later use closed, empty and long payloads.
fn history() -> SimDisk {
    let disk = SimDisk::new();
    let mut rng = SimRng::new(1);
    let (log, _) = recover(&disk, 1).unwrap();
    append_durable(&log, &Record { group: 7, kind: 255, payload: b"the oldest".to_vec() });
    for _ in 0..20 {
        let record = Record { group: 1, ..Record::random(&mut rng, 3000) };
        let position = append_durable(&log, &record);
        log.trim(1, position);
        settle(&log).unwrap();
    }
    log.note_quiet();
    settle(&log).unwrap();
    append_durable(&log, &Record { group: 2, kind: 0, payload: Vec::new() });
    Record { group: 2, kind: 1, payload: vec![1; 2000] }.append(&log).unwrap();
    drop(log);
    disk.crash(6);
    let (log, _) = recover(&disk, 2).unwrap();
    append_durable(&log, &Record { group: u32::MAX, kind: 9, payload: vec![0x5a; 4136] });
    drive(&log, log.close()).unwrap();
    disk
}

/// One line a record.
fn listing(records: &[(LogPosition, Record)]) -> String {
    let mut text = String::from("# position group kind payload_bytes payload_crc32c\n");
    for (position, Record { group, kind, payload }) in records {
        let crc = crc32c::crc32c(payload);
        writeln!(text, "{position} {group} {kind} {} {crc:08x}", payload.len()).unwrap();
    }
    text
}

#[test]
fn the_sample_of_version_2_still_reads() {
    let disk = SimDisk::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            disk.install(&name, &fs::read(&path).unwrap());
        }
    }
    let (_, found) = recover(&disk, 3).unwrap();
    let expected = fs::read_to_string(directory().join("records.txt")).unwrap();
    assert_eq!(listing(&found), expected);
    assert!(found.len() >= 4);
}

#[test]
fn the_code_still_writes_the_bytes_of_its_version() {
    assert_eq!((FILE_FORMAT_VERSION, RECORD_FORMAT_VERSION), (2, 2), "add the new sample's test");
    let disk = history();
    if std::env::var_os("SKERRY_WRITE_SAMPLE").is_some() {
        write_sample(&disk);
    }
    for name in disk.list().unwrap() {
        let sample = fs::read(directory().join(&name)).unwrap();
        assert!(disk.contents(&name).unwrap() == sample, "{name} is written otherwise");
    }
}

fn write_sample(disk: &SimDisk) {
    fs::create_dir_all(directory()).unwrap();
    for name in disk.list().unwrap() {
        fs::write(directory().join(&name), disk.contents(&name).unwrap()).unwrap();
    }
    let (_, found) = recover(disk, 3).unwrap();
    fs::write(directory().join("records.txt"), listing(&found)).unwrap();
    // The recovery has begun a new use: the sample is from before that.
    panic!("sample written to {}: run again without SKERRY_WRITE_SAMPLE", directory().display());
}
