//! `skerry snapshot schedule …` and `skerry snapshot schedules`.

use std::collections::HashMap;

use serde_json::json;
use skerry_api::{Error, ErrorKind, Result, v1};
use skerry_core::env::Clock as _;
use skerry_core::id::VolumeId;

use super::Context;
use crate::cli::args::ScheduleArgs;
use crate::cli::output::schedules::{ScheduleDocument, schedule_lines, schedule_table};
use crate::env::SystemClock;
use crate::schedule::{Interval, Keep, Schedules};
use crate::values::{self, invalid};

/// Shows, sets or ends the schedule of a volume.
pub(super) async fn of_volume(context: &mut Context<'_>, args: ScheduleArgs) -> Result<()> {
    let asked = match (&args.every, args.keep) {
        (Some(every), Some(keep)) => Some((Interval::parse(every)?, Keep::new(keep)?)),
        _ => None,
    };
    let (name, volume) = find(context, &args.name).await?;
    let schedules = Schedules::connect(&context.address).await?;
    if args.off {
        return end(context, &schedules, &name, volume).await;
    }
    let schedule = match asked {
        Some((every, keep)) => schedules.set(volume, every, keep, SystemClock.wall_ms()).await?,
        None => schedules.of(volume).await?.ok_or_else(|| none(&name))?,
    };
    let document = ScheduleDocument::new(Some(name), &schedule);
    context.output.print(&document, &schedule_lines(&document))
}

/// Lists the schedules of all volumes, by name.
pub(super) async fn list(context: &mut Context<'_>) -> Result<()> {
    let all = Schedules::connect(&context.address).await?.all().await?;
    let volumes = context.client().await?.list_volumes().await?;
    let names: HashMap<_, _> = volumes.into_iter().map(|volume| (volume.id, volume.name)).collect();
    let name = |id: VolumeId| names.get(&id.to_string()).cloned();
    let mut documents: Vec<_> =
        all.iter().map(|schedule| ScheduleDocument::new(name(schedule.volume), schedule)).collect();
    documents.sort_by(|a, b| a.volume.cmp(&b.volume));
    context.output.print(&documents, &schedule_table(&documents))
}

async fn end(
    context: &mut Context<'_>,
    schedules: &Schedules,
    name: &str,
    volume: VolumeId,
) -> Result<()> {
    let was_on = schedules.end(volume).await?;
    let text = match was_on {
        true => format!("ended the schedule of volume {name}; its snapshots stay\n"),
        false => format!("volume {name} has no schedule\n"),
    };
    context.output.print(&json!({ "off": name, "was_on": was_on }), &text)
}

/// Finds an existing volume by name.
async fn find(context: &Context<'_>, name: &str) -> Result<(String, VolumeId)> {
    let request = v1::ShowVolumeRequest { name: values::name(name)?.to_string() };
    let found = context.client().await?.show_volume(request).await?;
    if found.deleted {
        let message = format!("volume {name} is deleted; only its snapshots are left");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    Ok((found.name, found.id.parse().map_err(invalid)?))
}

fn none(name: &str) -> Error {
    let message = format!(
        "volume {name} has no schedule: make one with `skerry snapshot schedule {name} --every 1h \
         --keep 24`"
    );
    Error::new(ErrorKind::NotFound, message)
}
