//! `skerry export`: a volume or a snapshot into a raw image.

use std::io::{self, IsTerminal as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{Stream, StreamExt as _};
use indicatif::ProgressBar;
use serde::Serialize;
use skerry_api::client::Piece;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_core::name::Target;
use tokio::sync::mpsc;

use super::{Context, interruption};
use crate::cli::args::ExportArgs;
use crate::cli::progress;
use crate::cli::sparse::{Writer, extent};
use crate::cli::staged::{Staged, exists, unwritable};
use crate::values::{self, human_bytes};

/// Number of pieces by which the node may be ahead of the disk: enough for receiving and writing to
/// overlap.
const PIECES_AHEAD: usize = 4;

/// Zeros of a hole that are written at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the volume or snapshot into the file, or to standard output.
pub(super) async fn run(context: &mut Context<'_>, args: ExportArgs) -> Result<()> {
    let Target { volume, snapshot } = values::target(&args.target)?;
    let snapshot = snapshot.map(|name| name.to_string());
    let request = v1::ExportVolumeRequest { volume: volume.to_string(), snapshot };
    if args.file == Path::new(values::STANDARD) {
        return to_standard_output(context, request).await;
    }
    check(&args.file, args.force)?;
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

/// Writes the image to standard output, and nothing else. A signal ends the command at once.
async fn to_standard_output(
    context: &mut Context<'_>,
    request: v1::ExportVolumeRequest,
) -> Result<()> {
    if io::stdout().is_terminal() {
        return Err(values::invalid(
            "standard output is a terminal: name a file, or send the image on to a command",
        ));
    }
    if context.output.json {
        return Err(values::invalid(
            "the image goes to standard output, so --json can't: name a file",
        ));
    }
    let (size_bytes, mut pieces) = context.client().await?.export_volume(request).await?;
    let bar = progress::bar("exporting", size_bytes);
    let out = &mut *context.output.out;
    let mut at = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let (offset, length) = extent(&piece);
        if offset != at {
            return Err(Error::new(ErrorKind::Internal, "the node sent pieces out of order"));
        }
        at += length;
        write_piece(out, &piece).map_err(|error| unwritable(Path::new("/dev/stdout"), &error))?;
        bar.inc(length);
    }
    bar.finish_and_clear();
    if at != size_bytes {
        return Err(Error::new(ErrorKind::Unavailable, "the node stopped before the end"));
    }
    out.flush().map_err(|error| unwritable(Path::new("/dev/stdout"), &error))
}

fn write_piece(out: &mut dyn Write, piece: &Piece) -> io::Result<()> {
    let mut left = match piece {
        Piece::Data(data) => return out.write_all(&data.bytes),
        Piece::Hole(hole) => hole.length,
    };
    while left > 0 {
        let zeros = left.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..zeros as usize])?;
        left -= zeros;
    }
    Ok(())
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

/// An export that is done, as a document.
#[derive(Debug, Serialize)]
struct ExportDocument<'a> {
    exported: &'a str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_base64: Option<String>,
    size_bytes: u64,
}

impl<'a> ExportDocument<'a> {
    fn new(args: &'a ExportArgs, size_bytes: u64) -> Self {
        let bytes = args.file.as_os_str().as_bytes();
        let is_text = args.file.to_str().is_some();
        Self {
            exported: &args.target,
            file: args.file.display().to_string(),
            file_base64: (!is_text).then(|| BASE64.encode(bytes)),
            size_bytes,
        }
    }
}

fn print(context: &mut Context<'_>, args: &ExportArgs, size_bytes: u64) -> Result<()> {
    let (target, file) = (&args.target, args.file.display());
    let text = format!("exported {target} to {file}, {}\n", human_bytes(size_bytes));
    context.output.print(&ExportDocument::new(args, size_bytes), &text)
}
