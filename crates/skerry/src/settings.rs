//! The settings of a node, as plain data: defaults, then the settings file. Flags override both.
//!
//! Nothing here opens anything but the settings file. `settings/example.toml` lists every setting
//! with its default. `skerry serve --help` prints it, and a test reads it.

mod expand;
mod scalar;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use skerry_api::{Address, Error, ErrorKind, Result};
use skerry_core::seal::HOST_BYTES_MAX;

pub(crate) use scalar::{ByteSize, Seconds, SocketMode};

use crate::values::invalid;

/// The default data directory.
pub(crate) const DATA_DEFAULT: &str = "./skerry-data";
/// Names the data directory.
pub(crate) const DATA_VARIABLE: &str = "SKERRY_DATA";
/// Names the control API's address, for everything but `serve`.
pub(crate) const API_VARIABLE: &str = "SKERRY_API";

/// All settings, with their defaults, as a file.
pub(crate) const EXAMPLE: &str = include_str!("settings/example.toml");

/// The default cap of the log: room for minutes of writing while the bucket is away.
const LOG_CAP_BYTES: u64 = 8 << 30;
/// The log takes at most one in this many free bytes of its disk.
const LOG_FREE_SHARE: u64 = 4;

/// Reads a variable of the environment.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// All settings of a node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The node itself.
    pub(crate) node: NodeSettings,
    /// The place of everything durable.
    pub(crate) bucket: BucketSettings,
    /// The write-ahead log.
    pub(crate) log: LogSettings,
    /// The caches.
    pub(crate) cache: CacheSettings,
    /// The way of the log into the bucket.
    pub(crate) destage: DestageSettings,
    /// Listeners for NBD clients.
    pub(crate) nbd: NbdSettings,
    /// Listeners for commands.
    pub(crate) api: ListenSettings,
    /// The listener for Prometheus.
    pub(crate) metrics: MetricsSettings,
    /// The job broker.
    pub(crate) jobs: JobsSettings,
    /// The place of jobs; the bucket by default.
    pub(crate) database: Option<DatabaseSettings>,
}

/// The job broker.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct JobsSettings {
    /// False if this node takes no jobs.
    #[serde(deserialize_with = "scalar::flag")]
    pub(crate) enabled: bool,
    /// Number of databases; one holds all jobs of a tenant. Can't be changed later.
    pub(crate) shards: u32,
    /// Retention of jobs that succeeded or were cancelled.
    pub(crate) done_retention_s: Seconds,
    /// Retention of dead letters.
    pub(crate) failed_retention_s: Seconds,
    /// Bytes of jobs on their way to all workers at once, for the whole node; more wait.
    pub(crate) handed_out_bytes: ByteSize,
    /// Place of the log of a new database. A database keeps the log that it was made with.
    pub(crate) log: JobsLog,
    /// True to give up what only a local log has that is lost.
    #[serde(deserialize_with = "scalar::flag")]
    pub(crate) give_up_wal: bool,
}

/// Place of the log of a jobs database, if `[database.wal]` names none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobsLog {
    /// The database's own store.
    #[default]
    Database,
    /// The disk of the node's log.
    Local,
}

/// The mark for a shard's number in a path.
pub(crate) const SHARD_MARK: &str = "%shard%";

/// The place of jobs.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseSettings {
    /// `fs`, `s3`, `gcs`, `azure` or `memory`.
    pub(crate) backend: String,
    /// A directory, or a bucket and a prefix; with [`SHARD_MARK`] for the shard's number.
    #[serde(default)]
    pub(crate) path: String,
    /// Options of the store, such as keys and regions.
    #[serde(default, deserialize_with = "scalar::texts")]
    pub(crate) options: BTreeMap<String, String>,
    /// The database's log, if it is at another place.
    pub(crate) wal: Option<WalSettings>,
    /// True to give up what only another log has, or to accept a log that was moved:
    /// `docs/jobs.md`, "The log on a local disk".
    #[serde(default, deserialize_with = "scalar::flag")]
    pub(crate) give_up_wal: bool,
    /// Settings of SlateDB.
    #[serde(default)]
    pub(crate) slatedb: toml::Table,
}

