//! A directory of files of one size, as a device: for file systems and tools with small files.
//!
//! `docs/format.md` describes the directory.
//!
//! Must hold: a directory with a manifest is whole. The manifest gets its name after all shards
//! are durable.

mod manifest;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use self::manifest::{MANIFEST_BYTES, Manifest};
use super::file::{FileDevice, Options, Raw, sync_directory_of};
use super::{blocking, invalid, io_error};
use crate::Result;

/// The most shards of a directory: each is an open file.
pub const SHARDS_MAX: u64 = 512;

const MANIFEST: &str = "manifest";
const MANIFEST_NEW: &str = "manifest.new";

/// Creates a directory for a device of `size_bytes`, in files of `shard_bytes`. The directory may
/// be there if it is empty. The device reads as zeros and takes no space.
///
/// # Errors
/// `Invalid` if the directory holds anything, or if the size is 0. `Invalid` if `shard_bytes` is no
/// power of two from 4 KiB on, or gives more than [`SHARDS_MAX`] files. `NoSpace`, `Failed`.
pub async fn create(
    directory: impl Into<PathBuf>,
    size_bytes: u64,
    shard_bytes: u64,
) -> Result<FileDevice> {
    let directory = directory.into();
    blocking(move || {
        let manifest = Manifest { size_bytes, shard_bytes };
        manifest.check().map_err(|problem| invalid(&directory, problem))?;
        make(&directory, manifest)?;
        open_now(&directory, Options::default())
    })
    .await
}

/// Opens a directory that [`create`] made.
///
/// # Errors
/// `Invalid` if the directory is torn, is none of a device, is used by another, or if the device
/// has not the wanted size. `Failed` if the system refuses it.
pub async fn open(directory: impl Into<PathBuf>, options: Options) -> Result<FileDevice> {
    let directory = directory.into();
    blocking(move || open_now(&directory, options)).await
}

fn make(directory: &Path, manifest: Manifest) -> Result<()> {
    let failed = |error: io::Error| io_error("create", directory, &error);
    match std::fs::create_dir(directory) {
        Ok(()) => sync_directory_of(directory).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    if !names_in(directory)?.is_empty() {
        return Err(invalid(directory, "is not empty"));
    }
    for (number, size_bytes) in manifest.shards() {
        Raw::create(&directory.join(shard_name(number)), size_bytes)?;
    }
    let (new, path) = (directory.join(MANIFEST_NEW), directory.join(MANIFEST));
    let write = || {
        let mut file = File::create_new(&new)?;
        file.write_all(&manifest.encode())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        sync_directory_of(&path)
    };
    write().map_err(failed)
}

fn open_now(directory: &Path, options: Options) -> Result<FileDevice> {
    let manifest = read_manifest(directory)?;
    if options.size_bytes.is_some_and(|wanted| wanted != manifest.size_bytes) {
        let (found, wanted) = (manifest.size_bytes, options.size_bytes.unwrap_or_default());
        return Err(invalid(directory, &format!("has {found} bytes, and not {wanted}")));
    }
    let mut expected: BTreeSet<OsString> =
        manifest.shards().map(|(number, _)| shard_name(number).into()).collect();
    expected.insert(MANIFEST.into());
    let found = names_in(directory)?;
    if let Some(missing) = expected.difference(&found).next() {
        return Err(invalid(directory, &format!("has lost its file {}", missing.display())));
    }
    if let Some(other) = found.difference(&expected).next() {
        return Err(invalid(directory, &format!("has a file of others: {}", other.display())));
    }
    let open = |(number, size_bytes)| {
        let options = Options { size_bytes: Some(size_bytes), ..options };
        Raw::open(&directory.join(shard_name(number)), options)
    };
    let files = manifest.shards().map(open).collect::<Result<Vec<_>>>()?;
    Ok(FileDevice::over(files, manifest.shard_bytes, options.read_only))
}

fn read_manifest(directory: &Path) -> Result<Manifest> {
    let path = directory.join(MANIFEST);
    let file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => invalid(directory, "has no manifest: it was not made whole"),
        _ => io_error("open", &path, &error),
    })?;
    let mut bytes = Vec::with_capacity(MANIFEST_BYTES + 1);
    let read = file.take(MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| io_error("read", &path, &error))?;
    Manifest::decode(&bytes).map_err(|problem| invalid(&path, problem))
}

/// Gives the names in a directory: as many as decide that some are of others, at most.
fn names_in(directory: &Path) -> Result<BTreeSet<OsString>> {
    let failed = |error: io::Error| io_error("list", directory, &error);
    std::fs::read_dir(directory)
        .map_err(failed)?
        .take(SHARDS_MAX as usize + 2)
        .map(|entry| entry.map(|entry| entry.file_name()).map_err(failed))
        .collect()
}

fn shard_name(number: u64) -> String {
    format!("shard-{number:04x}")
}
