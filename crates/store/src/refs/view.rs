//! A view: a root and the changes rolled forward over it. It is a readable state of a volume.
//!
//! The payload defines the changes ([`Changes`]). All volumes have a name and a size.

use crate::error::Result;
use crate::map::changes::Changes;
use crate::objects::bucket::Bucket;
use crate::objects::segment_io;
use skerry_core::id::VolumeId;
use skerry_core::ops::{Barrier, Op};
use skerry_core::overlay::Overlay;
use skerry_core::position::Position;
use skerry_core::root::{Base, Root};
use skerry_core::seal::Seal;
use skerry_core::segment::SegmentHead;
use skerry_core::takeover::{Found, follow, next_key};
use std::future::Future;
use std::pin::Pin;

/// A barrier that was passed while rolling forward, and the state there.
#[derive(Debug, Clone)]
pub struct PassedBarrier {
    /// The snapshot.
    pub barrier: Barrier,
    /// The snapshot's state: the root below and the range up to the barrier.
    pub base: Base,
    /// The volume's size at it, bytes.
    pub size_bytes: u64,
}

/// A state of a volume.
#[derive(Debug, Clone)]
pub struct View<C = Overlay> {
    /// The volume.
    pub volume: VolumeId,
    /// The root below.
    pub root: Root,
    /// The position of the root.
    pub root_at: Position,
    /// Changes since the root.
    pub changes: C,
    /// The position reached.
    pub at: Position,
    /// The volume's size there, bytes.
    pub size_bytes: u64,
    /// The volume's name there.
    pub name: String,
    /// Number of applied segments.
    pub applied: u64,
    /// True after a rollback: the root below is an old one. So a checkpoint must come before
    /// anything else begins here.
    pub must_checkpoint: bool,
}

impl<C: Changes> View<C> {
    /// The state that a root holds.
    pub fn of_root(volume: VolumeId, root: Root, at: Position) -> Self {
        Self {
            volume,
            size_bytes: root.size_bytes,
            name: root.name.clone(),
            root,
            root_at: at,
            changes: C::default(),
            at,
            applied: 0,
            must_checkpoint: false,
        }
    }

    /// The base of this state.
    pub fn base(&self) -> Base {
        Base { root: self.root.clone(), at: self.root_at, end: self.at }
    }

    /// Applies a segment that follows this state. Gives the barrier at its end, if any.
    pub async fn apply(
        &mut self,
        bucket: &Bucket,
        head: &SegmentHead,
    ) -> Result<Option<PassedBarrier>> {
        segment_io::check_follows(head, &self.at, self.volume)?;
        self.changes.apply(head);
        self.at = segment_io::after(head, &self.at);
        self.applied += 1;
        let mut passed = None;
        for op in &head.ops {
            match op {
                Op::Zero { .. } => {}
                Op::Resize(size) => self.size_bytes = *size,
                Op::Rename(name) => self.name.clone_from(name),
                Op::Barrier(barrier) => {
                    passed = Some(PassedBarrier {
                        barrier: barrier.clone(),
                        base: self.base(),
                        size_bytes: self.size_bytes,
                    });
                }
                Op::Rollback(base) => self.roll_back(bucket, base).await?,
            }
        }
        Ok(passed)
    }

    /// Takes on the state of `base`, at the position already reached, and keeps the name.
    async fn roll_back(&mut self, bucket: &Bucket, base: &Base) -> Result<()> {
        let old: Self = open_boxed(bucket, self.volume, base).await?;
        // Births only ever increase, even over a rollback.
        let birth = self.root.birth.max(old.root.birth);
        self.root = Root { birth, ..old.root };
        self.changes = old.changes;
        self.size_bytes = old.size_bytes;
        self.root_at = old.root_at;
        self.must_checkpoint = true;
        Ok(())
    }
}

fn open_boxed<'a, C: Changes>(
    bucket: &'a Bucket,
    volume: VolumeId,
    base: &'a Base,
) -> Pin<Box<dyn Future<Output = Result<View<C>>> + Send + 'a>> {
    Box::pin(open(bucket, volume, base))
}

/// Opens the state of a base: its root, rolled forward to its end.
pub async fn open<C: Changes>(bucket: &Bucket, volume: VolumeId, base: &Base) -> Result<View<C>> {
    let mut view = View::of_root(volume, base.root.clone(), base.at);
    while view.at.order() != base.end.order() {
        match segment_io::read(bucket, next_key(&view.at)).await? {
            Found::Segment(head) => {
                view.apply(bucket, &head).await?;
            }
            Found::Seal(seal) => view.at = follow(&view.at, &seal),
            Found::Missing => {
                let name = skerry_core::names::segment(next_key(&view.at));
                return Err(segment_io::corrupt(&name, "it is missing, and a snapshot needs it"));
            }
        }
    }
    Ok(view)
}

/// Barriers and seals that a roll-forward passed.
#[derive(Debug, Default)]
pub struct Journey {
    /// Barriers, in order.
    pub barriers: Vec<PassedBarrier>,
    /// Seals that were followed, in order.
    pub seals: Vec<Seal>,
}

/// Rolls a view forward over all segments and seals.
pub async fn roll_to_end<C: Changes>(
    bucket: &Bucket,
    view: &mut View<C>,
    journey: &mut Journey,
) -> Result<()> {
    loop {
        match segment_io::read(bucket, next_key(&view.at)).await? {
            Found::Missing => return Ok(()),
            Found::Segment(head) => journey.barriers.extend(view.apply(bucket, &head).await?),
            Found::Seal(seal) => {
                view.at = follow(&view.at, &seal);
                journey.seals.push(seal);
            }
        }
    }
}
