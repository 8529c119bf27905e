//! The committer: carries out what the tail has gathered, and makes files ready ahead of time.
//!
//! It has no policy but the order of disk operations, which is what durability rests on:
//! 1. a file is synced before its successor's header is written, so a whole header proves that
//!    everything before it is durable;
//! 2. a header is synced before any record of its use is written;
//! 3. the durable position moves only after a sync that covers it.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    Disk, Entropy, Error, Position, Result,
    counters::Counters,
    error::Failure,
    files::LogFile,
    format::{FileHeader, Predecessor, RECORDS_START, slot_name},
    log::Inner,
    tail::{Batch, Chunk, Prepared, State, Step, Switch},
};

/// More than this goes through the page cache even if it is synced next: it is read again soon, by
/// whoever puts the records where they belong.
const AROUND_BYTES_MAX: usize = 128 << 10;

/// A log that is told so many times, with no record between, that it is quiet gives files back: a minute, as a node tells
/// it.
const QUIET_NOTES: u32 = 60;

/// Whether a call of `commit_once` found something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It did something; there may be more.
    Worked,
    /// There was nothing.
    Idle,
}

/// What only the committer knows: the file that is being written.
pub(crate) struct Committer {
    pub(crate) file: Arc<LogFile>,
    pub(crate) nonce: u64,
    /// Up to here the file has been written.
    pub(crate) written: Position,
    /// Whether something was written since the last sync.
    pub(crate) dirty: bool,
    /// How long writes around the cache took since then, nanoseconds: part of what a sync costs.
    pub(crate) around_ns: u64,
    /// How much that was, bytes.
    pub(crate) unsynced_bytes: usize,
    /// The disk had no room for another file. Tried again when somebody asks for room.
    pub(crate) starved: bool,
    /// What was taken from the tail and is not carried out.
    pub(crate) pending: VecDeque<Step>,
    /// The disk had no room for the first of these. Tried again after a while.
    pub(crate) stalled: Option<Failure>,
    /// So many times somebody said that it is quiet, with no record between.
    pub(crate) quiet_notes: u32,
    pub(crate) entropy: Box<dyn Entropy>,
    pub(crate) zeros: Vec<u8>,
}

