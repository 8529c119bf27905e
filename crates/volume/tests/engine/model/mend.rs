//! Crashes, faults, take-overs, and the rules that must hold after recovery.

use crate::model::driver::{HOSTS, Model, Outcome};
use crate::model::reference::{Rec, Seen};
use crate::rig::{Gate, name};
use object_store::ObjectStore;
use rand::RngExt;
use skerry_core::names::{self, Object};
use skerry_core::seal::Seal;
use skerry_store::objects::faulty::FaultPlan;
use std::sync::Arc;
use std::time::Duration;

/// The way in which a host dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    /// The process: its writes are on the disk's way.
    Kill,
    /// The machine: unsynced writes are lost or torn.
    Power,
    /// The machine, and its disk.
    Disk,
}

impl Model {
    /// Makes a whole run.
    pub async fn run(&mut self) {
        let steps = self.rng.random_range(20..300);
        let calm = self.chance(25);
        for _ in 0..steps {
            if self.runs.iter().all(Option::is_none) {
                self.start_and_judge(0, Death::Kill).await;
            }
            if calm && self.bad_store {
                self.heal().await;
            }
            self.doing.clear();
            if let Err(trouble) = self.step().await {
                self.trouble(&trouble.0).await;
            }
            self.doing.clear();
        }
        self.finish().await;
    }

    async fn trouble(&mut self, why: &str) {
        if !self.disturbed() {
            self.wrong(format!("an operation failed and nothing was wrong: {why}"));
        }
        self.say(format!("trouble: {why}"));
        for host in 0..2 {
            if self.runs[host].is_some() {
                self.recover_from(host).await;
            }
        }
    }

    /// Mends the store and its late writes; disks of living hosts stay as they are.
    async fn heal(&mut self) {
        self.faults.revive();
        self.faults.set_plan(FaultPlan::default());
        if self.chance(50) {
            self.faults.land_all().await;
        }
        self.bad_store = false;
    }

    /// Recovers from trouble: everything works again, and every volume of the host is in a state
    /// that it may have.
    pub async fn recover_from(&mut self, host: usize) {
        // A volume can be judged only when no task writes it.
        self.busy = None;
        self.heal().await;
        if self.gate(host).is_shut() || self.bad_disk[host] || self.chance(30) {
            let death = self.death(host);
            return self.crash(host, death).await;
        }
        self.gate(host).shut_after(u64::MAX / 2);
        self.doomed[host] = false;
        if !self.judge_all(host, None).await {
            self.say("a volume is out of service: its host starts again");
            self.crash(host, Death::Kill).await;
        }
    }

    fn death(&mut self, host: usize) -> Death {
        match self.rng.random_range(0..10) {
            0..3 if !self.bad_disk[host] => Death::Kill,
            0..8 => Death::Power,
            _ => Death::Disk,
        }
    }

    /// Lets a host die in one way or another, come back to a world that works, and be judged.
    pub async fn die(&mut self, host: usize) {
        self.busy = None;
        self.heal().await;
        let death = self.death(host);
        self.crash(host, death).await;
    }

    /// Lets a host die, come back, and be judged.
    async fn crash(&mut self, host: usize, death: Death) {
        // A volume can be judged only when no task writes it.
        self.busy = None;
        self.say(format!("host {} dies: {death:?}", HOSTS[host]));
        self.fell(host, death);
        self.start_and_judge(host, death).await;
    }

    fn fell(&mut self, host: usize, death: Death) {
        self.runs[host] = None;
        let mine: Vec<_> =
            self.vols.iter().filter(|v| v.owner == Some(host)).map(|v| v.id).collect();
        mine.iter().for_each(|id| drop(self.devices.remove(id)));
        match death {
            Death::Kill => self.worlds[host].disk.kill(),
            Death::Power => self.worlds[host].disk.crash(self.rng.random()),
            Death::Disk => self.worlds[host].lose_disk(),
        }
        self.worlds[host].disk.repair();
        self.bad_disk[host] = false;
        self.doomed[host] = false;
        self.stale.retain(|(h, _)| *h != host);
    }

    /// Starts a host, which may die again while it starts, and judges its volumes.
    async fn start_and_judge(&mut self, host: usize, death: Death) {
        while self.chance(25) {
            let calls = self.rng.random_range(0..40);
            self.say(format!("host {} starts and dies after {calls} calls", HOSTS[host]));
            let gate = Gate::shutting_after(self.worlds[host].store.clone(), calls);
            let world = self.worlds[host].clone();
            tokio::select! {
                biased;
                run = world.start_behind(HOSTS[host], gate.clone()) => drop(run),
                () = gate.died() => {}
            }
            gate.kill();
            match self.death(host) {
                Death::Kill => self.worlds[host].disk.kill(),
                Death::Power => self.worlds[host].disk.crash(self.rng.random()),
                Death::Disk if death == Death::Disk => self.worlds[host].lose_disk(),
                Death::Disk => self.worlds[host].disk.kill(),
            }
        }
        self.heal().await;
        self.start(host).await;
        if !self.judge_all(host, Some(death)).await {
            self.wrong("a volume is out of service after a restart");
        }
    }

