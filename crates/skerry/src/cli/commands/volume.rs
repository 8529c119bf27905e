//! `skerry volume …`.

use serde_json::json;
use skerry_api::{Client, ErrorKind, Result, v1};

use super::{Context, names};
use crate::cli::args::{Flush, VolumeCommand};
use crate::cli::output::volumes::{VolumeDocument, volume_lines, volume_table};
use crate::cli::output::{SnapshotDocument, documents};
use crate::values::{self, human_bytes};

/// Carries out one of these commands.
pub(super) async fn run(context: &mut Context<'_>, command: VolumeCommand) -> Result<()> {
    match command {
        VolumeCommand::Create { name, size, block_size, flush } => {
            create(context, &name, &size, block_size.as_deref(), flush).await
        }
        VolumeCommand::List => list(context).await,
        VolumeCommand::Show { name } => show(context, &name).await,
        VolumeCommand::Resize { name, size, shrink } => resize(context, &name, &size, shrink).await,
        VolumeCommand::Rename { name, new } => rename(context, &name, &new).await,
        VolumeCommand::Delete { name, snapshots, force } => {
            delete(context, &name, snapshots, force).await
        }
        VolumeCommand::Release { name, force } => release(context, &name, force).await,
        VolumeCommand::Clone { snapshot, new, size } => {
            clone(context, &snapshot, &new, size.as_deref()).await
        }
        VolumeCommand::Rollback { snapshot, force } => rollback(context, &snapshot, force).await,
    }
}

async fn create(
    context: &mut Context<'_>,
    name: &str,
    size: &str,
    block_size: Option<&str>,
    flush: Option<Flush>,
) -> Result<()> {
    let request = v1::CreateVolumeRequest {
        name: values::name(name)?.to_string(),
        size_bytes: values::volume_size(size)?,
        block_size_bytes: block_size.map_or(Ok(0), values::block_size)?,
        flush: flush_level(flush).into(),
    };
    let volume = context.client().await?.create_volume(request).await?;
    print(context, "created", &volume)
}

fn flush_level(flush: Option<Flush>) -> v1::FlushLevel {
    match flush {
        None => v1::FlushLevel::Unspecified,
        Some(Flush::Local) => v1::FlushLevel::Local,
        Some(Flush::Bucket) => v1::FlushLevel::Bucket,
    }
}

fn print(context: &mut Context<'_>, done: &str, volume: &v1::Volume) -> Result<()> {
    let text = format!("{done} volume {}, {}\n", volume.name, human_bytes(volume.size_bytes));
    context.output.print(&VolumeDocument::from(volume), &text)
}

async fn list(context: &mut Context<'_>) -> Result<()> {
    let volumes = context.client().await?.list_volumes().await?;
    context.output.print(&documents::<_, VolumeDocument<'_>>(&volumes), &volume_table(&volumes))
}

async fn show(context: &mut Context<'_>, name: &str) -> Result<()> {
    let request = v1::ShowVolumeRequest { name: values::name(name)?.to_string() };
    let volume = context.client().await?.show_volume(request).await?;
    context.output.print(&VolumeDocument::from(&volume), &volume_lines(&volume))
}

async fn resize(context: &mut Context<'_>, name: &str, size: &str, shrink: bool) -> Result<()> {
    let name = values::name(name)?.to_string();
    let size_bytes = values::volume_size(size)?;
    let request = v1::ResizeVolumeRequest { name, size_bytes, shrink };
    let volume = context.client().await?.resize_volume(request).await?;
    print(context, "resized", &volume)
}

async fn rename(context: &mut Context<'_>, name: &str, new: &str) -> Result<()> {
    let name = values::name(name)?.to_string();
    let request = v1::RenameVolumeRequest { name, new_name: values::name(new)?.to_string() };
    let volume = context.client().await?.rename_volume(request).await?;
    print(context, "renamed: it is now", &volume)
}

async fn delete(context: &mut Context<'_>, name: &str, snapshots: bool, force: bool) -> Result<()> {
    let name = values::name(name)?.to_string();
    let request = v1::DeleteVolumeRequest { name: name.clone(), snapshots, force };
    let client = context.client().await?;
    client.delete_volume(request).await?;
    let left = match snapshots {
        true => 0,
        false => snapshots_left(&client, &name).await?,
    };
    let hint = match left {
        0 => String::new(),
        _ => format!(
            ", and {left} of its snapshots remain with the name: `skerry snapshot list {name}` \
             shows them, `skerry volume delete {name} --snapshots` deletes them"
        ),
    };
    let document = json!({ "deleted": name, "snapshots_left": left });
    context.output.print(&document, &format!("deleted volume {name}{hint}\n"))
}

/// Number of snapshots that a deleted volume leaves.
async fn snapshots_left(client: &Client, name: &str) -> Result<u64> {
    match client.show_volume(v1::ShowVolumeRequest { name: name.to_owned() }).await {
        Ok(volume) if volume.deleted => Ok(volume.snapshots),
        Ok(_) => Ok(0),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

async fn release(context: &mut Context<'_>, name: &str, force: bool) -> Result<()> {
    let name = values::name(name)?.to_string();
    let request = v1::ReleaseVolumeRequest { name: name.clone(), force };
    let released = context.client().await?.release_volume(request).await?;
    let holder = released.held_by.as_deref();
    let loss = match (released.may_lose, holder) {
        (true, Some(host)) => format!(
            "; what {host} had acknowledged but not brought to the bucket is lost, if there was \
             any; if it still runs, it may go on for up to ten seconds in vain: stop its guests"
        ),
        (true, None) => "; what its last holder had not brought to the bucket is lost".to_owned(),
        (false, _) => "; nothing is lost".to_owned(),
    };
    let held = holder.map_or(String::new(), |host| format!(", which {host} held"));
    let text = format!("released volume {name}{held}{loss}\n");
    let document = json!({ "released": name, "held_by": holder, "may_lose": released.may_lose });
    context.output.print(&document, &text)
}

async fn clone(
    context: &mut Context<'_>,
    snapshot: &str,
    new: &str,
    size: Option<&str>,
) -> Result<()> {
    let (volume, snapshot) = names::snapshot(context, snapshot).await?;
    let request = v1::CloneVolumeRequest {
        volume: volume.to_string(),
        snapshot: snapshot.to_string(),
        new_name: values::name(new)?.to_string(),
        size_bytes: size.map(values::volume_size).transpose()?,
    };
    let volume = context.client().await?.clone_volume(request).await?;
    print(context, "created", &volume)
}

async fn rollback(context: &mut Context<'_>, snapshot: &str, force: bool) -> Result<()> {
    let (volume, snapshot) = names::snapshot(context, snapshot).await?;
    let (volume, snapshot) = (volume.to_string(), snapshot.to_string());
    let request =
        v1::RollbackVolumeRequest { volume: volume.clone(), snapshot: snapshot.clone(), force };
    let kept = context.client().await?.rollback_volume(request).await?;
    let text = format!(
        "rolled volume {volume} back to {snapshot}; its former state is kept as {volume}@{}\n",
        kept.name
    );
    context.output.print(&SnapshotDocument::from(&kept), &text)
}
