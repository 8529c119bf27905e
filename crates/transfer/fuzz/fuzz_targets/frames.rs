//! Decodes any bytes as a frame. What is decoded must encode to the bytes that it came from, and
//! each extent of it either unpacks or is damaged.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use skerry_transfer::{
    blocks::unpack,
    codec::{HEAD_BYTES, Head, Message, Pieces},
};

fuzz_target!(|bytes: &[u8]| {
    let Some((head, payload)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return };
    let Ok(mut head) = Head::decode(head) else { return };
    let Ok(message) = Message::decode(head.kind, Bytes::copy_from_slice(payload)) else { return };
    head.payload_bytes = payload.len();
    let mut pieces = Pieces::default();
    // A payload may be longer than its head said: the reader never passes such a one.
    if message.encode(&head, &mut pieces).is_ok() {
        let encoded: Vec<u8> = std::iter::from_fn(|| pieces.pop()).flatten().collect();
        assert_eq!(&encoded[HEAD_BYTES..], payload);
    }
    if let Message::Data(extents) = &message {
        for extent in extents {
            drop(unpack(extent));
        }
    }
});
