//! `skerry snapshot …`.

use serde_json::json;
use skerry_api::{Result, v1};
use skerry_core::name::Target;

use super::{Context, names, schedule};
use crate::cli::args::SnapshotCommand;
use crate::cli::output::{DiffDocument, SnapshotDocument, diff_table, documents, snapshot_table};
use crate::values::{self, invalid};

/// Carries out one of these commands.
pub(super) async fn run(context: &mut Context<'_>, command: SnapshotCommand) -> Result<()> {
    match command {
        SnapshotCommand::Create { target } => create(context, &target).await,
        SnapshotCommand::List { name } => list(context, &name).await,
        SnapshotCommand::Delete { snapshot } => delete(context, &snapshot).await,
        SnapshotCommand::Diff { from, to } => diff(context, &from, &to).await,
        SnapshotCommand::Schedule(args) => schedule::of_volume(context, args).await,
        SnapshotCommand::Schedules => schedule::list(context).await,
    }
}

async fn create(context: &mut Context<'_>, target: &str) -> Result<()> {
    let Target { volume, snapshot } = values::target(target)?;
    let snapshot = snapshot.map(|name| name.to_string());
    let request = v1::CreateSnapshotRequest { volume: volume.to_string(), snapshot };
    let made = context.client().await?.create_snapshot(request).await?;
    let text = format!("created snapshot {}@{}\n", made.volume, made.name);
    context.output.print(&SnapshotDocument::from(&made), &text)
}

async fn list(context: &mut Context<'_>, name: &str) -> Result<()> {
    let request = v1::ListSnapshotsRequest { volume: values::name(name)?.to_string() };
    let all = context.client().await?.list_snapshots(request).await?;
    context.output.print(&documents::<_, SnapshotDocument<'_>>(&all), &snapshot_table(&all))
}

async fn delete(context: &mut Context<'_>, target: &str) -> Result<()> {
    let (volume, snapshot) = names::snapshot(context, target).await?;
    let (volume, snapshot) = (volume.to_string(), snapshot.to_string());
    let request = v1::DeleteSnapshotRequest { volume, snapshot };
    context.client().await?.delete_snapshot(request).await?;
    context.output.print(&json!({ "deleted": target }), &format!("deleted snapshot {target}\n"))
}

async fn diff(context: &mut Context<'_>, from: &str, to: &str) -> Result<()> {
    let (volume, from) = names::snapshot(context, from).await?;
    let (other, to) = names::snapshot(context, to).await?;
    if volume != other {
        let message =
            format!("{volume} and {other} differ: two snapshots of one volume are needed");
        return Err(invalid(message));
    }
    let (from, to) = (from.to_string(), to.to_string());
    let request = v1::DiffSnapshotsRequest { volume: volume.to_string(), from, to };
    let ranges = context.client().await?.diff_snapshots(request).await?;
    context.output.print(&documents::<_, DiffDocument>(&ranges), &diff_table(&ranges))
}
