//! The directory of a local bucket, as it was when the bucket was opened.
//!
//! An unmounted disk leaves an empty directory under its path. A store that creates missing
//! directories would write into it, and find nothing there. So every call checks that the directory
//! is still the opened one. If not, the bucket does not answer.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

/// A directory that must not be replaced by another.
#[derive(Debug, Clone)]
pub struct RootDir {
    path: PathBuf,
    /// Device and i-node.
    id: (u64, u64),
    /// The directory itself. As long as it is open, its file system keeps both numbers, and is not
    /// unmounted by accident.
    _held: Arc<File>,
}

impl RootDir {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let held = File::open(&path)?;
        let id = id_of(&held.metadata()?);
        Ok(Self { path, id, _held: Arc::new(held) })
    }

    /// Its path.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Checks that it is still there.
    ///
    /// # Errors
    /// If nothing is at its path, or another directory.
    pub fn check(&self) -> io::Result<()> {
        match fs::metadata(&self.path) {
            Ok(found) if id_of(&found) == self.id => Ok(()),
            Ok(_) => Err(self.gone("another directory is in its place")),
            Err(error) => Err(self.gone(&error.to_string())),
        }
    }

    fn gone(&self, why: &str) -> io::Error {
        io::Error::other(format!(
            "the bucket's directory {} is not there any more ({why}): is its disk mounted? Put it back; if it was \
             moved for good, restart the node",
            self.path.display()
        ))
    }

    /// As [`Self::check`], with a store's error, on a thread that may wait. A hanging file server
    /// must hold up no other call.
    async fn check_store(&self) -> Result<()> {
        let root = self.clone();
        let checked = tokio::task::spawn_blocking(move || root.check()).await;
        let checked = checked.map_err(std::io::Error::other).flatten();
        checked.map_err(|error| Error::Generic { store: "RootDir", source: Box::new(error) })
    }
}

fn id_of(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// A store in a directory that must not be replaced. Answers about another directory do not count.
#[derive(Debug)]
pub(crate) struct Rooted<S> {
    inner: S,
    root: RootDir,
}

impl<S> Rooted<S> {
    pub(crate) fn new(inner: S, root: RootDir) -> Self {
        Self { inner, root }
    }
}

impl<S: std::fmt::Display> std::fmt::Display for Rooted<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Rooted<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.root.check_store().await?;
        let put = self.inner.put_opts(location, payload, opts).await;
        self.root.check_store().await?;
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.root.check_store().await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(location, options).await;
        self.root.check_store().await?;
        got
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let root = self.root.clone();
        let checked = locations.then(move |at| {
            let root = root.clone();
            async move { root.check_store().await.and(at) }
        });
        self.inner.delete_stream(checked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let root = self.root.clone();
        // After the last object: missing ones may be missing because the directory is another.
        let checked = stream::once(async move { root.check_store().await });
        let failed = checked.filter_map(|checked| async { checked.err().map(Err) });
        self.inner.list(prefix).chain(failed).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await;
        self.root.check_store().await?;
        listed
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.root.check_store().await?;
        let copied = self.inner.copy_opts(from, to, options).await;
        self.root.check_store().await?;
        copied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::local::LocalFileSystem;
    use object_store::{ObjectStoreExt, PutMode};

    /// While the directory is away, nothing is there, nothing is missing, and nothing is accepted.
    #[tokio::test]
    async fn a_directory_that_is_away_answers_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, away) = (dir.path().join("bucket"), dir.path().join("away"));
        fs::create_dir(&path).expect("made");
        let inner = LocalFileSystem::new_with_prefix(&path).expect("a store");
        let store = Rooted::new(inner, RootDir::open(path.clone()).expect("there"));
        let (one, two) = (Path::from("a/one"), Path::from("a/two"));
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&one, "1".into(), create()).await.expect("created");
        fs::rename(&path, &away).expect("moved");
        for is_replaced in [false, true] {
            if is_replaced {
                fs::create_dir_all(&path).expect("made");
            }
            let errors = [
                store.put_opts(&two, "2".into(), create()).await.expect_err("it is away"),
                store.get(&one).await.expect_err("it is away"),
                store.head(&two).await.expect_err("it is away"),
                store.delete(&one).await.expect_err("it is away"),
                store.list(None).try_collect::<Vec<_>>().await.expect_err("it is away"),
                store.list_with_delimiter(None).await.expect_err("it is away"),
            ];
            for error in errors {
                assert!(matches!(error, Error::Generic { .. }), "{error}");
                assert!(error.to_string().contains("is its disk mounted"), "{error}");
            }
            assert_eq!(fs::read_dir(&path).map_or(0, Iterator::count), 0, "something was written");
        }
        fs::remove_dir(&path).expect("removed");
        fs::rename(&away, &path).expect("moved back");
        assert!(store.get(&one).await.is_ok());
        store.put_opts(&two, "2".into(), create()).await.expect("created");
    }
}
