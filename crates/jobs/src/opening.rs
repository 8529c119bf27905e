//! One opening of a shard's database: its log, and the check that the log belongs to it.
//!
//! Participants: the *descriptor* in the database's files, the *note* in a local log's directory,
//! and the node that opens both. The descriptor names the shard's log and its last opening. The
//! note names openings, too.
//!
//! Goal: no shard is opened with a log that lacks acknowledged rows, or that has rows of another
//! history. A refused node has changed nothing. No goal: to recognise a log that was restored to an
//! earlier state of the same opening, at the same place.
//!
//! 1. Read the descriptor, the log and its note. `Found::check` refuses a log that does not fit.
//! 2. Write the note: the opening that the descriptor has, and the next one. From here on the next
//!    start recognises a crash.
//! 3. Open the database, and write the descriptor with the next opening into its files, before
//!    anything else.
//!
//! If step 3 was not reached, the next start uses the same opening's id again. The descriptor may
//! be in the log by then, and SlateDB may move it into the files at any time.

use crate::error::{Error, ErrorKind, Result};
use crate::hash::HashRange;
use crate::shard::Descriptor;
use skerry_core::id::ClaimId;
use skerry_core::start::StartPlace;

/// Name of the log that may have rows that the database's files lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogName {
    /// Not known: an older version's descriptor does not have it.
    #[default]
    Unknown,
    /// None: the shard was closed, and its log applied.
    Applied,
    /// In the database's own store.
    Own,
    /// In another store, with the hash of its URL.
    Store([u8; 16]),
    /// On a local disk, with the log's id.
    Local([u8; 16]),
}

impl LogName {
    /// The log's place, for people.
    fn place(&self) -> &'static str {
        match self {
            Self::Unknown | Self::Applied | Self::Own => "its own store",
            Self::Store(_) => "another store",
            Self::Local(_) => "a local disk",
        }
    }
}

/// One opening of a database. From then on the shard's descriptor has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// The hashes of its tenants.
    pub hashes: HashRange,
    /// Its log.
    pub log: LogName,
    /// Id of this opening, unlike any other's.
    pub id: ClaimId,
    /// Id of the opening that the descriptor had before.
    pub before: ClaimId,
}

/// The note in a local log's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogNote {
    /// The log's id.
    pub log: [u8; 16],
    /// The descriptor's opening when the note was written; none if it had none.
    pub before: ClaimId,
    /// The descriptor's next opening.
    pub last: ClaimId,
    /// Place of the log.
    pub place: StartPlace,
}

/// Place of a log's note. A write leaves the old note or the new one, whole.
pub trait NoteFile: Send + Sync {
    /// Reads the note, if there is one.
    ///
    /// # Errors
    /// `Corrupt` if it is damaged, `Unavailable` if it can't be read.
    fn read(&self) -> Result<Option<LogNote>>;

    /// Writes the note, durably.
    ///
    /// # Errors
    /// `Unavailable` if the disk does not take it.
    fn write(&self, note: &LogNote) -> Result<()>;
}

/// A note in memory, for tests. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryNote(std::sync::Arc<parking_lot::Mutex<Option<LogNote>>>);

impl NoteFile for MemoryNote {
    fn read(&self) -> Result<Option<LogNote>> {
        Ok(*self.0.lock())
    }

    fn write(&self, note: &LogNote) -> Result<()> {
        *self.0.lock() = Some(*note);
        Ok(())
    }
}

/// State of a log before the database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundLog {
    pub(crate) name: LogName,
    /// For a local log: its note, and its present place.
    pub(crate) note: Option<LogNote>,
    pub(crate) place: StartPlace,
    /// The first batch that the database's files lack, and the last batch of all.
    pub(crate) first_new: Option<u64>,
    pub(crate) last: Option<u64>,
    /// True if the files lack more than a descriptor.
    pub(crate) has_rows: bool,
    /// True if the log ends with a clean stop, which brought all of it into its database's files.
    pub(crate) is_applied: bool,
}

