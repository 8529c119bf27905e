//! `skerry jobs …`.

mod bulk;
mod enqueue;
mod export;
mod import;
mod pages;

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;
use skerry_api::v1::jobs_client::JobsClient;
use skerry_api::{Error, ErrorKind, Result, v1};
use tonic::transport::Channel;

use super::{Context, work};
use crate::cli::args::jobs::{FilterArgs, JobArg, JobsCommand, ListArgs, ManyArgs, TenantArg};
use crate::cli::job_filter::JobFilter;
use crate::cli::output::job_document::JobDocument;
use crate::cli::output::job_nodes::{NodesDocument, ShardDocument, nodes_text, shards_text};
use crate::cli::output::jobs::{StatsDocument, job_lines, job_table, state_word, stats_text};
use crate::values::invalid;
use bulk::Verb;
use pages::Pages;

/// The tenant of a job of which no other is named.
const TENANT_DEFAULT: &str = "default";

/// Carries out one of these commands.
pub(super) async fn run(context: &mut Context<'_>, command: JobsCommand) -> Result<()> {
    if let JobsCommand::Work(args) = command {
        // It may begin before its node does.
        return work::run(context, args).await;
    }
    let jobs = &mut context.client().await?.jobs();
    match command {
        JobsCommand::Enqueue(args) => enqueue::run(context, jobs, args).await,
        JobsCommand::Import(args) => import::run(context, args).await,
        JobsCommand::Export(args) => export::run(context, jobs, args).await,
        JobsCommand::Show(job) => show(context, jobs, job).await,
        JobsCommand::Result(job) => result(context, jobs, job).await,
        JobsCommand::Await { ids, of, timeout } => {
            wait(context, jobs, of.tenant, ids, timeout).await
        }
        JobsCommand::List(args) => list(context, jobs, args).await,
        JobsCommand::Cancel(args) => match one(&args) {
            Some(job) => cancel(context, jobs, job).await,
            None => bulk::run(context, jobs, Verb::Cancel, args).await,
        },
        JobsCommand::Restart(args) => match one(&args) {
            Some(job) => {
                let done = jobs.restart_job(request(&job)).await;
                said(context, "restarted", &job.id, done.map(drop))
            }
            None => bulk::run(context, jobs, Verb::Restart, args).await,
        },
        JobsCommand::Expedite(job) => {
            let done = jobs.expedite_job(request(&job)).await;
            said(context, "expedited", &job.id, done.map(drop))
        }
        JobsCommand::Delete(args) => match one(&args) {
            Some(job) => {
                let done = jobs.delete_job(request(&job)).await;
                said(context, "deleted", &job.id, done.map(drop))
            }
            None => bulk::run(context, jobs, Verb::Delete, args).await,
        },
        JobsCommand::Priority { job, priority } => {
            let (tenant, id) = (job.of.tenant.clone(), job.id.clone());
            let request = v1::SetJobPriorityRequest { tenant, id, priority };
            let done = jobs.set_job_priority(request).await;
            said(context, "changed", &job.id, done.map(drop))
        }
        JobsCommand::Pause { group } => {
            let done = jobs.pause_jobs(v1::TaskGroupRequest { group: group.clone() }).await;
            said(context, "paused", &group, done.map(drop))
        }
        JobsCommand::Resume { group } => {
            let done = jobs.resume_jobs(v1::TaskGroupRequest { group: group.clone() }).await;
            said(context, "resumed", &group, done.map(drop))
        }
        JobsCommand::Stats => stats(context, jobs).await,
        JobsCommand::Nodes => nodes(context, jobs).await,
        JobsCommand::TakeOver { node } => take_over(context, jobs, node.unwrap_or_default()).await,
        JobsCommand::Work(_) => Ok(()),
    }
}

type Jobs = JobsClient<Channel>;

/// The one job that a command names.
fn one(args: &ManyArgs) -> Option<JobArg> {
    let tenant = args.tenant.clone().unwrap_or_else(|| TENANT_DEFAULT.to_owned());
    Some(JobArg { id: args.id.clone()?, of: TenantArg { tenant } })
}

fn request(job: &JobArg) -> v1::JobRequest {
    v1::JobRequest { tenant: job.of.tenant.clone(), id: job.id.clone() }
}

fn said(
    context: &mut Context<'_>,
    what: &str,
    of: &str,
    done: std::result::Result<(), tonic::Status>,
) -> Result<()> {
    done?;
    context.output.print(&json!({ what: of }), &format!("{what} {of}\n"))
}

fn pair(flag: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(invalid(format!("{flag} {text:?}: write KEY=VALUE"))),
    }
}

async fn show(context: &mut Context<'_>, jobs: &mut Jobs, job: JobArg) -> Result<()> {
    let job = jobs.show_job(request(&job)).await?.into_inner();
    context.output.print(&JobDocument::full(&job), &job_lines(&job))
}

