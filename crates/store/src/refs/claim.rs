//! Opening a volume's head: to read the newest published state, or to take its stream over.
//!
//! `skerry_core::takeover` decides; this module carries out.

use crate::error::{Error, Result};
use crate::map::changes::Changes;
use crate::objects::bucket::{Bucket, Created};
use crate::objects::segment_io;
use crate::refs::catalog;
use crate::refs::view::{self, Journey, View};
use skerry_core::descriptor::{IncarnationRecord, VolumeDesc};
use skerry_core::hold;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::names::{self, Object};
use skerry_core::overlay::Overlay;
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::seal::{Owner, SEAL_BYTES_MAX, Seal};
use skerry_core::takeover::{Found, ON_THEIR_WAY_MAX, RefOrder, Step, Takeover, next_key};

/// Number of fresh starts when a head ref is deleted between listing and reading.
const STARTS_MAX: u32 = 5;

/// A volume as found, without a take-over.
#[derive(Debug)]
pub struct Peek<C = Overlay> {
    /// The state at the end of everything published.
    pub view: View<C>,
    /// The owner, if the volume has one.
    pub owner: Option<Owner>,
    /// The first node number that the newest ref left unused, if that ref is of the last stream.
    pub next_node: u64,
    /// Barriers and seals on the way.
    pub journey: Journey,
    /// True if the volume's own head has no ref yet and its base was rolled forward from elsewhere.
    pub unsettled_base: bool,
    /// The names of the head refs that were listed.
    pub heads: Vec<String>,
    /// The position of the ref that this started from.
    pub started: Position,
}

/// Opens the start: the newest head ref, or the descriptor's base.
async fn start<C: Changes>(bucket: &Bucket, desc: &VolumeDesc) -> Result<Peek<C>> {
    let heads = catalog::list_heads(bucket, desc.id).await?;
    let names: Vec<String> = heads.iter().map(|(name, _)| name.clone()).collect();
    if let Some((name, _)) = heads.last() {
        let found = catalog::read_ref(bucket, name).await?.ok_or_else(|| Error::not_found(name))?;
        let started = found.base.at;
        let view = View::of_root(desc.id, found.base.root, started);
        return Ok(Peek {
            view,
            started,
            owner: None,
            next_node: found.next_node,
            journey: Journey::default(),
            unsettled_base: false,
            heads: names,
        });
    }
    // A clone's base rolls forward along its parent's streams. Its own history begins at its
    // genesis.
    let unsettled_base = desc.base.at.order() != desc.base.end.order();
    let mut view = view::open(bucket, desc.base_volume(), &desc.base).await?;
    view.volume = desc.id;
    view.at = Position::start(0, desc.genesis, 0);
    view.root_at = view.at;
    // A clone has a name of its own, and may be larger than its source. The root says so too: a
    // snapshot before the first checkpoint starts from it.
    view.size_bytes = desc.size_bytes;
    view.root.size_bytes = desc.size_bytes;
    view.name.clone_from(&desc.name);
    view.root.name.clone_from(&desc.name);
    Ok(Peek {
        started: view.at,
        view,
        owner: None,
        next_node: 0,
        journey: Journey::default(),
        unsettled_base,
        heads: names,
    })
}

/// Reads a volume's newest published state, and its owner. A missing number may have been collected
/// rather than never written. So this lists the refs again, and starts over from a newer one.
pub async fn peek<C: Changes>(bucket: &Bucket, desc: &VolumeDesc) -> Result<Peek<C>> {
    loop {
        let peek = peek_once(bucket, desc).await?;
        let taker = Takeover::new(peek.started, desc.genesis);
        let listed = list_orders(bucket, desc.id).await?;
        if matches!(taker.refs(&listed), Step::Own(_)) {
            return Ok(peek);
        }
    }
}

/// True if a pin of the head that `peek` started from holds, once the pin is in the bucket.
pub async fn pin_holds<C>(bucket: &Bucket, volume: VolumeId, peek: &Peek<C>) -> Result<bool> {
    let copied = (!peek.heads.is_empty()).then(|| RefOrder::of(&peek.started));
    let listed = list_orders(bucket, volume).await?;
    let gone = bucket.exists(&names::volume_gone(volume)).await?;
    Ok(hold::pin_holds(copied, &listed, gone))
}