/// All that is known before a database is opened.
pub(crate) struct Found<'a> {
    /// Path of the shard's database, for people.
    pub(crate) path: &'a str,
    pub(crate) hashes: HashRange,
    pub(crate) descriptor: Option<Descriptor>,
    /// The last batch that the database's files have.
    pub(crate) applied: u64,
    pub(crate) log: FoundLog,
    /// True if the log is elsewhere, and the database's own store has rows that the files lack.
    /// Known only if the descriptor does not name a log.
    pub(crate) has_own_rows: bool,
    /// True if a person accepts that rows of a log alone are lost.
    pub(crate) give_up: bool,
    /// True if a person says that the log moved here with its node, and that no copy is used.
    pub(crate) is_moved: bool,
}

impl Found<'_> {
    /// Refuses a database that is another shard's, and a log that does not belong to it.
    pub(crate) fn check(&self) -> Result<()> {
        check_hashes(self.descriptor.as_ref(), self.hashes).map_err(|error| {
            Error::new(error.kind(), self.named(&format!("can't be opened: {error}")))
        })?;
        self.check_name()?;
        if let LogName::Local(_) = self.log.name {
            self.check_note()?;
            self.check_batches()?;
        }
        if self.has_strange_rows() && (self.is_local() || !self.give_up) {
            return Err(self.strange());
        }
        Ok(())
    }

    /// Gives this opening. Takes the id from the note if the descriptor did not get it.
    pub(crate) fn opening(&self, fresh: ClaimId) -> Opening {
        let before = self.last_opening();
        let is_next = |note: &LogNote| {
            let is_of_log = LogName::Local(note.log) == self.log.name;
            is_of_log && note.before == before && note.last != before
        };
        let id = self.log.note.filter(is_next).map_or(fresh, |note| note.last);
        Opening { hashes: self.hashes, log: self.log.name, id, before }
    }

    /// True if the log has rows that the files lack, and the descriptor names another log or none.
    pub(crate) fn has_strange_rows(&self) -> bool {
        let named = self.descriptor.map(|found| found.log);
        // An older version's descriptor does not name a log in a store.
        let may_be_its = named == Some(LogName::Unknown) && !self.is_local();
        self.log.has_rows && named != Some(self.log.name) && !may_be_its && !self.was_last()
    }

    /// True if the local log is the last opening's. A crash at the end of a clean stop may have
    /// left rows in it.
    fn was_last(&self) -> bool {
        let is_its = |note: LogNote| {
            let is_of_log = LogName::Local(note.log) == self.log.name;
            is_of_log && !note.last.is_none() && note.last == self.last_opening()
        };
        self.log.note.is_some_and(is_its)
    }

    fn is_local(&self) -> bool {
        matches!(self.log.name, LogName::Local(_))
    }

    fn last_opening(&self) -> ClaimId {
        self.descriptor.map_or(ClaimId::NONE, |found| found.opening)
    }

    fn check_name(&self) -> Result<()> {
        let Some(Descriptor { log: named, .. }) = self.descriptor else { return Ok(()) };
        let is_free = match named {
            LogName::Applied => true,
            LogName::Unknown => !self.has_own_rows,
            _ => false,
        };
        if is_free || named == self.log.name || self.give_up {
            return Ok(());
        }
        Err(self.refused(format!(
            "was used with another log, in {}, which may have jobs that its files do not: put \
             that log back, or set give_up_wal for one start to lose what only that log has",
            named.place()
        )))
    }

    /// Refuses a note of another opening than the descriptor's, if the log has rows or should have
    /// some.
    fn check_note(&self) -> Result<()> {
        let (named, last) = (self.descriptor.map(|found| found.log), self.last_opening());
        let is_named = named == Some(self.log.name);
        // Clean stops brought everything of both into files, and this log has nothing newer: its
        // node comes back after another had the database.
        let both_applied = named == Some(LogName::Applied) && self.log.is_applied;
        if (both_applied && self.log.first_new.is_none())
            || (self.log.last.is_none() && (!is_named || self.give_up))
        {
            return Ok(());
        }
        let is_its = match &self.log.note {
            Some(note) => {
                let is_of_log = LogName::Local(note.log) == self.log.name;
                is_of_log && (note.last == last || note.before == last)
            }
            // Older versions wrote none.
            None => last.is_none() || (is_named && self.give_up),
        };
        if !is_its {
            return Err(self.strange());
        }
        let moved = self.log.note.and_then(|note| self.log.place.difference(&note.place));
        match moved {
            Some(how) if !self.is_moved => Err(self.refused(format!(
                "has a log that was used last {how}: if it was moved here with its node, and \
                 nothing uses it there, start once with --in-its-place; a copy of a log must not \
                 be used"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses a gap between the files and the log's end.
    fn check_batches(&self) -> Result<()> {
        let is_named = self.descriptor.is_some_and(|found| found.log == self.log.name);
        if let Some(first) = self.log.first_new.filter(|first| *first != self.applied + 1) {
            let detail =
                format!("lacks batch {} of its log, which begins with {first}", self.applied + 1);
            return Err(Error::new(ErrorKind::Corrupt, self.named(&detail)));
        }
        let is_short = self.log.last.is_some_and(|last| last < self.applied);
        if is_named && is_short && !self.give_up {
            return Err(self.refused(
                "has a log that ends before what is in its files: the log is an older state of \
                 itself. Put the newer one back, or set give_up_wal for one start to go on without it"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn strange(&self) -> Error {
        let advice = if self.is_local() {
            "To lose what only that log has, set give_up_wal for one start and let [database.wal] name an empty directory"
        } else {
            "To lose what this log has, set give_up_wal for one start"
        };
        self.refused(format!(
            "does not go with the log that is there: that is a copy, an older state, or has rows \
             of another database. Put the log back with which the shard was used last. {advice}"
        ))
    }

    fn refused(&self, detail: String) -> Error {
        Error::new(ErrorKind::Conflict, self.named(&detail))
    }

    fn named(&self, detail: &str) -> String {
        format!("the jobs' shard at {} {detail}", self.path)
    }
}

/// Refuses a database that was made for other hashes.
pub(crate) fn check_hashes(found: Option<&Descriptor>, now: HashRange) -> Result<()> {
    let Some(found) = found.filter(|found| found.hashes != now) else { return Ok(()) };
    let detail = format!(
        "it has {}, and was opened for {now}: the number of shards can't be changed",
        found.hashes
    );
    Err(Error::new(ErrorKind::Conflict, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [u8; 16] = [9; 16];
    const ELSEWHERE: StartPlace = StartPlace { machine: [2; 16], hardware: [0; 16], directory: 0 };

    fn opening(number: u8) -> ClaimId {
        ClaimId([number; 16])
    }

    /// A log with rows that the database lacks, named by the descriptor.
    fn found() -> Found<'static> {
        let place = StartPlace { machine: [1; 16], ..StartPlace::default() };
        let note = LogNote { log: LOG, before: opening(1), last: opening(2), place };
        let log = FoundLog {
            name: LogName::Local(LOG),
            note: Some(note),
            place,
            first_new: Some(8),
            last: Some(9),
            has_rows: true,
            is_applied: false,
        };
        let (hashes, opening) = (HashRange::ALL, opening(2));
        let descriptor = Descriptor { hashes, incarnation: 3, log: log.name, opening };
        let descriptor = Some(descriptor);
        let (has_own_rows, give_up, is_moved) = (false, false, false);
        Found { path: "p", hashes, descriptor, applied: 7, log, has_own_rows, give_up, is_moved }
    }

    /// Says whether a change of the usual case is refused, and whether also with `give_up`.
    fn refusals(change: impl Fn(&mut Found<'static>)) -> (bool, bool) {
        let refused = |give_up| {
            let mut found = Found { give_up, ..found() };
            change(&mut found);
            found.check().is_err()
        };
        (refused(false), refused(true))
    }

    fn note(found: &mut Found<'static>, change: impl Fn(&mut LogNote)) {
        found.log.note.iter_mut().for_each(change);
    }

    fn named(found: &mut Found<'static>, log: LogName) {
        found.descriptor.iter_mut().for_each(|descriptor| descriptor.log = log);
    }

    fn empty(found: &mut Found<'static>) {
        (found.log.first_new, found.log.last, found.log.has_rows) = (None, None, false);
    }

    #[test]
    fn a_log_is_taken_that_is_the_databases_own() {
        const TAKEN: (bool, bool) = (false, false);
        assert_eq!(refusals(|_| {}), TAKEN);
        assert_eq!(refusals(|all| note(all, |note| note.before = opening(2))), TAKEN, "a crash");
        assert_eq!(refusals(empty), TAKEN);
        let old = |all: &mut Found<'static>| {
            all.log.note = None;
            all.descriptor.iter_mut().for_each(|found| found.opening = ClaimId::NONE);
        };
        assert_eq!(refusals(old), TAKEN, "an older Skerry's");
        let new = |all: &mut Found<'static>| {
            (all.log.note, all.descriptor, all.applied) = (None, None, 0);
            empty(all);
        };
        assert_eq!(refusals(new), TAKEN);
        assert_eq!(refusals(|all| named(all, LogName::Applied)), TAKEN, "a crash at its end");
        let applied = |all: &mut Found<'static>| {
            named(all, LogName::Applied);
            (all.log.first_new, all.log.last, all.log.has_rows) = (None, Some(7), false);
        };
        assert_eq!(refusals(applied), TAKEN);
    }

    #[test]
    fn what_may_be_given_up_is_refused_until_it_is() {
        const UNTIL: (bool, bool) = (true, false);
        let own = |all: &mut Found<'static>| {
            empty(all);
            (all.log.note, all.has_own_rows) = (None, true);
            named(all, LogName::Unknown);
        };
        assert_eq!(refusals(own), UNTIL, "an older Skerry's log is left behind");
        assert_eq!(refusals(|all| all.log.note = None), UNTIL, "its note is lost");
        let short = |all: &mut Found<'static>| {
            (all.log.first_new, all.log.last, all.log.has_rows) = (None, Some(6), false);
        };
        assert_eq!(refusals(short), UNTIL, "its end is lost");
        for log in [LogName::Own, LogName::Store(LOG), LogName::Local([8; 16])] {
            let other = |all: &mut Found<'static>| {
                empty(all);
                all.log.note = None;
                named(all, log);
            };
            assert_eq!(refusals(other), UNTIL, "{log:?}");
        }
    }

    /// Once, the word for it gave up rows as well.
    #[test]
    fn a_log_that_moved_with_its_node_is_taken_when_that_is_said() {
        let moved = |all: &mut Found<'static>| all.log.place = ELSEWHERE;
        assert_eq!(refusals(moved), (true, true));
        let said = |all: &mut Found<'static>| (all.log.place, all.is_moved) = (ELSEWHERE, true);
        assert_eq!(refusals(said), (false, false));
        let copy = |all: &mut Found<'static>| {
            said(all);
            note(all, |note| (note.before, note.last) = (opening(0), opening(1)));
        };
        assert_eq!(refusals(copy), (true, true), "a copy stays one");
    }

    #[test]
    fn another_history_is_never_replayed() {
        const NEVER: (bool, bool) = (true, true);
        let copy = |all: &mut Found<'static>| {
            note(all, |note| (note.before, note.last) = (opening(0), opening(1)));
        };
        assert_eq!(refusals(copy), NEVER);
        assert_eq!(refusals(|all| note(all, |note| note.log = [8; 16])), NEVER);
        assert_eq!(refusals(|all| all.descriptor = None), NEVER);
        let left = |all: &mut Found<'static>| {
            named(all, LogName::Applied);
            note(all, |note| (note.before, note.last) = (opening(2), opening(3)));
        };
        assert_eq!(refusals(left), NEVER, "it was not there at the last opening");
        assert_eq!(refusals(|all| all.log.first_new = Some(9)), NEVER, "a batch is missing");
        assert_eq!(refusals(|all| all.hashes = HashRange::part(0, 2)), NEVER);
    }

    #[test]
    fn an_opening_that_the_files_do_not_have_is_used_again() {
        let mut all = found();
        assert_eq!(all.opening(opening(9)).id, opening(9));
        note(&mut all, |note| (note.before, note.last) = (opening(2), opening(3)));
        assert_eq!(all.opening(opening(9)).id, opening(3));
        assert_eq!(all.opening(opening(9)).before, opening(2));
    }
}
