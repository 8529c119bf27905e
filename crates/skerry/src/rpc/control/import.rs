//! The node's side of an import: pieces in order, written as they come, flushed at the end.
//!
//! A volume that the import creates has another name until it is whole. So no client takes half an
//! image for the image.

use futures::{Stream, StreamExt as _};
use skerry_api::v1::import_volume_request::Message;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_core::name::{NAME_BYTES_MAX, Name, Target};
use skerry_core::size::{BlockSize, SECTOR_BYTES};
use skerry_volume::{CreateVolume, Device, Engine, VolumeInfo};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::convert::{self, out_of_order};
use crate::api_error::of_engine;
use crate::rpc::gate;
use crate::values::{human_bytes, invalid, name, volume_bytes};

/// End of an unfinished volume's name.
const UNFINISHED: &str = ".importing";

/// Writes a volume from a stream of messages, until `ended` says that the node stops.
///
/// If it fails half-way, it deletes a volume that it created. A volume that it writes over stays as
/// it is: it can be imported again, or deleted.
pub(super) async fn import(
    engine: &Engine,
    mut messages: impl Stream<Item = Result<v1::ImportVolumeRequest, Status>> + Unpin,
    ended: &CancellationToken,
) -> Result<v1::ImportVolumeResponse> {
    let Some(Message::Head(head)) = next(&mut messages).await? else {
        return Err(out_of_order("the head comes first"));
    };
    let name = name(&head.name)?;
    let size_bytes = volume_bytes(head.size_bytes)?;
    let Destination { volume, created } =
        prepare(engine, &name, size_bytes, head.overwrite).await?;
    let written = tokio::select! {
        written = write(engine, messages, &volume, size_bytes, created) => written,
        () = ended.cancelled() => Err(gate::stopping().into()),
    };
    let data_bytes = match written {
        Ok(data_bytes) => data_bytes,
        Err(error) => return Err(give_up(engine, &volume, created, &error).await),
    };
    if created {
        engine.rename_volume(&volume, &name).await.map_err(|failed| {
            let failed = of_engine(failed);
            let message = format!("{failed}; volume {volume} has the whole image: rename it");
            Error::new(failed.kind(), message)
        })?;
    }
    let volume = engine.show_volume(&name).await.map_err(of_engine)?;
    Ok(v1::ImportVolumeResponse { volume: Some(convert::volume(volume)), created, data_bytes })
}

/// Writes the stream's pieces, and makes them durable. Gives the number of bytes of data.
async fn write(
    engine: &Engine,
    mut messages: impl Stream<Item = Result<v1::ImportVolumeRequest, Status>> + Unpin,
    volume: &Name,
    size_bytes: u64,
    created: bool,
) -> Result<u64> {
    let target = Target { volume: volume.clone(), snapshot: None };
    let device = engine.open_device(&target).await.map_err(of_engine)?;
    if device.is_read_only() {
        let message = format!("volume {volume} can't be written here: another node holds it");
        return Err(Error::new(ErrorKind::InUse, message));
    }
    let mut writer = Writer { device: &device, at: 0, size_bytes, created, data_bytes: 0 };
    while let Some(message) = next(&mut messages).await? {
        writer.write(message).await?;
    }
    writer.finish().await
}

/// Deletes a volume that the import created; tells what a failed import leaves.
async fn give_up(engine: &Engine, volume: &Name, created: bool, why: &Error) -> Error {
    let left = match created {
        false => format!("volume {volume} may be incomplete: import again"),
        true => match engine.delete_volume(volume, true, true).await {
            Ok(()) => "nothing is left of it".to_owned(),
            Err(failed) => format!(
                "volume {volume} is left of it ({failed}): `skerry volume delete {volume}` to \
                 import again"
            ),
        },
    };
    Error::new(why.kind(), format!("{why}; {left}"))
}

async fn next(
    messages: &mut (impl Stream<Item = Result<v1::ImportVolumeRequest, Status>> + Unpin),
) -> Result<Option<Message>> {
    match messages.next().await {
        None => Ok(None),
        Some(Err(status)) => Err(status.into()),
        Some(Ok(request)) => match request.message {
            Some(message) => Ok(Some(message)),
            None => Err(out_of_order("one of them is empty")),
        },
    }
}

