//! A message of each kind.

use bytes::Bytes;

use crate::codec::*;

pub(super) fn hello() -> Hello {
    Hello {
        lowest: VERSION,
        highest: VERSION,
        features: 0b111,
        node: [1; 16],
        session: [2; 16],
        number: 1,
        count: 4,
        window_bytes: 8 << 20,
    }
}

fn named(offset: u64, length: u32) -> Named {
    let stamp = Stamp { epoch: Epoch(3), generation: Generation(77) };
    Named { offset, length, stamp, hash: [9; HASH_BYTES] }
}

fn stamped() -> Vec<Stamped> {
    [0, 1 << 40]
        .map(|offset| Stamped {
            range: Range { offset, length: 1 << 30 },
            stamp: Stamp { epoch: Epoch(1), generation: Generation(offset) },
        })
        .to_vec()
}

fn reason() -> Reason {
    Reason { kind: 7, text: "the log is full".into() }
}

fn offer() -> Offer {
    let device = |label: &str| Offered {
        label: label.into(),
        size_bytes: 1_234_567,
        block_bytes: 4096,
        content: [4; 16],
        first: Generation(1),
    };
    let devices = vec![device("root"), device("")];
    Offer { move_id: [3; 16], epoch: Epoch(5), priority: 2, devices }
}

pub(super) fn head(message: &Message, lane: Lane) -> Head {
    let kind = message.kind();
    let device = match kind.concerns(DeviceNumber::NONE) {
        true => DeviceNumber::NONE,
        false => DeviceNumber(5),
    };
    Head { payload_bytes: message.payload_bytes(), kind, lane, device, sequence: 42 }
}

pub(super) fn frame(head: &Head, message: &Message) -> Vec<u8> {
    let mut pieces = Pieces::default();
    message.encode(head, &mut pieces).expect("the sample is valid");
    std::iter::from_fn(|| pieces.pop()).flatten().collect()
}

/// A message of each kind, with the head of a lane that permits it.
pub(super) fn samples() -> Vec<(Head, Message)> {
    messages()
        .into_iter()
        .map(|message| {
            let kind = message.kind();
            let lane = Lane::ALL.into_iter().rfind(|lane| kind.permits(*lane)).expect("one does");
            (head(&message, lane), message)
        })
        .collect()
}

fn messages() -> Vec<Message> {
    let packed = Extent {
        named: named(4096, 4096),
        compression: Compression::Lz4,
        stored: Bytes::from_static(b"packed"),
    };
    let raw = Extent {
        named: named(0, 5),
        compression: Compression::Raw,
        stored: Bytes::from_static(b"bytes"),
    };
    let epoch = Epoch(u64::MAX);
    vec![
        Message::Hello(hello()),
        Message::Error(reason()),
        Message::KeepAlive,
        Message::Offer(offer()),
        Message::Accept(
            [0, 1].map(|n| Accepted { number: DeviceNumber(n), generation: Generation(8) }).into(),
        ),
        Message::Refuse(reason()),
        Message::Custom { key: 1, value: Bytes::from_static(b"value") },
        Message::CustomTaken { key: 1 },
        Message::Data(vec![raw, packed]),
        Message::Zeros(stamped()),
        Message::Stale(stamped()),
        Message::Wanted(vec![Range { offset: 5, length: 6 }, Range { offset: 0, length: 1 }]),
        Message::Have { question: 3, extents: vec![named(0, 1), named(1 << 50, EXTENT_BYTES_MAX)] },
        Message::Lacking { question: 3, bits: Bytes::from_static(&[0b101]) },
        Message::Window { bytes: 1 << 20, urgent: true },
        Message::Got(Generation(4)),
        Message::Pause(epoch),
        Message::Final { epoch, highest: Generation(9), bytes: 10 },
        Message::Verified(Generation(1)),
        Message::Authority(epoch),
        Message::Owned(epoch),
        Message::Return(epoch),
        Message::Returned(epoch),
        Message::Kept(epoch),
        Message::Complete(epoch),
        Message::Abort(reason()),
    ]
}