async fn is_still_newest(
    bucket: &Bucket,
    volume: VolumeId,
    heads: &[String],
    started: &Position,
) -> Result<bool> {
    let newest = (!heads.is_empty()).then(|| RefOrder::of(started));
    Ok(list_orders(bucket, volume).await?.last() == newest.as_ref())
}

async fn list_orders(bucket: &Bucket, volume: VolumeId) -> Result<Vec<RefOrder>> {
    Ok(catalog::list_heads(bucket, volume).await?.into_iter().map(|(_, order)| order).collect())
}

async fn peek_once<C: Changes>(bucket: &Bucket, desc: &VolumeDesc) -> Result<Peek<C>> {
    let mut tries = 0;
    let mut peek = loop {
        match start(bucket, desc).await {
            // The owner put a newer head and deleted this one between the listing and the reading.
            Err(Error::NotFound { object }) if tries < STARTS_MAX => {
                tries += 1;
                tracing::debug!(object, "a head ref is gone; listing them again");
            }
            started => break started?,
        }
    };
    let began = peek.view.at.stream;
    view::roll_to_end(bucket, &mut peek.view, &mut peek.journey).await?;
    peek.owner = match peek.journey.seals.last() {
        Some(seal) => seal.owner.clone(),
        None => owner_of(bucket, desc.id, &peek.view.at).await?,
    };
    if peek.view.at.stream != began {
        peek.next_node = 0;
    }
    Ok(peek)
}

/// The owner of the stream at a position.
async fn owner_of(bucket: &Bucket, volume: VolumeId, at: &Position) -> Result<Option<Owner>> {
    if at.epoch == 0 {
        return Ok(None);
    }
    let incarnation = Incarnation { epoch: at.epoch, stream: at.stream };
    Ok(read_incarnation(bucket, volume, &incarnation).await?.owner)
}

/// A stream that this node owns.
#[derive(Debug)]
pub struct Claimed<C = Overlay> {
    /// The state at its beginning, placed there.
    pub view: View<C>,
    /// Barriers and seals on the way.
    pub journey: Journey,
    /// The owner before, if any.
    pub before: Option<Owner>,
    /// True if a checkpoint must be written before anything else.
    pub must_checkpoint: bool,
    /// True if the volume's own head has no ref yet and its base was rolled forward from elsewhere.
    /// Then no barrier may stand in its stream before a checkpoint: no reader could tell it from a
    /// barrier of the base.
    pub unsettled: bool,
    /// The names of the head refs that were listed.
    pub heads: Vec<String>,
}

/// Options of a take-over.
#[derive(Debug, Clone)]
pub struct ClaimOptions {
    /// The new owner; none releases the volume.
    pub owner: Option<Owner>,
    /// True to take the volume without asking the present owner.
    pub force: bool,
    /// True to leave a volume without an owner alone: it was released.
    pub held_only: bool,
}

fn may_take(owner: Option<&Owner>, options: &ClaimOptions) -> bool {
    let same = match (owner, &options.owner) {
        (Some(now), Some(me)) => now.node == me.node,
        (Some(_), None) => false,
        (None, _) => !options.held_only,
    };
    same || options.force
}

/// Takes the volume's stream over, unless another node owns it and `force` is not set.
pub async fn claim<C: Changes>(
    bucket: &Bucket,
    desc: &VolumeDesc,
    options: &ClaimOptions,
) -> Result<Claimed<C>> {
    bucket.check_features().await?;
    loop {
        let peek = peek(bucket, desc).await?;
        if !may_take(peek.owner.as_ref(), options) {
            let host = peek.owner.map(|o| o.host).unwrap_or_default();
            return Err(Error::fenced(
                format!("volume {}", peek.view.name),
                format!(
                    "it is written by host {host}; stop it there, or release it with \
                     `skerry volume release {} --force`",
                    peek.view.name
                ),
            ));
        }
        if let Some(claimed) = try_claim(bucket, desc, options, peek).await? {
            return Ok(claimed);
        }
    }
}

