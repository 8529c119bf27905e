//! `jobs enqueue`.

use std::io::Read as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use skerry_api::{Error, ErrorKind, Result, v1};

use super::{Jobs, pair};
use crate::cli::args::jobs::EnqueueArgs;
use crate::cli::commands::Context;
use crate::cli::job_limits;
use crate::values::invalid;

/// The largest payload, bytes; more is not even read.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;

/// Enqueues a job.
pub(super) async fn run(
    context: &mut Context<'_>,
    jobs: &mut Jobs,
    args: EnqueueArgs,
) -> Result<()> {
    if args.id.as_deref() == Some("") {
        let message = "--id \"\": an id has at least one character; without --id the job gets one";
        return Err(invalid(message));
    }
    let spec = spec(&args)?;
    let answer = jobs.enqueue_jobs(v1::EnqueueJobsRequest { jobs: vec![spec] }).await?;
    let made = answer.into_inner().jobs.pop().ok_or_else(no_answer)?;
    if let Some(failure) = &made.failure {
        return Err(failure.into());
    }
    let text = if made.is_new {
        format!("enqueued {}\n", made.id)
    } else {
        format!("{} is there already\n", made.id)
    };
    let tenant = args.of.tenant;
    context.output.print(&json!({ "id": made.id, "tenant": tenant, "new": made.is_new }), &text)
}

/// The job that the arguments describe.
fn spec(args: &EnqueueArgs) -> Result<v1::JobSpec> {
    let backoff = args.backoff.as_deref().map(job_limits::backoff).transpose()?;
    let limits = args.limit.iter().map(|text| job_limits::concurrency(text));
    let limits = limits.chain(args.rate.iter().map(|text| job_limits::rate(text)));
    let limits = limits.chain(args.floating.iter().map(|text| job_limits::floating(text)));
    Ok(v1::JobSpec {
        id: args.id.clone().unwrap_or_default(),
        tenant: args.of.tenant.clone(),
        group: args.group.clone(),
        priority: Some(args.priority),
        start_at_ms: args.at.as_deref().map_or(Ok(0), start_at)?,
        payload: payload(args)?.into(),
        metadata: args.meta.iter().map(|text| pair("--meta", text)).collect::<Result<_>>()?,
        retry: Some(v1::RetryPolicy { retries: Some(args.retries), ..backoff.unwrap_or_default() }),
        lease_ms: lease_ms(args.lease)?,
        max_run_ms: args.max_run.map_or(Ok(0), max_run_ms)?,
        limits: limits.collect::<Result<_>>()?,
    })
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Internal, "the node gave no answer for it")
}

fn payload(args: &EnqueueArgs) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match &args.file {
        Some(path) => std::fs::File::open(path)
            .and_then(|file| file.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| (path.display().to_string(), error)),
        None if args.payload == "-" => std::io::stdin()
            .take(PAYLOAD_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| ("standard input".to_owned(), error)),
        None => return Ok(args.payload.clone().into_bytes()),
    };
    match read {
        Ok(_) if bytes.len() as u64 > PAYLOAD_BYTES_MAX => Err(invalid(
            "the payload has more than 1 MiB: put it elsewhere and enqueue where it is",
        )),
        Ok(_) => Ok(bytes),
        Err((what, error)) => Err(invalid(format!("{what} can't be read: {error}"))),
    }
}

fn lease_ms(seconds: f64) -> Result<u32> {
    let ms = (seconds * 1000.0).round();
    if !(1.0..=f64::from(u32::MAX)).contains(&ms) {
        return Err(invalid(format!("a lease of {seconds} s: 0.1 to 86400")));
    }
    // In range, by the check above.
    Ok(ms as u32)
}

fn max_run_ms(seconds: f64) -> Result<u32> {
    let ms = (seconds * 1000.0).round();
    if !(1.0..=f64::from(u32::MAX)).contains(&ms) {
        return Err(invalid(format!("a longest run of {seconds} s: 0.1 to 4294967")));
    }
    // In range, by the check above.
    Ok(ms as u32)
}

/// Reads a time in its text form as milliseconds since 1970.
fn start_at(text: &str) -> Result<u64> {
    let bad = || invalid(format!("{text:?} is no time: RFC 3339, or +SECONDS"));
    let at = match text.strip_prefix('+') {
        Some(seconds) => {
            let seconds: u32 = seconds.parse().map_err(|_| bad())?;
            Timestamp::now() + Duration::from_secs(seconds.into())
        }
        None => text.parse().map_err(|_| bad())?,
    };
    u64::try_from(at.as_millisecond()).map_err(|_| bad())
}
