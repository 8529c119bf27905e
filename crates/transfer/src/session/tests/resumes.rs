//! A copy of a device that goes on after each break of its links, until both sides are equal.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    task::JoinSet,
};

use super::*;
use crate::{
    blocks::unpack,
    codec::{Accepted, Extent, Range},
};

const BLOCKS: usize = 24;
const BLOCK_BYTES: usize = 4096;

/// The sender's device, and all that it remembers of the move.
struct Source {
    bytes: Bytes,
    unconfirmed: Unconfirmed,
    todo: Vec<Range>,
    sent: usize,
}

/// The receiver's device, and all that it remembers of the move.
struct Target {
    bytes: Vec<u8>,
    stamps: BTreeMap<u64, Stamp>,
    written: Written,
}

/// A way in which a link ends.
#[derive(Debug, Clone, Copy)]
enum Break {
    Cut,
    Hang,
}

impl Source {
    fn is_done(&self) -> bool {
        self.sent > 0 && self.todo.is_empty() && self.unconfirmed.is_empty()
    }
}

impl Target {
    fn write(&mut self, extent: &Extent) {
        let (offset, stamp) = (extent.named.offset, extent.named.stamp);
        let bytes = unpack(extent).expect("nothing is damaged");
        if self.stamps.get(&offset).is_none_or(|before| *before < stamp) {
            let at = usize::try_from(offset).expect("small");
            self.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
            self.stamps.insert(offset, stamp);
        }
        assert!(self.written.note(stamp.generation), "few are under way");
    }
}

fn new_move() -> (Source, Target) {
    let bytes: Bytes = (0..BLOCKS * BLOCK_BYTES).map(|at| (at % 251) as u8 | 1).collect();
    let length = BLOCK_BYTES as u64;
    let todo = (0..BLOCKS as u64).map(|n| Range { offset: n * length, length }).collect();
    let source = Source { bytes, unconfirmed: Unconfirmed::default(), todo, sent: 0 };
    let bytes = vec![0; BLOCKS * BLOCK_BYTES];
    (source, Target { bytes, stamps: BTreeMap::new(), written: Written::default() })
}

/// Forwards packets while `left` lasts, over all links together.
async fn forward(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    left: Arc<AtomicUsize>,
    how: Break,
) {
    let mut packet = vec![0; 1500];
    while let Ok(length @ 1..) = from.read(&mut packet).await {
        let counted = |left: usize| left.checked_sub(1);
        if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).is_err() {
            match how {
                Break::Cut => return,
                Break::Hang => std::future::pending().await,
            }
        }
        if to.write_all(&packet[..length]).await.is_err() {
            return;
        }
    }
}

/// Two ends of two links that break together after some packets.
fn links(
    left: &Arc<AtomicUsize>,
    how: Break,
    proxies: &mut JoinSet<()>,
) -> (Vec<DuplexStream>, Vec<DuplexStream>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let ((a, pa), (b, pb)) = (tokio::io::duplex(4096), tokio::io::duplex(4096));
        let ((ra, wa), (rb, wb)) = (tokio::io::split(pa), tokio::io::split(pb));
        let there = forward(ra, wb, left.clone(), how);
        let back = forward(rb, wa, left.clone(), how);
        // A cut ends both directions at once.
        proxies.spawn(async move {
            tokio::select! {
                () = there => {}
                () = back => {}
            }
        });
        ours.push(a);
        theirs.push(b);
    }
    (ours, theirs)
}

/// Sends all that is to do, until everything is confirmed or the session ends.
async fn run_source(source: &mut Source, streams: Vec<DuplexStream>) -> Option<Error> {
    let mut session = open(streams).await?;
    let (mut senders, mut packer) = (session.senders(), Packer::new(false));
    // Stands for the offer.
    let offer = Message::Custom { key: source.unconfirmed.next().0, value: Bytes::new() };
    if senders.send(Lane::Control, DeviceNumber::NONE, offer).await.is_err() {
        return session.next().await.err();
    }
    loop {
        match session.next().await {
            Err(error) => return Some(error),
            Ok(arrived) => match arrived.received.message {
                Message::Accept(devices) => {
                    source.todo.extend(source.unconfirmed.resume(devices[0].generation));
                }
                Message::Got(generation) => source.unconfirmed.confirm(generation),
                other => panic!("unexpected {other:?}"),
            },
        }
        while let Some(range) = source.todo.pop() {
            let at = usize::try_from(range.offset).expect("small");
            let generation = source.unconfirmed.add(range).expect("few");
            let bytes = source.bytes.slice(at..at + BLOCK_BYTES);
            let message = data(&mut packer, generation, range.offset, bytes);
            source.sent += 1;
            if senders.send(Lane::Bulk, DEVICE, message).await.is_err() {
                return session.next().await.err();
            }
        }
        if source.is_done() {
            return None;
        }
    }
}

