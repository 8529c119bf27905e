//! Tests of round trips, and of bytes against the protocol's own description.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const SEED: u64 = 0x5eed_0001;

#[test]
fn a_request_has_the_bytes_that_the_protocol_says() {
    let request = Request {
        flags: command_flag::FUA,
        command: command::WRITE,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1000,
        len: 0x200,
    };
    let expected = [
        0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10, 0, 0,
        0, 2, 0,
    ];
    assert_eq!(request.encode(), expected);
    assert_eq!(Request::decode(&expected), Some(request));
}

#[test]
fn requests_round_trip_and_short_or_foreign_ones_are_refused() {
    let mut rng = StdRng::seed_from_u64(SEED);
    for _ in 0..1000 {
        let request = Request {
            flags: rng.random(),
            command: rng.random(),
            cookie: rng.random(),
            offset: rng.random(),
            len: rng.random(),
        };
        let mut bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Some(request), "seed {SEED}");
        assert_eq!(Request::decode(&bytes[..rng.random_range(0..REQUEST_BYTES)]), None);
        bytes[rng.random_range(0..4)] ^= 1 << rng.random_range(0..8);
        assert_eq!(Request::decode(&bytes), None);
    }
}

#[test]
fn option_data_round_trips_and_no_prefix_of_it_is_accepted() {
    let info = InfoRequest { name: "vol@snap".into(), wanted: vec![info::NAME, 77] };
    let bytes = info.encode();
    assert_eq!(InfoRequest::decode(&bytes), Some(info));
    for end in 0..bytes.len() {
        assert_eq!(InfoRequest::decode(&bytes[..end]), None, "prefix of {end}");
    }
    let meta = MetaRequest { name: String::new(), queries: vec!["base:".into(), "x:y".into()] };
    let bytes = meta.encode();
    assert_eq!(MetaRequest::decode(&bytes), Some(meta));
    for end in 0..bytes.len() {
        assert_eq!(MetaRequest::decode(&bytes[..end]), None, "prefix of {end}");
    }
}

#[test]
fn lengths_that_lie_are_refused_without_being_believed() {
    let mut bytes = u32::MAX.to_be_bytes().to_vec();
    bytes.extend_from_slice(b"abc");
    assert_eq!(InfoRequest::decode(&bytes), None);
    let mut bytes = 0u32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(MetaRequest::decode(&bytes), None);
    let not_utf8 = [0, 0, 0, 1, 0xff, 0, 0];
    assert_eq!(InfoRequest::decode(&not_utf8), None);
}

#[test]
fn arbitrary_bytes_never_panic_a_decoder() {
    let mut rng = StdRng::seed_from_u64(SEED);
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.random_range(0..64)];
        rng.fill_bytes(&mut bytes);
        if bytes.len() > 4 && rng.random() {
            bytes[..3].fill(0); // a plausible length
        }
        let _ = Request::decode(&bytes);
        let _ = InfoRequest::decode(&bytes);
        let _ = MetaRequest::decode(&bytes);
        let _ = OptionHeader::decode(&bytes);
        let _ = OptionReplyHeader::decode(&bytes);
        let _ = Simple::decode(&bytes);
        let _ = Chunk::decode(&bytes);
    }
}

#[test]
fn hellos_with_unknown_flags_are_refused() {
    for flags in 0..4u32 {
        let hello = ClientHello::decode(flags.to_be_bytes()).expect("known flags");
        assert_eq!(hello.encode(), flags.to_be_bytes());
    }
    assert_eq!(ClientHello::decode(4u32.to_be_bytes()), None);
    assert_eq!(&server_hello()[..16], b"NBDMAGICIHAVEOPT");
}

#[test]
fn replies_decode_to_what_was_encoded() {
    assert_eq!(Simple::decode(&simple_reply(7, 22)), Some(Simple { errno: 22, cookie: 7 }));
    let header = offset_data_header(9, 4096, 512);
    let chunk = Chunk::decode(&header).expect("a chunk");
    assert_eq!((chunk.kind, chunk.flags, chunk.len), (chunk::OFFSET_DATA, chunk::FLAG_DONE, 520));
    assert_eq!(header[20..], 4096u64.to_be_bytes());
    let hole = offset_hole(9, 4096, 512);
    assert_eq!(Chunk::decode(&hole).map(|c| c.len), Some(12));
    let status = block_status(1, 1, &[(512, 3), (1024, 0)]);
    assert_eq!(Chunk::decode(&status).map(|c| c.len as usize), Some(status.len() - 20));
}

#[test]
fn long_error_texts_are_cut_between_characters() {
    let text = "ä".repeat(STRING_BYTES_MAX);
    let bytes = chunk_error(1, 5, &format!("x{text}"));
    let len = usize::from(u16::from_be_bytes([bytes[24], bytes[25]]));
    assert!(len <= STRING_BYTES_MAX);
    assert_eq!(bytes.len(), 26 + len);
    assert!(std::str::from_utf8(&bytes[26..]).is_ok());
}
