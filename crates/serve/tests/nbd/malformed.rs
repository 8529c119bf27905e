//! Tests with bytes that no honest client sends. Any of them ends the connection without a panic,
//! and the server goes on serving others.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_serve::nbd::Server;
use skerry_serve::nbd::wire::{InfoRequest, MetaRequest, OptionHeader, Request, command, option};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, DISK_BYTES, connect, disk, memory_server, serving};
use crate::gate::Gate;

const ROUNDS: u64 = 300;

/// Sends `bytes`, takes all answers, and waits for the end of the connection.
async fn send_and_leave(server: &Server, bytes: &[u8]) {
    let (stream, task) = connect(server);
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        // The server may close the connection before the client is done.
        let _ = writer.write_all(bytes).await;
        let _ = writer.shutdown().await;
    };
    let mut sink = Vec::new();
    let _ = tokio::join!(sending, reader.read_to_end(&mut sink));
    task.await.expect("no panic");
}

fn push_option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    out.extend_from_slice(&OptionHeader { option, len: data.len() as u32 }.encode());
    out.extend_from_slice(data);
}

/// A valid session with a bit of everything.
fn valid_session(rng: &mut StdRng) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 3];
    push_option(&mut out, option::STRUCTURED_REPLY, &[]);
    push_option(&mut out, option::LIST, &[]);
    let meta = MetaRequest { name: "disk".into(), queries: vec!["base:allocation".into()] };
    push_option(&mut out, option::SET_META_CONTEXT, &meta.encode());
    let go = InfoRequest { name: "disk".into(), wanted: vec![1, 2, 3] };
    push_option(&mut out, option::INFO, &go.encode());
    push_option(&mut out, option::GO, &go.encode());
    for cookie in 0..rng.random_range(1..30) {
        let len: u32 = 512 * rng.random_range(0..100);
        let request = Request {
            flags: 0,
            command: [0, 1, 3, 4, 5, 6, 7][rng.random_range(0..7)],
            cookie,
            offset: 512 * rng.random_range(0..DISK_BYTES / 512),
            len,
        };
        out.extend_from_slice(&request.encode());
        if request.command == command::WRITE {
            let at = out.len();
            out.resize(at + len as usize, 0);
            rng.fill_bytes(&mut out[at..]);
        }
    }
    out
}

/// Damages a few places: bits, whole words, lengths of the stream.
fn mutate(rng: &mut StdRng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at..].iter_mut().take(4).for_each(|b| *b = 0xff),
            2 => bytes[at..].iter_mut().take(8).for_each(|b| *b = 0),
            3 => {
                let to = (at + rng.random_range(0..40)).min(bytes.len());
                bytes.drain(at..to);
            }
            _ => {
                let mut noise = vec![0; rng.random_range(1..40)];
                rng.fill_bytes(&mut noise);
                bytes.splice(at..at, noise);
            }
        }
        if bytes.is_empty() {
            return bytes.push(0);
        }
    }
    if rng.random_ratio(1, 4) {
        bytes.truncate(rng.random_range(0..bytes.len()));
    }
}

async fn still_serves(server: &Server) {
    let mut client = Client::open(server, "disk", true).await;
    client.write(0, &[3; 512]).await;
    assert_eq!(client.read(0, 512).await, [3; 512]);
}

#[tokio::test]
async fn noise() {
    let server = memory_server();
    for seed in 0..ROUNDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = vec![0; rng.random_range(0..5000)];
        rng.fill_bytes(&mut bytes);
        eprintln!("seed {seed}");
        send_and_leave(&server, &bytes).await;
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn damaged_sessions() {
    for server in [memory_server(), serving(vec![disk(Gate::open(DISK_BYTES))])] {
        for seed in 0..ROUNDS {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bytes = valid_session(&mut rng);
            if seed % 4 != 0 {
                mutate(&mut rng, &mut bytes);
            }
            eprintln!("seed {seed}");
            send_and_leave(&server, &bytes).await;
        }
        still_serves(&server).await;
    }
}

#[tokio::test]
async fn damaged_requests_after_a_sound_negotiation() {
    let server = memory_server();
    let negotiation = {
        let mut rng = StdRng::seed_from_u64(0);
        let session = valid_session(&mut rng);
        let first = session.windows(4).position(|w| w == [0x25, 0x60, 0x95, 0x13]);
        first.expect("a request")
    };
    for seed in 0..ROUNDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let bytes = valid_session(&mut rng);
        let (sound, rest) = bytes.split_at(negotiation);
        let mut rest = rest.to_vec();
        mutate(&mut rng, &mut rest);
        eprintln!("seed {seed}");
        send_and_leave(&server, &[sound, &rest].concat()).await;
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn a_request_without_its_magic_number_ends_the_connection() {
    let server = memory_server();
    let mut client = Client::open(&server, "disk", false).await;
    client.stream.write_all(&[0; 28]).await.expect("sent");
    assert!(client.is_closed().await);
    client.task.await.expect("ended");
}

#[tokio::test]
async fn an_absurd_write_ends_the_connection_and_takes_no_memory() {
    let server = memory_server();
    let mut client = Client::open(&server, "disk", false).await;
    client.send(command::WRITE, 0, 0, u32::MAX, &[]).await;
    assert!(client.is_closed().await);
}
