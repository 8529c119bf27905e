//! A simulated disk that loses, tears and reorders all unsynced data, for the crash tests of this
//! crate and of its users. It is seeded: the same calls with the same seeds do the same.
//!
//! It keeps, for each file, the certain content of the medium, the writes since the last sync, and
//! the content that a reader sees. Not modelled: bytes that change on their own (use
//! [`SimDisk::flip_bit`]), and damage to synced neighbours of a write under way.

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    Disk, DiskFile,
    disk::mem::{copy_in, copy_out},
};

/// The unit that a disk writes whole, most of the time.
const SECTOR_BYTES: usize = 512;

/// A small seeded generator (splitmix64), so that tests need no other.
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// Makes the generator of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Gives the next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Gives a number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// True in `percent` of a hundred cases.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Debug, Default)]
struct SimFile {
    /// The content that a reader sees: the medium, then the writes in order, failed syncs'
    /// included.
    seen: Vec<u8>,
    medium: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    /// Reserved room that is not written to: the first to go.
    reserved: u64,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    next_file: u64,
    /// Handles of an earlier power cycle are dead.
    cycle: u64,
    operations: u64,
    stop_after: Option<u64>,
    fail_at: Option<(u64, u64)>,
    full: bool,
    /// Bytes that can still be written, on a disk that writes everything to a new place.
    room: Option<u64>,
}

/// A simulated disk. A handle: clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct SimHandle {
    disk: SimDisk,
    file: u64,
    cycle: u64,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of operations that change or sync something: writes, syncs, creations, removals,
    /// directory syncs.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Makes every operation after the next `count` fail without effect.
    pub fn stop_after(&self, count: u64) {
        let mut state = self.state.lock();
        state.stop_after = Some(state.operations + count);
    }

    /// Makes the operation after the next `count` fail. A write is half done. A sync puts some of
    /// the unsynced sectors on the medium, and loses the others for good although readers see them.
    pub fn fail_after(&self, count: u64, seed: u64) {
        let mut state = self.state.lock();
        state.fail_at = Some((state.operations + count + 1, seed));
    }

    /// Makes the disk full, or no longer full: it can't create or reserve files.
    pub fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Makes the disk write everything to a new place, with room for this many bytes. Removed files
    /// give more. With none, it is a plain disk again.
    pub fn copy_on_write(&self, room_bytes: Option<u64>) {
        self.state.lock().room = room_bytes;
    }

    /// Lets all operations succeed again, without loss of power.
    pub fn repair(&self) {
        let mut state = self.state.lock();
        state.stop_after = None;
        state.fail_at = None;
    }

    /// Ends the process while the machine stays up: nothing is lost, but open files are closed. A
    /// stop or failure that was set still acts; see [`Self::repair`].
    pub fn kill(&self) {
        self.state.lock().cycle += 1;
    }

    /// Loses power: an arbitrary part of the unsynced data survives, sector by sector and in any
    /// order. Open files are dead; the disk works again.
    pub fn crash(&self, seed: u64) {
        let mut rng = SimRng::new(seed);
        self.kill();
        self.repair();
        let mut state = self.state.lock();
        let state = &mut *state;
        for file in state.files.values_mut() {
            let policy = Survival::choose(&mut rng);
            for (index, (offset, bytes)) in file.unsynced.drain(..).enumerate() {
                policy.apply(&mut file.medium, index, offset, &bytes, &mut rng);
            }
            file.seen.clone_from(&file.medium);
        }
        let names: Vec<_> = state.names.keys().chain(state.synced_names.keys()).cloned().collect();
        for name in names {
            let (now, synced) = (state.names.get(&name), state.synced_names.get(&name));
            let kept = if rng.chance(50) { now } else { synced }.copied();
            match kept {
                Some(file) => state.synced_names.insert(name.clone(), file),
                None => state.synced_names.remove(&name),
            };
            set(&mut state.names, name, kept);
        }
    }

    /// Flips one bit of a file, on the medium and for readers.
    ///
    /// # Errors
    /// If there is no such file, or it is shorter.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.file(name)?;
        for image in [&mut file.seen, &mut file.medium] {
            let byte = image.get_mut(offset as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
            *byte ^= 1 << (bit % 8);
        }
        Ok(())
    }

    /// The content of a file for a reader.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn contents(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.state.lock().file(name)?.seen.clone())
    }

    /// Puts a whole file on the medium.
    pub fn install(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        let id = state.next_file;
        state.next_file += 1;
        let (seen, medium) = (bytes.to_vec(), bytes.to_vec());
        let file = SimFile { seen, medium, ..SimFile::default() };
        state.files.insert(id, file);
        state.names.insert(name.to_owned(), id);
        state.synced_names.insert(name.to_owned(), id);
    }

    /// Counts an operation; an error if it must not happen. `Ok(Some(seed))`: it fails half-way.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, Option<u64>)> {
        let mut state = self.state.lock();
        state.operations += 1;
        if state.stop_after.is_some_and(|last| state.operations > last) {
            return Err(io::Error::other("simulated: the disk has stopped"));
        }
        let half = state.fail_at.filter(|(at, _)| *at == state.operations).map(|(_, seed)| seed);
        Ok((state, half))
    }

    fn handle(&self, file: u64, cycle: u64) -> Box<dyn DiskFile> {
        Box::new(SimHandle { disk: self.clone(), file, cycle })
    }
}

