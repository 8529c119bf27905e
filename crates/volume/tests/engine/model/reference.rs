//! The naïve reference. For each volume, it has its image, its ordered history since a state that
//! is in the bucket, and its snapshots as whole images.

use skerry_core::descriptor::FlushLevel;
use skerry_core::id::VolumeId;
use std::fmt;
use std::sync::Arc;

/// An event, in the order of the volume's records.
#[derive(Clone)]
pub enum Rec {
    Write { offset: usize, data: Arc<Vec<u8>> },
    Zero { offset: usize, len: usize },
    Resize(usize),
    Snapshot,
    Rename,
    Rollback(Arc<Vec<u8>>),
}

impl fmt::Debug for Rec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, data } => write!(f, "write {offset}+{}", data.len()),
            Self::Zero { offset, len } => write!(f, "zero {offset}+{len}"),
            Self::Resize(size) => write!(f, "resize {size}"),
            Self::Snapshot => write!(f, "snapshot"),
            Self::Rename => write!(f, "rename"),
            Self::Rollback(image) => write!(f, "rollback to {} bytes", image.len()),
        }
    }
}

impl Rec {
    pub fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                image[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Zero { offset, len } => image[*offset..offset + len].fill(0),
            Self::Resize(size) => image.resize(*size, 0),
            Self::Snapshot | Self::Rename => {}
            Self::Rollback(old) => image.clone_from(old),
        }
    }
}

/// A snapshot.
#[derive(Clone)]
pub struct Snap {
    /// Unknown for a snapshot that a rollback was to keep and that has not been seen yet.
    pub name: Option<String>,
    pub image: Arc<Vec<u8>>,
    /// Number of records from which on a state has it.
    pub at: u64,
    /// True if a deletion was begun and not confirmed.
    pub doubtful: bool,
}

/// A volume.
pub struct Vol {
    pub id: VolumeId,
    pub level: FlushLevel,
    /// The names that it may have; the first is the wanted one.
    pub names: Vec<String>,
    /// The state after `start` records.
    base: Vec<u8>,
    start: u64,
    recs: Vec<Rec>,
    pub image: Vec<u8>,
    /// Number of records that a crash must keep if the log survives.
    pub flushed: u64,
    /// Number of records that even the loss of the log must keep.
    pub bucketed: u64,
    pub snaps: Vec<Snap>,
    /// The host that writes it.
    pub owner: Option<usize>,
    /// True if the head is deleted; snapshots may be left.
    pub gone: bool,
}

/// The state that was found in place of a volume.
pub struct Seen {
    pub image: Vec<u8>,
    pub snaps: Vec<String>,
}

impl Vol {
    pub fn new(id: VolumeId, name: &str, level: FlushLevel, image: Vec<u8>) -> Self {
        Self {
            id,
            level,
            names: vec![name.to_owned()],
            base: image.clone(),
            start: 0,
            recs: Vec::new(),
            image,
            flushed: 0,
            bucketed: 0,
            snaps: Vec::new(),
            owner: None,
            gone: false,
        }
    }

    pub fn name(&self) -> &str {
        &self.names[0]
    }

    /// The number of records so far.
    pub fn end(&self) -> u64 {
        self.start + self.recs.len() as u64
    }

    pub fn push(&mut self, rec: Rec) {
        rec.apply(&mut self.image);
        self.recs.push(rec);
    }

    /// A barrier: pushes its record, and the snapshot.
    pub fn push_snapshot(&mut self, name: Option<&str>) {
        self.push(Rec::Snapshot);
        self.snaps.push(Snap {
            name: name.map(str::to_owned),
            image: Arc::new(self.image.clone()),
            at: self.end(),
            doubtful: false,
        });
    }

    /// Notes that everything so far survives what the volume's level survives.
    pub fn note_flushed(&mut self) {
        self.flushed = self.end();
        if self.level == FlushLevel::Bucket {
            self.note_bucketed(self.end());
        }
    }

    /// Notes that `count` records are in the bucket; history before them is folded now and then.
    pub fn note_bucketed(&mut self, count: u64) {
        self.bucketed = self.bucketed.max(count);
        self.flushed = self.flushed.max(self.bucketed);
        let fold = (self.bucketed - self.start) as usize;
        if fold > 50 {
            for rec in self.recs.drain(..fold) {
                rec.apply(&mut self.base);
            }
            self.start = self.bucketed;
        }
    }

    pub fn snap(&self, name: &str) -> Option<&Snap> {
        self.snaps.iter().find(|s| s.name.as_deref() == Some(name))
    }

    fn snaps_fit(&self, seen: &Seen, count: u64) -> Result<(), String> {
        let mut rest = seen.snaps.clone();
        for snap in self.snaps.iter().filter(|s| s.at <= count) {
            let place = match &snap.name {
                Some(name) => rest.iter().position(|n| n == name),
                None => rest
                    .iter()
                    .position(|n| n.starts_with("before-rollback-") && self.snap(n).is_none()),
            };
            match place {
                Some(place) => drop(rest.remove(place)),
                None if snap.doubtful => {}
                None => return Err(format!("snapshot {:?} is missing", snap.name)),
            }
        }
        match rest.first() {
            Some(name) => Err(format!("snapshot {name} should not be there")),
            None => Ok(()),
        }
    }

