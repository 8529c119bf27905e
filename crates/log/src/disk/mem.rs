//! A disk in memory, for nodes that keep no log: its files end with the process.

use std::{collections::BTreeMap, io, sync::Arc};

use parking_lot::{Mutex, RwLock};

use super::{Disk, DiskFile};

/// A disk in memory. Its files end with the process, so `sync` promises nothing: a node that uses
/// it must get its durability elsewhere. Memory grows with the files in use, up to the log's cap.
#[derive(Debug, Default)]
pub struct MemDisk {
    files: Mutex<BTreeMap<String, Arc<RwLock<Vec<u8>>>>>,
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }
}

struct MemFile(Arc<RwLock<Vec<u8>>>);

impl Disk for MemDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::default();
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(Box::new(MemFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let files = self.files.lock();
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemFile(Arc::clone(file))))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.lock().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn wants_zero_fill(&self) -> bool {
        false
    }
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().len() as u64)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        Ok(copy_out(&self.0.read(), offset, buf))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        copy_in(&mut self.0.write(), offset, bytes);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies the bytes of `image` at `offset` to `buf`. Gives their number.
pub(crate) fn copy_out(image: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let from = (offset as usize).min(image.len());
    let count = buf.len().min(image.len() - from);
    buf[..count].copy_from_slice(&image[from..from + count]);
    count
}

/// Puts `bytes` at `offset` of `image`, with zeros before them where the image is shorter.
pub(crate) fn copy_in(image: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = offset as usize;
    if image.len() < from + bytes.len() {
        image.resize(from + bytes.len(), 0);
    }
    image[from..from + bytes.len()].copy_from_slice(bytes);
}