/// Destination of an import.
struct Destination {
    volume: Name,
    /// Created by the import, under a name of its own.
    created: bool,
}

/// Creates the volume if none of this name exists.
async fn prepare(
    engine: &Engine,
    name: &Name,
    size_bytes: u64,
    overwrite: bool,
) -> Result<Destination> {
    match engine.show_volume(name).await {
        Ok(found) if found.deleted => {
            let message = format!(
                "volume {name} is deleted, and its snapshots keep the name: import into another, \
                 or delete them"
            );
            return Err(Error::new(ErrorKind::Exists, message));
        }
        Ok(_) if !overwrite => {
            let message =
                format!("volume {name} exists: import into another, or write over it with --force");
            return Err(Error::new(ErrorKind::Exists, message));
        }
        Ok(found) => {
            check(&found, size_bytes)?;
            return Ok(Destination { volume: name.clone(), created: false });
        }
        Err(failed) if failed.kind() == skerry_volume::ErrorKind::NotFound => {}
        Err(failed) => return Err(of_engine(failed)),
    }
    let volume = unfinished(name)?;
    let block_size_bytes = BlockSize::default().bytes() as u64;
    let new = CreateVolume { name: volume.clone(), size_bytes, block_size_bytes, flush: None };
    engine.create_volume(new).await.map_err(|failed| match failed.kind() {
        skerry_volume::ErrorKind::Exists => {
            let message = format!(
                "volume {volume} exists: another import into {name} runs, or was cut off. If it \
                 was interrupted just now, try again; if it was killed, or its node was, \
                 `skerry volume delete {volume}` first"
            );
            Error::new(ErrorKind::Exists, message)
        }
        _ => of_engine(failed),
    })?;
    Ok(Destination { volume, created: true })
}

/// The name of a volume until it is whole.
fn unfinished(whole: &Name) -> Result<Name> {
    // Names are ASCII.
    let begin = whole.as_str().get(..NAME_BYTES_MAX - UNFINISHED.len());
    name(&format!("{}{UNFINISHED}", begin.unwrap_or(whole.as_str())))
}

/// Checks that an existing volume may be overwritten.
fn check(found: &VolumeInfo, size_bytes: u64) -> Result<()> {
    let name = &found.name;
    if found.clients > 0 {
        let count = found.clients;
        let message =
            format!("volume {name} has {count} clients: disconnect them, or import into another");
        return Err(Error::new(ErrorKind::InUse, message));
    }
    if found.size_bytes < size_bytes {
        let (has, needs) = (human_bytes(found.size_bytes), human_bytes(size_bytes));
        return Err(invalid(format!(
            "volume {name} has {has} and the image {needs}: \
             `skerry volume resize {name} {size_bytes}` first"
        )));
    }
    Ok(())
}

struct Writer<'a> {
    device: &'a Device,
    at: u64,
    size_bytes: u64,
    /// True if the volume was made for this import, so that it is all zeros.
    created: bool,
    data_bytes: u64,
}

impl Writer<'_> {
    async fn write(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Head(_) => return Err(out_of_order("there is a second head")),
            Message::Data(data) => {
                let length = data.bytes.len() as u64;
                self.advance(data.offset, length)?;
                self.data_bytes += length;
                self.device.write(data.offset, data.bytes).await.map_err(of_engine)?;
            }
            Message::Hole(hole) => {
                self.advance(hole.offset, hole.length)?;
                if !self.created {
                    self.device.zero(hole.offset, hole.length).await.map_err(of_engine)?;
                }
            }
        }
        Ok(())
    }

    fn advance(&mut self, offset: u64, length: u64) -> Result<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size_bytes);
        let sound = offset == self.at && length > 0 && length.is_multiple_of(SECTOR_BYTES);
        let (true, Some(end)) = (sound, end) else {
            let at = self.at;
            return Err(out_of_order(&format!("{length} bytes at {offset} came at {at}")));
        };
        self.at = end;
        Ok(())
    }

    /// Makes everything durable. Gives the number of data bytes.
    async fn finish(self) -> Result<u64> {
        if self.at != self.size_bytes {
            let (at, size) = (self.at, self.size_bytes);
            return Err(invalid(format!("the import ended at byte {at} of {size}: import again")));
        }
        self.device.flush().await.map_err(of_engine)?;
        Ok(self.data_bytes)
    }
}
