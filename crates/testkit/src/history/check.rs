//! The check: images, bounds, and the search for a cut through the history that explains an image.
//!
//! The image fixes the number of each block's requests that are in it, except for the ambiguity of
//! zeroes. The cut starts at the requests that must be there, and only ever moves later. A request
//! in the image, issued at T, pulls in all that were acknowledged before T. Each step takes the
//! earliest choice left. So the first cut that stands still is the earliest of all. There is none
//! if a block has no choice left.

use std::collections::HashMap;
use std::fmt;

use super::{Found, Kind, Moment, Operation, State};
use crate::nbd::{NbdClient, NbdError};
use crate::stamp::{self, BLOCK_BYTES, BadBlock, Block, Content, Sequence};

/// Content of every block of a disk at the time of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    contents: Vec<Result<Content, BadBlock>>,
}

impl Image {
    /// Reads a whole export. `seed` is the one in its stamps.
    ///
    /// # Errors
    /// When the server refuses a read, or the connection breaks.
    pub fn read(client: &mut NbdClient, seed: u64) -> Result<Image, NbdError> {
        let mut contents = Vec::new();
        client.read_each(|offset, data| {
            let first = offset / BLOCK_BYTES as u64;
            let blocks = data.chunks(BLOCK_BYTES).zip(first..);
            contents.extend(blocks.map(|(bytes, block)| stamp::check(seed, block, bytes)));
        })?;
        Ok(Image { contents })
    }

    /// Makes an image, for the tests of the check.
    #[cfg(test)]
    pub(super) fn of(contents: impl IntoIterator<Item = Result<Content, BadBlock>>) -> Image {
        Image { contents: contents.into_iter().collect() }
    }

    /// The blocks with a content that a correct disk can hold.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (Block, Content)> + '_ {
        (0..)
            .zip(&self.contents)
            .filter_map(|(block, content)| Some((block, *content.as_ref().ok()?)))
    }
}

/// Bounds on an image. Besides these, no block may be torn, misplaced or never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Every flushed write is there.
    pub flushed: bool,
    /// The image is a prefix of the history.
    pub prefix: bool,
    /// Everything acknowledged before this moment is there.
    pub acknowledged_before: Moment,
    /// Nothing issued after this moment is there.
    pub issued_until: Moment,
}

impl Bounds {
    /// For a crash that lost no synced data: a prefix with every flushed write.
    pub const SYNCED: Bounds =
        Bounds { flushed: true, prefix: true, acknowledged_before: 0, issued_until: Moment::MAX };
    /// For a lost log: some prefix.
    pub const PREFIX: Bounds = Bounds { flushed: false, ..Bounds::SYNCED };
    /// For a living server: every acknowledged write.
    pub const EVERYTHING: Bounds = Bounds { acknowledged_before: Moment::MAX, ..Bounds::SYNCED };

    /// For a snapshot whose command began and returned at these moments.
    #[must_use]
    pub fn snapshot(began: Moment, returned: Moment) -> Bounds {
        Bounds { acknowledged_before: began, issued_until: returned, ..Bounds::PREFIX }
    }
}

/// Says why an image is impossible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// The image has another size than the disk.
    Size {
        /// The image's size, in blocks.
        found: usize,
    },
    /// A block holds something that was never written to it as a whole.
    Bad {
        /// The block.
        block: Block,
        /// The fault.
        why: BadBlock,
    },
    /// A block holds a write that is unknown, or that an earlier crash had lost.
    NotIssued {
        /// The block.
        block: Block,
        /// Its content.
        found: Content,
    },
    /// A block lacks a request that had to be there.
    Lost {
        /// The block.
        block: Block,
        /// Its content.
        found: Content,
        /// The request that is missing.
        missing: Sequence,
        /// Time of its acknowledgement. The image holds, or must hold, a request that was issued
        /// after that.
        acknowledged: Moment,
        /// Everything acknowledged before this moment had to be there.
        cut: Moment,
    },
    /// A block holds a request that was issued too late to be there.
    TooNew {
        /// The block.
        block: Block,
        /// Time of its issue.
        issued: Moment,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Size { found } => write!(f, "the image has {found} blocks"),
            Violation::Bad { block, why } => write!(f, "block {block} {why}"),
            Violation::NotIssued { block, found } => {
                write!(f, "block {block} holds {found:?}, which is not in its history")
            }
            Violation::Lost { block, found, missing, acknowledged, cut } => write!(
                f,
                "block {block} holds {found:?} and lacks write {missing}, acknowledged at moment \
                 {acknowledged}, though all acknowledged before moment {cut} had to be there"
            ),
            Violation::TooNew { block, issued } => {
                write!(f, "block {block} holds a write issued at moment {issued}, after the end")
            }
        }
    }
}

