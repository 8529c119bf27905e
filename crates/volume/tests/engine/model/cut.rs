//! Changes of a volume while a client writes to it. A rollback, a release and a take-over end every
//! connection. Writes acknowledged before are kept, and no lost write is acknowledged afterwards. A
//! rename ends no connection, and a resize only that of a client that writes beyond the new end.

use crate::model::driver::{Busy, Model, Outcome};
use crate::model::reference::Rec;
use crate::rig::{name, target};
use rand::RngExt;
use skerry_core::id::VolumeId;
use skerry_volume::{Device, Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Writes under way, and the number of acknowledged ones.
struct Writes {
    busy: Busy,
    acked: Arc<AtomicU64>,
    /// Records of the volume before them.
    before: u64,
}

impl Writes {
    /// Waits for the end; gives the number of acknowledged records, and the reason why there were
    /// no more.
    async fn end(mut self) -> (u64, Option<Error>) {
        let ended = (&mut self.busy.task).await.expect("the writer is not aborted");
        (self.before + self.acked.load(Ordering::Relaxed), ended.err())
    }
}

impl Model {
    /// Lets a client write, and ends its connection by one of these changes.
    pub async fn cut_off(&mut self) -> Outcome {
        let Some((v, host)) = self.pick() else { return Ok(()) };
        if self.disturbed() {
            return Ok(());
        }
        let id = self.vols[v].id;
        let sure = self.vols[v].snaps.iter().filter(|s| !s.doubtful);
        let label = sure.filter_map(|s| s.name.clone()).next_back();
        let device = self.device(host, v).await?;
        let writes = self.go_on_writing(v, device.clone());
        let pause = self.rng.random_range(0..200);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let dice = self.rng.random_range(0..5);
        match label {
            _ if dice == 3 => self.rename_under(v, host, writes).await,
            _ if dice == 4 => self.resize_under(v, host, writes).await,
            Some(label) if dice == 0 => self.roll_back_under(v, host, &label, writes).await,
            _ if dice == 1 && self.runs[1 - host].is_some() => {
                let taken = self.take(v, 1 - host).await;
                drop(writes);
                taken
            }
            _ => self.release_under(id, host, writes).await,
        }
    }

    fn go_on_writing(&mut self, v: usize, device: Arc<Device>) -> Writes {
        self.say(format!("{} is written until it is cut off", self.vols[v].name()));
        self.begin(v);
        let before = self.vols[v].end();
        let mut todo = Vec::new();
        for _ in 0..self.rng.random_range(3..40) {
            let (offset, len) = self.range(self.vols[v].image.len(), 20 << 10);
            let data = self.bytes(len);
            self.vols[v].push(Rec::Write { offset, data: data.clone() });
            let pause = if self.chance(50) { self.rng.random_range(0..50) } else { 0 };
            todo.push((offset as u64, data, Duration::from_millis(pause)));
        }
        let acked = Arc::new(AtomicU64::new(0));
        let count = acked.clone();
        let task = tokio::spawn(async move {
            for (offset, data, pause) in todo {
                device.write(offset, data.to_vec().into()).await?;
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(pause).await;
            }
            Ok(())
        });
        Writes { busy: Busy { id: self.vols[v].id, task }, acked, before }
    }

    /// The kept snapshot is a state with everything that was acknowledged; the volume is the older
    /// one.
    async fn roll_back_under(
        &mut self,
        v: usize,
        host: usize,
        label: &str,
        writes: Writes,
    ) -> Outcome {
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let Some(snap) = self.vols[v].snap(label).cloned() else { return Ok(()) };
        let of = name(self.vols[v].name());
        self.say(format!("{of} roll back to {label} under a writer"));
        let old = self.devices.remove(&self.vols[v].id);
        let done = async { engine.rollback_volume(&of, &name(label), true).await };
        let view = self.on(host, done).await?;
        let acked = self.ended(v, writes, ErrorKind::Detached).await;
        let kept = target(&format!("{of}@{}", view.name));
        let kept = self.on(host, async { engine.open_device(&kept).await }).await?;
        let image = self.read_all(host, &kept).await?;
        if let Err(why) = self.vols[v].cut_to(&image, acked) {
            self.wrong(format!("{of}@{}: {why}", view.name));
        }
        self.vols[v].push_snapshot(Some(&view.name));
        self.vols[v].push(Rec::Rollback(snap.image));
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        let served = match old {
            Some(old) => self.on(host, old.read(0, 512)).await.is_ok(),
            None => false,
        };
        if served {
            self.wrong(format!("who was attached to {of} before its rollback can still read"));
        }
        Ok(())
    }

    /// Everything that was acknowledged is in the bucket, and nothing else is lost of the volume.
    async fn release_under(&mut self, id: VolumeId, host: usize, writes: Writes) -> Outcome {
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let v = self.at(id);
        let of = name(self.vols[v].name());
        self.say(format!("{of} release under a writer"));
        self.devices.remove(&id);
        self.on(host, async { engine.release_volume(&of, true).await }).await?;
        let acked = self.ended(v, writes, ErrorKind::Detached).await;
        self.vols[v].owner = None;
        let seen = self.see(host, v).await?;
        if let Err(why) = self.vols[v].settle(&seen, acked) {
            self.wrong(why);
        }
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        Ok(())
    }

    /// Every write is acknowledged.
    async fn rename_under(&mut self, v: usize, host: usize, writes: Writes) -> Outcome {
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let (of, new) = (name(self.vols[v].name()), self.free_name());
        self.say(format!("{of} rename {new} under a writer"));
        self.vols[v].names = vec![of.to_string(), new.clone()];
        self.on(host, async { engine.rename_volume(&of, &name(&new)).await }).await?;
        self.vols[v].names = vec![new];
        if let (_, Some(error)) = writes.end().await {
            self.wrong(format!("{of}: the writer was told {error}"));
        }
        self.vols[v].push(Rec::Rename);
        self.all_is_there(v, host).await
    }

    /// Every write is acknowledged up to the first that lies beyond the new end.
    async fn resize_under(&mut self, v: usize, host: usize, writes: Writes) -> Outcome {
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let of = name(self.vols[v].name());
        let now = self.vols[v].image.len();
        let size = self.rng.random_range(1..(now / 512 + 200).min(4000)) * 512;
        self.say(format!("{of} resize {now} to {size} under a writer"));
        self.on(host, async { engine.resize_volume(&of, size as u64, true).await }).await?;
        let acked = self.ended(v, writes, ErrorKind::Invalid).await;
        self.vols[v].cut_at(acked);
        if size < now {
            self.vols[v].push(Rec::Zero { offset: size, len: now - size });
        }
        self.vols[v].push(Rec::Resize(size));
        self.devices.remove(&self.vols[v].id);
        self.all_is_there(v, host).await
    }

    /// Everything is in the bucket, and the volume agrees with the reference. In between, the
    /// volume's records came in another order than the reference's.
    async fn all_is_there(&mut self, v: usize, host: usize) -> Outcome {
        let Some(engine) = self.engine(host) else { return Ok(()) };
        let id = self.vols[v].id;
        let open = engine.open_volumes().into_iter().find(|open| open.desc.id == id);
        let Some(open) = open else { self.wrong("a volume that is written is not open") };
        self.on(host, async { open.drain().await }).await?;
        let end = self.vols[v].end();
        self.vols[v].note_bucketed(end);
        let seen = self.see(host, v).await?;
        if let Err(why) = self.vols[v].settle(&seen, end) {
            self.wrong(why);
        }
        Ok(())
    }

    /// The number of records that a writer got acknowledged. Its last error, if any, must be of
    /// this kind.
    async fn ended(&mut self, v: usize, writes: Writes, kind: ErrorKind) -> u64 {
        let (acked, error) = writes.end().await;
        if let Some(error) = error.filter(|e| e.kind() != kind) {
            self.wrong(format!("{}: the writer was told {error}", self.vols[v].name()));
        }
        acked
    }
}
