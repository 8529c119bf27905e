//! A local directory as a store whose large objects go around the kernel's page cache.
//!
//! All but the writing of large objects is `object_store`'s own. Segments are written once and read
//! later, if at all. Copies in the page cache cost a core for each gigabyte or so in fresh pages,
//! and make bursts of dirty pages. Every other sync of the disk then waits for a burst. Where a
//! file system has no direct IO, `object_store` writes large objects, too.

mod upload;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rustix::fs::{AtFlags, CWD, OFlags};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use upload::Upload;

/// Size from which on an object goes around the page cache, bytes.
pub(crate) const DIRECT_BYTES_MIN: usize = 1 << 20;
/// Bytes of one write: large enough for a disk's full speed, and small enough that a log's sync
/// never waits for long.
const PIECE_BYTES: usize = 1 << 20;
/// Direct IO needs memory, offsets and lengths in multiples of a disk's block; no disk's block is
/// larger.
const ALIGN_BYTES: usize = 4096;
/// Names of objects under way end with this and a number. Listings leave such names out.
const STAGED: &str = "#";

/// A local directory.
#[derive(Debug)]
pub(crate) struct DirectFs {
    inner: LocalFileSystem,
    /// True if the file system has refused direct IO once.
    is_refused: Arc<AtomicBool>,
    /// Makes a directory's entries durable.
    sync_dir: fn(&FsPath) -> io::Result<()>,
}

impl std::fmt::Display for DirectFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

/// The end of an attempt that did not fail.
enum Attempt {
    Created,
    /// The directory is missing.
    NotHere,
    /// The file system has no direct IO.
    Refused,
}

impl DirectFs {
    pub(crate) fn new(inner: LocalFileSystem) -> Self {
        Self { inner, is_refused: Arc::new(AtomicBool::new(false)), sync_dir }
    }

    /// Creates a large object. False if `inner` must do it.
    async fn create(&self, location: &Path, payload: &PutPayload) -> Result<bool> {
        let path = self.inner.path_to_filesystem(location)?;
        let (payload, refused) = (payload.clone(), self.is_refused.clone());
        let work = tokio::task::spawn_blocking(move || match create(&path, &payload) {
            Ok(Attempt::Created) => Ok(true),
            Ok(Attempt::NotHere) => Ok(false),
            Ok(Attempt::Refused) => {
                note_refused(&path, &refused);
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::AlreadyExists { path: path.display().to_string(), source: error.into() })
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(Error::Generic { store: "DirectFs", source: Box::new(error) }),
        });
        work.await.map_err(|error| Error::Generic { store: "DirectFs", source: Box::new(error) })?
    }

    /// Makes the name of an existing object durable: the attempt that made it may have failed at
    /// that.
    async fn sync_name(&self, location: &Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let sync_dir = self.sync_dir;
        let work = move || path.parent().map_or(Ok(()), sync_dir);
        let synced = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
        synced.map_err(|error| Error::Generic { store: "DirectFs", source: Box::new(error) })
    }

    /// Begins an object that comes in parts. Gives nothing if `inner` must do it.
    async fn begin(&self, location: &Path) -> Result<Option<Upload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let refused = self.is_refused.clone();
        let work = tokio::task::spawn_blocking(move || match stage(&path) {
            Ok(Some((file, staged))) => Upload::new(path, staged, file).map(Some),
            Ok(None) => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                note_refused(&path, &refused);
                Ok(None)
            }
            Err(error) => Err(error),
        });
        let failed = |error| Error::Generic { store: "DirectFs", source: error };
        work.await.map_err(|error| failed(error.into()))?.map_err(|error| failed(error.into()))
    }
}

fn note_refused(path: &FsPath, refused: &AtomicBool) {
    tracing::info!(path = %path.display(), "no direct IO here; objects go through the page cache");
    refused.store(true, Ordering::Relaxed);
}

/// Writes an object under another name, makes it durable, and gives it its name, which must be
/// free.
fn create(path: &FsPath, payload: &PutPayload) -> io::Result<Attempt> {
    let (file, staged) = match stage(path) {
        Ok(Some(staged)) => staged,
        Ok(None) => return Ok(Attempt::NotHere),
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(Attempt::Refused),
        Err(error) => return Err(error),
    };
    let published = fill(&file, payload).and_then(|()| {
        let linked = link(&file, &staged, path);
        // Also if it existed: an attempt before this one may have made the name and not its entry
        // durable.
        path.parent().map_or(Ok(()), sync_dir)?;
        linked
    });
    // The remains of a failed attempt are no object; a crash may leave them, too.
    let _ = fs::remove_file(&staged);
    published.map(|()| Attempt::Created)
}

