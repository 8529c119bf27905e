//! Opening a log: find the newest use and its end, tell damage from a torn end, and prepare a new
//! use. Its header settles all of that for good. So the log writes it only after every record was
//! read and found good: a log with damage stays as it is.
//!
//! The order matters. An earlier process may have left records in the page cache only, so opening
//! first makes them durable. After an earlier failed sync the cache may differ from the medium, so
//! opening reads them again from the medium. Only then does it write a header that vouches for
//! them.

use std::{collections::VecDeque, sync::Arc, sync::atomic::AtomicU64};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::{
    Disk, Env, Error, Log, LogId, LogPosition, Recovery, Result, Settings,
    commit::{create, reserve},
    committer::Committer,
    counters::Counters,
    error::Failure,
    files::{Files, Live, LogFile},
    format::{
        FileHeader, LiveEntry, MAX_LIVE_FILES, Predecessor, RECORD_HEADER_BYTES, RECORDS_START,
        RecordHeader, record_bytes, slot_number,
    },
    inner::Inner,
    recovery::PastUse,
    scan::Scanner,
    tail::Tail,
};

/// A file of the directory, and the newest use that its header names.
struct Slot {
    number: u32,
    file: Arc<LogFile>,
    header: Option<FileHeader>,
}

/// The log's past, from its files.
struct Past {
    log_id: Option<u128>,
    /// Uses with needed records, oldest first.
    uses: Vec<PastUse>,
    predecessor: Option<Predecessor>,
    next_number: u64,
}

impl Past {
    /// The end of the last record.
    fn end(&self) -> LogPosition {
        self.predecessor.map_or(LogPosition::ZERO, |last| LogPosition::new(last.sequence, last.end))
    }

    fn is_live(&self, slot: &Slot) -> bool {
        let sequence = slot.header.as_ref().map(|header| header.sequence);
        self.uses.iter().any(|past| Some(past.sequence) == sequence)
    }
}

impl Log {
    /// Opens the log on `disk`, or creates one where there is none. The caller makes sure that no
    /// other process has it open.
    ///
    /// Until the caller has read the [`Recovery`] to its end, the log serves reads and no appends,
    /// and changes nothing at rest.
    ///
    /// # Errors
    /// `Damaged` if a durable place is bad in the newest file, or a live file is missing (the
    /// recovery verifies older files). `UnsupportedFormat`, `Failed`. `Invalid` for settings.
    pub fn open(disk: Arc<dyn Disk>, settings: Settings, env: Env) -> Result<(Self, Recovery)> {
        open(disk, settings, env)
    }

    /// Reads the identity of the log on `disk`, if there is one. Makes and changes nothing.
    ///
    /// # Errors
    /// `UnsupportedFormat`; `Failed` if the disk can't be read.
    pub fn peek(disk: &dyn Disk) -> Result<Option<LogId>> {
        peek(disk)
    }
}

fn open(disk: Arc<dyn Disk>, settings: Settings, env: Env) -> Result<(Log, Recovery)> {
    settings.validate()?;
    let mut slots = load_slots(&*disk)?;
    let newest = settle_newest(&mut slots)?;
    check_identity(&slots)?;
    let past = match newest {
        Some(header) => read_past(&slots, &header)?,
        None => Past { log_id: None, uses: Vec::new(), predecessor: None, next_number: 1 },
    };
    check_unlisted(&slots, &past)?;
    begin(disk, settings, env, slots, past)
}

fn peek(disk: &dyn Disk) -> Result<Option<LogId>> {
    let headers = load_slots(disk)?.into_iter().filter_map(|slot| slot.header);
    Ok(headers.max_by_key(|header| header.sequence).map(|header| LogId(header.log_id)))
}

fn load_slots(disk: &dyn Disk) -> Result<Vec<Slot>> {
    let directory = |source| Failure::new("(directory)", "listing", source);
    let mut slots = Vec::new();
    for name in disk.list().map_err(directory)? {
        let Some(number) = slot_number(&name) else { continue };
        let opened = disk.open(&name).and_then(|file| Ok((file.len()?, file)));
        let (filled, file) = opened.map_err(|e| Failure::new(&name, "opening", e))?;
        let file = Arc::new(LogFile::new(name, file, filled));
        let header = file.load_header()?;
        slots.push(Slot { number, file, header });
    }
    // The name of a file that is here may not be durable yet.
    disk.sync_dir().map_err(|e| Failure::new("(directory)", "fsync", e))?;
    // So that all that follows is the same on every disk.
    slots.sort_by_key(|slot| slot.number);
    Ok(slots)
}