fn set(map: &mut BTreeMap<String, u64>, name: String, file: Option<u64>) {
    match file {
        Some(file) => map.insert(name, file),
        None => map.remove(&name),
    };
}

fn simulated() -> io::Error {
    io::Error::other("simulated: the operation failed")
}

impl State {
    fn file(&mut self, name: &str) -> io::Result<&mut SimFile> {
        let file = self.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.files.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The part of a file's unsynced writes that survives a loss of power.
#[derive(Clone, Copy, Debug)]
enum Survival {
    Nothing,
    Everything,
    /// Each sector with this chance, in percent.
    Some(u64),
    /// Whole writes up to this one.
    First(usize),
    /// Whole writes from this one on: the disk did the later ones first.
    Last(usize),
}

impl Survival {
    fn choose(rng: &mut SimRng) -> Self {
        match rng.below(6) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::First(rng.below(4) as usize),
            3 => Self::Last(rng.below(4) as usize),
            _ => Self::Some(rng.below(101)),
        }
    }

    fn apply(
        self,
        medium: &mut Vec<u8>,
        index: usize,
        offset: u64,
        bytes: &[u8],
        rng: &mut SimRng,
    ) {
        for (sector, part) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let survives = match self {
                Self::Nothing => false,
                Self::Everything => true,
                Self::Some(percent) => rng.chance(percent),
                Self::First(count) => index < count,
                Self::Last(from) => index >= from,
            };
            if survives {
                // Now and then a sector itself is torn; nothing in the log's format rests on it.
                let torn = matches!(self, Self::Some(_)) && rng.chance(5);
                let keep = if torn { rng.below(part.len() as u64) as usize } else { part.len() };
                copy_in(medium, offset + (sector * SECTOR_BYTES) as u64, &part[..keep]);
            }
        }
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let (mut state, half) = self.begin()?;
        if half.is_some() {
            return Err(simulated());
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, SimFile::default());
        state.names.insert(name.to_owned(), file);
        Ok(self.handle(file, state.cycle))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state.lock();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file, state.cycle))
    }

    fn wants_zero_fill(&self) -> bool {
        self.copies_on_write().is_none()
    }

    fn copies_on_write(&self) -> Option<&'static str> {
        self.state.lock().room.map(|_| "simulated")
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut state, half) = self.begin()?;
        if half.is_some() {
            return Err(simulated());
        }
        let file = state.file(name)?;
        let bytes = file.seen.len() as u64 + file.reserved;
        state.room = state.room.map(|room| room + bytes);
        state.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut state, half) = self.begin()?;
        if half.is_some() {
            return Err(simulated());
        }
        state.synced_names = state.names.clone();
        Ok(())
    }
}

