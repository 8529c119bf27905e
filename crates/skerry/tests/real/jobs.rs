//! Python workers that are killed at random moments do jobs, and the node is killed too. In the end
//! each job has succeeded once, was begun at least once, and none is missing.
//!
//! The package's own tests run here too, and those of it with a node.
//!
//! `SKERRY_JOBS` is the number of jobs (2000), `SKERRY_KILLS` the number of kills (20), and
//! `SKERRY_SEED` replays the choices. The moments themselves are the machine's. Python and its
//! packages come from `python/venv`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command};
use std::sync::OnceLock;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use skerry_testkit::skip::SkipReason;
use skerry_testkit::tool::Tool;
use skerry_testkit::{NodeSettings, Process, S3Server, SkerryNode, require, s3, scale, seed};
use tempfile::TempDir;

type Outcome = Result<(), Box<dyn Error>>;

const BIN: &str = env!("CARGO_BIN_EXE_skerry");
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../python");
const WORKERS: usize = 4;

/// Number of kills from which on one at least must have hit a worker that had a job.
const KILLS_TELLING: u64 = 10;

/// Notes every job that it begins, in one write, so that lines of several workers don't mix.
const WORKER: &str = r#"
import os, random, sys, time
import skerry_jobs

begun = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def handler(job):
    os.write(begun, f"{job.id}\n".encode())
    time.sleep(random.uniform(0, 0.04))
    return f"result of {job.id}"

worker = skerry_jobs.Worker(sys.argv[1], "test", handler, concurrency=8)
print("working", flush=True)
worker.run()
"#;

/// Enqueues the number of jobs that each line of its input holds, and asks again when the node was
/// away. Prints a line when they are enqueued, one for each job that has ended, and one after its
/// input when all have.
const CLIENT: &str = r#"
import sys, threading, time
import skerry_jobs

client = skerry_jobs.Client(sys.argv[1])
retry = skerry_jobs.Retry(retries=1000, initial=0.05, longest=0.5)

def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

def enqueue(jobs):
    while True:
        try:
            failed = [enqueued.error for enqueued in client.enqueue_many(jobs) if enqueued.error]
            if not failed:
                return
            raise failed[0]
        except skerry_jobs.Unavailable:
            time.sleep(0.1)

def wait(jobs):
    for awaited in client.await_jobs(job.id for job in jobs):
        say("ended" if awaited.job else f"lost: {awaited.error}")

waiting, count = [], 0
for line in sys.stdin:
    numbers = range(count, count := count + int(line))
    jobs = [skerry_jobs.JobSpec(id=f"job-{n:07}", group="test", lease=2.0, retry=retry) for n in numbers]
    enqueue(jobs)
    say("enqueued")
    waiting.append(threading.Thread(target=wait, args=[jobs]))
    waiting[-1].start()
for thread in waiting:
    thread.join()
say("all ended")
"#;

#[test]
fn the_python_package_passes_its_own_tests() -> Outcome {
    require!("the_python_package_passes_its_own_tests", python());
    eprintln!("{}", Tool::new(&format!("{PACKAGE}/test")).run()?);
    Ok(())
}

#[test]
fn the_python_package_and_a_node_understand_each_other() -> Outcome {
    let python = require!("the_python_package_and_a_node_understand_each_other", python());
    let node = NodeSettings::temporary(BIN)?.start()?;
    let programs = Programs::new(python, &node)?;
    let tests = Tool::new(&programs.python.to_string_lossy()).words("-m unittest tests.with_node");
    let tests = tests.env("PYTHONPATH", PACKAGE).env("PYTHONDONTWRITEBYTECODE", "1");
    eprintln!("{}", tests.env("SKERRY_ADDRESS", &programs.address).run()?);
    node.stop()?;
    Ok(())
}

#[test]
fn no_job_is_lost_when_workers_are_killed() -> Outcome {
    let python = require!("no_job_is_lost_when_workers_are_killed", python());
    run("workers", python, NodeSettings::temporary(BIN)?, false)
}

#[test]
fn no_job_is_lost_when_workers_and_the_node_are_killed() -> Outcome {
    let python = require!("no_job_is_lost_when_workers_and_the_node_are_killed", python());
    run("workers and node", python, NodeSettings::temporary(BIN)?, true)
}

