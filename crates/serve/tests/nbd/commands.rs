//! Every command and every error, on the fast and the slow path, with simple and structured
//! replies.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use skerry_device::memory::MemoryDevice;
use skerry_device::{Device, ErrorKind};
use skerry_serve::nbd::Server;
use skerry_serve::nbd::wire::{command, command_flag as flag};

use crate::client::{Client, DISK_BYTES, disk, memory_server, serving};
use crate::gate::Gate;

const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const ENOTSUP: u32 = 95;

/// A server whose disk answers at once, and one whose disk never does.
fn both_paths() -> [(&'static str, Server); 2] {
    let slow = serving(vec![disk(Gate::open(DISK_BYTES))]);
    [("fast", memory_server()), ("slow", slow)]
}

#[tokio::test]
async fn random_requests_do_what_a_plain_array_does() {
    for (path, server) in both_paths() {
        for structured in [false, true] {
            for seed in 0..4 {
                eprintln!("path {path}, structured {structured}, seed {seed}");
                compare_with_model(&server, structured, seed).await;
            }
        }
    }
}

/// FUA asks for a durable answer, so the device is flushed before it.
#[tokio::test]
async fn fua_flushes_each_command_that_writes() {
    let gate = Gate::open(DISK_BYTES);
    let server = serving(vec![disk(gate.clone())]);
    let mut client = Client::open(&server, "disk", false).await;
    let data = [7; 512];
    let commands =
        [(command::WRITE, &data[..]), (command::TRIM, &[]), (command::WRITE_ZEROES, &[])];
    for (flags, flushes) in [(0, 0), (flag::FUA, 1)] {
        for (kind, data) in commands {
            let before = gate.flushes();
            assert_eq!(client.call(kind, flags, 0, 512, data).await.errno, 0);
            assert_eq!(gate.flushes() - before, flushes, "command {kind}, flags {flags}");
        }
    }
}

async fn compare_with_model(server: &Server, structured: bool, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = Client::open(server, "disk", structured).await;
    let wiped = client.call(command::TRIM, 0, 0, DISK_BYTES as u32, &[]).await;
    assert_eq!(wiped.errno, 0);
    let mut model = vec![0u8; DISK_BYTES as usize];
    for _ in 0..200 {
        // Now and then large enough for a buffer of its own.
        let sectors_max = if rng.random_ratio(1, 10) { 600 } else { 20 };
        // A client that has negotiated no block size may ask for any bytes.
        let unit = if rng.random() { 512 } else { 1 };
        let len = unit * rng.random_range(1..=sectors_max * 512 / unit);
        let offset = unit * rng.random_range(0..=(model.len() - len) / unit);
        let range = offset..offset + len;
        let offset = offset as u64;
        let fua = if rng.random() { flag::FUA } else { 0 };
        let errno = match rng.random_range(0..6) {
            0 => {
                assert_eq!(client.read(offset, len as u32).await, model[range]);
                0
            }
            1 => {
                model[range.clone()].fill(0);
                client.call(command::TRIM, fua, offset, len as u32, &[]).await.errno
            }
            2 => {
                model[range.clone()].fill(0);
                let hole = if rng.random() { flag::NO_HOLE } else { 0 };
                let zeroes = command::WRITE_ZEROES;
                client.call(zeroes, fua | hole, offset, len as u32, &[]).await.errno
            }
            3 => client.call(command::CACHE, 0, offset, len as u32, &[]).await.errno,
            4 => client.call(command::FLUSH, 0, 0, 0, &[]).await.errno,
            _ => {
                rng.fill_bytes(&mut model[range.clone()]);
                let data = &model[range];
                client.call(command::WRITE, fua, offset, len as u32, data).await.errno
            }
        };
        assert_eq!(errno, 0, "seed {seed}");
    }
    assert!(client.read(0, DISK_BYTES as u32).await == model, "seed {seed}");
}

#[tokio::test]
async fn many_requests_at_once_are_each_answered_once() {
    for (path, server) in both_paths() {
        let mut client = Client::open(&server, "disk", true).await;
        let mut sent = Vec::new();
        for i in 0..200u64 {
            let data = vec![i as u8; 512];
            sent.push(client.send(command::WRITE, 0, i * 512, 512, &data).await);
        }
        let mut answered = Vec::new();
        for _ in 0..sent.len() {
            let reply = client.reply().await;
            assert_eq!(reply.errno, 0);
            answered.push(reply.cookie);
        }
        answered.sort_unstable();
        assert_eq!(answered, sent, "{path}");
        for i in 0..200u64 {
            assert_eq!(client.read(i * 512, 512).await, vec![i as u8; 512], "{path}");
        }
    }
}

#[tokio::test]
async fn block_status_reports_holes_and_data() {
    for (path, server) in both_paths() {
        let mut client = Client::open(&server, "disk", true).await;
        client.write(64 << 10, &[1; 4096]).await;
        let status = command::BLOCK_STATUS;
        let all = client.call(status, 0, 0, DISK_BYTES as u32, &[]).await;
        let page = 64 << 10;
        let rest = DISK_BYTES as u32 - 2 * page;
        assert_eq!(all.extents, [(page, 3), (page, 0), (rest, 3)], "{path}");
        let one = client.call(status, flag::REQ_ONE, 0, DISK_BYTES as u32, &[]).await;
        assert_eq!(one.extents, [(page, 3)]);
        let inside = client.call(status, 0, u64::from(page) + 512, 512, &[]).await;
        assert_eq!(inside.extents, [(512, 0)]);
        assert_eq!(client.call(status, 0, 0, 0, &[]).await.errno, EINVAL);
    }
}

#[tokio::test]
async fn fast_zero_fails_where_it_is_slow() {
    for (_, server) in both_paths() {
        let mut client = Client::open(&server, "disk", false).await;
        client.write(0, &[1; 4096]).await;
        let zeroes = command::WRITE_ZEROES;
        assert_eq!(client.call(zeroes, flag::FAST_ZERO, 512, 100, &[]).await.errno, ENOTSUP);
        assert_eq!(client.read(0, 4096).await, [1; 4096], "nothing has happened");
        assert_eq!(client.call(zeroes, flag::FAST_ZERO, 0, 4096, &[]).await.errno, 0);
        assert_eq!(client.read(0, 4096).await, [0; 4096]);
    }
}

#[tokio::test]
async fn large_reads_come_in_one_piece() {
    let size = 40 << 20;
    let fast: Arc<dyn Device> = Arc::new(MemoryDevice::new(size));
    for device in [fast, Gate::open(size)] {
        let server = serving(vec![disk(device)]);
        for structured in [false, true] {
            let mut client = Client::open(&server, "disk", structured).await;
            let data: Vec<u8> = (0..32 << 20).map(|i: u32| (i / 511) as u8).collect();
            client.write(1 << 20, &data).await;
            let df = if structured { flag::DF } else { 0 };
            let reply = client.call(command::READ, df, 1 << 20, 32 << 20, &[]).await;
            assert!(reply.data == data);
            let over = client.call(command::READ, 0, 0, (32 << 20) + 512, &[]).await;
            assert_eq!(over.errno, EINVAL);
        }
    }
}

#[tokio::test]
async fn what_is_refused_has_no_effect_and_the_connection_goes_on() {
    for (path, server) in both_paths() {
        for structured in [false, true] {
            refuse_everything(path, &server, structured).await;
        }
    }
}

async fn refuse_everything(path: &str, server: &Server, structured: bool) {
    let mut client = Client::open(server, "disk", structured).await;
    client.write(0, &[7; 4096]).await;
    let end = DISK_BYTES;
    let cases = [
        (command::READ, 0, end, 512, EINVAL),
        (command::READ, 0, u64::MAX - 511, 1024, EINVAL),
        (command::READ, 0, end - 1, 2, EINVAL),
        (command::READ, flag::REQ_ONE, 0, 512, EINVAL),
        (command::WRITE, 0, end - 512, 1024, ENOSPC),
        (command::WRITE, 0, end - 510, 511, ENOSPC),
        (command::WRITE, flag::DF, 0, 512, EINVAL),
        (command::WRITE, 0, 0, (32 << 20) + 512, EINVAL),
        (command::TRIM, 0, end, 512, EINVAL),
        (command::TRIM, 0, 0, u32::MAX - 511, EINVAL),
        (command::WRITE_ZEROES, 0, end, 512, ENOSPC),
        (command::CACHE, 0, end, 512, EINVAL),
        (command::FLUSH, flag::NO_HOLE, 0, 0, EINVAL),
        (8, 0, 0, 512, EINVAL),
        (0xffff, 0xffff, u64::MAX, u32::MAX, EINVAL),
    ];
    for (command, flags, offset, len, expected) in cases {
        let payload = vec![9; if command == command::WRITE { len as usize } else { 0 }];
        let reply = client.call(command, flags, offset, len, &payload).await;
        let case = format!("{path} {structured}: {command} {flags} {offset} {len}");
        assert_eq!(reply.errno, expected, "{case}");
        assert_eq!(reply.structured, structured && command == command::READ, "{case}");
    }
    assert_eq!(client.read(0, 4096).await, [7; 4096]);
    for command in [command::READ, command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(client.call(command, 0, end, 0, &[]).await.errno, 0, "nothing, at the end");
    }
}

#[tokio::test]
async fn read_only_exports_refuse_writes_of_every_kind() {
    let server = serving(vec![disk(Arc::new(MemoryDevice::new(DISK_BYTES).read_only()))]);
    let mut client = Client::open(&server, "disk", false).await;
    let write = client.call(command::WRITE, 0, 0, 100 << 10, &vec![1; 100 << 10]).await;
    assert_eq!(write.errno, EPERM);
    assert_eq!(client.call(command::TRIM, 0, 0, 512, &[]).await.errno, EPERM);
    assert_eq!(client.call(command::WRITE_ZEROES, 0, 0, 512, &[]).await.errno, EPERM);
    assert_eq!(client.call(command::FLUSH, 0, 0, 0, &[]).await.errno, 0);
    assert_eq!(client.read(0, 100 << 10).await, vec![0; 100 << 10]);
}

#[tokio::test]
async fn errors_of_the_device_have_their_numbers() {
    let table = [
        (ErrorKind::ReadOnly, EPERM),
        (ErrorKind::Failed, EIO),
        (ErrorKind::Invalid, EINVAL),
        (ErrorKind::NoSpace, ENOSPC),
        (ErrorKind::NotSupported, ENOTSUP),
    ];
    for (kind, expected) in table {
        let server = serving(vec![disk(Gate::failing(DISK_BYTES, kind))]);
        let mut client = Client::open(&server, "disk", true).await;
        for command in 0..8 {
            // Prefetching is a hint, and can't fail.
            if matches!(command, command::DISC | command::CACHE) {
                continue;
            }
            let payload = vec![0; if command == command::WRITE { 512 } else { 0 }];
            let reply = client.call(command, 0, 0, 512, &payload).await;
            assert_eq!(reply.errno, expected, "{kind:?} of command {command}");
        }
    }
}

#[tokio::test]
async fn an_export_that_panics_costs_only_that_request() {
    let server = serving(vec![disk(Gate::panicking(DISK_BYTES))]);
    let mut client = Client::open(&server, "disk", true).await;
    assert_eq!(client.call(command::READ, 0, 0, 512, &[]).await.errno, EIO);
    assert_eq!(client.read(512, 512).await, [0; 512]);
}