/// Gives the durable header of the newest use, as the medium has it. Only the newest file can hold
/// anything that is not durable: each is synced before the next one's header is written.
fn settle_newest(slots: &mut [Slot]) -> Result<Option<FileHeader>> {
    loop {
        let newest = slots
            .iter_mut()
            .filter(|slot| slot.header.is_some())
            .max_by_key(|slot| slot.header.as_ref().map(|header| header.sequence));
        let Some(slot) = newest else { return Ok(None) };
        slot.file.sync()?;
        slot.file.forget_cached(0)?;
        let medium = slot.file.load_header()?;
        if medium == slot.header {
            return Ok(medium);
        }
        slot.header = medium;
    }
}

fn check_identity(slots: &[Slot]) -> Result<()> {
    let mut known: Vec<(&Slot, &FileHeader)> =
        slots.iter().filter_map(|slot| Some((slot, slot.header.as_ref()?))).collect();
    known.sort_by_key(|(_, header)| header.sequence);
    for pair in known.windows(2) {
        let [(first, one), (second, two)] = pair else { continue };
        if one.log_id != two.log_id {
            let (file, other) = (second.file.name.clone(), first.file.name.clone());
            return Err(Error::Foreign { file, other });
        }
        if one.sequence == two.sequence {
            return Err(damaged(&second.file.name, 0, "another file has the same sequence"));
        }
    }
    Ok(())
}

fn read_past(slots: &[Slot], newest: &FileHeader) -> Result<Past> {
    let mut uses = Vec::new();
    for entry in &newest.live {
        uses.push(listed_use(slots, entry)?);
    }
    check_chain(slots, newest, &uses)?;
    let slot = slots.iter().find(|slot| slot.header.as_ref() == Some(newest));
    let Some(slot) = slot else { return Err(missing(newest.sequence)) };
    let tail = find_end(slot, newest)?;
    if tail.end > RECORDS_START {
        uses.push(past_use(slot, newest, tail.end));
    }
    Ok(Past {
        log_id: Some(newest.log_id),
        uses,
        predecessor: Some(Predecessor {
            sequence: newest.sequence,
            end: tail.end,
            nonce: newest.nonce,
        }),
        next_number: tail.next_number,
    })
}

fn past_use(slot: &Slot, header: &FileHeader, end: u32) -> PastUse {
    PastUse {
        file: Arc::clone(&slot.file),
        sequence: header.sequence,
        nonce: header.nonce,
        first_number: header.first_number,
        end,
    }
}

fn listed_use(slots: &[Slot], entry: &LiveEntry) -> Result<PastUse> {
    let of = |slot: &Slot| {
        let header = slot.header.as_ref().filter(|header| header.sequence == entry.sequence)?;
        Some(past_use(slot, header, entry.end))
    };
    slots.iter().find_map(of).ok_or_else(|| missing(entry.sequence))
}

/// Checks that uses agree: each names the one before it.
fn check_chain(slots: &[Slot], newest: &FileHeader, uses: &[PastUse]) -> Result<()> {
    for past in uses {
        let follower = slots
            .iter()
            .filter_map(|slot| slot.header.as_ref())
            .filter(|header| header.sequence <= newest.sequence)
            .filter_map(|header| header.predecessor)
            .find(|before| before.sequence == past.sequence);
        let agrees = |before: Predecessor| before.nonce == past.nonce && before.end == past.end;
        if !follower.is_none_or(agrees) || past.end < RECORDS_START {
            return Err(damaged(&past.file.name, 0, "it is not the file that its successor names"));
        }
    }
    Ok(())
}

struct End {
    end: u32,
    next_number: u64,
}

/// Finds the end of the newest use: the first place without a good record. It is damage if
/// something later proves that a durable one stood there.
fn find_end(slot: &Slot, header: &FileHeader) -> Result<End> {
    let limit = u32::try_from(header.file_bytes).unwrap_or(u32::MAX);
    let file = Arc::clone(&slot.file);
    let mut scanner = Scanner::new(file, header.sequence, header.nonce, limit);
    let mut found = End { end: RECORDS_START, next_number: header.first_number };
    while let Some(record) = scanner.record_at(found.end)? {
        if record.number != found.next_number {
            let reason = "a record is missing before this one";
            return Err(damaged(&slot.file.name, found.end, reason));
        }
        found.end += record_bytes(record.payload_bytes as usize).unwrap_or(limit);
        found.next_number += 1;
    }
    if scanner.covered_later(found.end)? {
        let reason = "a later record shows that this place was durable";
        return Err(damaged(&slot.file.name, found.end, reason));
    }
    Ok(found)
}

