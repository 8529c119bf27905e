//! The commands of `skerry jobs`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// The tenant of a job.
#[derive(Debug, Args)]
pub(crate) struct TenantArg {
    /// The job's tenant
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

/// The jobs that a command is about.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Jobs that match, as often as needed: state, group, tenant, meta.KEY, older-than or
    /// newer-than as the key
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

/// One job, or all jobs that match.
#[derive(Debug, Args)]
pub(crate) struct ManyArgs {
    /// The job's id
    #[arg(required_unless_present = "filter", conflicts_with = "filter")]
    pub(crate) id: Option<String>,
    /// The job's tenant [default: default; with --filter all tenants but "system"]
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Print how many jobs match, and change none
    #[arg(long, requires = "filter")]
    pub(crate) dry_run: bool,
    /// Change the jobs that match without asking
    #[arg(long, short, requires = "filter")]
    pub(crate) yes: bool,
}

const MANY_HELP: &str = "\
With --filter the command is about all jobs that match each term. On a terminal it says how many
jobs match, and asks. Without a terminal, and with --json, it needs --yes. Repeat a command that was
interrupted: it goes on with the jobs that are left.

A \"*\" at the end of a value of metadata stands for any text. The age of a job counts from when it
was enqueued: a number with ms, s, m, h or d. Restart and delete need a state.";

/// `jobs …`.
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Enqueue a job
    #[command(after_help = ENQUEUE_EXAMPLES)]
    Enqueue(EnqueueArgs),
    /// Enqueue the jobs of a file, one JSON document a line, with their history
    #[command(after_help = IMPORT_HELP)]
    Import(ImportJobsArgs),
    /// Print jobs with their history, one JSON document a line
    #[command(after_help = EXPORT_HELP)]
    Export(ExportJobsArgs),
    /// Show one job
    Show(JobArg),
    /// Print the result of a job that succeeded
    Result(JobArg),
    /// Wait until jobs end; exit code 5 if one did not succeed
    Await {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        of: TenantArg,
        /// Longest wait, seconds; exit code 7 after it
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// List jobs: of a tenant first those that have not ended, by age; then ended jobs, by id
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Cancel jobs: at once if they wait; if they run, when their workers have stopped
    #[command(after_help = format!("{MANY_HELP}\n\n{CANCEL_EXAMPLES}"))]
    Cancel(ManyArgs),
    /// Do the jobs of a task group by a program
    #[command(after_help = WORK_HELP)]
    Work(WorkArgs),
    /// Let ended jobs begin anew, with their history
    #[command(after_help = format!("{MANY_HELP}\n\n{RESTART_EXAMPLES}"))]
    Restart(ManyArgs),
    /// Let a job that waits for its time start at once
    Expedite(JobArg),
    /// Delete jobs that do not run
    #[command(after_help = format!("{MANY_HELP}\n\n{DELETE_EXAMPLES}"))]
    Delete(ManyArgs),
    /// Change the priority of a job that waits
    Priority {
        #[command(flatten)]
        job: JobArg,
        /// The new priority: 0, the first, to 99
        priority: u32,
    },
    /// Give out no job of a task group until `jobs resume`
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
    /// Show the nodes that have jobs in this bucket, and the state of this node's shards
    Nodes,
    /// Take over the jobs of a lost node, with its scheduled snapshots; or take this node's own
    /// back
    #[command(after_help = TAKE_OVER_HELP, name = "take-over")]
    TakeOver {
        /// The lost node: its id, its host's name, or its database's id (`jobs nodes`) [default:
        /// this node]
        node: Option<String>,
    },
}

/// `jobs enqueue`.
#[derive(Debug, Args)]
pub(crate) struct EnqueueArgs {
    /// Bytes for its worker; "-" reads standard input
    #[arg(default_value = "")]
    pub(crate) payload: String,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    pub(crate) file: Option<PathBuf>,
    /// Its id; a job whose id is there already is not enqueued again [default: a new id]
    #[arg(long)]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) of: TenantArg,
    /// Task group: its workers do the job
    #[arg(long, default_value = "default")]
    pub(crate) group: String,
    /// Priority: 0, the first, to 99
    #[arg(long, default_value_t = 50)]
    pub(crate) priority: u32,
    /// Earliest start: RFC 3339, or +SECONDS
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) at: Option<String>,
    /// Metadata for searches, as often as needed
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) meta: Vec<String>,
    /// Retries after the first attempt
    #[arg(long, default_value_t = 3)]
    pub(crate) retries: u32,
    /// Lease of a worker that gives no heartbeat, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) lease: f64,
    /// Longest run of an attempt, seconds [default: no limit]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_run: Option<f64>,
    /// Intervals between attempts, their factor and their jitter; FIRST alone is every interval
    /// [default: 1s..5m,x2,jitter=10%]
    #[arg(long, value_name = "FIRST..LONGEST[,xFACTOR][,jitter=PERCENT]")]
    pub(crate) backoff: Option<String>,
    /// Limit of the tenant: most jobs at once under this name, as often as needed
    #[arg(long, value_name = "NAME=MAX")]
    pub(crate) limit: Vec<String>,
    /// Limit of the tenant: most attempts that begin in a time, and at once, as often as needed
    /// [default: burst=1]
    #[arg(long, value_name = "NAME=COUNT/TIME[,burst=N]")]
    pub(crate) rate: Vec<String>,
    /// Limit of the tenant: most jobs at once, as a worker of the group reports at this interval;
    /// as often as needed [default: group=limits]
    #[arg(long, value_name = "NAME=INITIAL,every=TIME[,group=GROUP]")]
    pub(crate) floating: Vec<String>,
}

