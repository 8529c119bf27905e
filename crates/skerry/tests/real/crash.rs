//! The node is killed at random moments under load, with snapshots, clones and deletions going on.
//! After each restart, all promised data must be there, and no impossible data.
//!
//! `SKERRY_KILLS` is the number of kills (20), and `SKERRY_SEED` replays the choices; the moments
//! themselves are the machine's. A failure leaves the history that it contradicts in the target
//! directory.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skerry_testkit::history::{Image, Moment};
use skerry_testkit::load::Ending;
use skerry_testkit::stamp::BLOCK_BYTES;
use skerry_testkit::{
    Bounds, History, Load, LoadSettings, NbdClient, NodeSettings, SkerryNode, scale, seed,
};

type Outcome = Result<(), Box<dyn Error>>;

const DISK: &str = "disk";
const DISK_BYTES: u64 = 64 << 20;

/// Snapshots kept before the oldest is deleted; clones of them are deleted with them.
const SNAPSHOTS_MAX: usize = 4;

/// Kills between two checks of the whole bucket, which read all of it.
const FSCK_EVERY: u64 = 5;

/// Settings of a run of crashes.
struct Plan {
    name: &'static str,
    flush: &'static str,
    /// True to delete the log's directory after each kill, as if the disk had been lost.
    lose_log: bool,
    /// True for one write in flight at a time, so that the prefix is exact.
    ordered: bool,
}

/// A snapshot that was asked for.
struct Snapshot {
    began: Moment,
    /// Time when the command had returned; nothing if it never did.
    returned: Option<Moment>,
    /// Its content, once it was read.
    image: Option<Image>,
    /// A clone of it that was made.
    clone: Option<String>,
}

/// A disk, its history, and its snapshots.
struct Crash {
    plan: Plan,
    history: Arc<History>,
    snapshots: BTreeMap<String, Snapshot>,
    rng: StdRng,
    snapshot_next: u64,
    clone_next: u64,
}

#[test]
fn local_with_the_log_kept_has_every_flushed_write() -> Outcome {
    run(Plan { name: "local", flush: "local", lose_log: false, ordered: false })
}

#[test]
fn bucket_with_the_log_lost_has_every_flushed_write() -> Outcome {
    run(Plan { name: "bucket", flush: "bucket", lose_log: true, ordered: false })
}

#[test]
fn local_with_the_log_lost_is_an_exact_prefix() -> Outcome {
    run(Plan { name: "prefix", flush: "local", lose_log: true, ordered: true })
}

fn run(plan: Plan) -> Outcome {
    let seed = seed(plan.name);
    let kills = scale("SKERRY_KILLS", 20);
    let mut node = NodeSettings::temporary(env!("CARGO_BIN_EXE_skerry"))?.start()?;
    node.create(DISK, &DISK_BYTES.to_string(), &["--flush", plan.flush])?;
    let mut crash = Crash {
        history: Arc::new(History::new(seed, DISK_BYTES / BLOCK_BYTES as u64)),
        snapshots: BTreeMap::new(),
        rng: StdRng::seed_from_u64(seed),
        snapshot_next: 0,
        clone_next: 0,
        plan,
    };
    for kill in 1..=kills {
        let settings = crash.load_and_kill(node)?;
        if crash.plan.lose_log {
            std::fs::remove_dir_all(settings.data().join("log"))?;
        }
        node = settings.start()?;
        crash.check(&node, kill).map_err(|error| crash.explain(kill, &*error))?;
        if kill % FSCK_EVERY == 0 {
            node.cli(&["fsck"])?;
        }
    }
    crash.check_clean_stop(node)
}

