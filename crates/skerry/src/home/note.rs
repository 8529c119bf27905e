//! The small files with a node's notes: TOML with a version and a checksum, written whole or not at
//! all.
//!
//! `docs/format.md` ("Notes of a node") has their fields. A note is never changed in place here.
//! [`crate::home::slots`] does that with the note that every start writes.

use std::fs;
use std::io::{self, ErrorKind as Io, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::wire::hash16;

use crate::home::layout::failed;

const VERSION: u32 = 1;
/// Beginning of the last line.
const CHECKSUM: &str = "checksum = ";

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    note: T,
}

/// The part of a note that every version has.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// Reads a note, if there is one.
///
/// # Errors
/// `Corrupt` if it is damaged, or a newer Skerry's; `Unavailable` if it can't be read.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == Io::NotFound => return Ok(None),
        Err(error) if error.kind() == Io::InvalidData => return Err(corrupt(path, "is no text")),
        text => text.map_err(|error| failed("can't be read", path, &error))?,
    };
    decode(path, &text).map(Some)
}

/// Reads a note from its text. `path` is its place, for people.
///
/// # Errors
/// `Corrupt` if it is damaged, or a newer Skerry's.
pub(crate) fn decode<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    let body = text.rfind(CHECKSUM).map(|at| text.split_at(at));
    let body = body.filter(|(body, sum)| *sum == checksum_line(body)).map(|(body, _)| body);
    let body = body.ok_or_else(|| corrupt(path, "is damaged: its checksum does not match"))?;
    let version = toml::from_str::<AnyVersion>(body).map(|any| any.version);
    if version.is_ok_and(|version| version > VERSION) {
        return Err(corrupt(path, "was written by a newer Skerry: upgrade this one"));
    }
    let read = toml::from_str::<Versioned<T>>(body);
    read.map(|read| read.note).map_err(|error| corrupt(path, &format!("is damaged: {error}")))
}

/// The text of a note.
pub(crate) fn encode<T: Serialize>(note: &T) -> io::Result<String> {
    let body = toml::to_string(&Versioned { version: VERSION, note }).map_err(io::Error::other)?;
    let checksum = checksum_line(&body);
    Ok(body + &checksum)
}

/// Writes beside the file and renames, so that a crash leaves the note before or this one. An equal
/// note takes no room.
///
/// # Errors
/// `Unavailable` if the disk refuses it.
pub(crate) fn write<T: Serialize>(path: &Path, note: &T) -> Result<()> {
    let written = encode(note).and_then(|text| {
        if !fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
            return replace(path, text.as_bytes());
        }
        sync_name(path)
    });
    written.map_err(|error| failed("can't be written", path, &error))
}

/// Replaces the content of a file, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let beside = Path::new(&name);
    let mut file = fs::File::create(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    sync_name(path)
}

/// Makes the file's name in its directory durable.
fn sync_name(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

fn checksum_line(body: &str) -> String {
    let digits: String = hash16(body.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{CHECKSUM}\"{digits}\"\n")
}

/// Adds advice to the error of an unreadable note.
pub(crate) fn advised(error: &Error, advice: &str) -> Error {
    let text = match error.kind() {
        ErrorKind::Corrupt => format!("{error}; {advice}"),
        _ => error.to_string(),
    };
    Error::new(error.kind(), text)
}

pub(crate) fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        text: String,
        is_good: bool,
    }

    fn note() -> Note {
        Note { text: "checksum = \"x\"\n[not] a = \"table\"".to_owned(), is_good: true }
    }

    #[test]
    fn what_was_written_is_read_and_every_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note.toml");
        assert_eq!(read::<Note>(&path).expect("nothing is there"), None);
        write(&path, &note()).expect("written");
        assert_eq!(read(&path).expect("read"), Some(note()));
        let good = fs::read(&path).expect("there");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).expect("written");
            let error = read::<Note>(&path).expect_err("damaged");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "bit {bit}");
        }
    }

    #[test]
    fn a_note_that_stands_there_is_not_written_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note.toml");
        let file = || fs::metadata(&path).expect("there").ino();
        write(&path, &note()).expect("written");
        let before = file();
        write(&path, &note()).expect("there");
        assert_eq!(file(), before);
        write(&path, &Note { is_good: false, ..note() }).expect("written");
        assert_ne!(file(), before);
    }

    #[test]
    fn a_newer_note_is_refused_as_newer() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note.toml");
        let body = "version = 2\nmore = 1\n";
        fs::write(&path, format!("{body}{}", checksum_line(body))).expect("written");
        let error = read::<Note>(&path).expect_err("newer");
        assert!(error.message().contains("newer"), "{error}");
    }
}
