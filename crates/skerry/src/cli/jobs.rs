//! What may be typed after `skerry jobs`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Whose job it is.
#[derive(Debug, Args)]
pub(crate) struct TenantArg {
    /// Whose
    #[arg(long, default_value = "default")]
    pub(crate) tenant: String,
}

/// One job.
#[derive(Debug, Args)]
pub(crate) struct JobArg {
    /// Its id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) of: TenantArg,
}

/// `jobs …`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Enqueue a job
    #[command(after_help = ENQUEUE_EXAMPLES)]
    Enqueue(EnqueueArgs),
    /// Show one job
    Show(JobArg),
    /// Print what came out of a job that succeeded
    Result(JobArg),
    /// Wait until jobs have come to their end; exit code 5 if one did not succeed
    Await {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        of: TenantArg,
        /// Wait no longer than this, seconds; exit code 7 then
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// List jobs: of a tenant the oldest first; those that have come to their end after the others, by id
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Call a job off: at once if it waits, otherwise its worker is told
    Cancel(JobArg),
    /// Let a job that has come to its end begin anew, with its history
    Restart(JobArg),
    /// Let a job that waits for its time start at once
    Expedite(JobArg),
    /// Delete a job that does not run
    Delete(JobArg),
    /// Change the priority of a job that waits
    Priority {
        #[command(flatten)]
        job: JobArg,
        /// 0, the first, to 99
        priority: u32,
    },
    /// Give out no job of a task group until it is resumed
    Pause {
        /// The task group
        group: String,
    },
    /// Give out jobs of a task group again
    Resume {
        /// The task group
        group: String,
    },
    /// Show how many jobs there are
    Stats,
    /// Show which nodes have jobs in this bucket, and how this node's shards stand
    Nodes,
    /// Take over the jobs of a node that is lost, scheduled snapshots included; or take this node's own back
    #[command(after_help = TAKE_OVER_HELP, name = "take-over")]
    TakeOver {
        /// The lost node: its id, its host's name, or its database's id (`jobs nodes`) [default: this node]
        node: Option<String>,
    },
}

/// `jobs enqueue`.
#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    /// What its worker gets; "-" reads standard input
    #[arg(default_value = "")]
    pub(crate) payload: String,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    pub(crate) file: Option<PathBuf>,
    /// Its id: one that is there already is not enqueued again [default: a new one]
    #[arg(long)]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) of: TenantArg,
    /// Which workers do it
    #[arg(long, default_value = "default")]
    pub(crate) group: String,
    /// 0, the first, to 99
    #[arg(long, default_value_t = 50)]
    pub(crate) priority: u32,
    /// Not before this: RFC 3339, or +SECONDS
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// What it can be found by, as often as needed
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) meta: Vec<String>,
    /// How often it is tried again
    #[arg(long, default_value_t = 3)]
    pub(crate) retries: u32,
    /// How long a worker has it without a sign of life, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) lease: f64,
    /// How long an attempt may take in all, seconds [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_run: Option<f64>,
    /// So many jobs of the tenant at once under this name, as often as needed
    #[arg(long, value_name = "NAME=MAX")]
    pub(crate) limit: Vec<String>,
}

const TAKE_OVER_HELP: &str = "\
The node that had the jobs is fenced: if it is not lost, it answers nothing about jobs from now on, until they are
taken back there. This node must have no jobs of its own that have not come to their end.";

const ENQUEUE_EXAMPLES: &str = "\
Examples:
  skerry jobs enqueue --id mail-42 --group mail '{\"to\": \"x@example.org\"}'
  skerry jobs enqueue --at +3600 --meta user=42 --limit api=3 < request.json -";

/// A state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobStateArg {
    /// It waits: for its time, for a limit, for a worker
    Scheduled,
    /// A worker has it
    Running,
    /// It is done
    Succeeded,
    /// It was tried for the last time: the dead letters
    Failed,
    /// Somebody called it off
    Cancelled,
}

/// `jobs list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Whose [default: everybody's]
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Of this task group
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// In this state
    #[arg(long)]
    pub(crate) state: Option<JobStateArg>,
    /// With this entry of metadata; with "*" at the end, a value that begins so; needs --tenant
    #[arg(long, value_name = "KEY=VALUE", requires = "tenant")]
    pub(crate) meta: Option<String>,
    /// So many at most
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: usize,
}

const LIST_EXAMPLES: &str = "\
Payloads and results are not listed: `skerry jobs show` has them.

Examples:
  skerry jobs list --state failed
  skerry jobs list --tenant default --meta 'user=42'";