/// Writes all that comes, until the session ends.
async fn run_target(target: &mut Target, streams: Vec<DuplexStream>) -> Option<Error> {
    let mut session = open(streams).await?;
    let mut senders = session.senders();
    loop {
        let message = match session.next().await {
            Ok(arrived) => arrived.received.message,
            Err(error) => return Some(error),
        };
        let (device, answer) = match message {
            Message::Custom { key, .. } => {
                let generation = target.written.got();
                target.written.resume(Generation(key));
                let accepted = Accepted { number: DEVICE, generation };
                (DeviceNumber::NONE, Message::Accept(vec![accepted]))
            }
            Message::Data(extents) => {
                extents.iter().for_each(|extent| target.write(extent));
                (DEVICE, Message::Got(target.written.got()))
            }
            other => panic!("unexpected {other:?}"),
        };
        if senders.send(Lane::Control, device, answer).await.is_err() {
            return session.next().await.err();
        }
    }
}

/// Runs a session whose links break after `packets`. Both sides end within the limits.
async fn session(source: &mut Source, target: &mut Target, packets: usize, how: Break) {
    let (left, mut proxies) = (Arc::new(AtomicUsize::new(packets)), JoinSet::new());
    let (ours, theirs) = links(&left, how, &mut proxies);
    let began = tokio::time::Instant::now();
    tokio::join!(run_source(source, ours), run_target(target, theirs));
    let limit = connection::GREETING_MAX + connection::SILENCE_MAX * 2;
    assert!(began.elapsed() <= limit, "{packets} packets: {:?}", began.elapsed());
}

/// Breaks after each number of packets, then goes on over whole links.
async fn break_everywhere(how: Break) {
    for packets in 0.. {
        let (mut source, mut target) = new_move();
        session(&mut source, &mut target, packets, how).await;
        let (whole, sent, got) = (source.is_done(), source.sent, target.written.got());
        if !whole {
            session(&mut source, &mut target, usize::MAX, Break::Cut).await;
            let again = source.sent - sent;
            let missing = BLOCKS - usize::try_from(got.0).expect("small");
            assert!(again <= missing, "{packets} packets: {again} sent again of {missing}");
        }
        assert!(source.is_done() && target.bytes == source.bytes, "after {packets} packets");
        if whole {
            assert!(packets > BLOCKS, "the links broke nowhere");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_any_packet_resumes_with_what_is_missing() {
    break_everywhere(Break::Cut).await;
}

#[tokio::test(start_paused = true)]
async fn a_hang_after_any_packet_resumes_with_what_is_missing() {
    break_everywhere(Break::Hang).await;
}

#[tokio::test(start_paused = true)]
async fn many_breaks_in_a_row_end_in_equality() {
    let (mut source, mut target) = new_move();
    for packets in (10..60).chain([usize::MAX]) {
        let how = if packets % 2 == 0 { Break::Cut } else { Break::Hang };
        session(&mut source, &mut target, packets, how).await;
        if source.is_done() {
            break;
        }
    }
    assert!(source.is_done() && target.bytes == source.bytes);
}

#[test]
fn numbers_are_confirmed_in_order_only() {
    let mut written = Written::default();
    for generation in [2, 4, 1, 1] {
        assert!(written.note(Generation(generation)));
    }
    assert_eq!(written.got(), Generation(2));
    written.resume(Generation(9));
    assert!(written.note(Generation(9)) && written.note(Generation(4)));
    assert_eq!(written.got(), Generation(9));
    for beyond in 0..WRITTEN_MAX as u64 {
        assert!(written.note(Generation(100 + beyond)));
    }
    assert!(!written.note(Generation(u64::MAX)));
}
