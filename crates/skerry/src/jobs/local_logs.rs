//! Logs of jobs databases on the disk of the node's log, without settings of their own.
//!
//! Must hold: a database keeps the log that it was made with. The setting is about new databases
//! only. So a log in the database's store is never left behind, nor is one on the disk.

use std::path::PathBuf;

use skerry_core::wire::hash16;
use skerry_jobs::Result;
use skerry_jobs::database::{self, DatabaseParts};
use skerry_jobs::opening::LogName;

use crate::home::layout::Layout;
use crate::settings::{JobsLog, Settings};

/// The directories of local logs.
pub(super) struct LocalLogs {
    root: PathBuf,
    /// The store of the databases, unless it is the node's bucket, where their paths are unique.
    store: Option<String>,
    /// True if new databases have such a log.
    is_wanted: bool,
}

/// The choice of a database's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The local log.
    Local,
    /// The log in the database's store.
    Own,
    /// That log, though the settings want a local one.
    OwnAsBefore,
}

impl LocalLogs {
    /// The logs of databases in `store`; none if the node has no log, or if the settings say where
    /// the databases' log is.
    pub(super) fn new(settings: &Settings, layout: &Layout, store: &str) -> Option<Self> {
        let wal = settings.database.as_ref().and_then(|database| database.wal.as_ref());
        let is_elsewhere = settings.database.is_some();
        (settings.log.enabled && wal.is_none()).then(|| Self {
            root: layout.jobs_logs(settings),
            store: is_elsewhere.then(|| store.to_owned()),
            is_wanted: settings.jobs.log == JobsLog::Local,
        })
    }

    /// The directory of a database's log.
    fn dir(&self, path: &str) -> PathBuf {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = path.chars().map(plain).collect();
        // Other paths may look the same, and other stores may have the same path.
        let store = self.store.as_ref().map(|store| {
            let hash = hash16(format!("{store} {path}").as_bytes());
            format!("-{:032x}", u128::from_be_bytes(hash))
        });
        self.root.join(name + &store.unwrap_or_default())
    }

    /// The directory of a database's log if it is local.
    ///
    /// # Errors
    /// If the database can't be read.
    pub(super) async fn choose(&self, parts: &DatabaseParts) -> Result<Option<PathBuf>> {
        let dir = self.dir(&parts.path);
        let is_there = dir.is_dir();
        if !is_there && !self.is_wanted {
            return Ok(None);
        }
        let named = database::named_log(parts).await?;
        let choice = choice(named, is_there, self.is_wanted);
        if choice == Choice::OwnAsBefore {
            let path = &parts.path;
            tracing::info!(
                path,
                "this jobs database has its log in its own store, and keeps it; [jobs] log is \
                 about new ones"
            );
        }
        Ok((choice == Choice::Local).then_some(dir))
    }
}

/// Decides by the log that the database names (none for a new one), and by whether its directory is
/// there.
fn choice(named: Option<LogName>, is_there: bool, is_wanted: bool) -> Choice {
    let is_local = match named {
        // It is lost: the opening refuses another log, and says so.
        Some(LogName::Local(_)) if !is_there => return Choice::Own,
        None => is_wanted,
        // Nothing is in a log alone: the directory says with which log the database was made.
        Some(LogName::Local(_) | LogName::Applied) => is_there,
        Some(LogName::Own | LogName::Store(_) | LogName::Unknown) => false,
    };
    match (is_local, is_wanted) {
        (true, _) => Choice::Local,
        (false, true) => Choice::OwnAsBefore,
        (false, false) => Choice::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_keeps_the_log_that_it_was_made_with() {
        use Choice::{Local, Own, OwnAsBefore};
        let local = Some(LogName::Local([1; 16]));
        for (named, is_there, is_wanted, expected) in [
            (None, false, true, Local),
            (None, false, false, Own),
            (None, true, false, Own),
            (local, true, false, Local),
            (local, true, true, Local),
            (local, false, true, Own),
            (Some(LogName::Applied), true, false, Local),
            (Some(LogName::Applied), false, true, OwnAsBefore),
            (Some(LogName::Own), true, true, OwnAsBefore),
            (Some(LogName::Own), true, false, Own),
            (Some(LogName::Store([2; 16])), true, true, OwnAsBefore),
            (Some(LogName::Unknown), true, true, OwnAsBefore),
        ] {
            let chosen = choice(named, is_there, is_wanted);
            assert_eq!(chosen, expected, "{named:?}, there {is_there}, wanted {is_wanted}");
        }
    }

    #[test]
    fn each_database_has_a_directory_of_its_own() {
        let root = PathBuf::from("/log/jobs");
        let bucket = LocalLogs { root, store: None, is_wanted: true };
        assert_eq!(bucket.dir("jobs/databases/ab/0"), bucket.root.join("jobs-databases-ab-0"));
        let elsewhere = |store: &str| {
            let root = bucket.root.clone();
            LocalLogs { root, store: Some(store.to_owned()), is_wanted: true }
        };
        let dirs = [
            elsewhere("s3://a").dir("jobs/0"),
            elsewhere("s3://b").dir("jobs/0"),
            elsewhere("s3://a").dir("jobs-0"),
            elsewhere("s3://a").dir("jobs/1"),
        ];
        let apart: std::collections::BTreeSet<_> = dirs.iter().collect();
        assert_eq!(apart.len(), dirs.len(), "{dirs:?}");
    }
}