    /// Judges everything that the host writes; false if something is out of service.
    async fn judge_all(&mut self, host: usize, death: Option<Death>) -> bool {
        let Some(engine) = self.engine(host) else { return true };
        let listed = match engine.list_volumes().await {
            Ok(listed) => listed,
            Err(e) => self.wrong(format!("listing volumes: {e}")),
        };
        let ids: Vec<_> = self.vols.iter().map(|v| v.id).collect();
        for id in ids {
            let v = self.at(id);
            let Some(info) = listed.iter().find(|info| info.id == id) else {
                let deleting = self.is_doing(id);
                let left = self.vols[v].snaps.iter().any(|s| !s.doubtful);
                if (deleting || self.vols[v].gone) && !left {
                    self.say(format!("{} turned out to be deleted", self.vols[v].name()));
                    self.vols.remove(v);
                    continue;
                }
                self.wrong(format!("{} is gone", self.vols[v].name()));
            };
            if self.stale.contains(&(host, id)) {
                continue;
            }
            if !self.vols[v].names.contains(&info.name) {
                self.wrong(format!("{:?} is called {}", self.vols[v].names, info.name));
            }
            let mut names = self.vols[v].names.clone();
            names.sort_by_key(|n| *n != info.name);
            self.vols[v].names = names;
            if info.deleted {
                self.judge_deleted(host, id).await;
                continue;
            }
            if self.vols[v].gone {
                self.wrong(format!("{} came back", info.name));
            }
            let before = match info.owner.as_deref() {
                Some(owner) => HOSTS.iter().position(|h| *h == owner),
                None => None,
            };
            if before.is_some_and(|owner| owner != host) || !self.may_judge(v, host) {
                continue;
            }
            if !self.judge(host, v, death).await {
                return false;
            }
        }
        true
    }

    fn may_judge(&self, v: usize, host: usize) -> bool {
        self.vols[v].owner.is_none_or(|owner| owner == host)
    }

    /// Checks a volume whose head is deleted: its snapshots that are not doubtful are there.
    async fn judge_deleted(&mut self, host: usize, id: skerry_core::id::VolumeId) {
        let v = self.at(id);
        if !self.vols[v].gone && !self.is_doing(id) {
            self.wrong(format!("{} was deleted by nobody", self.vols[v].name()));
        }
        let Some(engine) = self.engine(host) else { return };
        let of = name(self.vols[v].name());
        let listed = match engine.list_snapshots(&of).await {
            Ok(listed) => listed,
            Err(e) => self.wrong(format!("snapshots of {of}: {e}")),
        };
        let there = |n: &Option<String>| listed.iter().any(|s| Some(&s.name) == n.as_ref());
        for snap in &self.vols[v].snaps {
            if !snap.doubtful && !there(&snap.name) {
                self.wrong(format!("{of}@{:?} is missing", snap.name));
            }
        }
        self.devices.remove(&id);
        let vol = &mut self.vols[v];
        vol.snaps.retain(|s| there(&s.name));
        (vol.gone, vol.owner) = (true, None);
    }

    /// Settles one volume; false if it is out of service.
    async fn judge(&mut self, host: usize, v: usize, death: Option<Death>) -> bool {
        let id = self.vols[v].id;
        let seen = match self.see(host, v).await {
            Ok(seen) => seen,
            Err(trouble) if death.is_none() => {
                self.say(format!("{}: {}", self.vols[v].name(), trouble.0));
                return false;
            }
            Err(trouble) => self.wrong(format!("{}: {}", self.vols[v].name(), trouble.0)),
        };
        let floor = match death {
            None => match self.doing.iter().find(|(doing, _)| *doing == id) {
                Some((_, acked)) => (*acked).max(self.vols[v].bucketed),
                None => self.vols[v].end(),
            },
            Some(Death::Kill | Death::Power) => self.vols[v].flushed,
            Some(Death::Disk) => self.vols[v].bucketed,
        };
        self.settle(v, &seen, floor, death.is_none());
        true
    }

