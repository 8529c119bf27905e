//! The command line: commands, flags, and the help that teaches them.
//!
//! Values that can be wrong in themselves (names, sizes) are texts here. [`crate::values`] checks
//! them: what the words mean is not a question of usage. The help of every command is committed
//! under `tests/help`; a test compares.

pub(crate) mod jobs;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use skerry_api::Address;

use crate::exit;

/// Disks in a bucket: volumes for virtual machines, kept in object storage, served over NBD.
///
/// `skerry serve` starts a node; every other command asks a running node. A node keeps its volumes
/// in a bucket: a directory, S3, GCS or Azure. Writes that are not in the bucket yet are in a log
/// on the node's own disk.
#[derive(Debug, Parser)]
#[command(
    name = "skerry",
    version,
    after_help = TOP_EXAMPLES,
    after_long_help = const_str(TOP_EXAMPLES),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const TOP_EXAMPLES: &str = "\
Examples:
  skerry serve &                            start a node, with everything in ./skerry-data
  skerry volume create db --size 10G        make a volume
  qemu-system-x86_64 … -device virtio-blk-pci,drive=db -blockdev node-name=db,driver=nbd,\\
    server.type=unix,server.path=skerry-data/nbd.sock,export=db,reconnect-delay=30
  skerry snapshot create db@before-upgrade  take a snapshot while clients use db
  skerry volume clone db@before-upgrade test
  skerry volume rollback db@before-upgrade

Names have 1 to 128 of A-Z a-z 0-9 . _ - and don't start with . or -; sizes are bytes, or a number
with K, M, G, T or P (powers of 1024).";

/// The help that `--help` adds to that of `-h`: the exit codes.
fn const_str(examples: &str) -> String {
    format!("{examples}\n\n{}", exit::HELP)
}

/// Flags that every command has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The node's data directory [default: $SKERRY_DATA, or ./skerry-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// The node's control API: unix:PATH or HOST:PORT [default: $SKERRY_API, or api.sock in the
    /// data directory]; with `serve`, an address to listen on, as often as needed
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) api: Vec<Address>,

    /// Print one JSON document: bytes as integers, times in RFC 3339, UTC
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node
    #[command(long_about = SERVE_ABOUT)]
    Serve(ServeArgs),
    /// Make and manage volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Take and manage snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Write a raw image file into a volume
    Import(ImportArgs),
    /// Write a volume or a snapshot into a raw image file
    Export(ExportArgs),
    /// Enqueue and manage jobs
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Show the state of the node, its log and its bucket
    Status,
    /// Check all objects of the bucket
    #[command(after_help = "Changes nothing. Exit code 8 if it finds a fault.")]
    Fsck,
    /// Print a shell's completions
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print names that complete the last word, for the scripts of `completions`
    #[command(hide = true)]
    CompleteNames {
        /// The words that were typed, without the program
        #[arg(last = true)]
        words: Vec<String>,
    },
    /// Write the manual pages of all commands, for packages
    #[command(hide = true)]
    Man {
        /// The directory, which must exist
        dir: PathBuf,
    },
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  skerry completions bash > ~/.local/share/bash-completion/completions/skerry
  skerry completions zsh > ~/.zfunc/_skerry";

/// `serve`.
#[derive(Debug, Args)]
#[command(
    after_help = SERVE_EXAMPLES,
    after_long_help = format!(
        "{SERVE_EXAMPLES}\n\nThe settings file:\n\n{}",
        indented(crate::settings::EXAMPLE)
    )
)]
pub(crate) struct ServeArgs {
    /// The bucket: file:///…, s3://…, gs://…, az://… or memory:// [default: bucket/ in the data
    /// directory]
    #[arg(long, value_name = "URL")]
    pub(crate) bucket: Option<String>,

    /// The directory of the write-ahead log [default: log/ in the data directory]
    #[arg(long, value_name = "DIR", conflicts_with = "no_log")]
    pub(crate) log: Option<PathBuf>,

    /// Keep no log: every flush waits for the bucket
    #[arg(long)]
    pub(crate) no_log: bool,

    /// Address for NBD clients: unix:PATH or HOST:PORT, as often as needed; replaces the default
    /// [default: nbd.sock in the data directory]
    #[arg(long, value_name = "ADDR")]
    pub(crate) nbd: Vec<Address>,

    /// Address at which Prometheus scrapes /metrics [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<Address>,

    /// The settings file; flags override it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Start in the place of another copy of this node that is gone for good. Or go on with a log
    /// of jobs that was moved with the node. Say it once, at a start that was refused. If the other
    /// copy still runs, it loses writes
    #[arg(long)]
    pub(crate) in_its_place: bool,
}