impl Crash {
    /// Writes, takes snapshots and clones them, and kills the node in the middle of it.
    fn load_and_kill(&mut self, node: SkerryNode) -> Result<NodeSettings, Box<dyn Error>> {
        let settings = match self.plan.ordered {
            true => LoadSettings::ordered(self.rng.random()),
            false => LoadSettings::busy(self.rng.random()),
        };
        let load = Load::start(&node.uri(DISK), self.history.clone(), settings)?;
        let until = self.rng.random_range(1..3000);
        let nodes = node.settings().clone();
        let stop = AtomicBool::new(false);
        let history = self.history.clone();
        let (settings, endings) = std::thread::scope(|scope| {
            let operator = scope.spawn(|| self.operate(&nodes, &stop));
            let waited = history.wait_acknowledged(until);
            stop.store(true, Ordering::Relaxed);
            let killed = node.kill();
            let endings = load.join();
            let operated = operator.join();
            waited?;
            operated.map_err(|_| "the operator panicked")??;
            Ok::<_, Box<dyn Error>>((killed?, endings?))
        })?;
        if endings.iter().any(|ending| *ending != Ending::Lost) {
            return Err(format!("the node refused a write: {endings:?}").into());
        }
        Ok(settings)
    }

    /// Takes, clones and deletes snapshots until the node is killed. A command that fails then has
    /// an unknown effect.
    fn operate(&mut self, nodes: &NodeSettings, stop: &AtomicBool) -> Result<(), String> {
        while !stop.load(Ordering::Relaxed) {
            let done = match self.rng.random_range(0..10) {
                0..6 => self.take_snapshot(nodes),
                6..8 => self.clone_snapshot(nodes),
                _ => self.delete_snapshot(nodes),
            };
            match done {
                Err(_) if stop.load(Ordering::Relaxed) => return Ok(()),
                Err(error) if is_node_gone(&error) => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }

    fn take_snapshot(&mut self, nodes: &NodeSettings) -> Result<(), String> {
        if self.snapshots.len() >= SNAPSHOTS_MAX {
            return self.delete_snapshot(nodes);
        }
        self.snapshot_next += 1;
        let name = format!("s{:05}", self.snapshot_next);
        let began = self.history.now();
        let snapshot = Snapshot { began, returned: None, image: None, clone: None };
        self.snapshots.insert(name.clone(), snapshot);
        command(nodes, &["snapshot", "create", &format!("{DISK}@{name}")])?;
        let returned = self.history.now();
        if let Some(snapshot) = self.snapshots.get_mut(&name) {
            snapshot.returned = Some(returned);
        }
        Ok(())
    }

    fn clone_snapshot(&mut self, nodes: &NodeSettings) -> Result<(), String> {
        let ready = |(_, snapshot): &(&String, &mut Snapshot)| {
            snapshot.returned.is_some() && snapshot.clone.is_none()
        };
        let Some((name, snapshot)) = self.snapshots.iter_mut().find(ready) else { return Ok(()) };
        // A killed command may have made its clone, so no name is tried twice.
        self.clone_next += 1;
        let clone = format!("clone{:05}-of-{name}", self.clone_next);
        command(nodes, &["volume", "clone", &format!("{DISK}@{name}"), &clone])?;
        snapshot.clone = Some(clone);
        Ok(())
    }

    fn delete_snapshot(&mut self, nodes: &NodeSettings) -> Result<(), String> {
        let Some((name, snapshot)) = self.snapshots.pop_first() else { return Ok(()) };
        command(nodes, &["snapshot", "delete", &format!("{DISK}@{name}")])?;
        match snapshot.clone {
            Some(clone) => command(nodes, &["volume", "delete", &clone]),
            None => Ok(()),
        }
    }

    /// Checks the disk, then every snapshot and clone, and starts a new record from what is there.
    fn check(&mut self, node: &SkerryNode, kill: u64) -> Outcome {
        let bounds = match (self.plan.lose_log, self.plan.flush) {
            (true, "local") => Bounds::PREFIX,
            _ => Bounds::SYNCED,
        };
        let image = self.image(node, DISK)?;
        let found = self.history.check(&image, bounds)?;
        eprintln!(
            "{} kill {kill}: {} of {} writes, {} acknowledged, {} snapshots",
            self.plan.name,
            found.included,
            found.issued,
            found.acknowledged,
            self.snapshots.len()
        );
        self.check_snapshots(node)?;
        self.history.restart_at(&image);
        Ok(())
    }

    fn check_snapshots(&mut self, node: &SkerryNode) -> Outcome {
        let listed = node.json(&["snapshot", "list", DISK])?;
        let listed: Vec<String> = listed
            .as_array()
            .ok_or("`snapshot list` gave no list")?
            .iter()
            .filter_map(|snapshot| snapshot["name"].as_str().map(str::to_owned))
            .collect();
        let may_vanish = self.plan.lose_log && self.plan.flush == "local";
        let mut snapshots = std::mem::take(&mut self.snapshots);
        let mut kept = BTreeMap::new();
        while let Some((name, mut snapshot)) = snapshots.pop_first() {
            if !listed.contains(&name) {
                // A snapshot that was read after an earlier crash had been published, so it can't
                // go again.
                let was_promised = match may_vanish {
                    true => snapshot.image.is_some() || snapshot.clone.is_some(),
                    false => snapshot.returned.is_some(),
                };
                if was_promised {
                    return Err(format!("snapshot {name} is gone").into());
                }
                continue;
            }
            self.check_snapshot(node, &name, &mut snapshot)
                .map_err(|error| format!("snapshot {name}: {error}"))?;
            kept.insert(name, snapshot);
        }
        self.snapshots = kept;
        Ok(())
    }

    fn check_snapshot(&self, node: &SkerryNode, name: &str, snapshot: &mut Snapshot) -> Outcome {
        let image = self.image(node, &format!("{DISK}@{name}"))?;
        match &snapshot.image {
            Some(before) if *before != image => return Err("it changed".into()),
            Some(_) => {}
            None => {
                let returned = snapshot.returned.unwrap_or(Moment::MAX);
                self.history.check(&image, Bounds::snapshot(snapshot.began, returned))?;
            }
        }
        if let Some(clone) = &snapshot.clone
            && self.image(node, clone)? != image
        {
            return Err(format!("{clone} differs from it").into());
        }
        snapshot.image = Some(image);
        // The effect of a killed command becomes known here.
        snapshot.returned.get_or_insert(self.history.now());
        Ok(())
    }

    /// A node that is asked to end keeps everything, flushed or not.
    fn check_clean_stop(&self, node: SkerryNode) -> Outcome {
        let load = Load::start(
            &node.uri(DISK),
            self.history.clone(),
            LoadSettings::busy(self.history.seed()),
        )?;
        self.history.wait_acknowledged(500)?;
        load.stop()?;
        let node = node.stop()?.start()?;
        self.history.check(&self.image(&node, DISK)?, Bounds::EVERYTHING)?;
        node.cli(&["fsck"])?;
        node.stop()?;
        Ok(())
    }

    fn image(&self, node: &SkerryNode, export: &str) -> Result<Image, Box<dyn Error>> {
        let mut client = NbdClient::connect(&node.uri(export))?;
        let image = Image::read(&mut client, self.history.seed())?;
        client.disconnect();
        Ok(image)
    }

    fn explain(&self, kill: u64, error: &dyn Error) -> String {
        let seed = self.history.seed();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{}-{seed}-{kill}.history", self.plan.name));
        let record = match self.history.dump(&path) {
            Ok(()) => format!("the history is in {}", path.display()),
            Err(error) => format!("the history could not be written: {error}"),
        };
        format!("SKERRY_SEED={seed}, kill {kill}: {error}\n{record}")
    }
}

/// Runs a command that must succeed while the node lives.
fn command(nodes: &NodeSettings, words: &[&str]) -> Result<(), String> {
    let output = nodes.cli(words).map_err(|error| error.to_string())?;
    output.ok().map(drop).map_err(|error| error.to_string())
}

/// True if a command failed because the node was killed under it.
fn is_node_gone(error: &str) -> bool {
    error.contains("exit status: 7")
}
