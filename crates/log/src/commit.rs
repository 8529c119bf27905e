//! The committer: carries out what the tail has gathered, and prepares files ahead of time.
//!
//! Its only policy is the order of disk operations, on which durability rests:
//! 1. it syncs a file before it writes the successor's header, so a whole header proves that
//!    everything before it is durable;
//! 2. it syncs a header before it writes any record of that use;
//! 3. it moves the durable position only after a sync that covers it.

use std::sync::{Arc, atomic::Ordering};

use crate::{
    Disk, Error, LogPosition, Result,
    committer::Committer,
    counters::Counters,
    error::Failure,
    files::LogFile,
    format::{FileHeader, Predecessor, RECORDS_START, slot_name},
    inner::Inner,
    tail::{Batch, Chunk, Prepared, State, Step, Switch},
};

/// Longer writes go through the page cache even if a sync follows: the reader that destages their
/// records will want them soon.
const AROUND_BYTES_MAX: usize = 128 << 10;

/// The number of quiet notes without a record between them, after which the log gives files back. A
/// node's notes take a minute to reach it.
const QUIET_NOTES: u32 = 60;

/// Says whether a call of `commit_once` found work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The call did something; there may be more.
    Worked,
    /// Nothing was to be done.
    Idle,
}

impl Committer {
    pub(crate) fn step(&mut self, inner: &Inner) -> Result<Progress> {
        let (batch, closing) = {
            let mut tail = inner.tail.lock();
            match &tail.state {
                State::Failed(cause) => return Err(Error::Failed { cause: Arc::clone(cause) }),
                // The committer writes nothing before every record was read and found good.
                State::Recovering | State::Closed => {
                    tail.kick = false;
                    return Ok(Progress::Idle);
                }
                State::Open => (tail.take_batch(), false),
                State::Closing => (tail.take_batch(), true),
            }
        };
        self.note_kick(&batch);
        let busy = !batch.steps.is_empty() || batch.sync || batch.quiet;
        let (sync, quiet) = (batch.sync, batch.quiet);
        self.end_quiet(&batch);
        let done = self.carry_out(inner, batch.steps, sync);
        let done = done.and_then(|()| self.follow_up(inner, quiet, closing));
        if let Err(failure) = done.and_then(|()| self.end_stall(closing)) {
            return Err(inner.fail(failure));
        }
        if self.stalled.is_some() {
            return Ok(Progress::Idle);
        }
        if closing {
            let mut tail = inner.tail.lock();
            tail.state = State::Closed;
            inner.wake_changed(tail);
            return Ok(Progress::Worked);
        }
        match self.maintain(inner, !busy) {
            Ok(more) if more || busy => Ok(Progress::Worked),
            Ok(_) => Ok(Progress::Idle),
            Err(failure) => Err(inner.fail(failure)),
        }
    }

    /// A request for room makes the committer try a full disk again.
    fn note_kick(&mut self, batch: &Batch) {
        self.starved &= !batch.kicked;
    }

    /// Ends the quiet if records came, whichever thread carries them out.
    fn end_quiet(&mut self, batch: &Batch) {
        if !batch.steps.is_empty() {
            self.quiet_notes = 0;
        }
    }

    /// Uses a quiet moment, or the end of the log.
    fn follow_up(&mut self, inner: &Inner, quiet: bool, closing: bool) -> Result<(), Failure> {
        if !(quiet || closing) || self.stalled.is_some() {
            return Ok(());
        }
        self.mark(inner)?;
        self.quiet_notes = self.quiet_notes.saturating_add(1);
        let is_long_quiet = self.quiet_notes >= QUIET_NOTES && self.has_surplus(inner);
        if closing || is_long_quiet {
            self.leave_empty(inner)?;
            self.give_back(inner, inner.settings.spare_files());
        }
        Ok(())
    }

    /// Gives up waiting for room when the log ends: unwritten records were promised to no caller.
    fn end_stall(&mut self, closing: bool) -> Result<(), Failure> {
        if closing { self.stalled.take().map_or(Ok(()), Err) } else { Ok(()) }
    }

    fn has_surplus(&self, inner: &Inner) -> bool {
        inner.files.read().free.len() > inner.settings.spare_files()
    }

    /// Removes unneeded free files, and keeps `keep` of them. True if it removed any.
    fn give_back(&self, inner: &Inner, keep: usize) -> bool {
        let surplus = inner.files.write().take_surplus(keep, self.written.sequence());
        Self::remove(inner, &surplus)
    }