fn sync_dir(dir: &FsPath) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Gives a staged file its name, by the open file. The staged file of a writer that was stopped for
/// hours may be gone, with another writer's under its name.
fn link(file: &File, staged: &FsPath, path: &FsPath) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let by_name = || {
        is_the_same(file, staged)?;
        fs::hard_link(staged, path).and_then(|()| is_the_same(file, path))
    };
    if fs::symlink_metadata(&open).is_err() {
        // No such file system here.
        return by_name();
    }
    match rustix::fs::linkat(CWD, &open, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        // The name is taken, or the file has lost its own.
        Err(error @ (Errno::EXIST | Errno::NOENT | Errno::STALE)) => Err(error.into()),
        // Not every kernel and file system can link so.
        Err(_) => by_name(),
        Ok(()) => Ok(()),
    }
}

/// Fails if another file got the name.
fn is_the_same(file: &File, path: &FsPath) -> io::Result<()> {
    let (ours, named) = (file.metadata()?, fs::metadata(path)?);
    if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) {
        return Ok(());
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Makes a new file beside `path`; none if the directory is missing.
fn stage(path: &FsPath) -> io::Result<Option<(File, PathBuf)>> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).custom_flags(OFlags::DIRECT.bits() as i32);
    for number in 1u64.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("{STAGED}{number}"));
        match options.open(&name) {
            Ok(file) => return Ok(Some((file, name.into()))),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                // A file system without direct IO has made the file before it refused.
                if error.kind() == ErrorKind::InvalidInput {
                    let _ = fs::remove_file(&name);
                }
                return Err(error);
            }
        }
    }
    Ok(None)
}

/// Writes the payload and syncs it.
fn fill(mut file: &File, payload: &PutPayload) -> io::Result<()> {
    let mut pieces = Pieces::new();
    for chunk in payload.iter() {
        pieces.add(chunk, |piece| file.write_all(piece))?;
    }
    if pieces.len > 0 {
        file.write_all(pieces.padded())?;
        file.set_len(payload.content_length() as u64)?;
    }
    file.sync_all()
}

/// Bytes on their way to a disk, gathered into pieces of [`PIECE_BYTES`] at an address that direct
/// IO accepts.
struct Pieces {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pieces {
    fn new() -> Self {
        let memory = vec![0; PIECE_BYTES + ALIGN_BYTES];
        let start = memory.as_ptr().align_offset(ALIGN_BYTES);
        Self { memory, start, len: 0 }
    }

    /// Adds bytes. Writes each full piece.
    fn add(
        &mut self,
        mut bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let piece = &mut self.memory[self.start..self.start + PIECE_BYTES];
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.len));
            piece[self.len..self.len + now.len()].copy_from_slice(now);
            (self.len, bytes) = (self.len + now.len(), later);
            if self.len == PIECE_BYTES {
                write(piece)?;
                self.len = 0;
            }
        }
        Ok(())
    }

    /// The last part of a piece, with zeros up to the end of a block.
    fn padded(&mut self) -> &[u8] {
        let padded = self.len.next_multiple_of(ALIGN_BYTES);
        let piece = &mut self.memory[self.start..self.start + padded];
        piece[self.len..].fill(0);
        piece
    }

    /// The last part of a piece: its whole blocks, and the rest.
    fn left(&self) -> (&[u8], &[u8]) {
        let blocks = self.len - self.len % ALIGN_BYTES;
        self.memory[self.start..self.start + self.len].split_at(blocks)
    }
}