/// Tries once. Gives none if the seal turned out to be void, or another node was first.
async fn try_claim<C: Changes>(
    bucket: &Bucket,
    desc: &VolumeDesc,
    options: &ClaimOptions,
    peek: Peek<C>,
) -> Result<Option<Claimed<C>>> {
    let Peek { mut view, owner: mut before, mut journey, unsettled_base, heads, started, .. } =
        peek;
    let successor = StreamId::random(bucket.entropy().as_ref());
    let mut taker = Takeover::new(started, successor);
    taker.found(&Found::Segment(view.at));
    // The next number was missing just now. If it exists meanwhile, the seal finds out.
    let mut step = taker.found(&Found::Missing);
    loop {
        step = match step {
            Step::Read(key) => found(bucket, key, &mut view, &mut journey, &mut taker).await?,
            Step::Seal(key) if goes_on_after(bucket, key).await? => {
                // Written since the look, collected since the listing of the refs, or lost.
                let next = found(bucket, key, &mut view, &mut journey, &mut taker).await?;
                if next == Step::Seal(key) {
                    return if is_still_newest(bucket, desc.id, &heads, &started).await? {
                        Err(lost(&view.name, key))
                    } else {
                        Ok(None)
                    };
                }
                next
            }
            Step::Seal(key) => {
                let seal = new_seal(&taker, successor, options, before.as_ref());
                write_incarnation(bucket, desc.id, &seal, view.at.vseq).await?;
                let bytes = seal.encode(bucket.nonce());
                match bucket.create(&names::segment(key), vec![bytes]).await? {
                    Created::Ours => taker.sealed(),
                    Created::Theirs => {
                        found(bucket, key, &mut view, &mut journey, &mut taker).await?
                    }
                }
            }
            Step::ListRefs => taker.refs(&list_orders(bucket, desc.id).await?),
            Step::Restart(_) => return Ok(None),
            Step::Own(at) => {
                view.at = at;
                if view.applied == 0 {
                    view.root_at = at;
                }
                let must_checkpoint = view.must_checkpoint;
                let unsettled = unsettled_base;
                let claimed = Claimed { view, journey, before, must_checkpoint, unsettled, heads };
                return Ok(Some(claimed));
            }
        };
        // Another node took it meanwhile. Whether this node may take it from that one is a new
        // question.
        if let Some(seal) = journey.seals.last()
            && seal.owner != before
        {
            before.clone_from(&seal.owner);
            if !may_take(before.as_ref(), options) {
                return Ok(None);
            }
        }
    }
}

/// True if a stream has numbers so far beyond a missing one that they cannot have been on their way
/// together. Then the missing number is there by now, or was deleted.
pub(crate) async fn goes_on_after(bucket: &Bucket, missing: SegmentKey) -> Result<bool> {
    let number = Number(missing.number.0 + ON_THEIR_WAY_MAX);
    bucket.has_data_from(SegmentKey { number, ..missing }).await
}

/// As [`goes_on_after`], for a reader. The number may have been written meanwhile, so it looks
/// again.
pub(crate) async fn is_lost(bucket: &Bucket, missing: SegmentKey) -> Result<bool> {
    Ok(goes_on_after(bucket, missing).await?
        && matches!(segment_io::read(bucket, missing).await?, Found::Missing))
}

/// The error of a reader that meets a missing number in the middle of a stream.
pub(crate) fn lost(volume: &str, missing: SegmentKey) -> Error {
    let detail = format!(
        "volume {volume} goes on after it, so that it was there and is lost, or a newer head ref of the \
         volume is; put back the objects that were deleted from the bucket"
    );
    segment_io::corrupt(&names::segment(missing), &detail)
}

fn new_seal(
    taker: &Takeover,
    successor: StreamId,
    options: &ClaimOptions,
    before: Option<&Owner>,
) -> Seal {
    let other =
        before.is_some_and(|now| options.owner.as_ref().is_none_or(|me| me.node != now.node));
    Seal {
        successor,
        epoch: taker.epoch(),
        owner: options.owner.clone(),
        forced: options.force && other,
    }
}

/// Reads a number, applies or follows the object there, and gives the next step.
async fn found<C: Changes>(
    bucket: &Bucket,
    key: SegmentKey,
    view: &mut View<C>,
    journey: &mut Journey,
    taker: &mut Takeover,
) -> Result<Step> {
    Ok(match segment_io::read(bucket, key).await? {
        Found::Missing => taker.found(&Found::Missing),
        Found::Segment(head) => {
            journey.barriers.extend(view.apply(bucket, &head).await?);
            taker.found(&Found::Segment(view.at))
        }
        Found::Seal(seal) => {
            let step = taker.found(&Found::Seal(seal.clone()));
            view.at = *taker.at();
            journey.seals.push(seal);
            step
        }
    })
}

