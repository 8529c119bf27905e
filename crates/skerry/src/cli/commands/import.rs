//! `skerry import`: a raw image into a volume.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;
use skerry_api::client::Piece;
use skerry_api::v1::import_volume_request::Message;
use skerry_api::{Error, ErrorKind, Result, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{Context, interruption};
use crate::cli::args::ImportArgs;
use crate::cli::image_format::{self, Format};
use crate::cli::progress;
use crate::cli::sparse::{Reader, extent};
use crate::values::{self, human_bytes};

/// Number of pieces read ahead of the node: enough for reading and sending to overlap.
const PIECES_AHEAD: usize = 4;

/// Time for which an interrupted import waits for the node's answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(15);

/// Writes the file into the volume.
pub(super) async fn run(context: &mut Context<'_>, args: ImportArgs) -> Result<()> {
    let name = values::name(&args.name)?.to_string();
    if args.file == Path::new(values::STANDARD) {
        return Err(values::invalid(
            "an import needs the image's size at its beginning, so it can't read standard input: \
             write the image to a file first (a file of the name - is ./-)",
        ));
    }
    let (file, looks_like) = open(&args.file).map_err(|error| unreadable(&args.file, &error))?;
    if let Some(format) = looks_like.filter(|_| !args.raw) {
        return Err(values::invalid(format!(
            "{} is a file of the format {}, and an import takes raw images: unpack it first \
             (`{}`), or say --raw to take it as it is",
            args.file.display(),
            format.name,
            format.command(&args.file)
        )));
    }
    let reader = Reader::new(file).map_err(|error| unreadable(&args.file, &error))?;
    let size_bytes = values::volume_bytes(reader.size_bytes())
        .map_err(|error| values::invalid(format!("{}: {error}", args.file.display())))?;
    let client = context.client().await?;
    let bar = progress::bar("importing", size_bytes);
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let head = v1::ImportHead { name: name.clone(), size_bytes, overwrite: args.force };
    let interrupted = CancellationToken::new();
    let reading = tokio::task::spawn_blocking({
        let (bar, interrupted) = (bar.clone(), interrupted.clone());
        move || send(reader, head, &sender, &bar, &interrupted)
    });
    let mut importing = Box::pin(client.import_volume(ReceiverStream::new(receiver)));
    let answered = tokio::select! {
        answered = importing.as_mut() => answered,
        () = interruption() => {
            // The messages end, and the node says what it leaves.
            interrupted.cancel();
            let told = tokio::select! {
                answered = importing.as_mut() => answered,
                () = interruption() => Err(unanswered(&name, args.force)),
                () = tokio::time::sleep(ANSWER_TIME_MAX) => Err(unanswered(&name, args.force)),
            };
            told.map_err(|error| {
                Error::new(ErrorKind::Unavailable, format!("interrupted: {error}"))
            })
        }
    };
    // Without the answer, the reader ends here.
    drop(importing);
    bar.finish_and_clear();
    if let Ok(Err(error)) = reading.await {
        let error = unreadable(&args.file, &error);
        if !args.force {
            return Err(error);
        }
        let hint = format!("volume {name} may be incomplete: import again");
        return Err(Error::new(error.kind(), format!("{error}; {hint}")));
    }
    print(context, &answered?, size_bytes)
}

/// The error of an import that was interrupted, and whose node does not say what is left.
fn unanswered(name: &str, overwrite: bool) -> Error {
    let left = match overwrite {
        true => format!("volume {name} may be incomplete: import again"),
        false => format!(
            "if `skerry volume list` shows {name}.importing a while later, delete that to import \
             again"
        ),
    };
    Error::new(ErrorKind::Unavailable, format!("the node has not answered; {left}"))
}

/// Opens the file. Also gives the format that it looks like if that is not raw.
fn open(path: &Path) -> io::Result<(File, Option<&'static Format>)> {
    if path.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let file = File::open(path)?;
    let format = image_format::recognise(&file)?;
    Ok((file, format))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::IsADirectory => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{} can't be read: {error}", path.display()))
}

/// Sends everything, until the node wants no more or the command is interrupted. Then the node's
/// answer counts.
fn send(
    reader: Reader,
    head: v1::ImportHead,
    sender: &mpsc::Sender<v1::ImportVolumeRequest>,
    bar: &ProgressBar,
    interrupted: &CancellationToken,
) -> io::Result<()> {
    let message = |message| v1::ImportVolumeRequest { message: Some(message) };
    if sender.blocking_send(message(Message::Head(head))).is_err() {
        return Ok(());
    }
    for piece in reader {
        if interrupted.is_cancelled() {
            return Ok(());
        }
        let piece = piece?;
        let (_, length) = extent(&piece);
        let piece = match piece {
            Piece::Data(data) => Message::Data(data),
            Piece::Hole(hole) => Message::Hole(hole),
        };
        if sender.blocking_send(message(piece)).is_err() {
            return Ok(());
        }
        bar.inc(length);
    }
    Ok(())
}

fn print(
    context: &mut Context<'_>,
    answer: &v1::ImportVolumeResponse,
    size_bytes: u64,
) -> Result<()> {
    let name = answer.volume.as_ref().map_or("", |volume| &volume.name);
    let done = if answer.created { "created volume" } else { "wrote over the start of volume" };
    let (size, data) = (human_bytes(size_bytes), human_bytes(answer.data_bytes));
    let text = format!("{done} {name}: {size}, of which {data} are data\n");
    let document = json!({
        "volume": name,
        "created": answer.created,
        "size_bytes": size_bytes,
        "data_bytes": answer.data_bytes,
    });
    context.output.print(&document, &text)
}