    /// Removes files that a log on a full disk can do without; true if there were any. Without
    /// other files, it removes the file prepared for the next use. That leaves room for a header,
    /// after which the files listed in the present header can go.
    fn make_room(&mut self, inner: &Inner, full: &Failure) -> bool {
        if self.give_back(inner, 0) {
            return true;
        }
        let header = self.written.sequence();
        let next = inner.tail.lock().prepared.take_if(|next| !next.file.is_listed(header));
        if next.is_some() {
            // Not prepared again before a caller asks for room: it would take the room that was
            // just made.
            self.starve(inner, full);
        }
        Self::remove(inner, &Vec::from_iter(next.map(|next| next.file)))
    }

    fn remove(inner: &Inner, surplus: &[Arc<LogFile>]) -> bool {
        for file in surplus {
            // A file that stays is a free file again at the next opening.
            let _ = inner.disk.remove(&file.name);
        }
        if !surplus.is_empty() {
            let _ = inner.disk.sync_dir();
        }
        !surplus.is_empty()
    }

    /// Carries out what has gathered, for a single caller that waits for it. Leaves the preparation
    /// of files to the committer's own thread. True if there is any to do.
    pub(crate) fn serve_one(&mut self, inner: &Inner) -> Result<bool> {
        let batch = {
            let mut tail = inner.tail.lock();
            tail.check_open()?;
            tail.take_batch()
        };
        self.end_quiet(&batch);
        let done = self.carry_out(inner, batch.steps, batch.sync);
        done.map_err(|failure| inner.fail(failure))?;
        let (ahead, tail) = (self.fill_end(inner), inner.tail.lock());
        let is_filled = !inner.disk.wants_zero_fill() || self.file.filled() >= ahead;
        Ok(batch.quiet || batch.kicked || tail.prepared.is_none() || !is_filled)
    }

    /// The end of the part of the present file that should be filled with zeros by now.
    fn fill_end(&self, inner: &Inner) -> u64 {
        let place = u64::from(self.written.offset());
        (place + inner.settings.fill_ahead_bytes).min(inner.settings.file_bytes)
    }

    /// Carries out steps in order, as far as the disk has room. A record without room is neither
    /// lost nor done: it waits. All records after it, and all callers that want them durable, wait
    /// with it.
    fn carry_out(
        &mut self,
        inner: &Inner,
        steps: impl IntoIterator<Item = Step>,
        sync: bool,
    ) -> Result<(), Failure> {
        self.pending.extend(steps);
        let was_stalled = self.stalled.take().is_some();
        while let Some(step) = self.pending.pop_front() {
            let done = match &step {
                Step::Write(chunk) => self.write(inner, chunk, sync),
                Step::Switch(switch) => self.switch(inner, switch),
            };
            match (done, step) {
                (Ok(()), Step::Write(chunk)) => Self::written(inner, chunk),
                (Ok(()), Step::Switch(_)) => {}
                // Only where rewriting takes new room. Unneeded files may be what fills the disk.
                (Err(failure), step) if failure.is_full() && failure.is_before_sync() => {
                    self.pending.push_front(step);
                    if !self.make_room(inner, &failure) {
                        self.stalled = Some(failure);
                        break;
                    }
                }
                (Err(failure), _) => return Err(failure),
            }
        }
        if was_stalled || self.stalled.is_some() {
            inner.tail.lock().stall = self.stalled.as_ref().map(Failure::to_string);
        }
        let is_much = self.unsynced_bytes >= inner.settings.unsynced_bytes_max;
        if sync || is_much { self.sync(inner) } else { Ok(()) }
    }

    fn write(&mut self, inner: &Inner, chunk: &Arc<Chunk>, sync: bool) -> Result<(), Failure> {
        let end = chunk.end();
        self.fill_to(inner, end.offset().into())?;
        if sync && chunk.bytes.len() <= AROUND_BYTES_MAX {
            let begin_ns = (inner.clock_ns)();
            self.file.write_around(chunk.start.offset(), &chunk.bytes)?;
            self.around_ns += (inner.clock_ns)().saturating_sub(begin_ns);
        } else {
            self.file.write(chunk.start.offset(), &chunk.bytes)?;
        }
        self.dirty = true;
        self.unsynced_bytes += chunk.bytes.len();
        self.written = end;
        inner.written.store(end.as_u64(), Ordering::Release);
        Counters::count(&inner.counters.writes, 1);
        Counters::count(&inner.counters.written_bytes, chunk.bytes.len() as u64);
        Ok(())
    }

    /// Returns the buffer of a written chunk to the tail, and wakes the callers that wait for a
    /// buffer.
    fn written(inner: &Inner, chunk: Arc<Chunk>) {
        let mut tail = inner.tail.lock();
        tail.written(chunk);
        if !tail.change_waiters.is_empty() {
            inner.wake_changed(tail);
        }
    }

