//! Measures moves from memory to memory over loopback TLS. Each round also measures a bare TLS
//! stream and a copy in memory of as many bytes. Prints figures; asserts nothing.
//!
//! `cargo bench -p skerry-transfer --bench wire -- [ROUNDS] [MIB]`
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]
#![allow(clippy::unwrap_used, reason = "a benchmark may stop at the first error")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use skerry_transfer::{
    blocks::{Packed, Packer, unpack},
    codec::{DeviceNumber, Hello, Lane, Message, Stamp, VERSION},
    connection::{Connection, tls},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    client, rustls,
    rustls::{RootCertStore, pki_types::PrivateKeyDer},
    server,
};

const MIB: usize = 1 << 20;
/// Extents are sent together up to this many bytes.
const MESSAGE_BYTES: usize = 1 << 20;
const DEVICE: DeviceNumber = DeviceNumber(0);

type Streams = (client::TlsStream<BufReader<TcpStream>>, server::TlsStream<BufReader<TcpStream>>);

fn main() {
    let mut arguments =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(|arg| arg.parse());
    let rounds: usize = arguments.next().map_or(5, Result::unwrap);
    let total = arguments.next().map_or(512, Result::unwrap) * MIB;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(rounds, total));
}

async fn run(rounds: usize, total: usize) {
    let source = Bytes::from(noise(total));
    // Pages that were written: untouched ones would all be one page, in the processor's cache.
    let mut zeros = noise(total);
    zeros.fill(0);
    let zeros = Bytes::from(zeros);
    let identity = identity();
    let mut figures: Vec<(String, Vec<f64>, f64)> = Vec::new();
    let mut cpu_before = 0.0;
    let mut note = |name: &str, took: Duration| {
        let rate = total as f64 / took.as_secs_f64() / 1e6;
        let cpu = cpu_seconds() - cpu_before;
        match figures.iter_mut().find(|(known, ..)| known == name) {
            Some((_, rates, all)) => {
                rates.push(rate);
                *all += cpu;
            }
            None => figures.push((name.to_owned(), vec![rate], cpu)),
        }
        cpu_before = cpu_seconds();
    };
    let mut target = vec![1_u8; total];
    for _ in 0..rounds {
        let began = Instant::now();
        target.copy_from_slice(&source);
        note("copy in memory", began.elapsed());
        note("bare TLS stream", bare(&identity, &source, &mut target).await);
        for (name, block) in [("1 MiB", MIB), ("64 KiB", 64 << 10), ("4 KiB", 4 << 10)] {
            target.fill(1);
            note(
                &format!("blocks of {name}"),
                moved(&identity, &source, block, false, &mut target).await,
            );
            assert!(target == source, "the target has other bytes");
        }
        note("1 MiB, compression tried", moved(&identity, &source, MIB, true, &mut target).await);
        note("zeros of 1 MiB", moved(&identity, &zeros, MIB, false, &mut target).await);
    }
    println!("{rounds} rounds in turn, {} MiB each; MB/s, median (lowest, highest);", total / MIB);
    println!("seconds of CPU for each GB, both sides, filling and comparing included");
    for (name, mut rates, cpu) in figures {
        rates.sort_by(f64::total_cmp);
        let (low, high) = (rates[0], rates[rates.len() - 1]);
        let spread = format!("({low:.0}, {high:.0})");
        let cpu = cpu * 1e9 / (total * rounds) as f64;
        println!("{name:26} {:8.0} {spread:18} {cpu:6.2}", rates[rates.len() / 2]);
    }
}

/// Time that the process has used on all processors.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().unwrap()).sum();
    // Linux counts a hundredth of a second for a tick, whatever the processor.
    ticks / 100.0
}

/// Bytes that don't compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn identity() -> tls::Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["node".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::NoCa;
    let certificate = params.self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let chain = vec![certificate.der().clone()];
    tls::Identity { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()), roots }
}

async fn streams(identity: &tls::Identity) -> Streams {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (a, b) = (a.unwrap(), b.unwrap().0);
    a.set_nodelay(true).unwrap();
    b.set_nodelay(true).unwrap();
    let (acceptor, connector) = (identity.acceptor().unwrap(), identity.connector().unwrap());
    let (a, b) = tokio::join!(tls::connect(&connector, "node", a), tls::accept(&acceptor, b));
    let version = b.as_ref().unwrap().get_ref().1.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
    (a.unwrap(), b.unwrap())
}

/// Sends all bytes with neither frames nor hashes.
async fn bare(identity: &tls::Identity, source: &Bytes, target: &mut [u8]) -> Duration {
    let (mut a, mut b) = streams(identity).await;
    let began = Instant::now();
    let source = source.clone();
    let sending = tokio::spawn(async move {
        for piece in source.chunks(MIB) {
            a.write_all(piece).await.unwrap();
        }
        a.flush().await.unwrap();
        a
    });
    b.read_exact(target).await.unwrap();
    let took = began.elapsed();
    sending.await.unwrap();
    took
}

/// Moves all bytes in blocks, with the hash of each verified.
async fn moved(
    identity: &tls::Identity,
    source: &Bytes,
    block: usize,
    compress: bool,
    target: &mut [u8],
) -> Duration {
    let (a, b) = streams(identity).await;
    let (a, b) = tokio::join!(Connection::open(a, hello()), Connection::open(b, hello()));
    let (a, mut b) = (a.unwrap(), b.unwrap());
    let began = Instant::now();
    let sending = tokio::spawn(send(a, source.clone(), block, compress));
    let mut left = target.len();
    let (sender, mut used) = (b.sender(), 0);
    while left > 0 {
        let received = b.next().await.unwrap();
        used += received.payload_bytes;
        match &received.message {
            Message::Data(extents) => {
                for extent in extents {
                    let bytes = unpack(extent).unwrap();
                    let at = usize::try_from(extent.named.offset).unwrap();
                    target[at..at + bytes.len()].copy_from_slice(&bytes);
                    left -= bytes.len();
                }
            }
            Message::Zeros(ranges) => {
                for range in ranges {
                    // A target that is known to be zeros needs no write.
                    left -= usize::try_from(range.range.length).unwrap();
                }
            }
            other => panic!("unexpected {other:?}"),
        }
        if used > 2 * MIB {
            sender.grant(DEVICE, false, used as u64).await.unwrap();
            used = 0;
        }
    }
    let took = began.elapsed();
    drop(sending.await.unwrap());
    took
}

async fn send(connection: Connection, source: Bytes, block: usize, compress: bool) -> Connection {
    let (sender, mut packer) = (connection.sender(), Packer::new(compress));
    let (mut extents, mut zeros) = (Vec::new(), Vec::new());
    for message in (0..source.len()).step_by(MESSAGE_BYTES) {
        let end = (message + MESSAGE_BYTES).min(source.len());
        for at in (message..end).step_by(block) {
            match packer.pack(at as u64, Stamp::default(), source.slice(at..at + block)) {
                Packed::Extent(extent) => extents.push(extent),
                Packed::Zeros(range) => zeros.push(range),
            }
        }
        for (empty, message) in [
            (extents.is_empty(), Message::Data(std::mem::take(&mut extents))),
            (zeros.is_empty(), Message::Zeros(std::mem::take(&mut zeros))),
        ] {
            if !empty {
                sender.send(Lane::Bulk, DEVICE, message).await.unwrap();
            }
        }
    }
    connection
}

fn hello() -> Hello {
    Hello {
        lowest: VERSION,
        highest: VERSION,
        features: 0,
        node: [0; 16],
        session: [0; 16],
        number: 0,
        count: 1,
        window_bytes: 8 << 20,
    }
}