    fn settle(&mut self, v: usize, seen: &Seen, floor: u64, live: bool) {
        let flushed = self.vols[v].flushed;
        if let Err(e) = self.vols[v].settle(seen, floor) {
            self.wrong(e);
        }
        if live {
            // A look makes nothing durable.
            self.vols[v].flushed = flushed.min(self.vols[v].end());
        }
    }

    /// Settles a half-done rename once the volume is open.
    pub async fn one_name(&mut self, host: usize, v: usize) {
        let Some(engine) = self.engine(host) else { return };
        let listed = match engine.list_volumes().await {
            Ok(listed) => listed,
            Err(e) => self.wrong(format!("listing volumes: {e}")),
        };
        let id = self.vols[v].id;
        let names: Vec<String> =
            listed.into_iter().filter(|i| i.id == id).map(|i| i.name).collect();
        if names.len() != 1 || !self.vols[v].names.contains(&names[0]) {
            self.wrong(format!("{:?} is called {names:?}", self.vols[v].names));
        }
        self.vols[v].names = names;
    }

    /// Starts a second host, or lets a host take a volume by force from one that may be dead.
    pub async fn take_over(&mut self) -> Outcome {
        self.heal().await;
        let host = self.rng.random_range(0..2);
        if self.runs[host].is_none() {
            self.say(format!("host {} starts", HOSTS[host]));
            self.start_and_judge(host, Death::Kill).await;
            return Ok(());
        }
        if self.doomed[host] {
            self.recover_from(host).await;
        }
        let theirs: Vec<usize> = (0..self.vols.len())
            .filter(|&v| !self.vols[v].gone && !self.is_busy(self.vols[v].id))
            .filter(|&v| self.vols[v].owner.is_some_and(|o| o != host))
            .collect();
        if theirs.is_empty() {
            return Ok(());
        }
        let v = theirs[self.rng.random_range(0..theirs.len())];
        self.take(v, host).await
    }

    /// Lets a host take a volume by force from the one that writes it.
    pub async fn take(&mut self, v: usize, host: usize) -> Outcome {
        let of = name(self.vols[v].name());
        self.say(format!("host {} takes {of} by force", HOSTS[host]));
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let before = self.vols[v].owner.take();
        self.stale.extend(before.map(|h| (h, self.vols[v].id)));
        self.stale.remove(&(host, self.vols[v].id));
        let old = self.devices.remove(&self.vols[v].id);
        self.on(host, async { engine.release_volume(&of, true).await }).await?;
        let seen = self.see(host, v).await?;
        let floor = self.vols[v].bucketed;
        self.settle(v, &seen, floor, false);
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        self.one_name(host, v).await;
        if let (Some(before), Some(old)) = (before, old) {
            // A host that was stopped for a while checks at once; any other, now and then.
            if self.chance(50) {
                tokio::time::advance(Duration::from_secs(10)).await;
            } else {
                tokio::time::sleep(Duration::from_secs(65)).await;
            }
            let served = self.on(before, old.read(0, 512)).await.is_ok();
            // A host that died meanwhile never heard of it, and serves no client either.
            if served && !self.gate(before).is_shut() {
                self.wrong(format!("{of} was taken over, and the host before still serves it"));
            }
        }
        if self.chance(40) {
            self.hand_back(v, host, before).await?;
        }
        Ok(())
    }

    /// The new owner writes a little and releases the volume. The previous host, which may have
    /// undestaged records that would seem to follow, opens it again.
    async fn hand_back(&mut self, v: usize, host: usize, before: Option<usize>) -> Outcome {
        let Some(before) = before.filter(|b| self.runs[*b].is_some()) else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        self.say(format!("{} is handed back to host {}", self.vols[v].name(), HOSTS[before]));
        let device = self.device(host, v).await?;
        // A writer of another volume may go on meanwhile: its progress stays known.
        let id = self.vols[v].id;
        self.doing.retain(|(doing, _)| *doing != id);
        self.begin(v);
        let data = Arc::new(vec![0xbb; 512]);
        self.vols[v].push(Rec::Write { offset: 0, data: data.clone() });
        self.on(host, device.write(0, data.to_vec().into())).await?;
        let of = name(self.vols[v].name());
        self.devices.remove(&self.vols[v].id);
        self.on(host, async { engine.release_volume(&of, true).await }).await?;
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        self.vols[v].owner = None;
        self.doing.retain(|(doing, _)| *doing != id);
        let death = self.death(before);
        self.crash(before, death).await;
        Ok(())
    }

