//! Reading resolved ranges: each part comes from the log, from a block, or is zeros.
//!
//! Volumes and read-only states resolve ranges alike, and both read them here.

use crate::context::Context;
use crate::disk::payload::{Part, PartSource};
use crate::error::Result;
use skerry_core::map_node::MapNodePtr;
use skerry_core::record::RECORD_HEAD;
use skerry_core::size::BlockSize;
use skerry_log::{LogPosition, ReadOutcome};
use skerry_store::blocks::Wanted;
use skerry_store::map::tree::{self, Lookup};

/// Reads parts that were resolved against one state.
pub(crate) struct PartsReader<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) block: BlockSize,
    /// The tree below the parts.
    pub(crate) top: Option<MapNodePtr>,
}

impl PartsReader<'_> {
    /// Fills `out` without waiting; false if that is not possible.
    pub(crate) fn try_read(&self, parts: &[Part], out: &mut [u8]) -> Result<bool> {
        let mut blocks = Vec::with_capacity(parts.len());
        let mut at = 0;
        for part in parts {
            let from = match part.from {
                PartSource::Tree(index, within) => {
                    match tree::try_lookup(&self.ctx.map_nodes, self.top, index) {
                        Lookup::Found(Some(entry)) => PartSource::Block(entry, within),
                        Lookup::Found(None) => PartSource::Zero,
                        Lookup::Wait => return Ok(false),
                    }
                }
                from => from,
            };
            if !self.begin(from, part.len, &mut at, &mut blocks, out)? {
                return Ok(false);
            }
        }
        Ok(blocks.is_empty() || self.ctx.blocks.try_read(&blocks, self.block, out))
    }

    /// Fills `out`. False if the log let a record go meanwhile, so that the range must be resolved
    /// again.
    pub(crate) async fn read(&self, parts: &[Part], out: &mut [u8]) -> Result<bool> {
        let mut blocks = Vec::with_capacity(parts.len());
        let mut at = 0;
        for part in parts {
            let from = match part.from {
                PartSource::Tree(index, within) => {
                    let found = tree::lookup(&self.ctx.map_nodes, self.top, index).await?;
                    found.map_or(PartSource::Zero, |entry| PartSource::Block(entry, within))
                }
                from => from,
            };
            if !self.begin(from, part.len, &mut at, &mut blocks, out)? {
                return Ok(false);
            }
        }
        self.ctx.blocks.read_many(&blocks, self.block, out).await?;
        Ok(true)
    }

    /// Fills a part that is zeros or in the log, notes one that is a block, and goes on behind it.
    fn begin(
        &self,
        from: PartSource,
        len: usize,
        at: &mut usize,
        blocks: &mut Vec<Wanted>,
        out: &mut [u8],
    ) -> Result<bool> {
        let here = *at..*at + len;
        *at = here.end;
        match from {
            PartSource::Log { at, skip } => return read_log(self.ctx, at, skip, &mut out[here]),
            PartSource::Block(entry, within) => {
                blocks.push(Wanted { entry, within: within..within + len, at: here.start });
            }
            PartSource::Zero | PartSource::Tree(..) => out[here].fill(0),
        }
        Ok(true)
    }
}

/// Reads from a log record. False if its file was let go; then the bucket has the data.
fn read_log(ctx: &Context, at: u64, skip: u64, out: &mut [u8]) -> Result<bool> {
    let offset = (RECORD_HEAD as u64 + skip) as u32;
    let outcome = ctx.log.read(LogPosition::from_u64(at), offset, out)?;
    Ok(matches!(outcome, ReadOutcome::Read))
}
