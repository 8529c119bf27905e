//! An import, as the node sees it: pieces in order, written as they come, flushed at the end.

use futures::{Stream, StreamExt as _};
use skerry_api::v1::import_volume_request::Message;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_core::name::{Name, Target};
use skerry_core::size::{BlockSize, SECTOR_BYTES};
use skerry_volume::{CreateVolume, VolumeInfo};
use tonic::Status;

use super::convert::{self, error, out_of_order};
use crate::engine::{Engine, EngineDevice};
use crate::values::{human_bytes, invalid, name, volume_bytes};

/// Writes a volume from a stream of messages.
///
/// If it fails half-way, what was written stays: the volume can be imported again, or deleted.
pub(super) async fn import(
    engine: &dyn Engine,
    mut messages: impl Stream<Item = Result<v1::ImportVolumeRequest, Status>> + Unpin,
) -> Result<v1::ImportVolumeResponse> {
    let Some(Message::Head(head)) = next(&mut messages).await? else {
        return Err(out_of_order("the head comes first"));
    };
    let name = name(&head.name)?;
    let size_bytes = volume_bytes(head.size_bytes)?;
    let created = prepare(engine, &name, size_bytes, head.overwrite).await?;
    let target = Target { volume: name.clone(), snapshot: None };
    let device = engine.open_device(&target).await.map_err(error)?;
    if device.is_read_only() {
        let message = format!("volume {name} can't be written here: another node holds it");
        return Err(Error::new(ErrorKind::InUse, message));
    }
    let mut writer = Writer { device: &*device, at: 0, size_bytes, created, data_bytes: 0 };
    while let Some(message) = next(&mut messages).await? {
        writer.write(message).await?;
    }
    let data_bytes = writer.finish().await?;
    let volume = engine.show_volume(&name).await.map_err(error)?;
    Ok(v1::ImportVolumeResponse { volume: Some(convert::volume(volume)), created, data_bytes })
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

/// Makes the volume if there is none of this name; true if it did.
async fn prepare(
    engine: &dyn Engine,
    name: &Name,
    size_bytes: u64,
    overwrite: bool,
) -> Result<bool> {
    match engine.show_volume(name).await {
        Ok(found) if !found.deleted => {
            if !overwrite {
                let message = format!(
                    "volume {name} exists: import into another, or write over it with --force"
                );
                return Err(Error::new(ErrorKind::Exists, message));
            }
            check(&found, size_bytes)?;
            return Ok(false);
        }
        Err(failed) if failed.kind() != skerry_volume::ErrorKind::NotFound => {
            return Err(error(failed));
        }
        // Of a name that its snapshots keep taken, the engine says so.
        Ok(_) | Err(_) => {}
    }
    let block_size_bytes = BlockSize::default().bytes() as u64;
    let new = CreateVolume { name: name.clone(), size_bytes, block_size_bytes, flush: None };
    engine.create_volume(new).await.map_err(error)?;
    Ok(true)
}

/// Whether a volume that there is may be written over.
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
    device: &'a dyn EngineDevice,
    at: u64,
    size_bytes: u64,
    /// Made for this import, so that it is all zeros.
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
                self.device.write(data.offset, data.bytes).await.map_err(error)?;
            }
            Message::Hole(hole) => {
                self.advance(hole.offset, hole.length)?;
                if !self.created {
                    self.device.zero(hole.offset, hole.length).await.map_err(error)?;
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

    /// Makes it durable; returns how many bytes of data there were.
    async fn finish(self) -> Result<u64> {
        if self.at != self.size_bytes {
            let (at, size) = (self.at, self.size_bytes);
            return Err(invalid(format!("the import ended at byte {at} of {size}: import again")));
        }
        self.device.flush().await.map_err(error)?;
        Ok(self.data_bytes)
    }
}