/// Without a log, acknowledged jobs are in the object store, of which nothing is on this machine's
/// disk.
#[test]
fn no_job_is_lost_over_an_object_store_alone() -> Outcome {
    let test = "no_job_is_lost_over_an_object_store_alone";
    let python = require!(test, python());
    let server = require!(test, S3Server::start());
    let mut config = tempfile::Builder::new().prefix("skerry-jobs").suffix(".toml").tempfile()?;
    writeln!(config, "[database]\nbackend = \"s3\"\npath = \"{}/jobs/%shard%\"", s3::BUCKET)?;
    writeln!(config, "[database.options]")?;
    for (name, value) in server.options() {
        writeln!(config, "{name} = \"{value}\"")?;
    }
    let settings = NodeSettings::temporary(BIN)?.arg("--config").arg(config.path());
    run("workers and node over S3", python, settings, true)
}

fn run(name: &str, python: PathBuf, settings: NodeSettings, kills_node: bool) -> Outcome {
    let (jobs, kills) = (scale("SKERRY_JOBS", 2000), scale("SKERRY_KILLS", 20));
    let mut rng = StdRng::seed_from_u64(seed(name));
    let mut node = settings.start()?;
    let programs = Programs::new(python, &node)?;
    let mut workers = (0..WORKERS).map(|_| programs.worker()).collect::<io::Result<Vec<_>>>()?;
    let mut client = Client::start(&programs)?;
    for kill in 0..kills {
        let portion = jobs * (kill + 1) / (kills + 1) - jobs * kill / (kills + 1);
        client.enqueue(portion)?;
        client.wait_ended(rng.random_range(0..=portion / 2))?;
        if kills_node && rng.random_range(0..4) == 0 {
            node = node.kill()?.start()?;
        } else {
            let which = rng.random_range(0..WORKERS);
            workers[which].kill()?;
            workers[which] = programs.worker()?;
        }
    }
    client.enqueue(jobs - jobs * kills / (kills + 1))?;
    client.wait_all_ended()?;
    for worker in &workers {
        let status = worker.terminate()?;
        if !status.success() {
            return Err(format!("a worker ended with {status}:\n{}", worker.stderr_tail()).into());
        }
    }
    let expired = check(&node, &programs.begun()?, jobs)?;
    eprintln!("{name}: {jobs} jobs, {kills} kills, {expired} attempts cut short");
    if kills >= KILLS_TELLING && jobs >= kills * WORKERS as u64 && expired == 0 {
        return Err("no kill hit a worker that had a job: this run showed nothing".into());
    }
    node.stop()?;
    Ok(())
}

/// The interpreter that has the package's dependencies. Looked for once: without a network that
/// takes a while.
fn python() -> Result<PathBuf, SkipReason> {
    static FOUND: OnceLock<Result<PathBuf, SkipReason>> = OnceLock::new();
    FOUND.get_or_init(find_python).clone()
}

fn find_python() -> Result<PathBuf, SkipReason> {
    let output = Tool::new(&format!("{PACKAGE}/venv")).output();
    let output = output.map_err(|error| SkipReason::new(format!("python/venv: {error}")))?;
    match output.status.success() {
        true => Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(SkipReason::new(said.lines().last().unwrap_or("python/venv failed")))
        }
    }
}

/// Starts Python programs that find the node.
struct Programs {
    python: PathBuf,
    address: String,
    /// Directory where workers note the jobs that they begin.
    dir: TempDir,
}

impl Programs {
    fn new(python: PathBuf, node: &SkerryNode) -> Result<Programs, Box<dyn Error>> {
        let socket = node.ready().api_unix.as_deref().ok_or("the node has no API socket")?;
        let dir = tempfile::Builder::new().prefix("skerry-jobs").tempdir()?;
        Ok(Programs { python, address: format!("unix:{}", socket.display()), dir })
    }