/// The place of the jobs' database's log.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalSettings {
    /// As the database's.
    pub(crate) backend: String,
    /// As the database's.
    #[serde(default)]
    pub(crate) path: String,
    /// As the database's.
    #[serde(default, deserialize_with = "scalar::texts")]
    pub(crate) options: BTreeMap<String, String>,
    /// True to write the records that only the log has to the database at a clean stop. Then
    /// another host may go on.
    #[serde(default = "yes", deserialize_with = "scalar::flag")]
    pub(crate) apply_wal_on_close: bool,
}

fn yes() -> bool {
    true
}

impl fmt::Debug for DatabaseSettings {
    /// Options hold secrets: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.options.keys().collect();
        let mut shown = f.debug_struct("DatabaseSettings");
        shown.field("backend", &self.backend).field("path", &self.path);
        shown.field("options", &names).field("wal", &self.wal).finish_non_exhaustive()
    }
}

impl fmt::Debug for WalSettings {
    /// Options hold secrets: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.options.keys().collect();
        let mut shown = f.debug_struct("WalSettings");
        shown.field("backend", &self.backend).field("path", &self.path);
        shown.field("options", &names).finish_non_exhaustive()
    }
}

impl Default for JobsSettings {
    fn default() -> Self {
        const DAY_S: u64 = 86_400;
        Self {
            enabled: true,
            shards: 1,
            done_retention_s: Seconds(7 * DAY_S),
            failed_retention_s: Seconds(30 * DAY_S),
            handed_out_bytes: ByteSize(skerry_jobs::shard::BUDGET_BYTES),
            log: JobsLog::default(),
            give_up_wal: false,
        }
    }
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NodeSettings {
    /// The owner's name for people; by default the host's name.
    pub(crate) name: Option<String>,
    /// True to go on in the place of a copy of the node that is gone. Never in the file: it is said
    /// once.
    #[serde(skip)]
    pub(crate) in_its_place: bool,
    /// Time in which clients take their last replies when the node stops.
    pub(crate) shutdown_drain_s: Seconds,
}

/// The place of everything durable.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BucketSettings {
    /// Its URL; by default `bucket/` in the data directory.
    pub(crate) url: Option<String>,
    /// Time for which guests, and starts, wait for a bucket that fails for a reason that can pass.
    /// Without end by default.
    pub(crate) guest_wait_s: Option<Seconds>,
    /// Options of the store, such as keys and regions.
    #[serde(deserialize_with = "scalar::texts")]
    pub(crate) options: BTreeMap<String, String>,
}

impl fmt::Debug for BucketSettings {
    /// Options hold secrets: only their names are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.options.keys().collect();
        let mut shown = f.debug_struct("BucketSettings");
        shown.field("url", &self.url).field("guest_wait_s", &self.guest_wait_s);
        shown.field("options", &names).finish()
    }
}

/// The write-ahead log.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogSettings {
    /// False makes every flush wait for the bucket.
    #[serde(deserialize_with = "scalar::flag")]
    pub(crate) enabled: bool,
    /// Its directory; by default `log/` in the data directory.
    pub(crate) dir: Option<PathBuf>,
    /// The most bytes of all its files; past it, writers wait for the bucket.
    pub(crate) cap_bytes: Option<ByteSize>,
}

/// The caches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CacheSettings {
    /// Bytes of decoded blocks in memory, for the whole node.
    pub(crate) ram_bytes: ByteSize,
    /// Bytes of stored frames on disk, for the whole node.
    pub(crate) disk_bytes: ByteSize,
    /// The directory of the disk cache; by default `cache/` in the data directory.
    pub(crate) dir: Option<PathBuf>,
}

/// The way of the log into the bucket.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DestageSettings {
    /// Time for which a write may stay in the log alone; a goal, not a promise.
    pub(crate) dirty_age_s: Seconds,
}