const SERVE_ABOUT: &str = "\
Run a node.

Prints one line that starts with \"ready\" when clients can use volumes. SIGTERM, SIGINT or \
SIGHUP ends the node. It first answers the requests that it has begun, and makes everything \
durable. A second signal ends it at once, and loses nothing that was flushed. SKERRY_LOG chooses \
what the node logs to standard error, such as \"debug\" or \"info,skerry_serve=debug\".

There is no login yet: each user who reaches a socket of the node has every volume.";

const SERVE_EXAMPLES: &str = "\
Examples:
  skerry serve
  skerry serve --data /var/lib/skerry --metrics 127.0.0.1:9464
  skerry serve --bucket s3://disks/host-1 --log /nvme/skerry-log
  skerry serve --no-log --nbd unix:/run/skerry/nbd.sock --api unix:/run/skerry/api.sock";

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", format!("  {line}").trim_end())).collect()
}

/// The promise of a completed flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flush {
    /// Survives a crash and power loss of the host; needs the host's disk
    Local,
    /// Also survives the loss of the host
    Bucket,
}

/// `volume …`.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make an empty volume
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// Its name
        name: String,
        /// Its size: a multiple of 512, up to 1 EiB; only written blocks take space
        #[arg(long, allow_hyphen_values = true)]
        size: String,
        /// The size of its blocks, 4K to 64K [default: 4K]
        #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
        block_size: Option<String>,
        /// The promise of a completed flush [default: local if the node has a log, else bucket]
        #[arg(long)]
        flush: Option<Flush>,
    },
    /// List all volumes of the bucket
    List,
    /// Show one volume
    Show {
        /// Its name
        name: String,
    },
    /// Change a volume's size; clients that connect from then on see it
    Resize {
        /// Its name
        name: String,
        /// Its new size
        #[arg(allow_hyphen_values = true)]
        size: String,
        /// Allow the loss of all bytes past the new end
        #[arg(long)]
        shrink: bool,
    },
    /// Give a volume another name
    Rename {
        /// Its name
        name: String,
        /// Its new name
        new: String,
    },
    /// Delete a volume; its snapshots stay, and its name with them
    Delete {
        /// Its name
        name: String,
        /// Delete its snapshots, too; clones stay
        #[arg(long)]
        snapshots: bool,
        /// Delete it even with clients attached, or if it is damaged and another host wrote it
        #[arg(long)]
        force: bool,
    },
    /// Give a volume up, or take it from a node that is gone
    #[command(long_about = RELEASE_ABOUT)]
    Release {
        /// Its name
        name: String,
        /// Take it even from another node, and lose what that node has not put into the bucket
        #[arg(long)]
        force: bool,
    },
    /// Make a writable volume out of a snapshot, at once and without copying
    #[command(after_help = CLONE_EXAMPLES)]
    Clone {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_name = "NAME@SNAP")]
        snapshot: String,
        /// The clone's name
        new: String,
        /// The clone's size, at least the snapshot's [default: the snapshot's]
        #[arg(long, allow_hyphen_values = true)]
        size: Option<String>,
    },
    /// Put a volume back to a snapshot, and keep its present state as another snapshot
    Rollback {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_name = "NAME@SNAP")]
        snapshot: String,
        /// Roll back even under a connected writer, whose requests then fail
        #[arg(long)]
        force: bool,
    },
}

const CREATE_EXAMPLES: &str = "\
Examples:
  skerry volume create db --size 10G
  skerry volume create archive --size 20T --block-size 64K --flush bucket";

const CLONE_EXAMPLES: &str = "\
Example:
  skerry volume clone golden@v1 web-1 --size 40G";

const RELEASE_ABOUT: &str = "\
Give a volume up, or take it from a node that is gone.

One node writes a volume, and holds it from its first writable attachment on. Without --force this \
node gives up a volume that it holds. With --force it takes the volume from the node that holds \
it. That node is fenced, and loses what it has acknowledged but not put into the bucket. The \
command says which host held the volume, and whether anything may be lost. A node that still runs \
finds out within ten seconds, and acknowledges in vain until then: stop its guests first.";

