//! The flags of `skerry serve`, which override the settings file.

use std::path::PathBuf;

use skerry_api::{Address, Result};

use crate::cli::args::ServeArgs;
use crate::settings::{DATA_VARIABLE, Listen, Settings, Variable};

/// Gives the settings of `skerry serve`: the settings file, with flags over it.
pub(crate) fn settings_of(
    flags: &ServeArgs,
    data: Option<PathBuf>,
    api: &[Address],
    variable: Variable<'_>,
) -> Result<Settings> {
    let mut settings = match &flags.config {
        Some(path) => Settings::read(path, variable)?,
        None => Settings::default(),
    };
    let data = data.or_else(|| variable(DATA_VARIABLE).map(PathBuf::from));
    settings.data = data.unwrap_or(settings.data);
    apply(&mut settings, flags, api);
    settings.check()?;
    Ok(settings)
}

fn apply(settings: &mut Settings, flags: &ServeArgs, api: &[Address]) {
    let listen = |all: &[Address]| {
        (!all.is_empty()).then(|| all.iter().cloned().map(Listen).collect::<Vec<_>>())
    };
    settings.nbd.listen = listen(&flags.nbd).or(settings.nbd.listen.take());
    settings.api.listen = listen(api).or(settings.api.listen.take());
    settings.metrics.listen = flags.metrics.clone().map(Listen).or(settings.metrics.listen.take());
    settings.bucket.url = flags.bucket.clone().or(settings.bucket.url.take());
    settings.log.enabled &= !flags.no_log;
    settings.node.in_its_place = flags.in_its_place;
    if let Some(dir) = &flags.log {
        settings.log.enabled = true;
        settings.log.dir = Some(dir.clone());
    }
}

#[cfg(test)]
mod tests;