impl Committer {
    pub(crate) fn step(&mut self, inner: &Inner) -> Result<Progress> {
        let (batch, closing) = {
            let mut tail = inner.tail.lock();
            match &tail.state {
                State::Failed(cause) => return Err(Error::Failed { cause: Arc::clone(cause) }),
                // Nothing may be written before every record was read and found good.
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

    /// A full disk is tried again for those who ask for room.
    fn note_kick(&mut self, batch: &Batch) {
        self.starved &= !batch.kicked;
    }

    /// Records end the quiet, whoever carries them out.
    fn end_quiet(&mut self, batch: &Batch) {
        if !batch.steps.is_empty() {
            self.quiet_notes = 0;
        }
    }

    /// What a quiet moment, or the end, is used for.
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

    /// A log that is to end does not wait for room: what was not written was not promised to anybody.
    fn end_stall(&mut self, closing: bool) -> Result<(), Failure> {
        if closing { self.stalled.take().map_or(Ok(()), Err) } else { Ok(()) }
    }

    fn has_surplus(&self, inner: &Inner) -> bool {
        inner.files.read().free.len() > inner.settings.spare_files()
    }

    /// Removes free files that are not needed, but for `keep`; says whether there were any.
    fn give_back(&self, inner: &Inner, keep: usize) -> bool {
        let surplus = inner.files.write().take_surplus(keep, self.written.sequence());
        Self::remove(inner, &surplus)
    }

    /// Removes what a full disk can be without; says whether there was anything. With no other file, the one of the next
    /// use goes: then there is room for the header after which the files that the present one lists can go.
    fn make_room(&mut self, inner: &Inner, full: &Failure) -> bool {
        if self.give_back(inner, 0) {
            return true;
        }
        let header = self.written.sequence();
        let next = inner.tail.lock().prepared.take_if(|next| !next.file.is_listed(header));
        if next.is_some() {
            // Not made again before it is asked for: it would take the room that was just made.
            self.starve(inner, full);
        }
        Self::remove(inner, &Vec::from_iter(next.map(|next| next.file)))
    }

    fn remove(inner: &Inner, surplus: &[Arc<LogFile>]) -> bool {
        for file in surplus {
            // One that stays is a free file again at the next opening.
            let _ = inner.disk.remove(&file.name);
        }
        if !surplus.is_empty() {
            let _ = inner.disk.sync_dir();
        }
        !surplus.is_empty()
    }

    /// Does what has gathered for somebody who is alone in waiting for it; leaves the making ready of
    /// files to the committer's own thread, and says whether there is any to do.
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

    /// How far the present file should be filled with zeros by now.
    fn fill_end(&self, inner: &Inner) -> u64 {
        let place = u64::from(self.written.offset());
        (place + inner.settings.fill_ahead_bytes).min(inner.settings.file_bytes)
    }

    /// Carries out steps in order, as far as the disk has room. A record that finds none is not lost and not done: it
    /// waits, as do all after it and whoever wants them durable.
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
                // Only where rewriting takes new room; files that nobody needs may be what fills the disk.
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

    /// Gives the buffer of a chunk that is in its file back to who waits for one.
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
            // The header that is about to be written lists none of them.
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
        self.written = Position::new(header.sequence, RECORDS_START);
        inner.written.store(self.written.as_u64(), Ordering::Release);
        inner.publish(self.written);
        Ok(())
    }

    /// Makes everything durable and, if nothing else has come, says so in a record of its own.
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

    /// If nothing of the log is needed any more, it ends in a use without records: who opens it finds nothing.
    fn leave_empty(&mut self, inner: &Inner) -> Result<(), Failure> {
        if self.stalled.is_some() || !inner.tail.lock().is_needless(&inner.files) {
            return Ok(());
        }
        if inner.tail.lock().prepared.is_none() && !self.prepare(inner)? {
            // There is no room for another file: the records stay, and are known to be needless by who reads them.
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

    /// One piece of making files ready; says whether there was one. Between two commits only what
    /// will be needed soon is done; the rest waits for an idle moment.
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
            // Nobody waits for it; what does is told when it comes to that place.
            Err(failure) if failure.is_full() => return Ok(false),
            filled => filled?,
        };
        Counters::count(&inner.counters.filled_bytes, count);
        // Here, so that no commit's sync has to carry the zeros.
        file.sync()?;
        Ok(true)
    }

    /// The disk is too full for the file of the next use. It is tried again when an appender wants it.
    fn starve(&mut self, inner: &Inner, full: &Failure) {
        self.starved = true;
        inner.tail.lock().starved = Some(full.to_string());
        inner.files.write().note_full();
    }

    /// Finds or creates the file of the next use, if the cap allows one. Not before the tail's
    /// present use has its header: positions run ahead of durable headers by one use at most,
    /// which is what recovery leaves out.
    fn prepare(&mut self, inner: &Inner) -> Result<bool, Failure> {
        if self.starved || inner.tail.lock().next.sequence() != self.written.sequence() {
            return Ok(false);
        }
        let file = match next_file(inner) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(false),
            // A full disk is a lower cap; nothing that was taken needs this file.
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

/// A free file, or a new one if the cap allows it, with room on the medium for all of it. Once the disk was full, a new
/// one is tried first, which tells whether it still is.
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

/// Creates the file of a slot, empty, its name durable, with room on the medium for all of it.
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

/// Takes room on the medium for all of a file. Where rewriting takes room again, a disk that has too little for all of it
/// still serves what it has room for, and each record waits for its own.
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

    /// An appender that asks for room while the committer is at work is not overheard.
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
