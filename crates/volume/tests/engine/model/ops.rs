//! The operations: the effect of each on the volumes and on the reference.

use crate::model::driver::{Busy, HOSTS, Model, Outcome, Trouble};
use crate::model::reference::{Rec, Vol, differ};
use crate::rig::{name, target};
use rand::RngExt;
use skerry_core::descriptor::FlushLevel;
use skerry_core::id::VolumeId;
use skerry_volume::{Cause, CreateVolume, Device, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The longest record of a write, bytes, as the rig sets it: longer writes are cut.
const PIECE: usize = 64 << 10;
const VOLUMES_MAX: usize = 5;

impl Model {
    /// The volume and the host for an operation that writes; none if there is none at hand.
    pub fn pick(&mut self) -> Option<(usize, usize)> {
        self.pick_of(|_| true)
    }

    /// The volume and the host for an operation that writes, without the volume that is being
    /// written.
    fn pick_quiet(&mut self) -> Option<(usize, usize)> {
        let busy = self.busy.as_ref().map(|busy| busy.id);
        self.pick_of(|vol| Some(vol.id) != busy)
    }

    fn pick_of(&mut self, wanted: impl Fn(&Vol) -> bool) -> Option<(usize, usize)> {
        let ready: Vec<(usize, usize)> = (0..self.vols.len())
            .filter(|&v| !self.vols[v].gone && wanted(&self.vols[v]))
            .filter_map(|v| match self.vols[v].owner {
                Some(host) => self.runs[host].is_some().then_some((v, host)),
                None => (0..2).find(|&h| self.runs[h].is_some()).map(|h| (v, h)),
            })
            .collect();
        (!ready.is_empty()).then(|| ready[self.rng.random_range(0..ready.len())])
    }

    pub fn bytes(&mut self, len: usize) -> Arc<Vec<u8>> {
        self.stamp += 1;
        let mut data = vec![0u8; len];
        match self.rng.random_range(0..10) {
            0 => {}
            1 => data.fill((self.stamp % 3) as u8 + 1),
            2 | 3 => {
                for (i, sector) in data.chunks_mut(512).enumerate() {
                    sector.fill((self.stamp as usize + i) as u8 | 1);
                }
            }
            _ => self.rng.fill(&mut data[..]),
        }
        Arc::new(data)
    }

    pub fn range(&mut self, size: usize, longest: usize) -> (usize, usize) {
        let sectors = size / 512;
        let mut from = self.rng.random_range(0..sectors);
        let mut len = self.rng.random_range(1..=(longest / 512).max(1));
        if self.rng.random_bool(0.5) {
            (from, len) = (from / 8 * 8, len.next_multiple_of(8));
        }
        (from * 512, len.min(sectors - from) * 512)
    }

    pub async fn step(&mut self) -> Outcome {
        let dice = self.rng.random_range(0..1000);
        match dice {
            0..340 => self.write().await,
            340..370 => self.while_busy().await,
            370..380 => self.cut_off().await,
            380..450 => self.zero().await,
            450..540 => self.flush().await,
            540..630 => self.read().await,
            630..680 => self.snapshot().await,
            680..705 => self.delete_snapshot().await,
            705..725 => self.clone_one().await,
            725..745 => self.roll_back().await,
            745..770 => self.resize().await,
            770..785 => self.create().await,
            785..797 => self.delete().await,
            797..809 => self.rename().await,
            809..829 => self.checkpoint().await,
            829..840 => self.sweep().await,
            840..900 => self.wait().await,
            900..925 => self.read_snapshot().await,
            925..940 => self.diff().await,
            940..950 => self.release().await,
            950..960 => self.take_over().await,
            960..970 => {
                self.say("observe");
                self.observe().await;
                Ok(())
            }
            970..980 => self.stop_cleanly().await,
            _ => self.crash_or_disturb().await,
        }
    }

    async fn write(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        let longest = if self.chance(5) { 200 << 10 } else { 20 << 10 };
        let device = self.device(host, v).await?;
        let (offset, len) = self.range(self.vols[v].image.len(), longest);
        let data = self.bytes(len);
        self.say(format!("{} write {offset}+{len}", self.vols[v].name()));
        self.begin(v);
        for (i, piece) in data.chunks(PIECE).enumerate() {
            let piece = Arc::new(piece.to_vec());
            self.vols[v].push(Rec::Write { offset: offset + i * PIECE, data: piece });
        }
        if self.chance(50)
            && let Some(done) = device.try_write(offset as u64, &data)
        {
            return Ok(done?);
        }
        let data = bytes::Bytes::from(data.to_vec());
        self.on(host, device.write(offset as u64, data)).await
    }

    /// Writes to a volume during another operation that is no record of its own.
    async fn while_busy(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        let device = self.device(host, v).await?;
        let id = self.vols[v].id;
        self.say(format!("{} writes go on", self.vols[v].name()));
        self.begin(v);
        let mut writes = Vec::new();
        for _ in 0..self.rng.random_range(3..30) {
            let (offset, len) = self.range(self.vols[v].image.len(), 20 << 10);
            let data = self.bytes(len);
            self.vols[v].push(Rec::Write { offset, data: data.clone() });
            let pause = if self.chance(50) { self.rng.random_range(0..300) } else { 0 };
            writes.push((offset as u64, data, Duration::from_millis(pause)));
        }
        let task = tokio::spawn(async move {
            for (offset, data, pause) in writes {
                device.write(offset, data.to_vec().into()).await?;
                tokio::time::sleep(pause).await;
            }
            Ok(())
        });
        self.busy = Some(Busy { id, task });
        let gate = self.gate(host);
        let other = match self.rng.random_range(0..16) {
            0 | 1 => self.checkpoint().await,
            2 => self.sweep().await,
            3 => self.delete_snapshot().await,
            4 => self.clone_one().await,
            5 => self.diff().await,
            6 => self.read_snapshot().await,
            7 => self.create().await,
            8 => self.roll_back().await,
            9 => self.resize().await,
            10 => self.rename().await,
            11 => self.release().await,
            12 => self.snapshot().await,
            13 => self.take_over().await,
            14 => self.delete().await,
            _ => self.wait().await,
        };
        let Some(mut busy) = self.busy.take() else {
            // The model had to mend something meanwhile, and the rest of the writes never came.
            other?;
            self.writes_were_cut(id, host).await;
            return Ok(());
        };
        other?;
        if gate.is_shut() {
            // The host was judged when it came back, or it is now.
            let alive = self.runs[host].as_ref().is_some_and(|run| !run.gate.is_shut());
            return if alive { Ok(()) } else { Err(Trouble("the host died meanwhile".into())) };
        }
        let ended = async {
            (&mut busy.task).await.map_err(|e| {
                let (object, why) = ("the task".to_owned(), format!("was given up: {e}"));
                skerry_volume::Error::from(Cause::Unavailable { object, why })
            })?
        };
        self.on(host, ended).await
    }

    /// Settles a volume whose writer was ended; its host may have died of it and been judged
    /// already.
    async fn writes_were_cut(&mut self, id: VolumeId, host: usize) {
        let end = self.vols.iter().find(|v| v.id == id).map(Vol::end);
        for (_, acked) in self.doing.iter_mut().filter(|(doing, _)| *doing == id) {
            *acked = end.map_or(*acked, |end| end.min(*acked));
        }
        if self.runs[host].is_some() {
            self.recover_from(host).await;
        }
    }

    async fn zero(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        let device = self.device(host, v).await?;
        let size = self.vols[v].image.len();
        let longest = if self.chance(30) { size } else { 64 << 10 };
        let (offset, len) = if self.chance(5) { (0, size) } else { self.range(size, longest) };
        self.say(format!("{} zero {offset}+{len}", self.vols[v].name()));
        self.begin(v);
        self.vols[v].push(Rec::Zero { offset, len });
        self.on(host, device.zero(offset as u64, len as u64)).await
    }

    async fn flush(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        let device = self.device(host, v).await?;
        self.say(format!("{} flush", self.vols[v].name()));
        let quick = if self.chance(50) { device.try_flush() } else { None };
        match quick {
            Some(done) => done?,
            None => self.on(host, device.flush()).await?,
        }
        self.vols[v].note_flushed();
        Ok(())
    }

    async fn read(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        let device = self.device(host, v).await?;
        let (offset, len) = self.range(self.vols[v].image.len(), 300 << 10);
        self.say(format!("{} read {offset}+{len}", self.vols[v].name()));
        let mut buf = vec![0xee; len];
        let quick = if self.chance(50) { device.try_read(offset as u64, &mut buf) } else { None };
        match quick {
            Some(done) => done?,
            None => {
                let read = self.on(host, device.read(offset as u64, len)).await?;
                buf.copy_from_slice(&read);
            }
        }
        if let Some(diff) = differ(&self.vols[v].image[offset..offset + len], &buf) {
            self.wrong(format!("{} read at {offset}: {diff}", self.vols[v].name()));
        }
        if self.chance(30) {
            self.status(host, v, &device, offset..offset + len).await?;
        }
        Ok(())
    }

    /// Holes in a status read as zeros; ranges follow on one another, and neighbours differ.
    async fn status(
        &mut self,
        host: usize,
        v: usize,
        device: &Device,
        range: Range<usize>,
    ) -> Outcome {
        let max = self.rng.random_range(1..6);
        let (mut at, mut last) = (range.start as u64, None);
        while at < range.end as u64 {
            let rest = range.end as u64 - at;
            let found = self.on(host, device.status(at, rest, max)).await?;
            if found.is_empty() || found.len() > max {
                self.wrong(format!("{} ranges at {at}, of {max} at most", found.len()));
            }
            for (i, part) in found.iter().enumerate() {
                let end = part.offset + part.length;
                let is_joined = i > 0 && last == Some(part.hole);
                if part.offset != at || part.length == 0 || end > range.end as u64 || is_joined {
                    self.wrong(format!("a status of {part:?} at {at}"));
                }
                let image = &self.vols[v].image[at as usize..end as usize];
                if part.hole && image.iter().any(|b| *b != 0) {
                    self.wrong(format!("{part:?} is no hole"));
                }
                (at, last) = (end, Some(part.hole));
            }
        }
        Ok(())
    }

    async fn snapshot(&mut self) -> Outcome {
        let Some((v, host)) = self.pick_quiet() else { return Ok(()) };
        if self.vols[v].snaps.len() > 6 {
            return self.delete_snapshot().await;
        }
        let label = format!("s{}", self.rng.random_range(0..8));
        if self.vols[v].snap(&label).is_some() {
            return Ok(());
        }
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} snapshot {label}"));
        self.device(host, v).await?;
        self.begin(v);
        self.vols[v].push_snapshot(Some(&label));
        let made = async { engine.create_snapshot(&of, Some(&name(&label))).await };
        let view = self.on(host, made).await?;
        if view.size_bytes != self.vols[v].image.len() as u64 {
            self.wrong(format!("snapshot {of}@{label} has {} bytes", view.size_bytes));
        }
        self.vols[v].note_flushed();
        Ok(())
    }

    /// A volume that has a snapshot, and a host that may delete or read it.
    fn pick_snapshot(&mut self) -> Option<(usize, usize, String)> {
        let mut all = Vec::new();
        for (v, vol) in self.vols.iter().enumerate() {
            let host = match vol.owner {
                Some(host) if !vol.gone => self.runs[host].is_some().then_some(host),
                _ => (0..2).find(|&h| self.runs[h].is_some()),
            };
            let Some(host) = host else { continue };
            let sure = vol.snaps.iter().filter(|s| !s.doubtful);
            all.extend(sure.filter_map(|s| Some((v, host, s.name.clone()?))));
        }
        (!all.is_empty()).then(|| all.swap_remove(self.rng.random_range(0..all.len())))
    }

    async fn delete_snapshot(&mut self) -> Outcome {
        let Some((v, host, label)) = self.pick_snapshot() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} delete snapshot {label}"));
        if !self.vols[v].gone {
            self.device(host, v).await?;
        }
        let mine = |s: &&mut crate::model::reference::Snap| s.name.as_deref() == Some(&*label);
        if let Some(snap) = self.vols[v].snaps.iter_mut().find(mine) {
            snap.doubtful = true;
        }
        self.on(host, async { engine.delete_snapshot(&of, &name(&label)).await }).await?;
        self.vols[v].snaps.retain(|s| s.name.as_deref() != Some(&*label));
        if self.vols[v].gone && self.vols[v].snaps.is_empty() {
            self.say(format!("{of} is gone for good"));
            self.vols.remove(v);
        }
        Ok(())
    }

    async fn clone_one(&mut self) -> Outcome {
        if self.vols.len() >= VOLUMES_MAX {
            return Ok(());
        }
        let Some((v, host, label)) = self.pick_snapshot() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let Some(snap) = self.vols[v].snap(&label).cloned() else { return Ok(()) };
        let of = name(self.vols[v].name());
        let mut image = (*snap.image).clone();
        if self.chance(40) {
            image.resize(image.len() + self.rng.random_range(1..300usize) * 512, 0);
        }
        let new = self.free_name();
        self.say(format!("{of}@{label} clone {new} of {} bytes", image.len()));
        let size = Some(image.len() as u64);
        if !self.vols[v].gone {
            self.device(host, v).await?;
        }
        let made = async { engine.clone_volume(&of, &name(&label), &name(&new), size).await };
        let made = self.on(host, made).await;
        self.vols[v].note_bucketed(if made.is_ok() { snap.at } else { 0 });
        let level = self.vols[v].level;
        self.born(host, made, &new, level, image).await
    }

    pub fn free_name(&mut self) -> String {
        self.stamp += 1;
        format!("v{}", self.stamp)
    }

    /// Notes that a volume was made, or that its making failed: then whether it is there is asked
    /// after recovery.
    async fn born(
        &mut self,
        host: usize,
        made: Outcome<skerry_volume::VolumeInfo>,
        new: &str,
        level: FlushLevel,
        image: Vec<u8>,
    ) -> Outcome {
        let (info, trouble) = match made {
            Ok(info) => (Some(info), None),
            Err(trouble) => {
                self.say(format!("making {new} failed: {}", trouble.0));
                self.recover_from(host).await;
                let Some(engine) = self.engine(host) else { return Ok(()) };
                match engine.show_volume(&name(new)).await {
                    Ok(info) => (Some(info), Some(trouble)),
                    Err(e) if e.kind() == ErrorKind::NotFound => (None, Some(trouble)),
                    Err(e) => self.wrong(format!("looking for {new}: {e}")),
                }
            }
        };
        if let Some(info) = info {
            if info.size_bytes != image.len() as u64 {
                self.wrong(format!("{new} has {} bytes, not {}", info.size_bytes, image.len()));
            }
            self.vols.push(Vol::new(info.id, new, level, image));
        }
        // The trouble has been mended.
        drop(trouble);
        Ok(())
    }

    pub async fn create(&mut self) -> Outcome {
        if self.vols.len() >= VOLUMES_MAX {
            return Ok(());
        }
        let Some(host) = (0..2).find(|&h| self.runs[h].is_some()) else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let size = self.rng.random_range(8..2500usize) * 512;
        let block = [4096, 4096, 8192, 65536][self.rng.random_range(0..4usize)];
        let level = if self.chance(70) { FlushLevel::Local } else { FlushLevel::Bucket };
        let new = self.free_name();
        self.say(format!("create {new} of {size} bytes in blocks of {block}, {level:?}"));
        let made = CreateVolume {
            name: name(&new),
            size_bytes: size as u64,
            block_size_bytes: block,
            flush: Some(level),
        };
        let made = self.on(host, async { engine.create_volume(made).await }).await;
        self.born(host, made, &new, level, vec![0; size]).await
    }

    async fn roll_back(&mut self) -> Outcome {
        let Some((v, host, label)) = self.pick_snapshot() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        if self.vols[v].gone || self.is_busy(self.vols[v].id) {
            return Ok(());
        }
        let Some(snap) = self.vols[v].snap(&label).cloned() else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} roll back to {label}"));
        let old = self.device(host, v).await?;
        self.begin(v);
        self.vols[v].push_snapshot(None);
        self.vols[v].push(Rec::Rollback(snap.image));
        self.devices.remove(&self.vols[v].id);
        let done = self.on(host, async { engine.rollback_volume(&of, &name(&label), true).await });
        let view = match done.await {
            Ok(view) => view,
            // The rollback goes on by itself; only a restart shows its result.
            Err(trouble) if !self.gate(host).is_shut() => {
                self.say(format!("trouble: {}", trouble.0));
                self.die(host).await;
                return Ok(());
            }
            Err(trouble) => return Err(trouble),
        };
        if let Some(kept) = self.vols[v].snaps.iter_mut().rfind(|s| s.name.is_none()) {
            kept.name = Some(view.name);
        }
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        if old.size_bytes() > 0 && self.on(host, old.read(0, 512)).await.is_ok() {
            self.wrong(format!("who was attached to {of} before its rollback can still read"));
        }
        Ok(())
    }

    async fn resize(&mut self) -> Outcome {
        let Some((v, host)) = self.pick_quiet() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        let now = self.vols[v].image.len();
        let size = (self.rng.random_range(1..(now / 512 + 200).min(4000))) * 512;
        self.say(format!("{of} resize {now} to {size}"));
        self.device(host, v).await?;
        self.begin(v);
        if size < now {
            self.vols[v].push(Rec::Zero { offset: size, len: now - size });
        }
        self.vols[v].push(Rec::Resize(size));
        self.devices.remove(&self.vols[v].id);
        self.on(host, async { engine.resize_volume(&of, size as u64, true).await }).await?;
        self.vols[v].note_flushed();
        Ok(())
    }

    async fn delete(&mut self) -> Outcome {
        let Some((v, host)) = self.pick_quiet() else { return Ok(()) };
        let snapshots = self.chance(50);
        self.delete_one(v, host, snapshots).await
    }

    pub async fn delete_one(&mut self, v: usize, host: usize, snapshots: bool) -> Outcome {
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} delete{}", if snapshots { " with snapshots" } else { "" }));
        if !self.vols[v].gone {
            self.device(host, v).await?;
        }
        self.begin(v);
        if snapshots {
            self.vols[v].snaps.iter_mut().for_each(|s| s.doubtful = true);
        }
        self.devices.remove(&self.vols[v].id);
        self.on(host, async { engine.delete_volume(&of, snapshots, true).await }).await?;
        let vol = &mut self.vols[v];
        vol.gone = true;
        vol.owner = None;
        if snapshots || vol.snaps.is_empty() {
            self.vols.remove(v);
        }
        Ok(())
    }

    async fn rename(&mut self) -> Outcome {
        let Some((v, host)) = self.pick_quiet() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let (of, new) = (name(self.vols[v].name()), self.free_name());
        self.say(format!("{of} rename {new}"));
        self.device(host, v).await?;
        self.begin(v);
        self.vols[v].push(Rec::Rename);
        self.vols[v].names = vec![of.to_string(), new.clone()];
        self.on(host, async { engine.rename_volume(&of, &name(&new)).await }).await?;
        self.vols[v].names = vec![new];
        self.vols[v].note_flushed();
        Ok(())
    }

    async fn checkpoint(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        self.device(host, v).await?;
        let id = self.vols[v].id;
        let drain = self.chance(50) && self.busy.as_ref().is_none_or(|busy| busy.id != id);
        self.say(format!(
            "{} checkpoint{}",
            self.vols[v].name(),
            if drain { ", drained" } else { "" }
        ));
        let open = engine.open_volumes().into_iter().find(|o| o.desc.id == id);
        let Some(open) = open else { return Err(Trouble("it is not open".into())) };
        if drain {
            self.on(host, async { open.drain().await }).await?;
            let end = self.vols[v].end();
            self.vols[v].note_bucketed(end);
        }
        self.on(host, async { open.checkpoint().await }).await
    }

    async fn sweep(&mut self) -> Outcome {
        for (host, name) in HOSTS.iter().enumerate() {
            let Some(engine) = self.engine(host) else { continue };
            self.say(format!("host {name} sweeps"));
            let swept = self.on(host, async { engine.sweep().await }).await?;
            self.say(format!("{swept} segments deleted"));
        }
        self.observe().await;
        Ok(())
    }

    async fn wait(&mut self) -> Outcome {
        let ms = if self.chance(20) { 20_000 } else { self.rng.random_range(1..3000) };
        self.say(format!("{ms} ms pass"));
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(())
    }

    async fn read_snapshot(&mut self) -> Outcome {
        let Some((v, host, label)) = self.pick_snapshot() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let full = format!("{}@{label}", self.vols[v].name());
        self.say(format!("read {full}"));
        let device = self.on(host, async { engine.open_device(&target(&full)).await }).await?;
        let image = self.read_all(host, &device).await?;
        let Some(snap) = self.vols[v].snap(&label).cloned() else { return Ok(()) };
        if let Some(diff) = differ(&snap.image, &image) {
            self.wrong(format!("{full}: {diff}"));
        }
        self.vols[v].note_bucketed(snap.at);
        Ok(())
    }

    async fn diff(&mut self) -> Outcome {
        let Some((v, host, a)) = self.pick_snapshot() else { return Ok(()) };
        let sure = self.vols[v].snaps.iter().filter(|s| !s.doubtful);
        let Some(b) = sure.filter_map(|s| s.name.clone()).next_back() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} diff {a} {b}"));
        let ranges = async { engine.diff_snapshots(&of, &name(&a), &name(&b)).await };
        let ranges = self.on(host, ranges).await?;
        let (Some(a), Some(b)) = (self.vols[v].snap(&a), self.vols[v].snap(&b)) else {
            return Ok(());
        };
        let (at, mut patched) = (a.at.max(b.at), (*a.image).clone());
        patched.resize(b.image.len(), 0);
        for range in &ranges {
            let end = ((range.offset + range.length) as usize).min(b.image.len());
            let here = (range.offset as usize).min(end)..end;
            patched[here.clone()].copy_from_slice(&b.image[here.clone()]);
            if range.zero && b.image[here].iter().any(|byte| *byte != 0) {
                self.wrong(format!("{of}: a range of data is called zeros: {range:?}"));
            }
        }
        if let Some(diff) = differ(&b.image, &patched) {
            self.wrong(format!("{of}: the difference does not lead from one to the other: {diff}"));
        }
        self.vols[v].note_bucketed(at);
        Ok(())
    }

    async fn release(&mut self) -> Outcome {
        let Some((v, host)) = self.pick_quiet() else { return Ok(()) };
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} release"));
        self.device(host, v).await?;
        self.devices.remove(&self.vols[v].id);
        self.on(host, async { engine.release_volume(&of, true).await }).await?;
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        self.vols[v].owner = None;
        Ok(())
    }
}
