//! `skerry export`: a volume or a snapshot into a raw image.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use futures::{Stream, StreamExt as _};
use indicatif::ProgressBar;
use serde_json::json;
use skerry_api::client::Piece;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_core::name::Target;
use tokio::sync::mpsc;

use super::Context;
use crate::cli::ExportArgs;
use crate::progress;
use crate::sparse::Writer;
use crate::values::{self, human_bytes};

/// Pieces that the node may be ahead of the disk: enough that receiving and writing overlap.
const PIECES_AHEAD: usize = 4;

/// Writes the volume or snapshot into the file.
pub(super) async fn run(context: &mut Context<'_>, args: ExportArgs) -> Result<()> {
    let Target { volume, snapshot } = values::target(&args.target)?;
    check(&args.file, args.force)?;
    let snapshot = snapshot.map(|name| name.to_string());
    let request = v1::ExportVolumeRequest { volume: volume.to_string(), snapshot };
    let (size_bytes, pieces) = context.client().await?.export_volume(request).await?;
    // Only now is it known that there is something to export.
    let file = create(&args.file, args.force)?;
    if let Err(error) = file.set_len(size_bytes) {
        // Too large for the file system: better now than at the end.
        let _ = std::fs::remove_file(&args.file);
        return Err(unwritable(&args.file, &error));
    }
    let bar = progress::bar("exporting", size_bytes);
    let copied = tokio::select! {
        copied = copy(pieces, Writer::new(file, size_bytes), &bar, &args.file) => copied,
        _ = tokio::signal::ctrl_c() => Err(interrupted(&args.file)),
    };
    bar.finish_and_clear();
    if copied.is_err() {
        // Half an image is worse than none; if it can't be removed, the error still says why.
        let _ = std::fs::remove_file(&args.file);
    }
    copied?;
    print(context, &args, size_bytes)
}

/// Refuses what can't or mustn't be written, before the node is asked.
fn check(path: &Path, force: bool) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err(values::invalid(format!(
            "{} is not a regular file: export to a file, or copy over NBD with nbdcopy",
            path.display()
        ))),
        Ok(_) if !force => Err(exists(path)),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Error {
    let message = format!("{} exists: choose another file, or use --force", path.display());
    Error::new(ErrorKind::Exists, message)
}

fn create(path: &Path, force: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => unwritable(path, &error),
    })
}

fn interrupted(path: &Path) -> Error {
    let message = format!("interrupted: {} is not whole, and removed", path.display());
    Error::new(ErrorKind::Unavailable, message)
}

fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{} can't be written: {error}", path.display()))
}

/// Receives here and writes on a thread of its own.
async fn copy(
    mut pieces: impl Stream<Item = Result<Piece>> + Unpin,
    mut writer: Writer,
    bar: &ProgressBar,
    path: &Path,
) -> Result<()> {
    let (sender, mut receiver) = mpsc::channel(PIECES_AHEAD);
    let written = bar.clone();
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(piece) = receiver.blocking_recv() {
            written.inc(writer.write(&piece)?);
        }
        writer.finish()
    });
    while let Some(piece) = pieces.next().await {
        // A writer that has failed says so below.
        if sender.send(piece?).await.is_err() {
            break;
        }
    }
    drop(sender);
    let joined = writing.await.map_err(io::Error::other).flatten();
    joined.map_err(|error| unwritable(path, &error))
}

fn print(context: &mut Context<'_>, args: &ExportArgs, size_bytes: u64) -> Result<()> {
    let (target, file) = (&args.target, args.file.display().to_string());
    let text = format!("exported {target} to {file}, {}\n", human_bytes(size_bytes));
    let document = json!({ "exported": target, "file": file, "size_bytes": size_bytes });
    context.output.print(&document, &text)
}
