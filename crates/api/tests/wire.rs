//! Tests that the wire keeps its form: `proto/wire.txt` lists every method, field and value.
//!
//! A changed or lost line breaks programs in use; new lines are fine. `SKERRY_BLESS=1` writes the
//! file anew.

use std::fmt::Write as _;
use std::path::Path;

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Label};

fn stream(yes: Option<bool>) -> &'static str {
    if yes == Some(true) { "stream " } else { "" }
}

fn message_lines(out: &mut String, message: &DescriptorProto) {
    for field in &message.field {
        let kind = format!("{:?}", field.r#type()).to_lowercase();
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let optional = if field.proto3_optional() { "optional " } else { "" };
        let (name, number) = (field.name(), field.number());
        let of = field.type_name();
        writeln!(out, "{}.{name} = {number}: {repeated}{optional}{kind}{of}", message.name())
            .expect("a string grows");
    }
}

fn lines(set: &FileDescriptorSet) -> String {
    let mut out = String::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let (from, to) = (method.input_type(), method.output_type());
                let (sent, got) =
                    (stream(method.client_streaming), stream(method.server_streaming));
                writeln!(out, "{}/{}: {sent}{from} -> {got}{to}", service.name(), method.name())
                    .expect("a string grows");
            }
        }
        for one in &file.enum_type {
            for value in &one.value {
                writeln!(out, "{} = {}", value.name(), value.number()).expect("a string grows");
            }
        }
        file.message_type.iter().for_each(|message| message_lines(&mut out, message));
    }
    out
}

#[test]
fn the_wire_is_as_it_was() {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let now = lines(&FileDescriptorSet::decode(bytes.as_slice()).expect("descriptors"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/wire.txt");
    if std::env::var_os("SKERRY_BLESS").is_some() {
        std::fs::write(&path, &now).expect("the file can be written");
    }
    let was = std::fs::read_to_string(&path).expect("proto/wire.txt is there");
    assert!(now == was, "the API changed: look at every changed line, then set SKERRY_BLESS=1");
}