/// `snapshot …`.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot of a volume, also while clients use it
    #[command(after_help = SNAPSHOT_EXAMPLES)]
    Create {
        /// The volume, and the snapshot's name [default: the time, as YYYYMMDDThhmmssZ]
        #[arg(value_name = "NAME[@SNAP]")]
        target: String,
    },
    /// List a volume's snapshots, the oldest first
    List {
        /// The volume
        name: String,
    },
    /// Delete a snapshot; other snapshots and clones stay
    Delete {
        /// The snapshot, as VOLUME@SNAPSHOT
        #[arg(value_name = "NAME@SNAP")]
        snapshot: String,
    },
    /// List the ranges in which two snapshots of a volume differ
    Diff {
        /// The snapshot to start from
        #[arg(value_name = "NAME@A")]
        from: String,
        /// The snapshot to get to, of this volume
        #[arg(value_name = "NAME@B")]
        to: String,
    },
    /// Take snapshots of a volume at intervals, and keep the newest
    #[command(long_about = SCHEDULE_ABOUT, after_help = SCHEDULE_EXAMPLES)]
    Schedule(ScheduleArgs),
    /// List the schedules of all volumes
    Schedules,
}

/// `snapshot schedule`.
#[derive(Debug, Args)]
pub(crate) struct ScheduleArgs {
    /// The volume
    pub(crate) name: String,
    /// The interval: a number with s, m, h or d, from 1s to 365d
    #[arg(long, value_name = "INTERVAL", requires = "keep", allow_hyphen_values = true)]
    pub(crate) every: Option<String>,
    /// Number of the schedule's snapshots to keep, 1 to 1000
    #[arg(long, value_name = "COUNT", requires = "every")]
    pub(crate) keep: Option<u32>,
    /// End the schedule; the snapshots stay
    #[arg(long, conflicts_with_all = ["every", "keep"])]
    pub(crate) off: bool,
}

const SCHEDULE_ABOUT: &str = "\
Take snapshots of a volume at intervals, and keep the newest. Without flags, show the schedule.

A volume has one schedule; another one takes its place. Times are multiples of the interval since \
1970, UTC: every hour is on the hour, 7d is Thursday at midnight. A snapshot is called \
auto-YYYYMMDDThhmmssZ after the time when it was due. After each snapshot the schedule deletes the \
snapshots with such names beyond the newest COUNT. It deletes no snapshot with another name.

This node takes the snapshots while it runs. Of the times that it slept through, it makes up for \
the last. It can't take them if another node holds the volume, and takes hold of a volume that no \
node holds. So end the schedule before you move a volume to another node. A schedule follows a \
volume that is renamed, and ends when the volume is deleted.

Each snapshot is a job of tenant system. `skerry jobs list --tenant system --state failed` shows \
the snapshots that failed, and `skerry jobs show --tenant system ID` says why. `skerry jobs pause \
skerry/snapshots` holds up all schedules of the node.";

const SCHEDULE_EXAMPLES: &str = "\
Examples:
  skerry snapshot schedule db --every 1h --keep 24
  skerry snapshot schedule db
  skerry snapshot schedule db --off";

const SNAPSHOT_EXAMPLES: &str = "\
Holds every write that was acknowledged before the command began, flushed or not.

Examples:
  skerry snapshot create db
  skerry snapshot create db@before-upgrade";

/// `import`.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(crate) struct ImportArgs {
    /// The raw image
    pub(crate) file: PathBuf,
    /// The volume: made if there is none of this name
    pub(crate) name: String,
    /// Write over the start of the volume if it exists
    #[arg(long)]
    pub(crate) force: bool,
    /// Take the file as a raw image even if it looks like an image of another format
    #[arg(long)]
    pub(crate) raw: bool,
}

const IMPORT_EXAMPLES: &str = "\
Holes and zeros take no space. A new volume is called NAME.importing until all of it is there. \
A volume that an import writes over must be large enough and have no clients. Bytes behind the \
image's end stay as they are. The command refuses packed images and images of other formats, and \
names the command that makes a raw one.

Examples:
  skerry import debian.raw golden
  skerry volume create golden --size 10G  # as large as the qcow2's disk, or larger
  qemu-img convert -n -O raw debian.qcow2 nbd:unix:skerry-data/nbd.sock:exportname=golden";

/// `export`.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(crate) struct ExportArgs {
    /// The volume or snapshot; export a snapshot if clients write to the volume
    #[arg(value_name = "NAME[@SNAP]")]
    pub(crate) target: String,
    /// The file to make: sparse, of the volume's size. Until it is whole, a hidden
    /// .FILE.skerry-export stands beside it. A - is standard output, with zeros for holes
    pub(crate) file: PathBuf,
    /// Replace an existing file once the new one is whole; until then there must be room for both
    #[arg(long)]
    pub(crate) force: bool,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  skerry export db@before-upgrade db.raw
  skerry export db@before-upgrade - | zstd > db.raw.zst";
