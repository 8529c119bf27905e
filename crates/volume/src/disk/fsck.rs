//! Fsck of the whole bucket, and of this node's own state.

use crate::disk::Engine;
use crate::error::Result;
use crate::info::FsckReport;
use skerry_store::fsck;

impl Engine {
    /// Checks everything in the bucket and reports faults. Changes nothing.
    ///
    /// # Errors
    /// If the bucket can't be listed.
    pub async fn fsck(&self) -> Result<FsckReport> {
        let found = fsck::run(&self.ctx.bucket).await?;
        let mut report = FsckReport {
            volumes: found.volumes,
            refs: found.refs,
            snapshots: found.snapshots,
            segments: found.segments,
            blocks: found.blocks,
            orphans: found.orphans,
            problems: found.problems,
        };
        for volume in self.open_volumes() {
            let failure = volume.state.lock().failure.clone();
            // Another owner vouches for a volume that left this node.
            if let Some(failure) = failure.filter(|_| !volume.has_left()) {
                report.problems.push(failure.to_string());
            }
        }
        Ok(report)
    }
}
