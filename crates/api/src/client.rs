//! A client of a node's control API: one method for each command, typed errors, no retries.
//!
//! It opens one connection and keeps it. It never repeats an operation: only its caller knows
//! whether a failed one may be repeated.

use std::time::Duration;

use futures::{Stream, StreamExt};
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::status::innermost;
use crate::v1::control_client::ControlClient;
use crate::v1::jobs_client::JobsClient;
use crate::{Address, Error, ErrorKind, Result, v1};

/// The longest time for a connection. A node on the same host or network answers at once.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Interval of keep-alives to a silent node. A node that hangs counts as away.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unread bytes on their way on one stream, at most: a few pieces of an export.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The largest accepted message about jobs, bytes. A job with its history has results of up to 1
/// MiB each.
const JOBS_MESSAGE_BYTES_MAX: usize = 128 << 20;

/// A connection to a node. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    control: ControlClient<Channel>,
    channel: Channel,
}

macro_rules! unary {
    ($($(#[$doc:meta])* $method:ident($request:ident) -> $response:ident;)*) => {
        impl Client {$(
            $(#[$doc])*
            pub async fn $method(&self, request: v1::$request) -> Result<v1::$response> {
                Ok(self.control.clone().$method(request).await?.into_inner())
            }
        )*}
    };
}

unary! {
    /// Creates an empty volume.
    create_volume(CreateVolumeRequest) -> Volume;
    /// Shows one volume.
    show_volume(ShowVolumeRequest) -> Volume;
    /// Changes a volume's size.
    resize_volume(ResizeVolumeRequest) -> Volume;
    /// Gives a volume another name.
    rename_volume(RenameVolumeRequest) -> Volume;
    /// Deletes a volume.
    delete_volume(DeleteVolumeRequest) -> DeleteVolumeResponse;
    /// Releases a volume, or takes it by force from its owner.
    release_volume(ReleaseVolumeRequest) -> ReleaseVolumeResponse;
    /// Creates a clone of a snapshot.
    clone_volume(CloneVolumeRequest) -> Volume;
    /// Puts a volume back to a snapshot. Gives the snapshot that keeps the state before.
    rollback_volume(RollbackVolumeRequest) -> Snapshot;
    /// Takes a snapshot.
    create_snapshot(CreateSnapshotRequest) -> Snapshot;
    /// Deletes a snapshot.
    delete_snapshot(DeleteSnapshotRequest) -> DeleteSnapshotResponse;
    /// Shows the node's state.
    get_status(GetStatusRequest) -> GetStatusResponse;
    /// Checks the whole bucket.
    fsck(FsckRequest) -> FsckResponse;
}

impl Client {
    /// Connects to the node at `address`. Gives [`ErrorKind::Unavailable`] if none answers there.
    pub async fn connect(address: &Address) -> Result<Self> {
        address.check().map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
        let channel = endpoint(address)?
            .connect_timeout(CONNECT_TIME_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(STREAM_WINDOW_BYTES)
            .connect()
            .await
            .map_err(|error| nobody(address, &error))?;
        Ok(Self { control: ControlClient::new(channel.clone()), channel })
    }

    /// Gives the generated client of the calls about jobs.
    pub fn jobs(&self) -> JobsClient<Channel> {
        JobsClient::new(self.channel.clone()).max_decoding_message_size(JOBS_MESSAGE_BYTES_MAX)
    }

    /// Lists all volumes of the node's bucket, by name.
    pub async fn list_volumes(&self) -> Result<Vec<v1::Volume>> {
        let pages = self.control.clone().list_volumes(v1::ListVolumesRequest {}).await?;
        collect(pages.into_inner(), |page| page.volumes).await
    }

    /// Lists a volume's snapshots, oldest first.
    pub async fn list_snapshots(
        &self,
        request: v1::ListSnapshotsRequest,
    ) -> Result<Vec<v1::Snapshot>> {
        let pages = self.control.clone().list_snapshots(request).await?;
        collect(pages.into_inner(), |page| page.snapshots).await
    }

    /// Lists the ranges in which two snapshots differ, in order.
    pub async fn diff_snapshots(
        &self,
        request: v1::DiffSnapshotsRequest,
    ) -> Result<Vec<v1::DiffRange>> {
        let pages = self.control.clone().diff_snapshots(request).await?;
        collect(pages.into_inner(), |page| page.ranges).await
    }

    /// Writes a volume from a stream of messages. The first one is the head.
    pub async fn import_volume(
        &self,
        messages: impl Stream<Item = v1::ImportVolumeRequest> + Send + 'static,
    ) -> Result<v1::ImportVolumeResponse> {
        Ok(self.control.clone().import_volume(messages).await?.into_inner())
    }

    /// Reads a volume or a snapshot. Gives its size, bytes, and a stream of its parts.
    pub async fn export_volume(
        &self,
        request: v1::ExportVolumeRequest,
    ) -> Result<(u64, impl Stream<Item = Result<Piece>> + Unpin + use<>)> {
        let mut messages = self.control.clone().export_volume(request).await?.into_inner();
        let first = messages.message().await?.and_then(|first| first.message);
        let Some(v1::export_volume_response::Message::Head(head)) = first else {
            return Err(out_of_order());
        };
        let pieces = messages.map(|message| Piece::from_message(message?));
        Ok((head.size_bytes, pieces))
    }
}

/// The next part of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes.
    Data(v1::Data),
    /// A range of zeros.
    Hole(v1::Hole),
}

impl Piece {
    fn from_message(response: v1::ExportVolumeResponse) -> Result<Self> {
        match response.message {
            Some(v1::export_volume_response::Message::Data(data)) => Ok(Self::Data(data)),
            Some(v1::export_volume_response::Message::Hole(hole)) => Ok(Self::Hole(hole)),
            Some(v1::export_volume_response::Message::Head(_)) | None => Err(out_of_order()),
        }
    }
}

async fn collect<P, T>(mut pages: Streaming<P>, items: impl Fn(P) -> Vec<T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(page) = pages.message().await? {
        all.extend(items(page));
    }
    Ok(all)
}

fn endpoint(address: &Address) -> Result<Endpoint> {
    let uri = match address {
        Address::Unix(path) => format!("unix:{}", path.display()),
        Address::Tcp(address) => format!("http://{address}"),
    };
    Endpoint::from_shared(uri)
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("{address} is not an address")))
}

fn nobody(address: &Address, error: &tonic::transport::Error) -> Error {
    let reason = innermost(error);
    let message = format!(
        "no node answers at {address} ({reason}): start one with `skerry serve`, or name its data directory with \
         --data, or its address with --api"
    );
    Error::new(ErrorKind::Unavailable, message)
}

fn out_of_order() -> Error {
    let message = "the node answered out of order: are the node and this program of one version?";
    Error::new(ErrorKind::Internal, message)
}
