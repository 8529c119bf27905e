//! The note beside a jobs log on a local disk, in the file `opening` of its directory.
//! [`skerry_jobs::opening`] decides by it; `docs/jobs.md` has its keys.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skerry_api::ErrorKind as Api;
use skerry_core::id::{ClaimId, LogId};
use skerry_core::start::StartPlace;
use skerry_jobs::opening::{LogNote, NoteFile};
use skerry_jobs::{Error, ErrorKind, Result};

use crate::home::slots;

/// The note of a log's directory.
pub(super) struct DirNote {
    path: PathBuf,
}

impl DirNote {
    pub(super) fn new(dir: &Path) -> Self {
        Self { path: dir.join("opening") }
    }

    fn id(&self, text: &str) -> Result<[u8; 16]> {
        let parsed = text.parse::<LogId>().map(|id| id.0);
        parsed.map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("{}: {error}", self.path.display()))
        })
    }
}

/// Content of the file. Ids and hashes are hexadecimal.
#[derive(Serialize, Deserialize)]
struct Noted {
    log: String,
    before: String,
    last: String,
    machine: String,
    hardware: String,
    directory: String,
}

impl NoteFile for DirNote {
    fn read(&self) -> Result<Option<LogNote>> {
        let noted: Option<Noted> = slots::read(&self.path).map_err(failed)?;
        let Some(noted) = noted else { return Ok(None) };
        let directory = u64::from_str_radix(&noted.directory, 16);
        let directory = directory.map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("{}: {error}", self.path.display()))
        })?;
        let (machine, hardware) = (self.id(&noted.machine)?, self.id(&noted.hardware)?);
        Ok(Some(LogNote {
            log: self.id(&noted.log)?,
            before: ClaimId(self.id(&noted.before)?),
            last: ClaimId(self.id(&noted.last)?),
            place: StartPlace { machine, hardware, directory },
        }))
    }

    fn write(&self, note: &LogNote) -> Result<()> {
        let place = &note.place;
        let noted = Noted {
            log: LogId(note.log).to_string(),
            before: note.before.to_string(),
            last: note.last.to_string(),
            machine: LogId(place.machine).to_string(),
            hardware: LogId(place.hardware).to_string(),
            directory: format!("{:016x}", place.directory),
        };
        slots::write(&self.path, &noted).map_err(failed)
    }
}

fn failed(error: skerry_api::Error) -> Error {
    let kind = match error.kind() {
        Api::Corrupt => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = DirNote::new(dir.path());
        assert_eq!(file.read(), Ok(None));
        let place = StartPlace { machine: [3; 16], hardware: [4; 16], directory: u64::MAX };
        let (before, last) = (ClaimId([1; 16]), ClaimId([2; 16]));
        let note = LogNote { log: [9; 16], before, last, place };
        for _ in 0..3 {
            file.write(&note).expect("written");
            assert_eq!(file.read(), Ok(Some(note)));
        }
        std::fs::write(dir.path().join("opening"), [0; 8192]).expect("written");
        assert_eq!(file.read().expect_err("damaged").kind(), ErrorKind::Corrupt);
    }
}
