//! Application of records to a stream's state: of new records, and of a replayed tail's.

use crate::streams::stream::Stream;
use crate::streams::stream::payload::Payload;
use crate::streams::stream::state::State;
use skerry_core::ops::Op;
use skerry_core::record::Action;
use std::time::Duration;

impl<P: Payload> Stream<P> {
    /// Applies one record to the state.
    pub(crate) fn apply(&self, state: &mut State<P>, action: &Action, at: u64, now: Duration) {
        match action {
            Action::Write { .. } | Action::Zero { .. } => state.content(action, at, now),
            Action::Resize(size) => {
                state.record(at, now);
                state.open.ops.push(Op::Resize(*size));
                state.size_bytes = *size;
                state.cut();
            }
            Action::Barrier(barrier) => {
                state.record(at, now);
                state.open.ops.push(Op::Barrier(barrier.clone()));
                self.snapshots.lock().add(barrier, state.size_bytes, state.vseq);
                state.cut();
            }
            Action::Cancel(id) => {
                state.record(at, now);
                let mut snapshots = self.snapshots.lock();
                if let Some(name) = snapshots.remove_id(*id)
                    && snapshots.was_sent(*id)
                {
                    state.open.cancelled.push((*id, name));
                }
            }
            Action::Rename(name) => {
                state.record(at, now);
                state.open.ops.push(Op::Rename(name.clone()));
                state.name.clone_from(name);
                state.cut();
            }
            Action::Step => {
                state.record(at, now);
                state.cut();
            }
        }
    }
}
