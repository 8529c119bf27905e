//! `skerry export`: a volume or a snapshot into a raw image.

use std::io;
use std::path::Path;

use futures::{Stream, StreamExt as _};
use indicatif::ProgressBar;
use serde_json::json;
use skerry_api::client::Piece;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_core::name::Target;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Context;
use crate::cli::ExportArgs;
use crate::progress;
use crate::sparse::Writer;
use crate::staged::{Staged, exists, unwritable};
use crate::values::{self, human_bytes};

/// Number of pieces by which the node may be ahead of the disk: enough for receiving and writing to
/// overlap.
const PIECES_AHEAD: usize = 4;

/// Writes the volume or snapshot into the file.
pub(super) async fn run(context: &mut Context<'_>, args: ExportArgs) -> Result<()> {
    let Target { volume, snapshot } = values::target(&args.target)?;
    check(&args.file, args.force)?;
    let snapshot = snapshot.map(|name| name.to_string());
    let request = v1::ExportVolumeRequest { volume: volume.to_string(), snapshot };
    let (size_bytes, pieces) = context.client().await?.export_volume(request).await?;
    // Only now is it known that there is something to export.
    let staged = Staged::create(&args.file, args.force)?;
    let file = staged.file().and_then(|file| file.set_len(size_bytes).map(|()| file));
    // Too large for the file system: better now than at the end.
    let file = file.map_err(|error| unwritable(&args.file, &error))?;
    let bar = progress::bar("exporting", size_bytes);
    let copied = tokio::select! {
        copied = copy(pieces, Writer::new(file, size_bytes), &bar, &args.file) => copied,
        () = interruption() => Err(interrupted(&args.file)),
    };
    bar.finish_and_clear();
    copied?;
    staged.take_place()?;
    print(context, &args, size_bytes)
}

/// Refuses a path that can't or mustn't be written, before the node is asked.
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

/// Returns when a signal asks the command to end, so that its file can be cleared away.
async fn interruption() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn interrupted(path: &Path) -> Error {
    let message = format!("interrupted: nothing was written to {}", path.display());
    Error::new(ErrorKind::Unavailable, message)
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