impl std::error::Error for Violation {}

/// The part of one block: its requests in order, and the possible numbers of them in the image,
/// ascending.
struct Part<'a> {
    block: Block,
    found: Content,
    operations: &'a [(Sequence, Operation)],
    candidates: Vec<usize>,
    /// True if requests that were acknowledged with FUA must be there.
    flushed: bool,
}

impl Part<'_> {
    /// Number of requests that must be there if all acknowledged before `cut` are.
    fn needed(&self, cut: Moment) -> usize {
        let is_needed = |(_, operation): &(Sequence, Operation)| {
            let is_before = operation.acknowledged.is_some_and(|moment| moment < cut);
            is_before || (self.flushed && operation.durable)
        };
        self.operations.iter().rposition(is_needed).map_or(0, |at| at + 1)
    }

    /// The smallest number of requests that explains the block and has all before `cut`.
    fn choose(&self, cut: Moment) -> Result<usize, Violation> {
        let needed = self.needed(cut);
        self.candidates.iter().copied().find(|count| *count >= needed).ok_or_else(|| {
            let (missing, operation) = self.operations[needed - 1];
            let acknowledged = operation.acknowledged.unwrap_or_default();
            Violation::Lost { block: self.block, found: self.found, missing, acknowledged, cut }
        })
    }

    /// The time of issue of the last of its first `count` requests.
    fn issued(&self, count: usize) -> Moment {
        count.checked_sub(1).map_or(0, |last| self.operations[last].1.issued)
    }
}

/// Checks `image` against the history. Gives its counts.
pub(super) fn check(state: &State, image: &Image, bounds: Bounds) -> Result<Found, Violation> {
    let by_block = group(state);
    let parts = parts(state, image, &by_block, bounds.flushed)?;
    let mut cut = bounds.acknowledged_before;
    if bounds.flushed {
        cut = cut.max(state.flushed);
    }
    // The newest request that is there pulls in those acknowledged before its issue.
    loop {
        let mut newest = cut;
        for part in &parts {
            newest = newest.max(part.issued(part.choose(cut)?));
        }
        if newest == cut || !bounds.prefix {
            break;
        }
        cut = newest;
    }
    let mut included = 0;
    for part in &parts {
        let count = part.choose(cut)?;
        let issued = part.issued(count);
        if issued > bounds.issued_until {
            return Err(Violation::TooNew { block: part.block, issued });
        }
        included += count as u64;
    }
    let issued = state.operations.len() as u64;
    Ok(Found { included, issued, acknowledged: state.acknowledged_count })
}

fn group(state: &State) -> HashMap<Block, Vec<(Sequence, Operation)>> {
    let mut by_block: HashMap<Block, Vec<_>> = HashMap::new();
    for (sequence, operation) in &state.operations {
        by_block.entry(operation.block).or_default().push((*sequence, *operation));
    }
    by_block
}

fn parts<'a>(
    state: &State,
    image: &Image,
    by_block: &'a HashMap<Block, Vec<(Sequence, Operation)>>,
    flushed: bool,
) -> Result<Vec<Part<'a>>, Violation> {
    let length = image.contents.len();
    if by_block.keys().chain(state.base.keys()).any(|block| *block >= length as u64) {
        return Err(Violation::Size { found: length });
    }
    let mut parts = Vec::new();
    for (block, content) in (0..).zip(&image.contents) {
        let found = content.clone().map_err(|why| Violation::Bad { block, why })?;
        let operations = by_block.get(&block).map_or(&[][..], Vec::as_slice);
        let base = state.base.get(&block).map_or(Content::Zeroes, |s| Content::Written(*s));
        let after = operations.iter().map(|(sequence, operation)| match operation.kind {
            Kind::Write => Content::Written(*sequence),
            Kind::Zero => Content::Zeroes,
        });
        let states = std::iter::once(base).chain(after).enumerate();
        let candidates: Vec<usize> =
            states.filter(|(_, state)| *state == found).map(|(count, _)| count).collect();
        if candidates.is_empty() {
            return Err(Violation::NotIssued { block, found });
        }
        if !operations.is_empty() {
            parts.push(Part { block, found, operations, candidates, flushed });
        }
    }
    Ok(parts)
}