    pub async fn stop_cleanly(&mut self) -> Outcome {
        let host = self.rng.random_range(0..2);
        let Some(engine) = self.engine(host) else { return Ok(()) };
        self.heal().await;
        if self.doomed[host] || self.bad_disk[host] {
            self.recover_from(host).await;
            return Ok(());
        }
        self.say(format!("host {} stops", HOSTS[host]));
        if let Err(trouble) = self.on(host, async { engine.shutdown().await }).await {
            self.wrong(format!("a clean stop failed: {}", trouble.0));
        }
        for vol in self.vols.iter_mut().filter(|v| v.owner == Some(host)) {
            vol.note_bucketed(vol.end());
        }
        let death = self.death(host);
        self.fell(host, death);
        if self.chance(70) || self.runs.iter().all(Option::is_none) {
            self.start_and_judge(host, death).await;
        }
        Ok(())
    }

    pub async fn crash_or_disturb(&mut self) -> Outcome {
        let host = self.rng.random_range(0..2);
        if self.runs[host].is_none() {
            return Ok(());
        }
        match self.rng.random_range(0..8) {
            0 | 1 => {
                let death = self.death(host);
                self.crash(host, death).await;
            }
            2 => {
                let calls = self.rng.random_range(0..60);
                self.say(format!("host {} dies after {calls} more calls", HOSTS[host]));
                self.gate(host).shut_after(calls);
                self.doomed[host] = true;
            }
            3 => {
                let count = self.rng.random_range(0..60);
                self.say(format!("the disk of {} fails after {count} operations", HOSTS[host]));
                if self.chance(50) {
                    self.worlds[host].disk.stop_after(count);
                } else {
                    self.worlds[host].disk.fail_after(count, self.rng.random());
                }
                self.bad_disk[host] = true;
            }
            7 => {
                self.say("the store takes no writes");
                self.faults.set_plan(FaultPlan { deny_writes: true, ..FaultPlan::default() });
                self.bad_store = true;
            }
            4 => {
                self.say("the store is dead");
                self.faults.kill();
                self.bad_store = true;
            }
            5 => {
                self.say("the store is slow");
                let slow = FaultPlan { slow: 500, slow_ms: 1..4000, ..FaultPlan::default() };
                self.faults.set_plan(slow);
            }
            _ => {
                self.say("the store is rough");
                let plan =
                    FaultPlan { error_before: 100, response_lost: 150, ..FaultPlan::rough() };
                self.faults.set_plan(plan);
                self.bad_store = true;
            }
        }
        Ok(())
    }

    /// Recovers everything, then reads, checks and deletes it; no segment is left.
    async fn finish(&mut self) {
        self.say("the end");
        for host in 0..2 {
            if self.runs[host].is_none() {
                self.heal().await;
                self.start_and_judge(host, Death::Kill).await;
            } else {
                self.recover_from(host).await;
            }
        }
        self.faults.land_all().await;
        self.observe().await;
        self.fsck().await;
        while !self.vols.is_empty() {
            let v = self.rng.random_range(0..self.vols.len());
            let host = self.vols[v].owner.unwrap_or(0);
            if let Err(trouble) = self.delete_one(v, host, true).await {
                self.wrong(format!("deleting everything: {}", trouble.0));
            }
            if self.chance(50) {
                self.observe().await;
            }
        }
        // A dead host's late calls have arrived by then.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let Some(engine) = self.engine(0) else { return };
        // The first sweep sees the pins of readers that died; the second finds them ended.
        for _ in 0..2 {
            if let Err(trouble) = self.on(0, async { engine.sweep().await }).await {
                self.wrong(format!("the last sweeps: {}", trouble.0));
            }
            tokio::time::sleep(Duration::from_secs(61)).await;
        }
        self.nothing_left().await;
    }

    async fn fsck(&mut self) {
        let Some(engine) = self.engine(0) else { return };
        match self.on(0, async { engine.fsck().await }).await {
            Ok(report) if report.problems.is_empty() => {}
            Ok(report) => self.wrong(format!("fsck: {:#?}", report.problems)),
            Err(trouble) => self.wrong(format!("fsck: {}", trouble.0)),
        }
    }

    /// Only seals are left of the streams.
    async fn nothing_left(&mut self) {
        use futures::StreamExt;
        use object_store::ObjectStoreExt;
        let all: Vec<_> = self.bare.list(None).collect().await;
        for meta in all {
            let Ok(meta) = meta else { self.wrong("listing the store") };
            if !matches!(names::parse(meta.location.as_ref()), Object::Segment(_)) {
                continue;
            }
            let got = self.bare.get(&meta.location).await;
            let Ok(Ok(bytes)) =
                futures::future::OptionFuture::from(got.ok().map(|g| g.bytes())).await.ok_or(())
            else {
                self.wrong("reading the store")
            };
            if !Seal::is(&bytes) {
                self.wrong(format!("{} is left, and nothing holds it", meta.location));
            }
        }
    }
}
