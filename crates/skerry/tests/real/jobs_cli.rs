//! Jobs of a real node: the commands, a worker of the client library, and the state after a kill.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use skerry_client::{Address, Failure, Jobs, NewJob, Worker};
use skerry_testkit::{NodeSettings, SkerryNode};
use tokio_util::sync::CancellationToken;

type Outcome = Result<(), Box<dyn Error>>;

fn settings() -> std::io::Result<NodeSettings> {
    NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))
}

fn address(node: &SkerryNode) -> Result<Address, Box<dyn Error>> {
    let socket = node.settings().data().join("api.sock");
    Ok(format!("unix:{}", socket.display()).parse()?)
}

#[test]
fn jobs_are_managed_and_survive_a_kill() -> Outcome {
    let node = settings()?.start()?;
    let made = node.json(&["jobs", "enqueue", "--id", "a", "--meta", "user=42", "do it"])?;
    assert_eq!((made["id"].as_str(), made["new"].as_bool()), (Some("a"), Some(true)));
    assert_eq!(node.json(&["jobs", "enqueue", "--id", "a"])?["new"].as_bool(), Some(false));
    node.cli(&["jobs", "enqueue", "--id", "b", "--priority", "9", "--at", "+3600"])?;
    node.cli(&["jobs", "pause", "default"])?;
    let node = node.kill()?.start()?;
    let shown = node.json(&["jobs", "show", "a"])?;
    assert_eq!(shown["state"].as_str(), Some("scheduled"));
    assert_eq!(shown["payload"].as_str(), Some("do it"));
    let stats = node.json(&["jobs", "stats"])?;
    assert_eq!(stats["groups"][0]["paused"].as_bool(), Some(true), "{stats}");
    node.cli(&["jobs", "resume", "default"])?;
    node.cli(&["jobs", "expedite", "b"])?;
    node.cli(&["jobs", "cancel", "a"])?;
    let cancelled = node.json(&["jobs", "list", "--state", "cancelled"])?;
    assert_eq!(cancelled[0]["id"].as_str(), Some("a"), "{cancelled}");
    node.cli(&["jobs", "restart", "a"])?;
    node.cli(&["jobs", "priority", "a", "0"])?;
    let found = node.json(&["jobs", "list", "--tenant", "default", "--meta", "user=4*"])?;
    assert_eq!(found[0]["priority"].as_u64(), Some(0), "{found}");
    let settings = node.settings();
    settings.cli(&["jobs", "result", "a"])?.refused(5)?;
    settings.cli(&["jobs", "show", "none"])?.refused(3)?;
    settings.cli(&["jobs", "priority", "a", "100"])?.refused(6)?;
    settings.cli(&["jobs", "await", "a", "--timeout", "0"])?.refused(7)?;
    node.cli(&["jobs", "delete", "a"])?;
    settings.cli(&["jobs", "delete", "a"])?.refused(3)?;
    // Volumes ignore the jobs' objects in the bucket.
    node.cli(&["fsck"])?;
    node.stop()?;
    Ok(())
}

#[test]
fn a_worker_does_its_work_over_a_restart_of_the_node() -> Outcome {
    const JOBS: u32 = 200;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let node = settings()?.start()?;
    let address = address(&node)?;
    let stop = CancellationToken::new();
    let begun = Arc::new(AtomicU32::new(0));
    let counted = begun.clone();
    let worker = Worker::new(address.clone(), "mail").name("w").concurrency(8);
    let working = runtime.spawn(worker.run(stop.clone(), move |task| {
        let count = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            // Every tenth time something is wrong.
            match count % 10 {
                9 => Err(Failure::retry("now and then", "try again")),
                _ => Ok(task.payload),
            }
        }
    }));
    let node = runtime.block_on(async {
        let jobs = Jobs::connect(&address).await?;
        let retry = skerry_client::v1::RetryPolicy { initial_ms: Some(10), ..Default::default() };
        let new = (0..JOBS)
            .map(|n| NewJob::new(n.to_string()).id(n.to_string()).group("mail").retry(retry));
        for made in jobs.enqueue_all(new).await? {
            assert!(made?.is_new);
        }
        // Somewhere in the middle.
        jobs.wait("default", "50").await?;
        Ok::<_, Box<dyn Error>>(node.kill()?.start()?)
    })?;
    runtime.block_on(async {
        let jobs = Jobs::connect(&address).await?;
        for n in 0..JOBS {
            let job = jobs.wait("default", &n.to_string()).await?;
            assert_eq!(job.state(), skerry_client::v1::JobState::Succeeded, "{job:?}");
        }
        stop.cancel();
        working.await??;
        Ok::<_, Box<dyn Error>>(())
    })?;
    let stats = node.json(&["jobs", "stats"])?;
    assert!(stats["groups"].as_array().is_some_and(Vec::is_empty), "{stats}");
    assert!(begun.load(Ordering::Relaxed) >= JOBS);
    node.stop()?;
    Ok(())
}

/// The shards before the one that can't be opened let go of their logs, or the next attempt would
/// find them in use.
#[test]
fn jobs_are_opened_when_the_last_shards_log_is_free() -> Outcome {
    let dir = tempfile::Builder::new().prefix("skerry-logs").tempdir()?;
    let log = |shard: &str| dir.path().join("log").join(shard);
    std::fs::create_dir_all(log("1"))?;
    let lock = std::fs::File::create(log("1").join("lock"))?;
    lock.lock()?;
    let config = dir.path().join("skerry.toml");
    let settings = format!(
        "[jobs]\nshards = 2\n[database]\nbackend = \"fs\"\npath = \"{0}/%shard%\"\n\
         [database.wal]\nbackend = \"fs\"\npath = \"{1}\"\n",
        dir.path().join("database").display(),
        log("%shard%").display(),
    );
    std::fs::write(&config, settings)?;
    let node = self::settings()?.arg("--config").arg(&config).start()?;
    let refused = node.settings().cli(&["jobs", "enqueue", "x"])?.refused(7)?;
    assert!(refused.contains("in use"), "{refused}");
    drop(lock);
    for _ in 0..20_000 {
        if node.settings().cli(&["jobs", "enqueue", "x"])?.code() == 0 {
            node.stop()?;
            return Ok(());
        }
    }
    Err("they are not opened again".into())
}
