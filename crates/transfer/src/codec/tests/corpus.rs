//! The inputs that the fuzzer begins with, and its findings, in an ordinary test.

use std::path::Path;

use super::{decode, frame, samples};
use crate::codec::{HEAD_BYTES, Message};

/// With `SKERRY_WRITE_SAMPLE` set, writes a frame of each kind to begin with.
#[test]
fn the_corpus_has_each_kind_and_breaks_nothing() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frames");
    if std::env::var_os("SKERRY_WRITE_SAMPLE").is_some() {
        for (head, message) in samples() {
            let name = format!("{:?}", message.kind()).to_lowercase();
            std::fs::write(corpus.join(name), frame(&head, &message)).expect("writes a sample");
        }
    }
    let mut kinds = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(corpus).expect("the corpus is there") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        if bytes.len() < HEAD_BYTES {
            continue;
        }
        if let Ok((_, message)) = decode(&bytes) {
            kinds.insert(message.kind().number());
            if let Message::Data(extents) = message {
                extents.iter().for_each(|extent| drop(crate::blocks::unpack(extent)));
            }
        }
    }
    for (_, message) in samples() {
        assert!(kinds.contains(&message.kind().number()), "{:?} has none", message.kind());
    }
}
