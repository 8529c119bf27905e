//! Asks the node for names of volumes and snapshots, to complete a word or to correct one. Both are
//! help that may fail, so neither waits long.

use std::time::Duration;

use futures::stream::{StreamExt as _, TryStreamExt as _};
use skerry_api::{Client, Error, ErrorKind, Result, v1};
use skerry_core::name::Name;

use super::Context;
use crate::cli::completion::{Names, Wanted};
use crate::values::{self, invalid};

/// Time for which a person at a shell waits for help.
const ASK_TIME_MAX: Duration = Duration::from_millis(1500);
/// Number of volumes whose snapshots are asked for at once.
const VOLUMES_MAX: usize = 16;
/// Number of snapshots that an error names.
const MEANT_MAX: usize = 3;

/// Prints the names that fit, one a line, and nothing if the node does not answer.
pub(super) async fn complete(context: &mut Context<'_>, wanted: &Wanted) -> Result<()> {
    let names = in_time(find(context, wanted)).await.unwrap_or_default();
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    context.output.print(&names, &lines)
}

/// `VOLUME@SNAPSHOT`. If `text` lacks one of them, the error names snapshots that it may mean.
pub(super) async fn snapshot(context: &Context<'_>, text: &str) -> Result<(Name, Name)> {
    let refused = match values::snapshot(text) {
        Ok(found) => return Ok(found),
        Err(refused) if text.contains('@') => return Err(refused),
        Err(refused) => refused,
    };
    let wanted = Wanted { names: Names::Snapshots, begin: String::new(), data: None, api: None };
    let all = in_time(find(context, &wanted)).await.unwrap_or_default();
    let is_meant = |name: &String| {
        let parts = name.split_once('@');
        parts.is_some_and(|(volume, snapshot)| {
            snapshot == text || volume == text && !snapshot.is_empty()
        })
    };
    let meant: Vec<_> = all.into_iter().filter(is_meant).take(MEANT_MAX).collect();
    match meant.is_empty() {
        true => Err(refused),
        false => Err(invalid(format!("{refused}; there is {}", meant.join(", ")))),
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::new(ErrorKind::Unavailable, "the node does not answer in time");
    tokio::time::timeout(ASK_TIME_MAX, asking).await.map_err(late).flatten()
}

async fn find(context: &Context<'_>, wanted: &Wanted) -> Result<Vec<String>> {
    let client = context.client().await?;
    let mut names = match wanted.begin.split_once('@') {
        Some(_) if wanted.names == Names::Volumes => Vec::new(),
        Some((volume, _)) => snapshots(&client, volume).await?,
        None => {
            let mut volumes = client.list_volumes().await?;
            volumes.retain(|volume| volume.name.starts_with(&wanted.begin));
            let mut names = match wanted.names {
                Names::Snapshots => Vec::new(),
                _ => volumes.iter().map(|volume| volume.name.clone()).collect(),
            };
            if wanted.names != Names::Volumes {
                names.extend(snapshots_of(&client, volumes).await?);
            }
            names
        }
    };
    names.retain(|name| name.starts_with(&wanted.begin));
    Ok(names)
}

/// The snapshots of these volumes. Of many volumes it gives the beginnings alone, `VOLUME@`.
async fn snapshots_of(client: &Client, mut volumes: Vec<v1::Volume>) -> Result<Vec<String>> {
    volumes.retain(|volume| volume.snapshots > 0);
    if volumes.len() > VOLUMES_MAX {
        return Ok(volumes.into_iter().map(|volume| format!("{}@", volume.name)).collect());
    }
    let asked = volumes.iter().map(|volume| snapshots(client, &volume.name));
    let all: Vec<_> = futures::stream::iter(asked).buffered(VOLUMES_MAX).try_collect().await?;
    Ok(all.into_iter().flatten().collect())
}

async fn snapshots(client: &Client, volume: &str) -> Result<Vec<String>> {
    let request = v1::ListSnapshotsRequest { volume: volume.to_owned() };
    let all = client.list_snapshots(request).await?;
    Ok(all.into_iter().map(|snapshot| format!("{volume}@{}", snapshot.name)).collect())
}
