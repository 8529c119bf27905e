//! The service of the control API: each handler checks its input, asks the engine, and converts the
//! answer. It decides nothing.

mod convert;
mod export;
mod import;

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use skerry_api::v1::control_server::Control;
use skerry_api::{Result, v1};
use skerry_core::name::Target;
use skerry_volume::{CreateVolume, Engine};
use tonic::{Request, Response, Status, Streaming};

use crate::api_error::of_engine;
use crate::rpc::gate::Calls;
use crate::values::{block_bytes, name, volume_bytes};

/// Number of items in one message of a listing. Some hundred bytes each, so a message stays well
/// below gRPC's 4 MiB.
const PAGE_ITEMS: usize = 2000;

/// The service, over a node's engine.
pub(crate) struct ControlService {
    engine: Arc<Engine>,
    calls: Calls,
}

impl ControlService {
    /// Serves this engine. `calls` runs the parts of calls that have to clean up.
    pub(crate) fn new(engine: Arc<Engine>, calls: Calls) -> Self {
        Self { engine, calls }
    }
}

/// Accepts or refuses a request: the place for authentication, which does not exist yet.
#[allow(clippy::result_large_err, reason = "the interceptor's type is tonic's")]
pub(crate) fn admit(request: Request<()>) -> Result<Request<()>, Status> {
    Ok(request)
}

type Answer<T> = std::result::Result<Response<T>, Status>;
type Messages<T> = Pin<Box<dyn Stream<Item = std::result::Result<T, Status>> + Send>>;