async fn result(context: &mut Context<'_>, jobs: &mut Jobs, job: JobArg) -> Result<()> {
    let found = jobs.show_job(request(&job)).await?.into_inner();
    if found.state() != v1::JobState::Succeeded {
        let state = state_word(found.state());
        let message = format!(
            "job {} has no result: it is {state}; `skerry jobs show` lists its attempts",
            job.id
        );
        return Err(Error::new(ErrorKind::InUse, message));
    }
    if context.output.json {
        return context.output.print(&JobDocument::full(&found), "");
    }
    let succeeded = found.attempts.last().and_then(|attempt| attempt.end.as_ref());
    let Some(v1::attempt::End::Succeeded(bytes)) = succeeded else { return Ok(()) };
    // A reader that has gone wants no more.
    let _ = context.output.out.write_all(bytes).and_then(|()| context.output.out.flush());
    Ok(())
}

async fn wait(
    context: &mut Context<'_>,
    jobs: &mut Jobs,
    tenant: String,
    ids: Vec<String>,
    timeout: Option<u64>,
) -> Result<()> {
    let asked = ids.clone();
    let awaited = v1::AwaitJobsRequest { tenant, ids };
    let mut ended = jobs.await_jobs(awaited).await?.into_inner();
    let limit = async {
        match timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let (mut all, mut ended_ids) = (Vec::new(), HashSet::new());
    let read = async {
        while let Some(one) = ended.next().await {
            let one = one?;
            if let Some(failure) = &one.failure {
                return Err(Error::from(failure));
            }
            all.extend(one.job);
            ended_ids.insert(one.id);
        }
        Ok(())
    };
    tokio::select! {
        read = read => read?,
        () = limit => {
            let left = asked.into_iter().filter(|id| !ended_ids.contains(id));
            let left = left.collect::<Vec<_>>().join(", ");
            let message = format!("not ended in time: {left}; ask again");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
    let documents: Vec<_> = all.iter().map(JobDocument::full).collect();
    context.output.print(&documents, &job_table(&all))?;
    let other = all.iter().find(|job| job.state() != v1::JobState::Succeeded);
    other.map_or(Ok(()), |job| {
        let id = job.spec.as_ref().map_or("", |spec| &spec.id);
        let message = format!("job {id} did not succeed: it is {}", state_word(job.state()));
        Err(Error::new(ErrorKind::InUse, message))
    })
}

/// The terms of a filter.
fn terms(filter: FilterArgs, tenant: Option<String>) -> Vec<String> {
    let tenant = tenant.map(|tenant| format!("tenant={tenant}"));
    filter.filter.into_iter().chain(tenant).collect()
}

async fn list(context: &mut Context<'_>, jobs: &mut Jobs, args: ListArgs) -> Result<()> {
    let mut terms = terms(args.filter, args.tenant);
    terms.extend(args.group.map(|group| format!("group={group}")));
    terms.extend(args.state.map(|state| format!("state={}", state.name())));
    if let Some(entry) = args.meta {
        let (key, value) = pair("--meta", &entry)?;
        terms.push(format!("meta.{key}={value}"));
    }
    let mut pages = Pages::new(JobFilter::parse(terms.iter().map(String::as_str))?);
    let mut all: Vec<v1::Job> = Vec::new();
    // One more than is shown, to know whether there are more.
    while all.len() <= args.limit
        && let Some(page) = pages.next(jobs).await?
    {
        all.extend(page);
    }
    let has_more = all.len() > args.limit;
    all.truncate(args.limit);
    let documents: Vec<_> = all.iter().map(JobDocument::brief).collect();
    context.output.print(&documents, &job_table(&all))?;
    if has_more {
        eprintln!("skerry: there are more than these {}: --limit shows them", args.limit);
    }
    Ok(())
}

async fn cancel(context: &mut Context<'_>, jobs: &mut Jobs, job: JobArg) -> Result<()> {
    let done = jobs.cancel_job(request(&job)).await?.into_inner();
    let text = if done.is_done {
        format!("cancelled {}\n", job.id)
    } else {
        format!("{} is running: its worker is told\n", job.id)
    };
    context.output.print(&json!({ "cancelled": job.id, "done": done.is_done }), &text)
}

async fn stats(context: &mut Context<'_>, jobs: &mut Jobs) -> Result<()> {
    let stats = jobs.get_job_stats(v1::GetJobStatsRequest {}).await?.into_inner();
    context.output.print(&StatsDocument::from(&stats), &stats_text(&stats))
}

async fn nodes(context: &mut Context<'_>, jobs: &mut Jobs) -> Result<()> {
    let found = jobs.list_job_nodes(v1::ListJobNodesRequest {}).await?.into_inner();
    context.output.print(&NodesDocument::from(&found), &nodes_text(&found))
}

async fn take_over(context: &mut Context<'_>, jobs: &mut Jobs, node: String) -> Result<()> {
    let taken = jobs.take_over_jobs(v1::TakeOverJobsRequest { node }).await?.into_inner();
    let shards: Vec<ShardDocument> = taken.shards.iter().map(ShardDocument::from).collect();
    context.output.print(&json!({ "shards": shards }), &shards_text(&taken.shards))
}