#[async_trait]
impl ObjectStore for DirectFs {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let is_large = payload.content_length() >= DIRECT_BYTES_MIN;
        let is_plain = opts.mode == PutMode::Create && opts.attributes.is_empty();
        if is_large
            && is_plain
            && !self.is_refused.load(Ordering::Relaxed)
            && self.create(location, &payload).await?
        {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let is_create = opts.mode == PutMode::Create;
        let put = self.inner.put_opts(location, payload, opts).await;
        if is_create && matches!(put, Err(Error::AlreadyExists { .. })) {
            self.sync_name(location).await?;
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if opts.attributes.is_empty()
            && !self.is_refused.load(Ordering::Relaxed)
            && let Some(upload) = self.begin(location).await?
        {
            return Ok(Box::new(upload));
        }
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::StreamExt;
    use object_store::ObjectStoreExt;

    fn payload(lens: &[usize]) -> PutPayload {
        let chunk = |(i, len): (usize, &usize)| -> Bytes {
            (0..*len).map(|at| (at * 7 + i * 13 + at / 4096) as u8).collect()
        };
        lens.iter().enumerate().map(chunk).collect()
    }

    /// A writer that was stopped between writing and naming finds another's file under the staged
    /// name, which is not its object.
    #[test]
    fn only_the_file_that_was_written_gets_the_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("object");
        let file = File::create(dir.path().join("object#1")).expect("staged");
        fs::remove_file(dir.path().join("object#1")).expect("cleared away");
        fs::write(dir.path().join("object#1"), "another's").expect("staged by another");
        fs::hard_link(dir.path().join("object#1"), &path).expect("named");
        let error = is_the_same(&file, &path).expect_err("it is not");
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        is_the_same(&File::open(&path).expect("there"), &path).expect("itself");
    }

    /// Another's half-written file never gets the name.
    #[test]
    fn a_file_that_was_cleared_away_gets_no_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, staged) = (dir.path().join("object"), dir.path().join("object#1"));
        let file = File::create(&staged).expect("staged");
        fs::remove_file(&staged).expect("cleared away");
        fs::write(&staged, "another's").expect("staged by another");
        let error = link(&file, &staged, &path).expect_err("it has no name any more");
        assert_ne!(error.kind(), ErrorKind::AlreadyExists);
        assert!(!path.exists());
    }

    /// An attempt whose sync failed leaves the name. The next finds it, and must not acknowledge it
    /// unsynced.
    #[tokio::test]
    async fn a_name_that_was_there_is_synced_before_that_is_said() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
        let fails = |_: &FsPath| Err(io::Error::from(ErrorKind::Interrupted));
        let store = DirectFs { sync_dir: fails, ..DirectFs::new(inner.with_fsync(true)) };
        let name = Path::from("dir/object");
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&name, payload(&[5]), create()).await.expect("created");
        let again = store.put_opts(&name, payload(&[5]), create()).await;
        assert!(matches!(again, Err(Error::Generic { .. })), "{again:?}");
    }

    /// Objects of every awkward length read back, are listed alone, and are created once.
    #[tokio::test]
    async fn large_objects_are_created_once_and_whole() {
        // On a real disk if the machine has one: file systems in memory have no direct IO.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let inner = LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
        let store = DirectFs::new(inner.with_fsync(true));
        let mib = 1 << 20;
        let shapes: [&[usize]; 6] = [
            &[mib],
            &[212, mib - 212],
            &[208, mib, 3 * mib + 1],
            &[5, mib - 4],
            &[mib - 1, 4097],
            &[300, mib + 4095, 700_001],
        ];
        for (i, shape) in shapes.iter().enumerate() {
            let name = Path::from(format!("dir/{i}"));
            let create = || PutOptions::from(PutMode::Create);
            store.put_opts(&name, payload(shape), create()).await.expect("created");
            let again = store.put_opts(&name, payload(&[mib]), create()).await;
            assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
            let read = store.get(&name).await.expect("there").bytes().await.expect("readable");
            let wanted: Vec<u8> = payload(shape).iter().flat_map(|c| c.to_vec()).collect();
            assert!(read == wanted, "{shape:?}");
        }
        assert_eq!(store.list(None).count().await, shapes.len());
        let files = fs::read_dir(dir.path().join("dir")).expect("a directory").count();
        assert_eq!(files, shapes.len(), "nothing else is left");
    }

    /// Parts of every awkward length, written at once, make one object; an incomplete upload makes
    /// none.
    #[tokio::test]
    async fn parts_make_one_object() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let inner = LocalFileSystem::new_with_prefix(dir.path()).expect("a store");
        let store = DirectFs::new(inner.with_fsync(true));
        let mib = 1 << 20;
        // The directory is made, by `inner`, for the first.
        let shapes: [&[usize]; 6] = [
            &[3],
            &[2 * mib],
            &[3 * mib, 3 * mib, 5],
            &[mib + 4096, 2 * mib + 1, mib, 77],
            &[1, 4095, mib],
            &[4096, 0, 4097, 4095, mib],
        ];
        for shape in shapes {
            let name = Path::from("dir/object");
            let has_dir = dir.path().join("dir").exists();
            let mut upload = store.put_multipart(&name).await.expect("begun");
            let is_refused = store.is_refused.load(Ordering::Relaxed);
            let is_around = format!("{upload:?}").contains("around");
            assert_eq!(is_around, has_dir && !is_refused, "{upload:?}");
            let parts = shape.iter().map(|len| payload(&[*len]));
            let writes: Vec<_> = parts.clone().map(|part| upload.put_part(part)).collect();
            futures::future::try_join_all(writes.into_iter().rev()).await.expect("written");
            upload.complete().await.expect("completed");
            let read = store.get(&name).await.expect("there").bytes().await.expect("readable");
            let wanted: Vec<u8> = parts.flat_map(|part| part.into_iter().flatten()).collect();
            assert!(read == wanted, "{shape:?}");
        }
        let gone = Path::from("dir/gone");
        let mut upload = store.put_multipart(&gone).await.expect("begun");
        upload.put_part(payload(&[mib])).await.expect("written");
        upload.abort().await.expect("aborted");
        assert!(upload.complete().await.is_err());
        let mut upload = store.put_multipart(&gone).await.expect("begun");
        upload.put_part(payload(&[mib])).await.expect("written");
        drop(upload);
        let files = fs::read_dir(dir.path().join("dir")).expect("a directory").count();
        assert_eq!(files, 1, "nothing else is left");
    }
}
