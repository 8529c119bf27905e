//! A state of a volume that is only read: a snapshot, or a volume that another node writes.

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::open::state_of;
use crate::pins::Pinned;
use crate::state::{From, Part, State};
use skerry_core::descriptor::VolumeDesc;
use skerry_core::node::NodePtr;
use skerry_store::blocks::Wanted;
use skerry_store::tree::{self, Lookup};
use skerry_store::view::View;
use std::sync::Arc;

/// A state that never changes.
pub(crate) struct Reading {
    ctx: Arc<Context>,
    pub(crate) state: State,
    pinned: Option<Pinned>,
}

impl Reading {
    /// Reads what a view holds.
    pub(crate) fn new(
        ctx: Arc<Context>,
        desc: &VolumeDesc,
        view: View,
        pinned: Option<Pinned>,
    ) -> Self {
        Self { ctx, state: state_of(view, desc.block), pinned }
    }

    fn parts(&self, offset: u64, len: usize) -> Result<(Vec<Part>, Option<NodePtr>)> {
        if let Some(pinned) = &self.pinned {
            pinned.check(&self.state.name)?;
        }
        let end = offset.saturating_add(len as u64);
        if end > self.state.size_bytes {
            let size = self.state.size_bytes;
            let detail = format!("{} ends at byte {size}, and this goes to {end}", self.state.name);
            return Err(Error::new(ErrorKind::Invalid, detail));
        }
        let mut parts = Vec::new();
        self.state.resolve(offset..end, &mut parts);
        Ok((parts, self.state.top()))
    }

    /// Reads without waiting; false if that is not possible.
    pub(crate) fn try_read(&self, offset: u64, buf: &mut [u8]) -> Result<bool> {
        let (parts, top) = self.parts(offset, buf.len())?;
        let mut at = 0;
        for part in parts {
            let out = &mut buf[at..at + part.len];
            at += part.len;
            let (entry, within) = match part.from {
                From::Block(entry, within) => (entry, within),
                From::Tree(index, within) => match tree::try_lookup(&self.ctx.nodes, top, index) {
                    Lookup::Found(Some(entry)) => (entry, within),
                    Lookup::Found(None) => {
                        out.fill(0);
                        continue;
                    }
                    Lookup::Wait => return Ok(false),
                },
                From::Zero | From::Log { .. } => {
                    out.fill(0);
                    continue;
                }
            };
            let range = within..within + part.len;
            if !self.ctx.blocks.try_read(&entry, self.state.block, range, out) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `out`.
    pub(crate) async fn read_into(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let (parts, top) = self.parts(offset, out.len())?;
        let mut blocks: Vec<Wanted> = Vec::new();
        let mut at = 0;
        for part in parts {
            let found = match part.from {
                From::Block(entry, within) => Some((entry, within)),
                From::Tree(index, within) => {
                    tree::lookup(&self.ctx.nodes, top, index).await?.map(|entry| (entry, within))
                }
                From::Zero | From::Log { .. } => None,
            };
            match found {
                Some((entry, within)) => {
                    blocks.push(Wanted { entry, within: within..within + part.len, at });
                }
                None => out[at..at + part.len].fill(0),
            }
            at += part.len;
        }
        self.ctx.blocks.read_many(&blocks, self.state.block, out).await?;
        Ok(())
    }
}
