//! Sessions over streams in memory, with links that break after each packet.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::io::DuplexStream;

use super::*;
use crate::{
    blocks::{Packed, Packer},
    codec::{Epoch, Generation, Stamp, VERSION},
};

mod resumes;

const DEVICE: DeviceNumber = DeviceNumber(0);

fn hello(number: u16, count: u16) -> Hello {
    Hello {
        lowest: VERSION,
        highest: VERSION,
        features: 0,
        node: [1; 16],
        session: [2; 16],
        number,
        count,
        window_bytes: 2 << 20,
    }
}

async fn open(streams: Vec<DuplexStream>) -> Option<Session> {
    let count = u16::try_from(streams.len()).expect("few");
    let mut connections = Vec::new();
    for (number, stream) in (0..).zip(streams) {
        connections.push(Connection::open(stream, hello(number, count)).await.ok()?);
    }
    Session::assemble(connections).ok()
}

async fn pair(count: u16) -> (Session, Session) {
    let pairs = (0..count).map(|_| tokio::io::duplex(64 << 10));
    let (ours, theirs) = pairs.unzip();
    let (ours, theirs) = tokio::join!(open(ours), open(theirs));
    (ours.expect("greets"), theirs.expect("greets"))
}

fn data(packer: &mut Packer, generation: Generation, offset: u64, bytes: Bytes) -> Message {
    let stamp = Stamp { epoch: Epoch(1), generation };
    match packer.pack(offset, stamp, bytes) {
        Packed::Extent(extent) => Message::Data(vec![extent]),
        Packed::Zeros(range) => Message::Zeros(vec![range]),
    }
}

#[tokio::test(start_paused = true)]
async fn lanes_have_their_connections() {
    let (ours, mut theirs) = pair(3).await;
    let mut senders = ours.senders();
    let mut packer = Packer::new(false);
    let mut send = async |lane, generation| {
        let bytes = Bytes::from_static(&[7; 512]);
        let message = data(&mut packer, Generation(generation), 0, bytes);
        senders.send(lane, DEVICE, message).await.expect("sends");
    };
    for generation in 0..4 {
        send(Lane::Bulk, generation).await;
        send(Lane::Dirty, generation).await;
    }
    send(Lane::Demand, 9).await;
    let mut counts = BTreeMap::new();
    for _ in 0..9 {
        let arrived = theirs.next().await.expect("it came");
        let urgent = arrived.received.lane == Lane::Demand;
        assert_eq!(urgent, arrived.connection == 0);
        *counts.entry(arrived.connection).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(0, 1), (1, 4), (2, 4)]));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_any_connection_ends_the_session() {
    for broken in 0..3_u16 {
        let (mut ours, mut theirs) = pair(3).await;
        let connection = ours.connections.remove(usize::from(broken));
        drop(connection);
        let error = connection::Error::Closed;
        let expected = Error::Connection { number: broken, error };
        assert_eq!(theirs.next().await.map(drop), Err(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn connections_of_other_sessions_are_refused() {
    let other = Hello { session: [3; 16], ..hello(1, 2) };
    for (second, count) in [(other, 2), (hello(0, 2), 2), (hello(1, 3), 2), (hello(1, 2), 1)] {
        let mut connections = Vec::new();
        for greeting in [hello(0, 2), second].into_iter().take(count) {
            let (a, b) = tokio::io::duplex(1024);
            let (a, b) = tokio::join!(Connection::open(a, greeting), Connection::open(b, greeting));
            connections.push((a.expect("greets"), b.expect("greets")).0);
        }
        let number = if count == 1 { 0 } else { 1 };
        let assembled = Session::assemble(connections).map(drop);
        assert_eq!(assembled, Err(Error::Foreign { number }), "{second:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn demand_arrives_while_blocks_are_stuck() {
    let (ours, mut theirs) = pair(2).await;
    let mut senders = ours.senders();
    let mut packer = Packer::new(false);
    // The window of the block connection is used up, and nothing grants more.
    let bytes = Bytes::from(vec![1; 1 << 20]);
    let first = data(&mut packer, Generation(1), 0, bytes.clone());
    senders.send(Lane::Bulk, DEVICE, first).await.expect("the window covers it");
    let stuck = data(&mut packer, Generation(2), 0, bytes.clone());
    let mut blocked = senders.clone();
    let waiting = tokio::spawn(async move { blocked.send(Lane::Bulk, DEVICE, stuck).await });
    let urgent = data(&mut packer, Generation(3), 1 << 20, bytes);
    senders.send(Lane::Demand, DEVICE, urgent.clone()).await.expect("has its own window");
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let arrived = theirs.next().await.expect("it came");
        lanes.push(arrived.received.lane);
    }
    lanes.sort();
    assert_eq!(lanes, [Lane::Demand, Lane::Bulk]);
    assert!(!waiting.is_finished());
    theirs.grant(1, DEVICE, false, 1 << 20).await.expect("sends");
    waiting.await.expect("no panic").expect("granted");
}
