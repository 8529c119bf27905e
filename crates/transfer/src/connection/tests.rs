//! Connections over streams in memory, with peers that hang, break rules or send too much.

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::Instant,
};

use super::*;
use crate::codec::{
    self, Compression, Extent, Generation, HASH_BYTES, HEAD_BYTES, Head, Kind, Named, Pieces,
    Range, Stamp, Stamped, VERSION,
};

mod bounds;
mod secure;

const WINDOW_BYTES: u32 = 8 << 20;

fn hello() -> Hello {
    Hello {
        lowest: VERSION,
        highest: VERSION,
        features: 1,
        node: [1; 16],
        session: [2; 16],
        number: 0,
        count: 1,
        window_bytes: WINDOW_BYTES,
    }
}

async fn pair() -> (Connection, Connection) {
    let (a, b) = tokio::io::duplex(64 << 10);
    let (a, b) = tokio::join!(Connection::open(a, hello()), Connection::open(b, hello()));
    (a.expect("greets"), b.expect("greets"))
}

fn frame(lane: Lane, device: u16, message: &Message, sequence: u64) -> Vec<u8> {
    let (payload_bytes, kind) = (message.payload_bytes(), message.kind());
    let device = DeviceNumber(device);
    let mut pieces = Pieces::default();
    let head = Head { payload_bytes, kind, lane, device, sequence };
    message.encode(&head, &mut pieces).expect("valid");
    std::iter::from_fn(|| pieces.pop()).flatten().collect()
}

/// A connection, and the bare stream of its peer, which has greeted.
async fn beside_bare() -> (Connection, DuplexStream) {
    let (ours, mut bare) = tokio::io::duplex(256 << 10);
    let greeting = frame(Lane::Control, u16::MAX, &Message::Hello(hello()), 0);
    bare.write_all(&greeting).await.expect("the pipe has room");
    let connection = Connection::open(ours, hello()).await.expect("greets");
    bare.read_exact(&mut vec![0; greeting.len()]).await.expect("their greeting");
    (connection, bare)
}