/// Listeners for NBD clients, and their number of connections.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NbdSettings {
    /// Addresses; without any, the defaults.
    pub(crate) listen: Option<Vec<Listen>>,
    /// Mode of its Unix sockets; by default only the node's own user has access.
    pub(crate) socket_mode: SocketMode,
    /// Group of its Unix sockets, by name or number; by default the node's own.
    pub(crate) socket_group: Option<String>,
    /// Connections at once.
    pub(crate) connections_max: u32,
}

/// Listeners for commands.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListenSettings {
    /// Addresses; without any, the default.
    pub(crate) listen: Option<Vec<Listen>>,
}

/// The listener for Prometheus.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MetricsSettings {
    /// `HOST:PORT`; none by default.
    pub(crate) listen: Option<Listen>,
}

/// An address, in a settings file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Listen(pub(crate) Address);

impl TryFrom<String> for Listen {
    type Error = skerry_api::address::AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: DATA_DEFAULT.into(),
            node: NodeSettings::default(),
            bucket: BucketSettings::default(),
            log: LogSettings::default(),
            cache: CacheSettings::default(),
            destage: DestageSettings::default(),
            nbd: NbdSettings::default(),
            api: ListenSettings::default(),
            metrics: MetricsSettings::default(),
            jobs: JobsSettings::default(),
            database: None,
        }
    }
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { name: None, in_its_place: false, shutdown_drain_s: Seconds(10) }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { enabled: true, dir: None, cap_bytes: None }
    }
}

impl LogSettings {
    /// The cap, with this number of free bytes on its disk.
    pub(crate) fn cap_bytes(&self, free_bytes: u64) -> u64 {
        let default = LOG_CAP_BYTES.min(free_bytes / LOG_FREE_SHARE);
        self.cap_bytes.map_or(default, |cap| cap.0)
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { ram_bytes: ByteSize(256 << 20), disk_bytes: ByteSize(4 << 30), dir: None }
    }
}

impl Default for DestageSettings {
    fn default() -> Self {
        Self { dirty_age_s: Seconds(30) }
    }
}

impl Default for NbdSettings {
    fn default() -> Self {
        Self {
            listen: None,
            socket_mode: SocketMode(0o600),
            socket_group: None,
            connections_max: 1024,
        }
    }
}

impl Settings {
    /// Checks values that their types allow and a node refuses.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(name) = self.node.name.as_ref().filter(|name| name.len() > HOST_BYTES_MAX) {
            let bytes = name.len();
            return Err(invalid(format!(
                "the node's name has {bytes} bytes; at most {HOST_BYTES_MAX}"
            )));
        }
        if self.jobs.log == JobsLog::Local {
            let wal = self.database.as_ref().and_then(|database| database.wal.as_ref());
            let reason = match wal {
                Some(_) => "[database.wal] says already where it is",
                None if !self.log.enabled => "this node has no log ([log] enabled, --no-log)",
                None => "",
            };
            if !reason.is_empty() {
                return Err(invalid(format!("[jobs] log = \"local\": {reason}")));
            }
        }
        match &self.metrics.listen {
            Some(Listen(address @ Address::Unix(_))) => {
                Err(invalid(format!("metrics can't be served at {address}: give HOST:PORT")))
            }
            _ => Ok(()),
        }
    }

    /// Reads a settings file.
    pub(crate) fn read(path: &Path, variable: Variable<'_>) -> Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                _ => ErrorKind::Invalid,
            };
            Error::new(kind, format!("the settings file {shown} can't be read: {error}"))
        })?;
        let settings = Self::from_toml(&text, variable);
        settings.map_err(|reason| invalid(format!("in the settings file {shown}: {reason}")))
    }

    /// Reads settings from the text of a file.
    fn from_toml(text: &str, variable: Variable<'_>) -> Result<Self, String> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
        expand::table(&mut table, variable)?;
        table.try_into().map_err(|error: toml::de::Error| error.to_string().trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests;
