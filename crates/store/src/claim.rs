//! Opening a volume's head: to read what was last published, or to take its stream over.
//!
//! The decisions are `skerry_core::takeover`'s; this carries them out.

use crate::bucket::{Bucket, Created};
use crate::catalog;
use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::segment_io;
use crate::view::{self, Journey, View};
use skerry_core::descriptor::{Life, VolumeDesc};
use skerry_core::hold;
use skerry_core::id::{StreamId, VolumeId};
use skerry_core::names::{self, Object};
use skerry_core::overlay::Overlay;
use skerry_core::position::{Number, Position, SegmentKey};
use skerry_core::seal::{Owner, SEAL_BYTES_MAX, Seal};
use skerry_core::takeover::{Found, ON_THEIR_WAY_MAX, RefOrder, Step, Takeover, next_key};

/// How often a start is tried anew whose head ref is deleted under it.
const STARTS_MAX: u32 = 5;

/// A volume as it was found, without taking anything over.
#[derive(Debug)]
pub struct Peek<C = Overlay> {
    /// The state at the end of what is published.
    pub view: View<C>,
    /// Who writes it, if anybody.
    pub owner: Option<Owner>,
    /// The first node number that the newest ref left unused, if the ref is of the last stream.
    pub next_node: u64,
    /// Barriers and seals on the way.
    pub journey: Journey,
    /// True if the volume's own head has no ref yet and its base was rolled forward from elsewhere.
    pub unsettled_base: bool,
    /// The names of the head refs that were listed.
    pub heads: Vec<String>,
    /// The position of the ref that was started from.
    pub started: Position,
}

/// Where to start: the newest head ref, or the descriptor's base.
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
    // A clone's base is rolled forward along its parent's streams; its own history begins at its genesis.
    let unsettled_base = desc.base.at.order() != desc.base.end.order();
    let mut view = view::open(bucket, desc.base_volume(), &desc.base).await?;
    view.volume = desc.id;
    view.at = Position::start(0, desc.genesis, 0);
    view.root_at = view.at;
    // A clone has a name of its own, and may be larger than what it was made from. The root says so
    // too: it is what a snapshot that is taken before the first checkpoint starts from.
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

/// Reads a volume's newest published state, and who owns it. A number that is missing may have been
/// collected rather than never written: the refs are listed again, and a newer one is started from.
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

/// True if a pin of the head that was started from, which is there by now, holds.
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
            // Its owner put a newer head and deleted this one between the listing and the reading.
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

/// Who writes the stream at a position.
async fn owner_of(bucket: &Bucket, volume: VolumeId, at: &Position) -> Result<Option<Owner>> {
    if at.epoch == 0 {
        return Ok(None);
    }
    let life = Incarnation { epoch: at.epoch, stream: at.stream };
    Ok(read_life(bucket, volume, &life).await?.owner)
}

/// A stream that is ours to write.
#[derive(Debug)]
pub struct Claimed<C = Overlay> {
    /// The state at its beginning, placed there.
    pub view: View<C>,
    /// Barriers and seals on the way.
    pub journey: Journey,
    /// Who wrote before, if anybody.
    pub before: Option<Owner>,
    /// True if a checkpoint must be written before anything else.
    pub must_checkpoint: bool,
    /// True if the volume's own head has no ref yet and its base was rolled forward from elsewhere: no
    /// barrier may stand in its stream before a checkpoint, since none could be told apart from its base.
    pub unsettled: bool,
    /// The names of the head refs that were listed.
    pub heads: Vec<String>,
}

