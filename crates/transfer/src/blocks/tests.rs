//! Round trips, flipped bits, and the effort on data that does not compress.

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::codec::{Compression, Extent, Generation, Message, Named, Stamp};

fn random(seed: u64, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

/// Half random, half zeros: LZ4 makes about half of it.
fn mixed(seed: u64, length: usize) -> Bytes {
    let mut bytes = random(seed, length).to_vec();
    bytes.iter_mut().enumerate().filter(|(at, _)| at % 64 >= 32).for_each(|(_, byte)| *byte = 0);
    bytes.into()
}

fn extent(packer: &mut Packer, bytes: &Bytes) -> Extent {
    let stamp = Stamp { generation: Generation(3), ..Stamp::default() };
    match packer.pack(4096, stamp, bytes.clone()) {
        Packed::Extent(extent) => extent,
        Packed::Zeros(range) => panic!("{range:?} is not zeros"),
    }
}

#[test]
fn bytes_come_back_from_either_form() {
    for length in [1, 63, 900, 4096, 65_536, (1 << 20) - 1, 1 << 20] {
        for (bytes, compress) in [(random(1, length), true), (mixed(1, length), true)] {
            let extent = extent(&mut Packer::new(compress), &bytes);
            assert_eq!(unpack(&extent), Ok(bytes));
        }
    }
}

#[test]
fn compressible_blocks_are_compressed_and_others_are_not() {
    let mut packer = Packer::new(true);
    for length in [4096, 65_536, 1 << 20] {
        let packed = extent(&mut packer, &mixed(2, length));
        assert_eq!(packed.compression, Compression::Lz4);
        assert!(packed.stored.len() < length * 3 / 4, "{}", packed.stored.len());
        assert_eq!(extent(&mut packer, &random(2, length)).compression, Compression::Raw);
    }
    let packed = extent(&mut Packer::new(false), &mixed(2, 4096));
    assert_eq!(packed.compression, Compression::Raw);
}

#[test]
fn a_packer_rests_after_failures_and_tries_again() {
    let mut packer = Packer::new(true);
    for _ in 0..4 {
        extent(&mut packer, &random(3, 65_536));
    }
    let rest = (1 << 20) / 65_536;
    for _ in 0..rest {
        assert_eq!(extent(&mut packer, &mixed(3, 65_536)).compression, Compression::Raw);
    }
    assert_eq!(extent(&mut packer, &mixed(3, 65_536)).compression, Compression::Lz4);
}

#[test]
fn zeros_are_ranges() {
    for length in [1, 64, 65, 4096, 4097, 1 << 20] {
        let mut bytes = vec![0; length];
        let packed = Packer::new(true).pack(0, Stamp::default(), bytes.clone().into());
        assert!(matches!(packed, Packed::Zeros(_)), "{length}");
        for at in [0, length / 2, length - 1] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "byte {at} of {length}");
            bytes[at] = 0;
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    for bytes in [random(4, 4096), mixed(4, 4096)] {
        let good = extent(&mut Packer::new(true), &bytes);
        for bit in 0..good.stored.len() * 8 {
            let mut stored = good.stored.to_vec();
            stored[bit / 8] ^= 1 << (bit % 8);
            // An unlucky flip in LZ4 may decompress to the same bytes, which is no damage.
            let flipped = unpack(&Extent { stored: stored.into(), ..good.clone() });
            assert!(flipped.is_err() || flipped == Ok(bytes.clone()), "bit {bit}");
        }
        for bit in 0..128 {
            let mut hash = good.named.hash;
            hash[bit / 8] ^= 1 << (bit % 8);
            let named = Named { hash, ..good.named };
            assert!(unpack(&Extent { named, ..good.clone() }).is_err(), "bit {bit} of the hash");
        }
        for length in [good.named.length - 1, good.named.length + 1] {
            let named = Named { length, ..good.named };
            assert!(unpack(&Extent { named, ..good.clone() }).is_err(), "length {length}");
        }
    }
}

#[test]
fn damaged_lz4_neither_panics_nor_grows() {
    let mut random = StdRng::seed_from_u64(5);
    let good = extent(&mut Packer::new(true), &mixed(5, 65_536));
    for _ in 0..2000 {
        let mut stored = good.stored.to_vec();
        for _ in 0..random.random_range(1..20) {
            let at = random.random_range(0..stored.len());
            stored[at] = random.random();
        }
        drop(unpack(&Extent { stored: stored.into(), ..good.clone() }));
    }
}

#[test]
fn questions_are_answered_by_bits() {
    let extents: Vec<Named> = (0..19)
        .map(|n| Named { offset: n << 12, length: 4096, stamp: Stamp::default(), hash: [0; 16] })
        .collect();
    let lacks = |at: usize| at % 3 == 1;
    let Message::Lacking { question: 7, bits } = answer(7, (0..19).map(lacks)) else {
        panic!("no answer");
    };
    let asked = lacking(&extents, &bits).expect("the length fits");
    let expected: Vec<Named> = (0..19).filter(|at| lacks(*at)).map(|at| extents[at]).collect();
    assert_eq!(asked, expected);
    assert_eq!(lacking(&extents, &bits[..2]), None);
    assert_eq!(lacking(&extents[..16], &bits), None);
}