    fn start(&self, script: &str) -> io::Result<Process> {
        let mut command = Command::new(&self.python);
        command.args(["-c", script, &self.address]).arg(self.begun_file());
        command.env("PYTHONPATH", PACKAGE).env("PYTHONDONTWRITEBYTECODE", "1");
        Process::spawn(&mut command)
    }

    /// A worker that is about to ask for work.
    fn worker(&self) -> io::Result<Process> {
        let worker = self.start(WORKER)?;
        worker.wait_line(|line| line == "working")?;
        Ok(worker)
    }

    fn begun_file(&self) -> PathBuf {
        self.dir.path().join("begun")
    }

    /// For each job, how often it was begun.
    fn begun(&self) -> io::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for line in std::fs::read_to_string(self.begun_file())?.lines() {
            *counts.entry(line.to_owned()).or_default() += 1;
        }
        Ok(counts)
    }
}

/// A program that enqueues jobs and waits for them.
struct Client {
    process: Process,
    orders: Option<ChildStdin>,
}

impl Client {
    fn start(programs: &Programs) -> io::Result<Client> {
        let mut process = programs.start(CLIENT)?;
        let orders = process.take_stdin();
        Ok(Client { process, orders })
    }

    /// Enqueues `count` more jobs; returns when the node has promised to keep them.
    fn enqueue(&mut self, count: u64) -> io::Result<()> {
        if let Some(orders) = &mut self.orders {
            writeln!(orders, "{count}")?;
        }
        self.process.wait_line(|line| line == "enqueued").map(drop)
    }

    /// Waits until `count` jobs, of those enqueued last or before, have ended.
    fn wait_ended(&self, count: u64) -> io::Result<()> {
        (0..count).try_for_each(|_| self.process.wait_line(|line| line == "ended").map(drop))
    }

    /// Waits until no job is left to do, and none was missing.
    fn wait_all_ended(&mut self) -> Result<(), Box<dyn Error>> {
        drop(self.orders.take());
        let line =
            self.process.wait_line(|line| line == "all ended" || line.starts_with("lost"))?;
        if line == "all ended" { Ok(()) } else { Err(line.into()) }
    }
}

/// Checks every job that the node lists; gives the number of expired attempts.
fn check(
    node: &SkerryNode,
    begun: &BTreeMap<String, usize>,
    jobs: u64,
) -> Result<usize, Box<dyn Error>> {
    let listed = node.json(&["jobs", "list", "--limit", &(jobs + 1).to_string()])?;
    let listed = listed.as_array().ok_or("`jobs list` gave no list")?;
    let by_id: BTreeMap<_, _> =
        listed.iter().filter_map(|job| Some((job["id"].as_str()?, job))).collect();
    if (listed.len() as u64, by_id.len() as u64) != (jobs, jobs) {
        return Err(format!("{} of {jobs} jobs, {} listed", by_id.len(), listed.len()).into());
    }
    let mut expired = 0;
    for number in 0..jobs {
        let id = format!("job-{number:07}");
        let job = by_id.get(id.as_str()).ok_or_else(|| format!("{id} is lost"))?;
        let begun = begun.get(&id).copied().unwrap_or_default();
        expired += check_job(job, begun).map_err(|why| format!("{id}: {why}: {job}"))?;
    }
    let last = node.json(&["jobs", "show", "job-0000000"])?;
    if last["result"] != "result of job-0000000" {
        return Err(format!("another result: {last}").into());
    }
    Ok(expired)
}

/// Checks a job that was begun `begun` times; gives the number of expired attempts.
fn check_job(job: &Value, begun: usize) -> Result<usize, String> {
    let attempts = job["attempts"].as_array().ok_or("it has no attempts")?;
    let ends: Vec<_> = attempts.iter().filter_map(|attempt| attempt["end"].as_str()).collect();
    let succeeded = ends.iter().filter(|end| **end == "succeeded").count();
    if job["state"] != "succeeded" || succeeded != 1 || ends.last() != Some(&"succeeded") {
        return Err("it did not succeed once, and in the end".into());
    }
    // A lease may never have reached a handler, but no handler had it without a lease.
    if begun == 0 || begun > attempts.len() {
        return Err(format!("it was begun {begun} times"));
    }
    Ok(ends.iter().filter(|end| **end == "expired").count())
}
