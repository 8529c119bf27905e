//! The ring of files behind the disk cache. Frames are appended to the newest file. When that is
//! full, the oldest one is deleted and another begun. Only the cache's own thread runs this code.

use super::index::{ALIGN, FILE_BYTES_MAX, FILES_MAX, Index};
use super::{FRAME_BYTES_MIN, FrameKey};
use crate::error::{Error, Result};
use skerry_core::frame::{FRAME_HEAD_BYTES_MAX, FrameHead};
use skerry_core::id::BucketId;
use skerry_core::wire::hash16;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Number of files in the budget: deleting one loses this share.
const FILES: u64 = 64;
/// The smallest file, bytes: it holds a few of the largest frames.
const FILE_BYTES_MIN: u64 = 256 << 10;
/// Bytes of a file's head.
const HEAD: usize = 64;
const MAGIC: &[u8; 8] = b"SKRYCACH";
const VERSION: u16 = 1;

/// A file of the ring.
struct Part {
    number: u64,
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of it in use.
    end: u64,
    frames: u64,
}

pub(super) struct Ring {
    dir: PathBuf,
    bucket: BucketId,
    file_bytes: u64,
    files_max: usize,
    /// Oldest first; frames go to the last one.
    parts: Vec<Part>,
}

impl Ring {
    /// Finds the files of this bucket. Deletes files of other buckets or versions.
    pub(super) fn open(dir: &Path, bytes: u64, bucket: BucketId) -> Result<Self> {
        let file_bytes = (bytes / FILES).clamp(FILE_BYTES_MIN, FILE_BYTES_MAX) / ALIGN * ALIGN;
        let files_max = (bytes / file_bytes).clamp(1, FILES_MAX) as usize;
        let mut ring =
            Self { dir: dir.to_owned(), bucket, file_bytes, files_max, parts: Vec::new() };
        let listed = std::fs::read_dir(dir).map_err(|error| Error::file("listing", dir, error))?;
        for entry in listed.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let Some(number) = name.to_str().and_then(parse_name) else { continue };
            match ring.adopt(number, &path) {
                Some(part) => ring.parts.push(part),
                None => drop(std::fs::remove_file(&path)),
            }
        }
        ring.parts.sort_by_key(|part| part.number);
        ring.trim(ring.files_max);
        Ok(ring)
    }

    fn adopt(&self, number: u64, path: &Path) -> Option<Part> {
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).ok()?;
        // The budget may have been made smaller since: a file must fit the present one.
        let fits = file.metadata().ok()?.len() <= self.file_bytes;
        let ours = head == encode_head(self.bucket, number);
        let path = path.to_owned();
        (fits && ours).then(|| Part {
            number,
            path,
            file: Arc::new(file),
            end: HEAD as u64,
            frames: 0,
        })
    }

    /// Deletes the oldest files until at most `keep` are left. Before the scan, no index has
    /// entries of them.
    fn trim(&mut self, keep: usize) -> Vec<u64> {
        let surplus = self.parts.len().saturating_sub(keep);
        let oldest = self.parts.drain(..surplus);
        oldest
            .map(|part| {
                drop(std::fs::remove_file(&part.path));
                part.number
            })
            .collect()
    }

    /// Reads the heads of all frames into the index, newest file last, so that the newest place
    /// wins.
    pub(super) fn scan(&mut self, index: &Index) {
        for part in &mut self.parts {
            index.add_file(part.number, part.file.clone());
            let mut head = [0; FRAME_HEAD_BYTES_MAX];
            loop {
                let read = read_some_at(&part.file, &mut head, part.end);
                let Ok(frame) = FrameHead::parse(&head[..read]) else { break };
                let place = frame.place();
                index.insert((place.segment, place.offset), part.number, part.end);
                part.end = align(part.end + frame.frame_len() as u64);
                part.frames += 1;
            }
        }
        // Writing goes on after the newest file's frames. The remains of a crash behind them go.
        if let Some(part) = self.parts.last() {
            drop(part.file.set_len(part.end));
        }
    }

    /// Writes a frame, unless the index has it.
    pub(super) fn append(&mut self, index: &Index, key: FrameKey, frame: &[u8]) -> io::Result<()> {
        if index.contains(key) {
            return Ok(());
        }
        let len = frame.len() as u64;
        if HEAD as u64 + len > self.file_bytes {
            return Err(io::Error::other("a frame is larger than a file of the cache"));
        }
        let frames_max = self.file_bytes / FRAME_BYTES_MIN;
        let fits = |part: &Part| part.end + len <= self.file_bytes && part.frames < frames_max;
        if !self.parts.last().is_some_and(fits) {
            self.begin(index)?;
        }
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        part.file.write_all_at(frame, part.end)?;
        index.insert(key, part.number, part.end);
        part.end = align(part.end + len);
        part.frames += 1;
        Ok(())
    }

    fn begin(&mut self, index: &Index) -> io::Result<()> {
        let number = self.parts.last().map_or(0, |part| part.number + 1);
        for dropped in self.trim(self.files_max - 1) {
            index.drop_file(dropped);
        }
        let path = self.dir.join(format!("{number:016x}.cache"));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all_at(&encode_head(self.bucket, number), 0)?;
        let file = Arc::new(file);
        index.add_file(number, file.clone());
        self.parts.push(Part { number, path, file, end: HEAD as u64, frames: 0 });
        Ok(())
    }
}

fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".cache")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn align(at: u64) -> u64 {
    at.next_multiple_of(ALIGN)
}

fn encode_head(bucket: BucketId, number: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_le_bytes());
    head[16..32].copy_from_slice(&bucket.0);
    head[32..40].copy_from_slice(&number.to_le_bytes());
    let sum = hash16(&head[..48]);
    head[48..].copy_from_slice(&sum);
    head
}

/// Reads as many bytes as there are, up to the buffer's length.
fn read_some_at(file: &File, buffer: &mut [u8], at: u64) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(n) if n > 0 => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    filled
}