async fn write_incarnation(
    bucket: &Bucket,
    volume: VolumeId,
    seal: &Seal,
    vseq: u64,
) -> Result<()> {
    let owner = seal.owner.clone();
    let incarnation = IncarnationRecord { epoch: seal.epoch, stream: seal.successor, owner, vseq };
    let name = names::incarnation(volume, incarnation.epoch, incarnation.stream);
    bucket.create(&name, vec![incarnation.encode(bucket.nonce())]).await.map(drop)
}

/// An incarnation of a volume's writer, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// Its epoch.
    pub epoch: u64,
    /// Its stream.
    pub stream: StreamId,
}

/// Lists all incarnations of a volume, void ones too, oldest first. One listing gives any number of
/// them.
pub async fn incarnations(bucket: &Bucket, volume: VolumeId) -> Result<Vec<Incarnation>> {
    let listed = bucket.list(&names::incarnation_prefix(volume)).await?;
    let incarnations = listed.iter().filter_map(|object| match names::parse(&object.name) {
        Object::Incarnation(_, epoch, stream) => Some(Incarnation { epoch, stream }),
        _ => None,
    });
    let mut incarnations: Vec<Incarnation> = incarnations.collect();
    incarnations.sort_unstable();
    Ok(incarnations)
}

/// The owner, or intended owner, of the newest incarnation of a volume. Works even if nothing else
/// of the volume can be read.
pub async fn last_owner(bucket: &Bucket, volume: VolumeId) -> Result<Option<Owner>> {
    match incarnations(bucket, volume).await?.last() {
        Some(incarnation) => Ok(read_incarnation(bucket, volume, incarnation).await?.owner),
        None => Ok(None),
    }
}

async fn read_incarnation(
    bucket: &Bucket,
    volume: VolumeId,
    of: &Incarnation,
) -> Result<IncarnationRecord> {
    let name = names::incarnation(volume, of.epoch, of.stream);
    let bytes = bucket.get(&name).await?.ok_or_else(|| Error::not_found(&name))?;
    IncarnationRecord::decode(&bytes).map_err(|e| Error::format(&name, e))
}

/// Gives the incarnations that led to the stream of `at`, from epoch `from` to its own.
/// `incarnations` lists void ones too. The seal of the incarnation before names exactly one for
/// each epoch. Where several claim an epoch, this reads that seal.
///
/// # Errors
/// Kind `Corrupt` if the chain is broken.
pub async fn chain(
    bucket: &Bucket,
    volume: VolumeId,
    incarnations: &[Incarnation],
    at: &Position,
    from: u64,
) -> Result<Vec<IncarnationRecord>> {
    let mut chain = Vec::new();
    let mut next = at.stream;
    for epoch in (from.max(1)..=at.epoch).rev() {
        let here: Vec<Incarnation> =
            incarnations.iter().copied().filter(|l| l.epoch == epoch).collect();
        let found = match here.as_slice() {
            _ if epoch == at.epoch => {
                here.iter().find(|incarnation| incarnation.stream == next).copied()
            }
            [only] => Some(*only),
            several => sealed_for(bucket, several, next).await?,
        };
        let found = found.ok_or_else(|| {
            let name = names::segment(next_key(at));
            segment_io::corrupt(&name, &format!("no seal leads to its stream from epoch {epoch}"))
        })?;
        next = found.stream;
        chain.push(read_incarnation(bucket, volume, &found).await?);
    }
    chain.reverse();
    Ok(chain)
}

/// The incarnation whose stream's seal names `successor`.
async fn sealed_for(
    bucket: &Bucket,
    incarnations: &[Incarnation],
    successor: StreamId,
) -> Result<Option<Incarnation>> {
    for &incarnation in incarnations {
        for object in bucket.list(&names::stream_prefix(incarnation.stream)).await? {
            let Object::Segment(key) = names::parse(&object.name) else { continue };
            if object.size > SEAL_BYTES_MAX as u64 {
                continue;
            }
            if let Found::Seal(seal) = segment_io::read(bucket, key).await?
                && seal.successor == successor
            {
                return Ok(Some(incarnation));
            }
        }
    }
    Ok(None)
}
