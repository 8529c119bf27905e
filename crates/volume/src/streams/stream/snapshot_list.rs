//! The owner's knowledge of the snapshots of its volume.

use crate::info::{SnapshotState, SnapshotView};
use skerry_core::hold::Span;
use skerry_core::id::SnapshotId;
use skerry_core::label::Label;
use skerry_core::ops::Barrier;
use std::collections::{BTreeMap, BTreeSet};

/// A snapshot that the owner knows.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: SnapshotId,
    pub(crate) created_ms: u64,
    pub(crate) size_bytes: u64,
    pub(crate) state: SnapshotState,
    /// The part of the volume's history that its ref holds, once there is one.
    pub(crate) span: Option<Span>,
    /// The vseq after its barrier, while it is pending.
    pub(crate) vseq: u64,
}

/// All snapshots of a volume, by name. Only the owner creates snapshots, so this memory is the
/// truth.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    by_name: BTreeMap<String, Known>,
    /// Snapshots whose barriers were put into a segment: from then on they may be in the stream for
    /// good.
    sent: BTreeSet<SnapshotId>,
}

impl Snapshots {
    /// Takes the snapshots of the bucket's labels.
    pub(crate) fn of_labels(labels: &[(String, Label)]) -> Self {
        let mut all = Self::default();
        for (name, label) in labels {
            let known = Known {
                id: label.id,
                created_ms: label.created_ms,
                size_bytes: label.size_bytes,
                state: SnapshotState::Published,
                span: Some(label.span),
                vseq: 0,
            };
            all.by_name.insert(name.clone(), known);
        }
        all
    }

    /// Adds the snapshot of a barrier that was written.
    pub(crate) fn add(&mut self, barrier: &Barrier, size_bytes: u64, vseq: u64) {
        let known = Known {
            id: barrier.id,
            created_ms: barrier.created_ms,
            size_bytes,
            state: SnapshotState::Pending,
            span: None,
            vseq,
        };
        self.by_name.insert(barrier.name.clone(), known);
    }

    /// Notes that a snapshot's ref is in the bucket.
    pub(crate) fn published(&mut self, id: SnapshotId, span: Span) {
        for known in self.by_name.values_mut().filter(|known| known.id == id) {
            known.state = SnapshotState::Published;
            known.span = Some(span);
        }
    }

    /// The spans of all snapshots with refs.
    pub(crate) fn spans(&self) -> Vec<(SnapshotId, Span)> {
        self.by_name.values().filter_map(|known| Some((known.id, known.span?))).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Known> {
        self.by_name.get(name)
    }

    /// Decides, once and for all, whether a barrier goes into the segment that is being built.
    pub(crate) fn send(&mut self, id: SnapshotId) -> bool {
        let wanted = self.has(id);
        if wanted {
            self.sent.insert(id);
        }
        wanted
    }

    /// True if a snapshot's barrier went into a segment of this incarnation.
    pub(crate) fn was_sent(&self, id: SnapshotId) -> bool {
        self.sent.contains(&id)
    }

    /// True if a snapshot is still wanted: deleting a pending one removes it.
    pub(crate) fn has(&self, id: SnapshotId) -> bool {
        self.by_name.values().any(|known| known.id == id)
    }

    /// True if a snapshot whose barrier lies below a vseq has no ref yet.
    pub(crate) fn is_pending_below(&self, vseq: u64) -> bool {
        let mut pending = self.by_name.values().filter(|k| k.state == SnapshotState::Pending);
        pending.any(|known| known.vseq <= vseq)
    }

    /// True if a snapshot has no ref yet.
    pub(crate) fn has_pending(&self) -> bool {
        self.is_pending_below(u64::MAX)
    }

    /// Forgets a snapshot; gives its name, if it was known.
    pub(crate) fn remove_id(&mut self, id: SnapshotId) -> Option<String> {
        let found = self.by_name.iter().find(|(_, known)| known.id == id);
        let name = found.map(|(name, _)| name.clone())?;
        self.by_name.remove(&name);
        Some(name)
    }

    /// Notes that a snapshot's tombstone is in the bucket: the state of its barrier no longer
    /// matters.
    pub(crate) fn buried(&mut self, id: SnapshotId) {
        self.remove_id(id);
        self.sent.remove(&id);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// All of them, oldest first.
    pub(crate) fn views(&self, volume: &str) -> Vec<SnapshotView> {
        let mut out: Vec<_> = self
            .by_name
            .iter()
            .map(|(name, known)| SnapshotView {
                name: name.clone(),
                id: known.id,
                volume: volume.to_owned(),
                created_ms: known.created_ms,
                size_bytes: known.size_bytes,
                state: known.state,
            })
            .collect();
        out.sort_by_key(|view| (view.created_ms, view.name.clone()));
        out
    }
}
