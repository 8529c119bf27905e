//! A note that every start writes, in a file that keeps its room: a full disk does not keep a node
//! from starting.
//!
//! The file has two slots, each with a note and its number. Writing overwrites the older note, so
//! that a crash leaves the newer one. `docs/format.md` ("Notes of a node") has the layout.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_api::Result;

use crate::home::layout::failed;
use crate::home::note;

/// Bytes of a slot: disks and file systems write it as one.
const SLOT_BYTES: usize = 4096;
/// Slots of a file.
const SLOTS: usize = 2;

/// Content of a slot.
#[derive(Serialize, Deserialize)]
struct Numbered<T> {
    /// The higher number is the newer note. A file with a note alone, from before there were slots,
    /// has none.
    #[serde(default)]
    sequence: u64,
    #[serde(flatten)]
    note: T,
}

/// Reads the newer note, if there is a file.
///
/// # Errors
/// `Corrupt` if neither slot has a whole note; `Unavailable` if the file can't be read.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    Ok(newest(path)?.map(|(_, found)| found.note))
}

/// Overwrites the older note, for good.
///
/// # Errors
/// `Unavailable` if the disk refuses it; `Corrupt` if the file is damaged.
pub(crate) fn write<T: Serialize>(path: &Path, note: &T) -> Result<()> {
    let (at, sequence) = match newest::<serde::de::IgnoredAny>(path)? {
        Some((slot, found)) => ((slot + 1) % SLOTS, found.sequence + 1),
        None => (0, 1),
    };
    let written = note::encode(&Numbered { sequence, note }).and_then(|text| {
        let mut slot = text.into_bytes();
        if slot.len() > SLOT_BYTES {
            return Err(Io::FileTooLarge.into());
        }
        slot.resize(SLOT_BYTES, 0);
        match open(path)? {
            Some(file) => {
                file.write_all_at(&slot, (at * SLOT_BYTES) as u64)?;
                file.sync_data()
            }
            None => {
                slot.resize(SLOTS * SLOT_BYTES, 0);
                note::replace(path, &slot)
            }
        }
    });
    written.map_err(|error| failed("can't be written", path, &error))
}

/// The newer note and its slot.
fn newest<T: DeserializeOwned>(path: &Path) -> Result<Option<(usize, Numbered<T>)>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == Io::NotFound => return Ok(None),
        bytes => bytes.map_err(|error| failed("can't be read", path, &error))?,
    };
    let slots = bytes.chunks(SLOT_BYTES).take(SLOTS).map(|slot| decode::<T>(path, slot));
    let whole = slots.enumerate().filter_map(|(at, found)| Some((at, found.ok()?)));
    match whole.max_by_key(|(_, found)| found.sequence) {
        Some(newest) => Ok(Some(newest)),
        // Reports the damage.
        None => decode(path, &bytes[..bytes.len().min(SLOT_BYTES)]).map(|found| Some((0, found))),
    }
}

fn decode<T: DeserializeOwned>(path: &Path, slot: &[u8]) -> Result<Numbered<T>> {
    let end = slot.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = std::str::from_utf8(&slot[..end]);
    note::decode(path, text.map_err(|_| note::corrupt(path, "is no text"))?)
}

/// Opens the file, if it has its slots.
fn open(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => {
            let is_whole = file.metadata()?.len() == (SLOTS * SLOT_BYTES) as u64;
            Ok(is_whole.then_some(file))
        }
        Err(error) if error.kind() == Io::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skerry_api::ErrorKind;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    fn note(number: u32) -> Note {
        Note { text: format!("note {number}") }
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note");
        (dir, path)
    }

    #[test]
    fn the_last_note_is_read_and_the_file_stays_as_it_was_made() {
        let (_dir, path) = file();
        assert_eq!(read::<Note>(&path).expect("nothing is there"), None);
        write(&path, &note(0)).expect("written");
        let made = fs::metadata(&path).expect("there");
        for number in 1..5 {
            write(&path, &note(number)).expect("written");
            assert_eq!(read(&path).expect("read"), Some(note(number)));
        }
        let found = fs::metadata(&path).expect("there");
        assert_eq!((found.ino(), found.len(), found.blocks()), (made.ino(), 8192, made.blocks()));
    }

    /// Wherever a write was torn, or a slot was damaged later, the note before is read.
    #[test]
    fn a_torn_write_leaves_the_note_before() {
        let (_dir, path) = file();
        for number in 0..3 {
            write(&path, &note(number)).expect("written");
            let before = fs::read(&path).expect("there");
            write(&path, &note(number + 1)).expect("written");
            let after = fs::read(&path).expect("there");
            let changed: Vec<_> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
            for end in &changed {
                let torn = [&after[..*end], &before[*end..]].concat();
                fs::write(&path, torn).expect("written");
                assert_eq!(read(&path).expect("read"), Some(note(number)), "torn at {end}");
            }
            fs::write(&path, before).expect("written");
        }
    }

    #[test]
    fn a_note_alone_is_read_and_gets_its_slots() {
        let (_dir, path) = file();
        note::write(&path, &note(1)).expect("written");
        assert_eq!(read(&path).expect("read"), Some(note(1)));
        for number in 2..5 {
            write(&path, &note(number)).expect("written");
            assert_eq!(read(&path).expect("read"), Some(note(number)));
        }
        assert_eq!(fs::metadata(&path).expect("there").len(), 8192);
    }

    #[test]
    fn a_file_without_a_note_is_damaged() {
        let (_dir, path) = file();
        for bytes in [&[][..], &[0; 8192], &[0xff; 8192], b"version = 1\n"] {
            fs::write(&path, bytes).expect("written");
            assert_eq!(read::<Note>(&path).expect_err("damaged").kind(), ErrorKind::Corrupt);
            assert_eq!(write(&path, &note(1)).expect_err("damaged").kind(), ErrorKind::Corrupt);
        }
    }
}