fn data(bytes: usize) -> Message {
    let length = u32::try_from(bytes).expect("small");
    let (stamp, hash) = (Stamp::default(), [0; HASH_BYTES]);
    let named = Named { offset: 0, length, stamp, hash };
    let stored = Bytes::from(vec![7; bytes]);
    Message::Data(vec![Extent { named, compression: Compression::Raw, stored }])
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_in_order_both_ways() {
    let (mut a, mut b) = pair().await;
    assert_eq!((a.version(), a.features(), a.peer().node), (VERSION, 1, [1; 16]));
    for number in 0..100 {
        let message = Message::Got(Generation(number));
        a.sender().send(Lane::Control, DeviceNumber(1), message.clone()).await.expect("sends");
        b.sender().send(Lane::Control, DeviceNumber(2), message).await.expect("sends");
    }
    for number in 0..100 {
        for (side, device) in [(&mut a, 2), (&mut b, 1)] {
            let received = side.next().await.expect("it came");
            assert_eq!(received.message, Message::Got(Generation(number)));
            assert_eq!(received.device, DeviceNumber(device));
            assert_eq!(received.sequence, number + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_waits() {
    let (a, mut b) = pair().await;
    a.sender().send(Lane::Bulk, DeviceNumber(1), data(1 << 20)).await.expect("sends");
    let (closed, received) = tokio::join!(a.close(), async {
        let received = b.next().await.expect("it came");
        (received.message, b.next().await.map(drop))
    });
    closed.expect("closes");
    assert_eq!(received, (data(1 << 20), Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays() {
    let (mut a, mut b) = pair().await;
    let minute = Duration::from_secs(60);
    for side in [&mut a, &mut b] {
        assert!(tokio::time::timeout(minute, side.next()).await.is_err(), "nothing comes");
    }
    a.sender().send(Lane::Control, DeviceNumber(1), data(1)).await.expect_err("a wrong lane");
    a.sender().send(Lane::Bulk, DeviceNumber(1), data(1)).await.expect("sends");
    assert_eq!(b.next().await.expect("it came").message, data(1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_lost_after_two_seconds() {
    let (mut connection, bare) = beside_bare().await;
    let began = Instant::now();
    assert_eq!(connection.next().await.map(drop), Err(Error::Lost));
    let passed = began.elapsed();
    assert!((SILENCE_MAX..SILENCE_MAX + Duration::from_millis(5)).contains(&passed), "{passed:?}");
    let sent = connection.sender().send(Lane::Bulk, DeviceNumber(1), data(1)).await;
    assert_eq!(sent, Err(Error::Lost));
    drop(bare);
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_waits_hears_of_the_end() {
    let (connection, bare) = beside_bare().await;
    let sender = connection.sender();
    let filling = tokio::spawn(async move {
        loop {
            if let Err(error) = sender.send(Lane::Bulk, DeviceNumber(1), data(1 << 20)).await {
                return error;
            }
        }
    });
    assert_eq!(filling.await.expect("no panic"), Error::Lost);
    drop((connection, bare));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_takes_nothing_loses_no_peer() {
    let (a, mut b) = pair().await;
    let sender = a.sender();
    let sending = tokio::spawn(async move {
        for device in 0..64 {
            for _ in 0..7 {
                sender.send(Lane::Bulk, DeviceNumber(device), data(1 << 20)).await?;
            }
        }
        Ok::<(), Error>(())
    });
    // The peer's memory fills, and it reads no further.
    assert!(tokio::time::timeout(Duration::from_secs(30), a.sender().ended()).await.is_err());
    assert!(!sending.is_finished());
    for _ in 0..64 * 7 {
        assert_eq!(b.next().await.expect("it came").message, data(1 << 20));
    }
    sending.await.expect("no panic").expect("all was sent");
}

#[tokio::test(start_paused = true)]
async fn a_window_holds_back_until_it_is_granted() {
    let (a, mut b) = pair().await;
    let (sender, device) = (a.sender(), DeviceNumber(3));
    for _ in 0..7 {
        sender.send(Lane::Bulk, device, data(1 << 20)).await.expect("the window covers it");
    }
    let second = Duration::from_secs(1);
    let waits = tokio::time::timeout(second, sender.send(Lane::Bulk, device, data(1 << 20)));
    assert!(waits.await.is_err(), "the window is used up");
    sender.send(Lane::Demand, device, data(1 << 20)).await.expect("demand has its own");
    b.sender().grant(device, false, 1 << 20).await.expect("sends");
    sender.send(Lane::Bulk, device, data(1 << 20)).await.expect("granted");
    for _ in 0..9 {
        b.next().await.expect("it came");
    }
}

#[tokio::test(start_paused = true)]
async fn demand_overtakes_what_waits() {
    let (a, mut b) = pair().await;
    for _ in 0..3 {
        a.sender().send(Lane::Bulk, DeviceNumber(1), data(1 << 20)).await.expect("room");
    }
    let wanted = Message::Wanted(vec![Range { offset: 0, length: 1 }]);
    a.sender().send(Lane::Demand, DeviceNumber(1), wanted).await.expect("room");
    let mut lanes = Vec::new();
    for _ in 0..4 {
        lanes.push(b.next().await.expect("it came").lane);
    }
    assert_eq!(lanes.iter().position(|lane| *lane == Lane::Demand), Some(0), "{lanes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_greeting_is_an_error() {
    let (ours, _bare) = tokio::io::duplex(1024);
    let began = Instant::now();
    let opened = Connection::open(ours, hello()).await.map(drop);
    // A peer that sends nothing at all is lost before it is late.
    assert_eq!(opened, Err(Error::Lost));
    assert!(began.elapsed() <= GREETING_MAX);
    let (ours, mut bare) = tokio::io::duplex(1024);
    let trickle = tokio::spawn(async move {
        for byte in frame(Lane::Control, u16::MAX, &Message::Hello(hello()), 0) {
            tokio::time::sleep(Duration::from_millis(900)).await;
            if bare.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        bare
    });
    assert_eq!(Connection::open(ours, hello()).await.map(drop), Err(Error::Late));
    drop(trickle);
}

#[tokio::test(start_paused = true)]
async fn peers_without_a_common_version_say_so() {
    let (a, b) = tokio::io::duplex(4096);
    let newer = Hello { lowest: 2, highest: 3, ..hello() };
    let (old, new) = tokio::join!(Connection::open(a, hello()), Connection::open(b, newer));
    let expected = codec::Error::NoCommonVersion { lowest: 2, highest: 3, ours: 1 };
    assert_eq!(old.map(drop), Err(Error::Codec(expected)));
    let expected = codec::Error::NoCommonVersion { lowest: 1, highest: 1, ours: 3 };
    assert_eq!(new.map(drop), Err(Error::Codec(expected)));
}

/// Frames of each size class, cut after every byte.
#[tokio::test(start_paused = true)]
async fn a_stream_cut_anywhere_is_a_typed_error() {
    let messages = [
        frame(Lane::Control, u16::MAX, &Message::KeepAlive, 1),
        frame(Lane::Control, 1, &Message::Got(Generation(1)), 2),
        frame(Lane::Bulk, 1, &data(100), 3),
    ];
    let bounds = [0, 16, 40, messages.iter().map(Vec::len).sum()];
    let bytes = messages.concat();
    for cut in 0..=bytes.len() {
        let (mut connection, mut bare) = beside_bare().await;
        bare.write_all(&bytes[..cut]).await.expect("room");
        drop(bare);
        let mut received = 0;
        let error = loop {
            match connection.next().await {
                Ok(_) => received += 1,
                Err(error) => break error,
            }
        };
        let whole = bounds.contains(&cut);
        assert_eq!(error, if whole { Error::Closed } else { Error::Cut }, "cut at {cut}");
        let expected = bounds[2..].iter().filter(|bound| **bound <= cut).count();
        assert_eq!(received, expected, "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_rule_is_named_to_the_peer() {
    let (mut connection, mut bare) = beside_bare().await;
    bare.write_all(&frame(Lane::Control, 1, &Message::Got(Generation(1)), 9)).await.expect("room");
    let wrong = codec::Error::WrongSequence { expected: 1, found: 9 };
    assert_eq!(connection.next().await.map(drop), Err(Error::Codec(wrong.clone())));
    let mut head = [0; HEAD_BYTES];
    bare.read_exact(&mut head).await.expect("a frame");
    let head = Head::decode(&head).expect("valid");
    let mut payload = vec![0; head.payload_bytes];
    bare.read_exact(&mut payload).await.expect("its payload");
    let Ok(Message::Error(reason)) = Message::decode(head.kind, payload.into()) else {
        panic!("not an error");
    };
    assert_eq!(reason.text, Error::Codec(wrong).to_string());
}