/// Checks that a file without a listing holds no newer records than the log does. If it does, its
/// own header was damaged, since a header is durable before any record of its use is written. The
/// first record suffices: it is there as long as any is.
fn check_unlisted(slots: &[Slot], past: &Past) -> Result<()> {
    let end = past.end();
    for slot in slots.iter().filter(|slot| !past.is_live(slot)) {
        let newest = slot.header.as_ref().map(|header| header.sequence);
        if newest.is_some() && newest == past.predecessor.map(|before| before.sequence) {
            continue;
        }
        let mut bytes = [0; RECORD_HEADER_BYTES as usize];
        slot.file.read(RECORDS_START.into(), &mut bytes)?;
        if RecordHeader::decode(&bytes).is_ok_and(|record| record.position > end) {
            let reason = "its header is not whole, but it holds newer records than any other file";
            return Err(damaged(&slot.file.name, 0, reason));
        }
    }
    Ok(())
}

/// Prepares the new use, and with it the log of this process.
fn begin(
    disk: Arc<dyn Disk>,
    settings: Settings,
    mut env: Env,
    slots: Vec<Slot>,
    past: Past,
) -> Result<(Log, Recovery)> {
    let sequence = next_sequence(&past)?;
    let header = FileHeader {
        sequence,
        log_id: past.log_id.unwrap_or_else(|| random_id(&mut env)),
        nonce: env.entropy.next_u64(),
        file_bytes: settings.file_bytes,
        first_number: past.next_number,
        predecessor: past.predecessor,
        live: past.uses.iter().map(|p| LiveEntry { sequence: p.sequence, end: p.end }).collect(),
    };
    let mut files = collect_files(slots, &past);
    let file = take_file(&*disk, &mut files, settings.file_bytes)?;
    file.set_use(sequence);
    files.live.insert(sequence, Live::open(Arc::clone(&file), header.nonce));
    let mut tail = Tail::new(&settings, sequence, header.nonce, header.first_number);
    tail.over_cap = files.live.len() > settings.max_files();
    let start = AtomicU64::new(tail.next.as_u64());
    let committer = Committer {
        file,
        nonce: header.nonce,
        written: tail.next,
        dirty: false,
        around_ns: 0,
        unsynced_bytes: 0,
        starved: false,
        pending: VecDeque::new(),
        stalled: None,
        quiet_notes: 0,
        entropy: env.entropy,
        zeros: vec![0; settings.fill_piece_bytes],
    };
    let inner = Arc::new(Inner {
        id: LogId(header.log_id),
        disk,
        clock_ns: env.clock_ns,
        has_thread: env.has_thread,
        durable: AtomicU64::new(tail.durable.as_u64()),
        written: start,
        tail: Mutex::new(tail),
        work: Condvar::new(),
        files: RwLock::new(files),
        committer: Mutex::new(committer),
        counters: Counters::default(),
        settings,
    });
    let nothing = past.uses.is_empty();
    let mut recovery = Recovery::new(Arc::clone(&inner), VecDeque::from(past.uses), header);
    if nothing {
        recovery.finish()?;
    }
    Ok((Log { inner }, recovery))
}

/// Chooses the sequence of the new use. The process before may have given out positions in one use
/// beyond its last written header (never two: see `Committer::prepare`). Leaving them out makes
/// sure that no position is given out twice, whichever caller still has it.
fn next_sequence(past: &Past) -> Result<u32> {
    let next = match past.predecessor {
        Some(last) => last.sequence.checked_add(2),
        None => Some(1),
    };
    next.filter(|_| past.uses.len() < MAX_LIVE_FILES).ok_or(Error::Setting {
        setting: "cap_bytes",
        reason: "the log has used up its 2^32 file uses, or holds more files than a header lists",
    })
}

fn random_id(env: &mut Env) -> u128 {
    u128::from(env.entropy.next_u64()) << 64 | u128::from(env.entropy.next_u64())
}

fn collect_files(slots: Vec<Slot>, past: &Past) -> Files {
    let mut files = Files::default();
    for slot in &slots {
        files.next_slot = files.next_slot.max(slot.number + 1);
        if !past.is_live(slot) {
            files.free.push(Arc::clone(&slot.file));
        }
    }
    for past in &past.uses {
        past.file.set_use(past.sequence);
        let live = Live::recovered(Arc::clone(&past.file), past.nonce, past.end);
        files.live.insert(past.sequence, live);
    }
    files
}

fn take_file(disk: &dyn Disk, files: &mut Files, file_bytes: u64) -> Result<Arc<LogFile>> {
    if let Some(file) = files.free.pop() {
        reserve(disk, &file, file_bytes)?;
        return Ok(file);
    }
    files.next_slot += 1;
    Ok(create(disk, files.next_slot - 1, file_bytes)?)
}

fn missing(sequence: u32) -> Error {
    damaged(&format!("(sequence {sequence})"), 0, "the newest header lists it, and no file has it")
}

fn damaged(file: &str, offset: u32, reason: &'static str) -> Error {
    Error::Damaged { file: file.to_owned(), offset: offset.into(), reason }
}
