//! The small files that a node keeps of itself: TOML with a version and a checksum, written whole or not at all.
//!
//! `docs/format.md` ("Notes of a node") has their fields. A note is never changed in place.

use std::fs;
use std::io::{ErrorKind as Io, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skerry_api::{Error, ErrorKind, Result};
use skerry_core::wire::hash16;

use crate::layout::failed;

const VERSION: u32 = 1;
/// How the last line begins.
const CHECKSUM: &str = "checksum = ";

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    note: T,
}

/// What of a note every version has.
#[derive(Deserialize)]
struct AnyVersion {
    version: u32,
}

/// Reads a note, if there is one.
///
/// # Errors
/// `Corrupt` if it is not what was written, or a newer Skerry's; `Unavailable` if it can't be read.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == Io::NotFound => return Ok(None),
        Err(error) if error.kind() == Io::InvalidData => return Err(corrupt(path, "is no text")),
        text => text.map_err(|error| failed("can't be read", path, &error))?,
    };
    let body = text.rfind(CHECKSUM).map(|at| text.split_at(at));
    let body = body.filter(|(body, sum)| *sum == checksum_line(body)).map(|(body, _)| body);
    let body = body.ok_or_else(|| corrupt(path, "is damaged: its checksum does not match"))?;
    let version = toml::from_str::<AnyVersion>(body).map(|any| any.version);
    if version.is_ok_and(|version| version > VERSION) {
        return Err(corrupt(path, "was written by a newer Skerry: upgrade this one"));
    }
    let read = toml::from_str::<Versioned<T>>(body);
    read.map(|read| Some(read.note)).map_err(|error| corrupt(path, &format!("is damaged: {error}")))
}

/// Writes beside the file and renames, so that a crash leaves the note before or this one.
///
/// # Errors
/// `Unavailable` if the disk does not take it.
pub(crate) fn write<T: Serialize>(path: &Path, note: &T) -> Result<()> {
    let body = toml::to_string(&Versioned { version: VERSION, note });
    let written = body.map_err(std::io::Error::other).and_then(|body| {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let beside = Path::new(&name);
        let mut file = fs::File::create(beside)?;
        file.write_all(body.as_bytes())?;
        file.write_all(checksum_line(&body).as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, path)?;
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    });
    written.map_err(|error| failed("can't be written", path, &error))
}

fn checksum_line(body: &str) -> String {
    let digits: String = hash16(body.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{CHECKSUM}\"{digits}\"\n")
}

fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_newer_note_is_refused_as_newer() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("note.toml");
        let body = "version = 2\nmore = 1\n";
        fs::write(&path, format!("{body}{}", checksum_line(body))).expect("written");
        let error = read::<Note>(&path).expect_err("newer");
        assert!(error.message().contains("newer"), "{error}");
    }
}
