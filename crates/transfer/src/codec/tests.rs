//! Round trips, truncations, random bytes, and the page's tables.

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;

mod corpus;
mod page;
mod samples;

use samples::{frame, samples};

fn decode(bytes: &[u8]) -> Result<(Head, Message)> {
    let (head, payload) = bytes.split_at(HEAD_BYTES);
    let head = Head::decode(head.try_into().expect("16 bytes"))?;
    Ok((head, Message::decode(head.kind, Bytes::copy_from_slice(payload))?))
}

#[test]
fn every_kind_comes_back() {
    let samples = samples();
    for kind in Kind::ALL {
        assert!(samples.iter().any(|(_, message)| message.kind() == *kind), "{kind:?} has none");
    }
    for (head, message) in samples {
        let bytes = frame(&head, &message);
        assert_eq!(bytes.len(), HEAD_BYTES + message.payload_bytes(), "{message:?}");
        assert_eq!(decode(&bytes).expect("a frame of ours is valid"), (head, message));
    }
}

#[test]
fn a_truncated_payload_is_an_error_or_a_shorter_list() {
    for (head, message) in samples() {
        let bytes = frame(&head, &message);
        for cut in HEAD_BYTES..bytes.len() {
            match decode(&bytes[..cut]) {
                Err(_) => {}
                // Lists, texts and values end where the payload ends.
                Ok((_, shorter)) => {
                    assert_ne!(shorter, message);
                    assert_eq!(shorter.payload_bytes(), cut - HEAD_BYTES, "{message:?}");
                }
            }
        }
    }
}

#[test]
fn a_payload_that_goes_on_is_an_error_or_a_longer_message() {
    for (head, message) in samples() {
        let mut bytes = frame(&head, &message);
        bytes.push(0);
        if let Ok((_, longer)) = decode(&bytes) {
            assert_eq!(longer.payload_bytes(), message.payload_bytes() + 1, "{message:?}");
        }
    }
}

#[test]
fn random_bytes_are_errors_or_messages_that_come_back() {
    for seed in 0..200_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let samples = samples();
        for _ in 0..200 {
            let (head, message) = &samples[random.random_range(0..samples.len())];
            let mut bytes = frame(head, message);
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            check_any(&bytes, seed);
            random.fill_bytes(&mut bytes);
            check_any(&bytes, seed);
        }
    }
}

/// Whatever is decoded can be encoded, and gives the bytes back.
fn check_any(bytes: &[u8], seed: u64) {
    if let Ok((mut head, message)) = decode(bytes) {
        head.payload_bytes = bytes.len() - HEAD_BYTES;
        assert_eq!(frame(&head, &message)[4..], bytes[4..], "seed {seed}");
    }
}

#[test]
fn lists_above_their_limits_are_errors() {
    let range = [[0_u8; 8], 1_u64.to_le_bytes()].concat();
    let payload = range.repeat(EXTENTS_MAX + 1);
    let expected =
        Error::WrongCount { kind: Kind::Wanted, count: EXTENTS_MAX + 1, limit: EXTENTS_MAX };
    assert_eq!(Message::decode(Kind::Wanted, payload.into()), Err(expected));
    let empty = Error::WrongCount { kind: Kind::Zeros, count: 0, limit: EXTENTS_MAX };
    assert_eq!(Message::decode(Kind::Zeros, Bytes::new()), Err(empty));
}

#[test]
fn extents_of_more_than_one_mebibyte_together_are_an_error() {
    let (_, message) = samples().into_iter().find(|(_, m)| m.kind() == Kind::Data).expect("one");
    let Message::Data(mut extents) = message else { panic!("no data") };
    for extent in &mut extents {
        extent.named.length = EXTENT_BYTES_MAX;
        extent.compression = Compression::Lz4;
        extent.stored = Bytes::from_static(b"x");
    }
    let message = Message::Data(extents);
    let head = samples::head(&message, Lane::Bulk);
    let expected = Error::WrongField { kind: Kind::Data, field: "length" };
    assert_eq!(decode(&frame(&head, &message)), Err(expected));
}

#[test]
fn heads_that_break_a_rule_are_named() {
    let head = samples::head(&Message::KeepAlive, Lane::Control);
    let check = |kind, lane, device, payload_bytes| {
        Head { kind, lane, device: DeviceNumber(device), payload_bytes, ..head }.check()
    };
    let (lane, kind) = (Lane::Control, Kind::Data);
    assert_eq!(check(kind, lane, 1, 0), Err(Error::WrongLane { kind, lane }));
    let device = u16::MAX;
    assert_eq!(check(kind, Lane::Bulk, device, 0), Err(Error::WrongDevice { kind, device }));
    let (bytes, limit) = (PAYLOAD_BYTES_MAX + 1, PAYLOAD_BYTES_MAX);
    assert_eq!(check(kind, Lane::Bulk, 1, bytes), Err(Error::TooLong { kind, bytes, limit }));
    assert_eq!(check(kind, Lane::Bulk, 1, limit), Ok(()));
    let (kind, limit) = (Kind::Stale, CONTROL_PAYLOAD_BYTES_MAX);
    let bytes = limit + 1;
    assert_eq!(check(kind, lane, 1, bytes), Err(Error::TooLong { kind, bytes, limit }));
    assert_eq!(Kind::from_number(0), Err(Error::UnknownKind { kind: 0 }));
    assert_eq!(Lane::from_number(4), Err(Error::UnknownLane { lane: 4 }));
}

#[test]
fn versions_agree_on_the_highest_common_one() {
    let ours = samples::hello();
    let peer = Hello { lowest: 1, highest: 9, features: 5, ..ours };
    assert_eq!(ours.agree(&peer), Ok((VERSION, ours.features & 5)));
    let newer = Hello { lowest: 2, highest: 9, ..ours };
    let expected = Error::NoCommonVersion { lowest: 2, highest: 9, ours: VERSION };
    assert_eq!(ours.agree(&newer), Err(expected));
}