impl SimHandle {
    fn with<T>(
        &self,
        state: &mut State,
        work: impl FnOnce(&mut SimFile) -> io::Result<T>,
    ) -> io::Result<T> {
        if state.cycle != self.cycle {
            return Err(io::Error::other("simulated: the handle is of an earlier process"));
        }
        work(state.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl DiskFile for SimHandle {
    fn len(&self) -> io::Result<u64> {
        self.with(&mut self.disk.state.lock(), |file| Ok(file.seen.len() as u64))
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.with(&mut self.disk.state.lock(), |file| Ok(copy_out(&file.seen, offset, buf)))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (mut state, half) = self.disk.begin()?;
        let reserved = self.with(&mut state, |file| Ok(file.reserved))?.min(bytes.len() as u64);
        let wanted = bytes.len() as u64 - reserved;
        let fits = state.room.is_none_or(|room| wanted <= room);
        let taken = state.room.unwrap_or(u64::MAX).min(wanted);
        state.room = state.room.map(|left| left - taken);
        let room = reserved + taken;
        self.with(&mut state, |file| {
            let count = half.map_or(room as usize, |seed| {
                SimRng::new(seed).below(bytes.len().max(1) as u64) as usize
            });
            let part = &bytes[..count];
            file.reserved -= reserved;
            copy_in(&mut file.seen, offset, part);
            file.unsynced.push((offset, part.to_vec()));
            match half {
                Some(_) => Err(simulated()),
                None if fits => Ok(()),
                None => Err(io::ErrorKind::StorageFull.into()),
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, half) = self.disk.begin()?;
        self.with(&mut state, |file| {
            let writes = std::mem::take(&mut file.unsynced);
            let mut rng = SimRng::new(half.unwrap_or_default());
            let policy =
                if half.is_some() { Survival::choose(&mut rng) } else { Survival::Everything };
            for (index, (offset, bytes)) in writes.into_iter().enumerate() {
                policy.apply(&mut file.medium, index, offset, &bytes, &mut rng);
            }
            half.map_or(Ok(()), |_| Err(simulated()))
        })
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let (full, room) = (state.full, state.room);
        let more = self.with(&mut state, |file| {
            let more = bytes.saturating_sub(file.seen.len() as u64 + file.reserved);
            if (full && more > 0) || room.is_some_and(|room| more > room) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.reserved += if room.is_some() { more } else { 0 };
            Ok(more)
        })?;
        state.room = room.map(|room| room - more);
        Ok(())
    }

    fn forget_cached(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.with(&mut self.disk.state.lock(), |file| {
            let mut image = file.medium.clone();
            for (at, part) in &file.unsynced {
                copy_in(&mut image, *at, part);
            }
            let end = if bytes == 0 { file.seen.len() } else { (offset + bytes) as usize };
            let range = (offset as usize).min(file.seen.len())..end.min(file.seen.len());
            image.resize(file.seen.len(), 0);
            file.seen[range.clone()].copy_from_slice(&image[range]);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_file() -> (SimDisk, Box<dyn DiskFile>) {
        let disk = SimDisk::new();
        let file = disk.create("f").unwrap();
        disk.sync_dir().unwrap();
        (disk, file)
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let mut seen = [false; 2];
        for seed in 0..64 {
            let (disk, file) = disk_with_file();
            file.write_at(0, &[1; 1024]).unwrap();
            file.sync().unwrap();
            file.write_at(512, &[2; 512]).unwrap();
            disk.crash(seed);
            let bytes = disk.contents("f").unwrap();
            assert_eq!(bytes[..512], [1; 512]);
            seen[usize::from(bytes[512..] == [2; 512])] = true;
        }
        assert_eq!(seen, [true; 2], "both outcomes occur");
    }

    #[test]
    fn a_file_without_directory_sync_may_be_gone() {
        let outcomes: Vec<bool> = (0..32)
            .map(|seed| {
                let disk = SimDisk::new();
                drop(disk.create("f").unwrap());
                disk.crash(seed);
                disk.list().unwrap().is_empty()
            })
            .collect();
        assert!(outcomes.contains(&true) && outcomes.contains(&false));
    }

    #[test]
    fn operations_stop_and_fail_where_told_and_dead_handles_stay_dead() {
        let (disk, file) = disk_with_file();
        disk.stop_after(1);
        file.write_at(0, b"a").unwrap();
        assert!(file.sync().is_err());
        assert!(file.write_at(0, b"b").is_err());
        disk.repair();
        disk.fail_after(1, 3);
        file.write_at(0, b"c").unwrap();
        assert!(file.sync().is_err());
        file.sync().unwrap();
        disk.crash(0);
        assert!(file.read_at(0, &mut [0]).is_err());
    }

    #[test]
    fn a_failed_sync_shows_readers_what_the_medium_lost() {
        let differs = (0..32).any(|seed| {
            let (disk, file) = disk_with_file();
            file.write_at(0, &[7; 2048]).unwrap();
            disk.fail_after(0, seed);
            assert!(file.sync().is_err());
            assert_eq!(disk.contents("f").unwrap(), [7; 2048]);
            file.forget_cached(0, 0).unwrap();
            disk.contents("f").unwrap() != [7; 2048]
        });
        assert!(differs);
    }
}
