//! Every path from the greeting to an export, or to a refusal.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skerry_device::Device as _;
use skerry_device::memory::MemoryDevice;
use skerry_serve::nbd::Limits;
use skerry_serve::nbd::wire::{self, InfoRequest, MetaRequest, info, option, reply, transmit};
use skerry_serve::{ClientInfo, Export, ExportInfo, Exports, FixedExports, OpenError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{
    Client, DISK_BYTES, connect, disk, kinds, memory_server, serving, serving_with, size_and_flags,
};

fn named(name: &str, wanted: &[u16]) -> Vec<u8> {
    InfoRequest { name: name.into(), wanted: wanted.to_vec() }.encode()
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let queries = queries.iter().map(|q| (*q).to_owned()).collect();
    MetaRequest { name: name.into(), queries }.encode()
}

#[tokio::test]
async fn export_name_with_and_without_padding() {
    for (no_zeroes, expected_len) in [(true, 10), (false, 134)] {
        let (mut stream, _task) = connect(&memory_server());
        let mut hello = [0; wire::SERVER_HELLO_BYTES];
        stream.read_exact(&mut hello).await.expect("hello");
        let flags = wire::ClientHello { fixed_newstyle: true, no_zeroes };
        stream.write_all(&flags.encode()).await.expect("flags");
        let header = wire::OptionHeader { option: option::EXPORT_NAME, len: 4 };
        stream.write_all(&header.encode()).await.expect("option");
        stream.write_all(b"disk").await.expect("name");
        let disconnect =
            wire::Request { flags: 0, command: 2, cookie: 0, offset: 0, len: 0 }.encode();
        stream.write_all(&disconnect).await.expect("disconnect");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answer");
        assert_eq!(answer.len(), expected_len);
        assert_eq!(answer[..8], DISK_BYTES.to_be_bytes());
        assert!(answer[10..].iter().all(|b| *b == 0));
    }
}

/// A client that has negotiated no block sizes may ask for any bytes.
#[tokio::test]
async fn bytes_at_any_place_are_served_however_the_export_was_named() {
    let server = memory_server();
    let mut by_name = Client::greet(&server).await;
    let header = wire::OptionHeader { option: option::EXPORT_NAME, len: 4 };
    by_name.stream.write_all(&header.encode()).await.expect("option");
    by_name.stream.write_all(b"disk").await.expect("name");
    by_name.stream.read_exact(&mut [0; 10]).await.expect("size and flags");
    by_name.write(5, b"hello").await;
    assert_eq!(by_name.read(3, 9).await, b"\0\0hello\0\0");
    let mut by_go = Client::open(&server, "disk", true).await;
    by_go.write(510, b"over the edge").await;
    assert_eq!(by_go.read(509, 15).await, b"\0over the edge\0");
}

#[tokio::test]
async fn export_name_of_nothing_closes_the_connection() {
    let mut client = Client::greet(&memory_server()).await;
    let header = wire::OptionHeader { option: option::EXPORT_NAME, len: 4 };
    client.stream.write_all(&header.encode()).await.expect("option");
    client.stream.write_all(b"nono").await.expect("name");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn info_and_go_tell_what_there_is() {
    let mut export = disk(Arc::new(MemoryDevice::new(DISK_BYTES)));
    export.info.description = "in memory".to_owned();
    let server = serving(vec![export]);
    let mut client = Client::greet(&server).await;
    client.negotiate_structured().await;
    let wanted = named("", &[info::NAME, info::DESCRIPTION, info::BLOCK_SIZE, 999]);
    let replies = client.option(option::INFO, &wanted).await;
    let infos: Vec<_> = replies.iter().filter(|r| r.0 == reply::INFO).map(|r| &r.1).collect();
    assert_eq!(replies.last(), Some(&(reply::ACK, vec![])));
    assert!(infos.contains(&&wire::info_text(info::NAME, "disk")));
    assert!(infos.contains(&&wire::info_text(info::DESCRIPTION, "in memory")));
    assert!(infos.contains(&&wire::info_block_size(512, 4096, 32 << 20)));
    let (size, flags) = size_and_flags(&replies);
    assert_eq!(size, DISK_BYTES);
    let expected = transmit::HAS_FLAGS
        | transmit::SEND_FLUSH
        | transmit::SEND_FUA
        | transmit::SEND_TRIM
        | transmit::SEND_WRITE_ZEROES
        | transmit::SEND_DF
        | transmit::CAN_MULTI_CONN
        | transmit::SEND_CACHE
        | transmit::SEND_FAST_ZERO;
    assert_eq!(flags, expected);
    assert_eq!(client.go("disk").await, (DISK_BYTES, flags));
    assert_eq!(client.read(0, 512).await, vec![0; 512]);
}

#[tokio::test]
async fn read_only_exports_say_so_and_df_needs_structured_replies() {
    let server = serving(vec![Export::new("ro", Arc::new(MemoryDevice::new(4096).read_only()))]);
    let (_, flags) = Client::greet(&server).await.go("ro").await;
    assert_ne!(flags & transmit::READ_ONLY, 0);
    let writing = transmit::SEND_TRIM | transmit::SEND_WRITE_ZEROES | transmit::SEND_FAST_ZERO;
    assert_eq!(flags & (writing | transmit::SEND_DF), 0);
}

#[tokio::test]
async fn list_names_every_export() {
    let disks = ["a", "b@s"].map(|name| Export::new(name, Arc::new(MemoryDevice::new(512))));
    let mut client = Client::greet(&serving(disks.to_vec())).await;
    let replies = client.option(option::LIST, &[]).await;
    let expected = vec![
        (reply::SERVER, wire::server_entry("a")),
        (reply::SERVER, wire::server_entry("b@s")),
        (reply::ACK, vec![]),
    ];
    assert_eq!(replies, expected);
    assert_eq!(kinds(&client.option(option::LIST, b"x").await), [reply::ERR_INVALID]);
}

#[tokio::test]
async fn refused_options_leave_the_negotiation_usable() {
    let mut client = Client::greet(&memory_server()).await;
    let cases: [(u32, Vec<u8>, u32); 9] = [
        (option::STARTTLS, vec![], reply::ERR_UNSUP),
        (0xdead_beef, vec![7; 1000], reply::ERR_UNSUP),
        (11, vec![], reply::ERR_UNSUP),
        (option::STRUCTURED_REPLY, vec![0], reply::ERR_INVALID),
        (option::LIST_META_CONTEXT, meta("disk", &[]), reply::ERR_INVALID),
        (option::GO, vec![0, 0, 0], reply::ERR_INVALID),
        (option::INFO, named("nono", &[]), reply::ERR_UNKNOWN),
        (option::GO, named("nono", &[]), reply::ERR_UNKNOWN),
        (option::LIST, vec![0; 100_000], reply::ERR_TOO_BIG),
    ];
    for (option, data, expected) in cases {
        let replies = client.option(option, &data).await;
        assert_eq!(kinds(&replies), [expected], "option {option}");
        assert!(!replies[0].1.is_empty(), "a refusal says why");
    }
    client.go("disk").await;
    client.write(0, &[1; 512]).await;
}

#[tokio::test]
async fn meta_contexts() {
    let mut client = Client::greet(&memory_server()).await;
    client.negotiate_structured().await;
    let context = (reply::META_CONTEXT, wire::meta_context(1, "base:allocation"));
    let ack = (reply::ACK, vec![]);
    for queries in [vec![], vec!["base:"], vec!["qemu:x", "base:allocation"]] {
        let got = client.option(option::LIST_META_CONTEXT, &meta("disk", &queries)).await;
        assert_eq!(got, [context.clone(), ack.clone()], "{queries:?}");
    }
    for queries in [vec![], vec!["base:"], vec!["qemu:dirty-bitmap:x"]] {
        let got = client.option(option::SET_META_CONTEXT, &meta("disk", &queries)).await;
        assert_eq!(got, std::slice::from_ref(&ack), "{queries:?}");
    }
    let got = client.option(option::SET_META_CONTEXT, &meta("nono", &["base:allocation"])).await;
    assert_eq!(kinds(&got), [reply::ERR_UNKNOWN]);
    let got = client.option(option::SET_META_CONTEXT, &meta("disk", &["base:allocation"])).await;
    assert_eq!(got, [context, ack]);
    let got = client.option(option::SET_META_CONTEXT, &[1, 2]).await;
    assert_eq!(kinds(&got), [reply::ERR_INVALID]);
    client.go("disk").await;
    // The last, malformed selection has undone the one before it.
    assert_eq!(client.call(wire::command::BLOCK_STATUS, 0, 0, 512, &[]).await.errno, 22);
}

#[tokio::test]
async fn a_context_selected_for_one_export_is_not_carried_to_another() {
    let disks = ["a", "b"].map(|name| Export::new(name, Arc::new(MemoryDevice::new(4096))));
    let mut client = Client::greet(&serving(disks.to_vec())).await;
    client.negotiate_structured().await;
    client.option(option::SET_META_CONTEXT, &meta("a", &["base:allocation"])).await;
    client.go("b").await;
    assert_eq!(client.call(wire::command::BLOCK_STATUS, 0, 0, 512, &[]).await.errno, 22);
}

#[tokio::test]
async fn abort_is_acknowledged_and_closes() {
    let mut client = Client::greet(&memory_server()).await;
    assert_eq!(kinds(&client.option(option::ABORT, &[]).await), [reply::ACK]);
    assert!(client.is_closed().await);
}

/// Fails to open anything, in a way that the name says.
struct Refusing;

#[async_trait]
impl Exports for Refusing {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        Err(OpenError::Unavailable("the bucket can't be reached".into()))
    }

    async fn describe(&self, _: &str, _: &ClientInfo) -> Result<ExportInfo, OpenError> {
        Err(OpenError::Denied("asked only to describe".into()))
    }

    async fn open(&self, name: &str, _: &ClientInfo) -> Result<Export, OpenError> {
        let name = name.to_owned();
        Err(match name.as_str() {
            "busy" => OpenError::Busy { name, holder: "node-7".into() },
            "denied" => OpenError::Denied("not for you".into()),
            _ => OpenError::Unavailable("not now".into()),
        })
    }
}

#[tokio::test]
async fn reasons_for_not_opening_reach_the_client() {
    let mut client = Client::greet(&serving_with(Arc::new(Refusing), Limits::default())).await;
    let mut open = async |option, name| {
        let replies = client.option(option, &named(name, &[])).await;
        (replies[0].0, String::from_utf8(replies[0].1.clone()).expect("text"))
    };
    let (kind, text) = open(option::GO, "busy").await;
    assert_eq!((kind, text.contains("node-7")), (reply::ERR_POLICY, true), "{text}");
    assert_eq!(open(option::GO, "denied").await, (reply::ERR_POLICY, "not for you".into()));
    assert_eq!(open(option::GO, "x").await, (reply::ERR_PLATFORM, "not now".into()));
    let described = open(option::INFO, "busy").await;
    assert_eq!(described, (reply::ERR_POLICY, "asked only to describe".into()));
    assert_eq!(kinds(&client.option(option::LIST, &[]).await), [reply::ERR_PLATFORM]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_dropped() {
    let limits = Limits { handshake_time_max: Duration::from_secs(3), ..Limits::default() };
    let server = serving_with(Arc::new(FixedExports::new(vec![])), limits);
    let (_silent, task) = connect(&server);
    let before = tokio::time::Instant::now();
    task.await.expect("the connection ended");
    assert_eq!(before.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn foreign_protocols_are_dropped() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n--------"[..],
        &[0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9, 9],
    ] {
        let (mut stream, task) = connect(&memory_server());
        stream.write_all(bytes).await.expect("sent");
        task.await.expect("the connection ended");
    }
}

/// Takes a minute to open its disk.
struct Tardy;

#[async_trait]
impl Exports for Tardy {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        Ok(vec!["disk".into()])
    }

    async fn describe(&self, _: &str, _: &ClientInfo) -> Result<ExportInfo, OpenError> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(ExportInfo::new("disk", MemoryDevice::new(DISK_BYTES).geometry()))
    }

    async fn open(&self, name: &str, _: &ClientInfo) -> Result<Export, OpenError> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(Export::new(name, Arc::new(MemoryDevice::new(DISK_BYTES))))
    }
}

#[tokio::test(start_paused = true)]
async fn time_that_opening_takes_is_not_the_clients() {
    let limits = Limits { handshake_time_max: Duration::from_secs(3), ..Limits::default() };
    let mut client = Client::open(&serving_with(Arc::new(Tardy), limits), "disk", true).await;
    assert_eq!(client.read(0, 512).await, [0; 512]);
}