/// `jobs import`.
#[derive(Debug, Args)]
pub(crate) struct ImportJobsArgs {
    /// The file; "-" reads standard input
    pub(crate) file: PathBuf,
    /// Go on after a line that is refused; exit code 6 at the end
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Put this before each id that another node gave to a job
    #[arg(long, value_name = "TEXT")]
    pub(crate) id_prefix: Option<String>,
}

const IMPORT_HELP: &str = "\
A line is a JSON document as `jobs export` prints it; docs/json.md has its fields. Each field may be
left out: {\"payload\": \"x\"} is a job. A job whose id is there already is not enqueued again.
So repeat an import that was interrupted. A job without an id gets a new one each time.

An id that another node gave can't be kept here. With --id-prefix it is a part of the new id.

Examples:
  skerry jobs import jobs.ndjson
  skerry jobs export | ssh other skerry jobs import --id-prefix host-1/ -";

/// `jobs export`.
#[derive(Debug, Args)]
pub(crate) struct ExportJobsArgs {
    /// Jobs of this tenant [default: all tenants but "system"]
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
}

const EXPORT_HELP: &str = "\
Each line is the document that `jobs show --json` prints. The export leaves out the jobs that ask
for floating limits. It is no snapshot: jobs may change meanwhile. To move jobs, pause their task
groups first.

Examples:
  skerry jobs export > jobs.ndjson
  skerry jobs export --filter state=failed --filter group=mail";

/// `jobs work`.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// The task group
    pub(crate) group: String,
    /// Jobs at once
    #[arg(long, value_name = "JOBS", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) concurrency: u32,
    /// Name of the worker for people [default: pid-N]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Exit code of the program after which no other try would help, as often as needed
    #[arg(long, value_name = "CODE")]
    pub(crate) give_up: Vec<u8>,
    /// The program and its arguments, after --
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<OsString>,
}

const WORK_HELP: &str = "\
The program runs once for each attempt. It reads the payload from standard input and writes the
result to standard output. Exit code 0 means that the job succeeded. After another code the node
tries again by the job's retry policy. The attempt's error is the last of standard error. A program
whose job is cancelled gets SIGTERM, and SIGKILL after 10 s. Its environment has SKERRY_JOB_ID,
SKERRY_JOB_TENANT, SKERRY_JOB_ATTEMPT, and SKERRY_JOB_METADATA (JSON).

The worker ends at SIGINT or SIGTERM, when the programs that run have ended; a second signal ends
them. It waits for a node that is away.

Examples:
  skerry jobs work mail -- ./send-mail
  skerry jobs work thumbnails --concurrency 4 --give-up 65 -- convert - -resize 128 png:-";

const TAKE_OVER_HELP: &str = "\
The node that had the jobs is fenced. If it is not lost, it answers nothing about jobs until `jobs
take-over` is called there. This node must have no jobs of its own that have not ended.";

const ENQUEUE_EXAMPLES: &str = "\
Examples:
  skerry jobs enqueue --id mail-42 --group mail '{\"to\": \"x@example.org\"}'
  skerry jobs enqueue --at +3600 --meta user=42 --limit api=3 < request.json -
  skerry jobs enqueue --retries 9 --backoff 1s..1h,x3 --rate smtp=10/1m,burst=5 hello

A job is under 8 limits at most. All of them must let it run.";

const CANCEL_EXAMPLES: &str = "\
Examples:
  skerry jobs cancel mail-42
  skerry jobs cancel --filter group=mail --dry-run
  skerry jobs cancel --filter state=scheduled --filter older-than=1h --yes";

const RESTART_EXAMPLES: &str = "\
Examples:
  skerry jobs restart mail-42
  skerry jobs restart --filter state=failed --filter group=mail";

const DELETE_EXAMPLES: &str = "\
Examples:
  skerry jobs delete mail-42
  skerry jobs delete --tenant acme --filter state=failed --filter 'meta.user=42'";

/// A state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobStateArg {
    /// The job waits: for its time, for a limit, for a worker
    Scheduled,
    /// A worker has it
    Running,
    /// The job is done
    Succeeded,
    /// The last attempt failed: the dead letters
    Failed,
    /// A client cancelled the job
    Cancelled,
}

impl JobStateArg {
    /// The state's name in a filter.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// `jobs list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Jobs of this tenant [default: all tenants but "system", whose jobs are the node's own]
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Jobs of this task group
    #[arg(long)]
    pub(crate) group: Option<String>,
    /// Jobs in this state
    #[arg(long)]
    pub(crate) state: Option<JobStateArg>,
    /// Jobs with this entry of metadata; a "*" at the end stands for any text; needs --tenant
    #[arg(long, value_name = "KEY=VALUE", requires = "tenant")]
    pub(crate) meta: Option<String>,
    /// Most jobs to list
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: usize,
}

const LIST_EXAMPLES: &str = "\
The list leaves out payloads and results: `skerry jobs show` has them.

Examples:
  skerry jobs list --state failed
  skerry jobs list --filter state=scheduled --filter older-than=1h
  skerry jobs list --tenant default --meta 'user=42'";
