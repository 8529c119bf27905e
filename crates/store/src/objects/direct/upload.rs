//! An object that comes in parts, written around the page cache.
//!
//! Parts may be written in any order. The whole blocks of a part go around the cache, a piece at a
//! time. The few bytes left of it, and a part that begins within a block, go through the cache.

use super::{ALIGN_BYTES, Pieces};
use async_trait::async_trait;
use object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An upload under way. Dropping it removes the written parts.
#[derive(Debug)]
pub(super) struct Upload {
    path: PathBuf,
    staged: Option<PathBuf>,
    /// Empty when the upload is over. One part is written at a time: the sync of a log waits for
    /// all writes on their way.
    files: Arc<Mutex<Option<Files>>>,
    /// Offset of the next part, bytes.
    end: u64,
}

/// One file, opened around the page cache and through it.
#[derive(Debug)]
struct Files {
    around: File,
    through: File,
}

impl Upload {
    /// Goes on with a file that was just made for direct IO, and that will get the name `path`.
    pub(super) fn new(path: PathBuf, staged: PathBuf, around: File) -> io::Result<Self> {
        let through = OpenOptions::new().write(true).open(&staged)?;
        let files = Arc::new(Mutex::new(Some(Files { around, through })));
        Ok(Self { path, staged: Some(staged), files, end: 0 })
    }
}

impl Files {
    /// Writes whole blocks. Goes through the cache where the file system accepts the flag and not
    /// the write.
    fn write_blocks(&self, blocks: &[u8], at: u64) -> io::Result<()> {
        match self.around.write_all_at(blocks, at) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.through.write_all_at(blocks, at)
            }
            written => written,
        }
    }

    fn write(&self, payload: &PutPayload, at: u64) -> io::Result<()> {
        let mut chunks = payload.iter().map(|chunk| &chunk[..]);
        let mut at = at;
        if at.is_multiple_of(ALIGN_BYTES as u64) {
            let mut pieces = Pieces::new();
            for chunk in chunks {
                pieces.add(chunk, |piece| {
                    self.write_blocks(piece, at)?;
                    at += piece.len() as u64;
                    Ok(())
                })?;
            }
            let (blocks, rest) = pieces.left();
            self.write_blocks(blocks, at)?;
            return self.through.write_all_at(rest, at + blocks.len() as u64);
        }
        chunks.try_for_each(|chunk| {
            self.through.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
            Ok(())
        })
    }
}

/// Gives the written file its name, durably.
fn publish(files: &Files, staged: &Path, path: &Path) -> io::Result<()> {
    files.through.sync_all()?;
    fs::rename(staged, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (at, files) = (self.end, self.files.clone());
        self.end += data.content_length() as u64;
        let write = move || match &*files.lock() {
            Some(files) => files.write(&data, at).map_err(failed),
            None => Err(over()),
        };
        Box::pin(async { tokio::task::spawn_blocking(write).await.map_err(failed)? })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (path, staged) = (self.path.clone(), self.staged.clone().ok_or_else(over)?);
        let files = self.files.clone();
        let complete = move || {
            let files = files.lock().take().ok_or_else(over)?;
            publish(&files, &staged, &path).map_err(failed)
        };
        tokio::task::spawn_blocking(complete).await.map_err(failed)??;
        self.staged = None;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged.take().ok_or_else(over)?;
        tokio::task::spawn_blocking(|| fs::remove_file(staged))
            .await
            .map_err(failed)?
            .map_err(failed)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(staged) = self.staged.take() {
            // A file that can't be removed is litter beside the objects, and no object.
            let _ = fs::remove_file(staged);
        }
    }
}

fn over() -> Error {
    failed("the upload is over")
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "DirectFs", source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;

    /// A write that direct IO refuses (here because of its length) goes through the cache.
    #[test]
    fn what_is_refused_goes_through_the_cache() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let path = dir.path().join("object#1");
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).custom_flags(OFlags::DIRECT.bits() as i32);
        // Where the system has no direct IO at all, nothing is refused.
        let around = options.open(&path).or_else(|_| File::create(&path)).expect("made");
        let through = OpenOptions::new().write(true).open(&path).expect("opened");
        let files = Files { around, through };
        files.write_blocks(b"0123456789", 0).expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"0123456789");
    }
}