    fn sync(&mut self, inner: &Inner) -> Result<(), Failure> {
        if !self.dirty {
            return Ok(());
        }
        let begin_ns = (inner.clock_ns)();
        self.file.sync()?;
        let around_ns = std::mem::take(&mut self.around_ns);
        inner.counters.synced((inner.clock_ns)().saturating_sub(begin_ns) + around_ns);
        (self.dirty, self.unsynced_bytes) = (false, 0);
        inner.publish(self.written);
        Ok(())
    }

    /// Closes the file and opens the next: two syncs, in this order.
    fn switch(&mut self, inner: &Inner, switch: &Switch) -> Result<(), Failure> {
        self.sync(inner)?;
        let sequence = switch.end.sequence() + 1;
        let predecessor = Predecessor {
            sequence: switch.end.sequence(),
            end: switch.end.offset(),
            nonce: self.nonce,
        };
        let (live, freed) = {
            let mut files = inner.files.write();
            if let Some(closed) = files.live.get_mut(&predecessor.sequence) {
                closed.closed = true;
            }
            // The next header lists none of them.
            let freed = files.release_listed_to(predecessor.sequence);
            (files.live_before(sequence), freed)
        };
        let header = FileHeader {
            sequence,
            log_id: inner.id.0,
            nonce: switch.nonce,
            file_bytes: inner.settings.file_bytes,
            first_number: switch.first_number,
            predecessor: Some(predecessor),
            live,
        };
        let before = std::mem::replace(&mut self.file, Arc::clone(&switch.file));
        let begun = self.begin_use(inner, &header);
        if freed {
            inner.released();
        }
        match &begun {
            Ok(()) => self.nonce = switch.nonce,
            Err(_) => self.file = before,
        }
        begun
    }

    /// Writes and syncs the header of the committer's file; everything before it is durable.
    pub(crate) fn begin_use(&mut self, inner: &Inner, header: &FileHeader) -> Result<(), Failure> {
        self.fill_to(inner, RECORDS_START.into())?;
        self.file.write_header(header)?;
        Counters::count(&inner.counters.switches, 1);
        (self.dirty, self.unsynced_bytes) = (false, 0);
        self.written = LogPosition::new(header.sequence, RECORDS_START);
        inner.written.store(self.written.as_u64(), Ordering::Release);
        inner.publish(self.written);
        Ok(())
    }

    /// Makes everything durable. If no record has come since, it says so in a record of its own.
    fn mark(&mut self, inner: &Inner) -> Result<(), Failure> {
        self.sync(inner)?;
        let batch = {
            let mut tail = inner.tail.lock();
            tail.append_mark(&inner.files);
            tail.take_batch()
        };
        self.note_kick(&batch);
        self.carry_out(inner, batch.steps, true)
    }

    /// If no record of the log is needed, ends it in a use without records: the next opening finds
    /// nothing.
    fn leave_empty(&mut self, inner: &Inner) -> Result<(), Failure> {
        if self.stalled.is_some() || !inner.tail.lock().is_needless(&inner.files) {
            return Ok(());
        }
        if inner.tail.lock().prepared.is_none() && !self.prepare(inner)? {
            // The disk has no room for another file. The records stay, and the reader of the next
            // opening knows that they are not needed.
            return Ok(());
        }
        let batch = {
            let mut tail = inner.tail.lock();
            tail.switch(&inner.files);
            tail.take_batch()
        };
        self.note_kick(&batch);
        self.carry_out(inner, batch.steps, false)
    }

    /// Fills the present file with zeros as far as a write needs it, without a sync of its own.
    fn fill_to(&mut self, inner: &Inner, offset: u64) -> Result<(), Failure> {
        if !inner.disk.wants_zero_fill() {
            return Ok(());
        }
        while self.file.filled() < offset {
            let count = self.file.fill(inner.settings.file_bytes, &self.zeros)?;
            Counters::count(&inner.counters.filled_bytes, count);
        }
        Ok(())
    }

    /// Prepares one piece of a file; true if there was one. Between two commits it prepares only
    /// what is needed soon; the rest waits for an idle moment.
    fn maintain(&mut self, inner: &Inner, idle: bool) -> Result<bool, Failure> {
        let spare = inner.tail.lock().prepared.as_ref().map(|next| Arc::clone(&next.file));
        let Some(spare) = spare else { return self.prepare(inner) };
        if !inner.disk.wants_zero_fill() {
            return Ok(false);
        }
        let file_bytes = inner.settings.file_bytes;
        let place = u64::from(self.written.offset());
        let ahead = self.fill_end(inner);
        let (own, other) = (self.file.filled(), spare.filled());
        let file = if own < ahead || (idle && own < file_bytes) {
            &self.file
        } else if other < place || (idle && other < file_bytes) {
            &spare
        } else {
            return Ok(false);
        };
        let count = match file.fill(file_bytes, &self.zeros) {
            // No caller waits for these zeros. A write that reaches this place meets the full disk
            // itself.
            Err(failure) if failure.is_full() => return Ok(false),
            filled => filled?,
        };
        Counters::count(&inner.counters.filled_bytes, count);
        // Synced here, so that no commit's sync carries the zeros.
        file.sync()?;
        Ok(true)
    }

