//! "Have you this?": the receiver's answer to a `Have`, and the sender's reading of it.

use bytes::Bytes;

use crate::codec::{Message, Named};

/// Answers a `Have`. `lacks` says of each extent, in order, whether its bytes are to be sent.
#[must_use]
pub fn answer(question: u64, lacks: impl IntoIterator<Item = bool>) -> Message {
    let mut bits = Vec::new();
    for (at, lacks) in lacks.into_iter().enumerate() {
        if at % 8 == 0 {
            bits.push(0);
        }
        if let Some(last) = bits.last_mut() {
            *last |= u8::from(lacks) << (at % 8);
        }
    }
    Message::Lacking { question, bits: Bytes::from(bits) }
}

/// Extents of a `Have` whose bytes are to be sent. Nothing if the answer has another length.
#[must_use]
pub fn lacking(extents: &[Named], bits: &[u8]) -> Option<Vec<Named>> {
    if bits.len() != extents.len().div_ceil(8) {
        return None;
    }
    let lacks = |at: usize| bits[at / 8] >> (at % 8) & 1 == 1;
    let asked = extents.iter().enumerate().filter(|(at, _)| lacks(*at));
    Some(asked.map(|(_, extent)| *extent).collect())
}