/// Cuts a listing into messages.
fn pages<T, P>(items: Vec<T>, page: impl Fn(Vec<T>) -> P + Send + 'static) -> Messages<P>
where
    T: Send + 'static,
    P: Send + 'static,
{
    let items = futures::stream::iter(items).chunks(PAGE_ITEMS);
    Box::pin(items.map(move |items| Ok(page(items))))
}

#[tonic::async_trait]
impl Control for ControlService {
    type ListVolumesStream = Messages<v1::ListVolumesResponse>;
    type ListSnapshotsStream = Messages<v1::ListSnapshotsResponse>;
    type DiffSnapshotsStream = Messages<v1::DiffSnapshotsResponse>;
    type ExportVolumeStream = Messages<v1::ExportVolumeResponse>;

    async fn create_volume(&self, request: Request<v1::CreateVolumeRequest>) -> Answer<v1::Volume> {
        let request = request.into_inner();
        let new = CreateVolume {
            name: name(&request.name)?,
            size_bytes: volume_bytes(request.size_bytes)?,
            block_size_bytes: block_bytes(request.block_size_bytes)?,
            flush: convert::flush_level(request.flush()),
        };
        let made = self.engine.create_volume(new).await.map_err(of_engine)?;
        Ok(Response::new(convert::volume(made)))
    }

    async fn list_volumes(
        &self,
        _request: Request<v1::ListVolumesRequest>,
    ) -> Answer<Self::ListVolumesStream> {
        let all = self.engine.list_volumes().await.map_err(of_engine)?;
        let all = all.into_iter().map(convert::volume).collect();
        Ok(Response::new(pages(all, |volumes| v1::ListVolumesResponse { volumes })))
    }

    async fn show_volume(&self, request: Request<v1::ShowVolumeRequest>) -> Answer<v1::Volume> {
        let name = name(&request.into_inner().name)?;
        let found = self.engine.show_volume(&name).await.map_err(of_engine)?;
        Ok(Response::new(convert::volume(found)))
    }

    async fn resize_volume(&self, request: Request<v1::ResizeVolumeRequest>) -> Answer<v1::Volume> {
        let request = request.into_inner();
        let (name, size) = (name(&request.name)?, volume_bytes(request.size_bytes)?);
        let resized = self.engine.resize_volume(&name, size, request.shrink).await;
        Ok(Response::new(convert::volume(resized.map_err(of_engine)?)))
    }

    async fn rename_volume(&self, request: Request<v1::RenameVolumeRequest>) -> Answer<v1::Volume> {
        let request = request.into_inner();
        let (old, new) = (name(&request.name)?, name(&request.new_name)?);
        let renamed = self.engine.rename_volume(&old, &new).await.map_err(of_engine)?;
        Ok(Response::new(convert::volume(renamed)))
    }

    async fn delete_volume(
        &self,
        request: Request<v1::DeleteVolumeRequest>,
    ) -> Answer<v1::DeleteVolumeResponse> {
        let request = request.into_inner();
        let name = name(&request.name)?;
        let deleted = self.engine.delete_volume(&name, request.snapshots, request.force).await;
        deleted.map_err(of_engine)?;
        Ok(Response::new(v1::DeleteVolumeResponse {}))
    }

    async fn release_volume(
        &self,
        request: Request<v1::ReleaseVolumeRequest>,
    ) -> Answer<v1::ReleaseVolumeResponse> {
        let request = request.into_inner();
        let name = name(&request.name)?;
        let released = self.engine.release_volume(&name, request.force).await.map_err(of_engine)?;
        let (held_by, may_lose) = (released.held_by, released.may_lose);
        Ok(Response::new(v1::ReleaseVolumeResponse { held_by, may_lose }))
    }

    async fn clone_volume(&self, request: Request<v1::CloneVolumeRequest>) -> Answer<v1::Volume> {
        let request = request.into_inner();
        let (volume, snapshot) = (name(&request.volume)?, name(&request.snapshot)?);
        let new = name(&request.new_name)?;
        let size = request.size_bytes.map(volume_bytes).transpose()?;
        let clone = self.engine.clone_volume(&volume, &snapshot, &new, size).await;
        Ok(Response::new(convert::volume(clone.map_err(of_engine)?)))
    }

    async fn rollback_volume(
        &self,
        request: Request<v1::RollbackVolumeRequest>,
    ) -> Answer<v1::Snapshot> {
        let request = request.into_inner();
        let (volume, snapshot) = (name(&request.volume)?, name(&request.snapshot)?);
        let kept = self.engine.rollback_volume(&volume, &snapshot, request.force).await;
        Ok(Response::new(convert::snapshot(kept.map_err(of_engine)?)))
    }

    async fn create_snapshot(
        &self,
        request: Request<v1::CreateSnapshotRequest>,
    ) -> Answer<v1::Snapshot> {
        let request = request.into_inner();
        let volume = name(&request.volume)?;
        let snapshot = request.snapshot.as_deref().map(name).transpose()?;
        let made = self.engine.create_snapshot(&volume, snapshot.as_ref()).await;
        Ok(Response::new(convert::snapshot(made.map_err(of_engine)?)))
    }

    async fn list_snapshots(
        &self,
        request: Request<v1::ListSnapshotsRequest>,
    ) -> Answer<Self::ListSnapshotsStream> {
        let volume = name(&request.into_inner().volume)?;
        let all = self.engine.list_snapshots(&volume).await.map_err(of_engine)?;
        let all = all.into_iter().map(convert::snapshot).collect();
        Ok(Response::new(pages(all, |snapshots| v1::ListSnapshotsResponse { snapshots })))
    }

    async fn delete_snapshot(
        &self,
        request: Request<v1::DeleteSnapshotRequest>,
    ) -> Answer<v1::DeleteSnapshotResponse> {
        let request = request.into_inner();
        let (volume, snapshot) = (name(&request.volume)?, name(&request.snapshot)?);
        self.engine.delete_snapshot(&volume, &snapshot).await.map_err(of_engine)?;
        Ok(Response::new(v1::DeleteSnapshotResponse {}))
    }

    async fn diff_snapshots(
        &self,
        request: Request<v1::DiffSnapshotsRequest>,
    ) -> Answer<Self::DiffSnapshotsStream> {
        let request = request.into_inner();
        let (from, to) = (name(&request.from)?, name(&request.to)?);
        let ranges = self.engine.diff_snapshots(&name(&request.volume)?, &from, &to).await;
        let ranges = ranges.map_err(of_engine)?.into_iter().map(convert::diff_range).collect();
        Ok(Response::new(pages(ranges, |ranges| v1::DiffSnapshotsResponse { ranges })))
    }

    async fn import_volume(
        &self,
        request: Request<Streaming<v1::ImportVolumeRequest>>,
    ) -> Answer<v1::ImportVolumeResponse> {
        let (engine, ended) = (self.engine.clone(), self.calls.ended());
        let messages = request.into_inner();
        // Not in this handler, which is dropped when the client goes.
        let importing =
            self.calls.spawn(async move { import::import(&engine, messages, &ended).await });
        let imported = importing.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(imported?))
    }

    async fn export_volume(
        &self,
        request: Request<v1::ExportVolumeRequest>,
    ) -> Answer<Self::ExportVolumeStream> {
        let request = request.into_inner();
        let snapshot = request.snapshot.as_deref().map(name).transpose()?;
        let target = Target { volume: name(&request.volume)?, snapshot };
        let device = self.engine.open_device(&target).await.map_err(of_engine)?;
        Ok(Response::new(Box::pin(export::messages(device).map(|one| Ok(one?)))))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Answer<v1::GetStatusResponse> {
        Ok(Response::new(convert::status(self.engine.status())))
    }

    async fn fsck(&self, _request: Request<v1::FsckRequest>) -> Answer<v1::FsckResponse> {
        let report = self.engine.fsck().await.map_err(of_engine)?;
        Ok(Response::new(convert::fsck_report(report)))
    }
}