    /// Notes that the disk is too full for the file of the next use. The committer tries again when
    /// an appender wants it.
    fn starve(&mut self, inner: &Inner, full: &Failure) {
        self.starved = true;
        inner.tail.lock().starved = Some(full.to_string());
        inner.files.write().note_full();
    }

    /// Finds or creates the file of the next use, if the cap allows one. Does so only after the
    /// tail's present use has its header. So positions run ahead of durable headers by one use at
    /// most, and recovery leaves out that one.
    fn prepare(&mut self, inner: &Inner) -> Result<bool, Failure> {
        if self.starved || inner.tail.lock().next.sequence() != self.written.sequence() {
            return Ok(false);
        }
        let file = match next_file(inner) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(false),
            // A full disk acts as a lower cap; no accepted record needs this file.
            Err(failure) if failure.is_full() => {
                self.starve(inner, &failure);
                return Ok(false);
            }
            Err(failure) => return Err(failure),
        };
        let mut tail = inner.tail.lock();
        tail.starved = None;
        tail.prepared = Some(Prepared { file, nonce: self.entropy.next_u64() });
        inner.wake_changed(tail);
        Ok(true)
    }
}

/// Takes a free file, or a new one if the cap allows it, with room on the medium for all of it.
/// Once the disk was full, it tries a new file first, which tells whether the disk still is.
fn next_file(inner: &Inner) -> Result<Option<Arc<LogFile>>, Failure> {
    let max_files = inner.settings.max_files();
    let (free, may_grow) = {
        let mut files = inner.files.write();
        if files.live.len() >= max_files {
            return Ok(None);
        }
        let may_grow = files.live.len() + files.free.len() < max_files;
        (files.free.pop(), files.disk_files.is_some() && may_grow)
    };
    let Some(file) = free else { return new_file(inner).map(Some) };
    if may_grow {
        match new_file(inner) {
            Err(failure) if failure.is_full() => {}
            made => {
                inner.files.write().free.push(file);
                return made.map(Some);
            }
        }
    }
    let reserved = reserve(&*inner.disk, &file, inner.settings.file_bytes);
    if reserved.is_err() {
        inner.files.write().free.push(Arc::clone(&file));
    }
    reserved.map(|()| Some(file))
}

fn new_file(inner: &Inner) -> Result<Arc<LogFile>, Failure> {
    let number = {
        let mut files = inner.files.write();
        files.next_slot += 1;
        files.next_slot - 1
    };
    let made = create(&*inner.disk, number, inner.settings.file_bytes)?;
    inner.files.write().disk_files = None;
    Ok(made)
}

/// Creates the empty file of a slot, its name durable, with room on the medium for all of it.
pub(crate) fn create(
    disk: &dyn Disk,
    number: u32,
    file_bytes: u64,
) -> Result<Arc<LogFile>, Failure> {
    let name = slot_name(number);
    let file = disk.create(&name).map_err(|e| Failure::new(&name, "the creation", e))?;
    let file = LogFile::new(name, file, 0);
    if let Err(failure) = reserve(disk, &file, file_bytes) {
        // If it stays, the next opening takes it as a free file.
        let _ = disk.remove(&file.name);
        return Err(failure);
    }
    disk.sync_dir().map_err(|e| Failure::new(&file.name, "the directory's fsync", e))?;
    Ok(Arc::new(file))
}

/// Takes room on the medium for all of a file. A disk where rewriting takes new room may have too
/// little for that. It still serves the room that it has, and each record waits for its own.
pub(crate) fn reserve(disk: &dyn Disk, file: &LogFile, file_bytes: u64) -> Result<(), Failure> {
    match file.reserve(file_bytes) {
        Err(failure) if failure.is_full() && disk.copies_on_write().is_some() => Ok(()),
        reserved => reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Env, Log, Settings, sim::SimDisk};

    /// Checks that the committer hears a request for room that comes while it works.
    #[test]
    fn who_asks_for_room_during_a_commit_is_heard() {
        let disk = Arc::new(SimDisk::new());
        let opened = Log::open(disk, Settings::default(), Env::new(|| 1, || 0));
        let (log, mut recovery) = opened.expect("opens");
        while recovery.next().expect("reads").is_some() {}
        let mut committer = log.inner.committer.lock();
        committer.starved = true;
        log.inner.tail.lock().kick = true;
        committer.mark(&log.inner).expect("works");
        assert!(!committer.starved, "it does not try again");
    }
}