/// How a take-over may go.
#[derive(Debug, Clone)]
pub struct ClaimOptions {
    /// Who will write; nobody, to release the volume.
    pub owner: Option<Owner>,
    /// True if the present owner is not asked.
    pub force: bool,
    /// True if a volume that nobody holds is left alone: it was released.
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

/// Takes the volume's stream over, unless somebody else owns it and `force` is not set.
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

/// One attempt; none if the seal turned out to be void, or somebody else was first.
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
    // The number that follows was missing just now; if it is not any more, the seal finds that out.
    let mut step = taker.found(&Found::Missing);
    loop {
        step = match step {
            Step::Read(key) => found(bucket, key, &mut view, &mut journey, &mut taker).await?,
            Step::Seal(key) if goes_on_after(bucket, key).await? => {
                // Written since it was looked at, collected since the refs were listed, or lost.
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
                write_life(bucket, desc.id, &seal, view.at.vseq).await?;
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
        // Somebody else took it meanwhile: whether we may take it from them is a new question.
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

/// True if a stream has numbers so far beyond one that was missing that its writer cannot have had them on
/// their way together: what was missing is there by now, or was and is not any more.
pub(crate) async fn goes_on_after(bucket: &Bucket, missing: SegmentKey) -> Result<bool> {
    let number = Number(missing.number.0 + ON_THEIR_WAY_MAX);
    bucket.has_data_from(SegmentKey { number, ..missing }).await
}

/// The same for somebody who only looks: a number that was missing may have been written meanwhile.
pub(crate) async fn is_lost(bucket: &Bucket, missing: SegmentKey) -> Result<bool> {
    Ok(goes_on_after(bucket, missing).await?
        && matches!(segment_io::read(bucket, missing).await?, Found::Missing))
}

/// What a reader finds who comes to a missing number in the middle of a stream.
pub(crate) fn lost(volume: &str, missing: SegmentKey) -> Error {
    let detail = format!(
        "volume {volume} goes on after it, so that it was there and is lost, or a newer head ref of the \
         volume is; put back what was deleted from the bucket"
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

/// Reads a number, applies or follows what stands there, and asks what is next.
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

async fn write_life(bucket: &Bucket, volume: VolumeId, seal: &Seal, vseq: u64) -> Result<()> {
    let owner = seal.owner.clone();
    let life = Life { epoch: seal.epoch, stream: seal.successor, owner, vseq };
    let name = names::life(volume, life.epoch, life.stream);
    bucket.create(&name, vec![life.encode(bucket.nonce())]).await.map(drop)
}

/// An incarnation of a volume's writer, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Incarnation {
    /// Its epoch.
    pub epoch: u64,
    /// Its stream.
    pub stream: StreamId,
}

/// All incarnations of a volume, void ones too, oldest first: one listing, however many there are.
pub async fn lives(bucket: &Bucket, volume: VolumeId) -> Result<Vec<Incarnation>> {
    let listed = bucket.list(&names::life_prefix(volume)).await?;
    let lives = listed.iter().filter_map(|object| match names::parse(&object.name) {
        Object::Life(_, epoch, stream) => Some(Incarnation { epoch, stream }),
        _ => None,
    });
    let mut lives: Vec<Incarnation> = lives.collect();
    lives.sort_unstable();
    Ok(lives)
}

/// Who wrote, or was about to write, the newest incarnation of a volume, whatever else of the volume can be read.
pub async fn last_owner(bucket: &Bucket, volume: VolumeId) -> Result<Option<Owner>> {
    match lives(bucket, volume).await?.last() {
        Some(life) => Ok(read_life(bucket, volume, life).await?.owner),
        None => Ok(None),
    }
}

async fn read_life(bucket: &Bucket, volume: VolumeId, of: &Incarnation) -> Result<Life> {
    let name = names::life(volume, of.epoch, of.stream);
    let bytes = bucket.get(&name).await?.ok_or_else(|| Error::not_found(&name))?;
    Life::decode(&bytes).map_err(|e| Error::format(&name, e))
}

/// The incarnations that led to the stream of `at`, from that of epoch `from` to its own. Of `lives`,
/// which lists void ones too, each epoch has exactly one that was named by the seal of the one before;
/// where several claim an epoch, that seal is looked for.
///
/// # Errors
/// Kind `Corrupt` if the chain is broken.
pub async fn chain(
    bucket: &Bucket,
    volume: VolumeId,
    lives: &[Incarnation],
    at: &Position,
    from: u64,
) -> Result<Vec<Life>> {
    let mut chain = Vec::new();
    let mut next = at.stream;
    for epoch in (from.max(1)..=at.epoch).rev() {
        let here: Vec<Incarnation> = lives.iter().copied().filter(|l| l.epoch == epoch).collect();
        let found = match here.as_slice() {
            _ if epoch == at.epoch => here.iter().find(|life| life.stream == next).copied(),
            [only] => Some(*only),
            several => sealed_for(bucket, several, next).await?,
        };
        let found = found.ok_or_else(|| {
            let name = names::segment(next_key(at));
            segment_io::corrupt(&name, &format!("no seal leads to its stream from epoch {epoch}"))
        })?;
        next = found.stream;
        chain.push(read_life(bucket, volume, &found).await?);
    }
    chain.reverse();
    Ok(chain)
}

/// Whose stream's seal names `successor`.
async fn sealed_for(
    bucket: &Bucket,
    lives: &[Incarnation],
    successor: StreamId,
) -> Result<Option<Incarnation>> {
    for &life in lives {
        for object in bucket.list(&names::stream_prefix(life.stream)).await? {
            let Object::Segment(key) = names::parse(&object.name) else { continue };
            if object.size > SEAL_BYTES_MAX as u64 {
                continue;
            }
            if let Found::Seal(seal) = segment_io::read(bucket, key).await?
                && seal.successor == successor
            {
                return Ok(Some(life));
            }
        }
    }
    Ok(None)
}
