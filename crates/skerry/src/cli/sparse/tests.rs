//! Tests that images of every shape come out as they went in, and that holes stay holes.

use std::os::unix::fs::MetadataExt as _;

use super::*;

fn pieces(file: &File) -> Vec<Piece> {
    let reader = Reader::new(file.try_clone().expect("a handle")).expect("a reader");
    let size = reader.size_bytes();
    let pieces: Vec<_> = reader.collect::<io::Result<_>>().expect("pieces");
    let mut at = 0;
    for piece in &pieces {
        let (offset, length) = extent(piece);
        assert_eq!(offset, at, "a gap");
        assert!(length > 0 && length.is_multiple_of(SECTOR_BYTES), "{length} bytes");
        if let Piece::Data(data) = piece {
            assert!(data.bytes.len() <= PIECE_BYTES_MAX);
        }
        at += length;
    }
    assert_eq!(at, size);
    pieces
}

fn copy(pieces: &[Piece], size_bytes: u64) -> File {
    let file = tempfile::tempfile().expect("a file");
    let mut writer = Writer::new(file.try_clone().expect("a handle"), size_bytes);
    for piece in pieces {
        writer.write(piece).expect("written");
    }
    writer.finish().expect("finished");
    file
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().expect("metadata").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("read");
    bytes
}

/// A file with data at these places; the data is never zero.
fn image(len: u64, data: &[(u64, usize)]) -> File {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(len).expect("sized");
    for (offset, len) in data {
        file.write_all_at(&vec![0xA5; *len], *offset).expect("written");
    }
    file
}

#[test]
fn images_come_out_as_they_went_in() {
    for (len, data) in [
        (0, vec![]),
        (1, vec![(0, 1)]),
        (511, vec![(100, 1)]),
        (513, vec![(512, 1)]),
        (10 << 20, vec![]),
        (10 << 20, vec![(0, 1), (5 << 20, 3 << 20)]),
        ((10 << 20) + 7, vec![((10 << 20) + 6, 1)]),
        (3 << 20, vec![(0, 3 << 20)]),
    ] {
        let file = image(len, &data);
        let mut expected = content(&file);
        expected.resize(len.next_multiple_of(SECTOR_BYTES) as usize, 0);
        let out = copy(&pieces(&file), expected.len() as u64);
        assert!(content(&out) == expected, "{len} bytes with {data:?}");
    }
}

#[test]
fn holes_and_zeros_are_not_read_as_data() {
    let file = image(64 << 20, &[(8 << 20, 4096)]);
    // Zeros that the file system stores.
    file.write_all_at(&vec![0; 4 << 20], 32 << 20).expect("written");
    let data: u64 = pieces(&file)
        .iter()
        .map(|piece| if let Piece::Data(data) = piece { data.bytes.len() as u64 } else { 0 })
        .sum();
    assert!(data <= ZERO_RUN_BYTES as u64, "{data} bytes of data");
    let out = copy(&pieces(&file), 64 << 20);
    let stored = out.metadata().expect("metadata").blocks() * 512;
    assert!(stored <= 1 << 20, "{stored} bytes are stored");
}

#[test]
fn pieces_out_of_order_are_refused() {
    let hole = |offset, length| Piece::Hole(Hole { offset, length });
    let writer = || Writer::new(tempfile::tempfile().expect("a file"), 1024);
    assert!(writer().write(&hole(512, 512)).is_err(), "a gap");
    assert!(writer().write(&hole(0, 2048)).is_err(), "past the end");
    let mut short = writer();
    short.write(&hole(0, 512)).expect("in order");
    assert!(short.finish().is_err(), "the rest is missing");
}