    /// The states of at least `floor` records that agree with what was seen.
    pub fn states(&self, seen: &Seen, floor: u64) -> Result<Vec<u64>, String> {
        assert!(floor >= self.start, "the reference folded too much");
        let mut image = self.base.clone();
        let mut fit = Vec::new();
        let mut why = Vec::new();
        for count in self.start..=self.end() {
            if count > self.start {
                self.recs[(count - self.start - 1) as usize].apply(&mut image);
            }
            if count < floor {
                continue;
            }
            if let Some(diff) = differ(&image, &seen.image) {
                why.push(format!("after {count} records: {diff}"));
            } else if let Err(snap) = self.snaps_fit(seen, count) {
                why.push(format!("after {count} records: {snap}"));
            } else {
                fit.push(count);
            }
        }
        if fit.is_empty() {
            let skip = why.len().saturating_sub(12);
            return Err(format!(
                "volume {} is no state of its history with at least {floor} of {} records \
                 (flushed {}, in the bucket {}):\n  {}\n  last records: {:?}",
                self.name(),
                self.end(),
                self.flushed,
                self.bucketed,
                why[skip..].join("\n  "),
                &self.recs[self.recs.len().saturating_sub(12)..]
            ));
        }
        Ok(fit)
    }

    /// Fails unless an image is that of a state of at least `floor` records.
    pub fn state_of_image(&self, seen: &[u8], floor: u64) -> Result<(), String> {
        let mut image = self.base.clone();
        let mut last = String::new();
        for count in self.start..=self.end() {
            if count > self.start {
                self.recs[(count - self.start - 1) as usize].apply(&mut image);
            }
            if count >= floor {
                match differ(&image, seen) {
                    Some(diff) => last = diff,
                    None => return Ok(()),
                }
            }
        }
        Err(format!("the image is no state of at least {floor} records; the latest: {last}"))
    }

    /// Forgets the records after the state that `image` is: the latest one of at least `floor`
    /// records.
    pub fn cut_to(&mut self, image: &[u8], floor: u64) -> Result<(), String> {
        let mut here = self.base.clone();
        let mut last = None;
        for count in self.start..=self.end() {
            if count > self.start {
                self.recs[(count - self.start - 1) as usize].apply(&mut here);
            }
            if count >= floor && here == image {
                last = Some(count);
            }
        }
        let count = last.ok_or_else(|| format!("it is no state of at least {floor} records"))?;
        self.recs.truncate((count - self.start) as usize);
        self.image = image.to_vec();
        Ok(())
    }

    /// Forgets the records after the first `count`.
    pub fn cut_at(&mut self, count: u64) {
        self.recs.truncate(count.saturating_sub(self.start) as usize);
        self.image.clone_from(&self.base);
        for rec in &self.recs {
            rec.apply(&mut self.image);
        }
    }

    /// Takes what was seen as the truth: the latest state that agrees with it.
    pub fn settle(&mut self, seen: &Seen, floor: u64) -> Result<(), String> {
        let count = self.states(seen, floor)?.last().copied().unwrap_or(floor);
        self.recs.truncate((count - self.start) as usize);
        self.snaps.retain(|s| s.at <= count);
        let known: Vec<String> = self.snaps.iter().filter_map(|s| s.name.clone()).collect();
        for name in &seen.snaps {
            if !known.contains(name)
                && let Some(snap) = self.snaps.iter_mut().find(|s| s.name.is_none())
            {
                snap.name = Some(name.clone());
            }
        }
        let seen_too = |s: &Snap| s.name.as_ref().is_some_and(|n| seen.snaps.contains(n));
        // A failed deletion may be in the log alone: the loss of the log's disk brings the snapshot
        // back.
        let bucketed = self.bucketed;
        self.snaps.retain(|s| !s.doubtful || seen_too(s) || s.at > bucketed);
        self.image.clone_from(&seen.image);
        self.flushed = self.end();
        self.bucketed = self.bucketed.min(self.end());
        Ok(())
    }
}

/// The first place where two images differ; none if they don't.
pub fn differ(want: &[u8], have: &[u8]) -> Option<String> {
    if want.len() != have.len() {
        return Some(format!("{} bytes wanted, {} found", want.len(), have.len()));
    }
    if want == have {
        return None;
    }
    let at = want.iter().zip(have).position(|(a, b)| a != b)?;
    let bad = want.chunks(512).zip(have.chunks(512)).filter(|(a, b)| a != b).count();
    Some(format!(
        "byte {at} (block {}) is {:#x} and not {:#x}; {bad} sectors differ",
        at / 4096,
        have[at],
        want[at]
    ))
}
