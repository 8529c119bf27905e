//! Tests of the bounds on one client's memory in the server.

use std::sync::Arc;

use skerry_device::memory::MemoryDevice;
use skerry_serve::nbd::wire::command;
use skerry_serve::nbd::{Limits, Server};
use skerry_serve::{Export, FixedExports};

use crate::client::{Client, DISK_BYTES, connect, disk, serving_with};
use crate::gate::Gate;

/// Exports of these names.
fn held_and_free(held: &Arc<Gate>, free: Arc<Gate>) -> Arc<FixedExports> {
    let exports = vec![Export::new("held", held.clone()), Export::new("free", free)];
    Arc::new(FixedExports::new(exports))
}

#[tokio::test]
async fn requests_in_flight_are_bounded_and_none_is_lost() {
    let gate = Gate::shut(DISK_BYTES);
    let limits = Limits { requests_in_flight_max: 10, ..Limits::default() };
    let server = serving_with(Arc::new(FixedExports::new(vec![disk(gate.clone())])), limits);
    let mut client = Client::open(&server, "disk", false).await;
    for _ in 0..50 {
        client.send(command::FLUSH, 0, 0, 0, &[]).await;
    }
    gate.wait_until(|p| p.arrived == 10).await;
    // One may pass: so one more arrives, and not before its place is free.
    for more in 1..=40 {
        gate.let_pass(1);
        client.reply().await;
        gate.wait_until(|p| p.arrived >= 10 + more).await;
        assert_eq!(gate.passed().arrived, 10 + more);
    }
    gate.let_pass(10);
    for _ in 0..10 {
        client.reply().await;
    }
    assert_eq!(gate.passed().left, 50);
}

#[tokio::test]
async fn bytes_in_flight_are_bounded_for_a_connection_and_for_all() {
    const LEN: u32 = 128 << 10;
    let one = Limits { bytes_in_flight_max: 3 * LEN as usize, ..Limits::default() };
    let all = Limits { server_bytes_in_flight_max: 3 * LEN as usize, ..Limits::default() };
    for limits in [one, all] {
        let gate = Gate::shut(DISK_BYTES);
        let server = serving_with(Arc::new(FixedExports::new(vec![disk(gate.clone())])), limits);
        let mut client = Client::open(&server, "disk", false).await;
        for _ in 0..20 {
            client.send(command::READ, 0, 0, LEN, &[]).await;
        }
        // Buffers are somewhat longer than their content, so two requests may reach the limit.
        gate.wait_until(|p| p.arrived >= 2).await;
        for passed in 1..20 {
            gate.let_pass(1);
            client.reply().await;
            assert!(gate.passed().arrived <= passed + 3, "{:?}", gate.passed());
        }
        gate.let_pass(1);
        client.reply().await;
        assert_eq!(gate.passed().left, 20);
    }
}

/// A hint is answered when it has been followed, and its fetches count as bytes in flight.
#[tokio::test]
async fn what_is_cached_counts_as_bytes_in_flight() {
    let gate = Gate::shut(DISK_BYTES);
    let len = DISK_BYTES as u32;
    let limits = Limits {
        bytes_in_flight_max: 4 * DISK_BYTES as usize,
        cache_bytes_max: len,
        ..Limits::default()
    };
    let server = serving_with(Arc::new(FixedExports::new(vec![disk(gate.clone())])), limits);
    let mut client = Client::open(&server, "disk", false).await;
    for _ in 0..100 {
        client.send(command::CACHE, 0, 0, len, &[]).await;
    }
    for passed in 0..100 {
        gate.wait_until(|p| p.arrived > passed).await;
        assert!(gate.passed().arrived <= passed + 4, "{:?}", gate.passed());
        gate.let_pass(1);
        assert_eq!(client.reply().await.errno, 0);
    }
}

#[tokio::test]
async fn a_connection_goes_on_however_much_the_others_hold() {
    let limits = Limits { server_bytes_in_flight_max: 1, ..Limits::default() };
    let (held, free) = (Gate::shut(DISK_BYTES), Gate::open(DISK_BYTES));
    let server = serving_with(held_and_free(&held, free), limits);
    let mut greedy = Client::open(&server, "held", false).await;
    greedy.send(command::READ, 0, 0, 4096, &[]).await;
    held.wait_until(|p| p.arrived == 1).await;
    let mut other = Client::open(&server, "free", false).await;
    for _ in 0..10 {
        other.send(command::READ, 0, 0, 4096, &[]).await;
    }
    for _ in 0..10 {
        assert_eq!(other.reply().await.errno, 0);
    }
}

#[tokio::test]
async fn a_client_that_takes_no_replies_is_not_read_from() {
    let device = Arc::new(MemoryDevice::new(DISK_BYTES));
    let server = serving_with(Arc::new(FixedExports::new(vec![disk(device)])), Limits::default());
    let mut client = Client::open(&server, "disk", false).await;
    client.write(0, &vec![1; DISK_BYTES as usize]).await;
    // Far more requests than the server may take while the client reads no replies.
    let request = skerry_serve::nbd::wire::Request {
        flags: 0,
        command: command::READ,
        cookie: 1,
        offset: 0,
        len: DISK_BYTES as u32,
    };
    let flood = request.encode().repeat(100_000);
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let stuck = tokio::io::AsyncWriteExt::write_all(&mut writer, &flood);
    tokio::pin!(stuck);
    let mut polled = 0;
    let progress = std::future::poll_fn(|cx| {
        // On this runtime of one thread, the server runs between our polls.
        polled += 1;
        let done = stuck.as_mut().poll(cx).is_ready();
        if !done && polled < 1000 {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(done)
    })
    .await;
    assert!(!progress, "the server has taken everything");
    let mut first = vec![0; 16 + DISK_BYTES as usize];
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut first).await.expect("a reply");
    assert!(first[16..].iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn connections_are_bounded() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let gate = Gate::open(DISK_BYTES);
    let server = serving_with(Arc::new(FixedExports::new(vec![disk(gate)])), limits);
    let first = Client::open(&server, "disk", false).await;
    let mut second = Client::open(&server, "disk", false).await;
    let (_third, refused) = connect(&server);
    refused.await.expect("the third is closed");
    assert_eq!(second.read(0, 512).await.len(), 512);
    drop(first.stream);
    first.task.await.expect("the first has ended");
    let mut third = Client::open(&server, "disk", false).await;
    assert_eq!(third.read(0, 512).await.len(), 512);
}

const MIB: usize = 1 << 20;
/// The longest request.
const LONG: u32 = 32 << 20;

/// A server whose clients may hold 64 MiB together.
fn long_disk() -> Server {
    let device = Arc::new(MemoryDevice::new(u64::from(LONG)));
    let limits = Limits { server_bytes_in_flight_max: 64 * MIB, ..Limits::default() };
    serving_with(Arc::new(FixedExports::new(vec![disk(device)])), limits)
}

/// A client that announces the longest write and sends `sent` bytes of it.
async fn sender(server: &Server, sent: usize) -> Client {
    let mut client = Client::open(server, "disk", false).await;
    client.send(command::WRITE, 0, 0, LONG, &vec![7; sent]).await;
    client
}

/// Asserts the bound: the budget, one long request beyond it, and the assured small requests.
fn assert_bounded(server: &Server, clients: usize) {
    let limits = Limits::default();
    let bound = 64 * MIB + LONG as usize + clients * limits.request_bytes_assured;
    let held = server.bytes_in_flight();
    assert!(held <= bound, "{held} bytes are held, and {bound} may be");
}

/// Clients send a part of a long write and stop. The server holds no more than it may for them, and
/// serves others beside them. When their time is over, it cuts them off and lets long requests in.
#[tokio::test(start_paused = true)]
async fn writes_that_are_half_sent_hold_no_more_than_the_budget() {
    const CLIENTS: usize = 20;
    let server = long_disk();
    let mut hogs = Vec::new();
    for _ in 0..CLIENTS {
        hogs.push(sender(&server, 64 << 10).await);
        assert_bounded(&server, 0);
    }
    let mut other = Client::open(&server, "disk", false).await;
    for len in [512, 64 << 10, MIB, Limits::default().request_bytes_assured] {
        other.write(0, &vec![1; len]).await;
        assert_eq!(other.read(0, len as u32).await, vec![1; len]);
        assert_bounded(&server, 1);
    }
    other.write(0, &vec![2; 8 * MIB]).await;
    assert!(hogs[0].is_closed().await, "without a reply");
    drop(hogs);
    assert_eq!(other.read(0, 8 << 20).await, vec![2; 8 * MIB]);
}

/// Clients ask for much and take no replies, with the bounds of
/// [`writes_that_are_half_sent_hold_no_more_than_the_budget`].
#[tokio::test(start_paused = true)]
async fn replies_that_are_not_taken_hold_no_more_than_the_budget() {
    const CLIENTS: usize = 20;
    let server = long_disk();
    let mut other = Client::open(&server, "disk", false).await;
    other.write(0, &vec![1; LONG as usize]).await;
    let mut hogs = Vec::new();
    for _ in 0..CLIENTS {
        let mut hog = Client::open(&server, "disk", false).await;
        hog.send(command::READ, 0, 0, LONG, &[]).await;
        hogs.push(hog);
        assert_eq!(other.read(0, 512).await, [1; 512]);
        assert_bounded(&server, 1);
    }
    assert_eq!(other.read(0, LONG).await.len(), LONG as usize);
}

/// One long request at a time goes on, however long the requests of others take.
#[tokio::test]
async fn a_long_request_goes_on_beside_those_that_are_stuck() {
    let (held, free) = (Gate::shut(u64::from(LONG)), Gate::open(u64::from(LONG)));
    let limits = Limits { server_bytes_in_flight_max: LONG as usize, ..Limits::default() };
    let server = serving_with(held_and_free(&held, free), limits);
    let mut stuck = Client::open(&server, "held", false).await;
    stuck.send(command::READ, 0, 0, LONG - 4096, &[]).await;
    held.wait_until(|p| p.arrived == 1).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut other = Client::open(&server, "free", false).await;
        other.send(command::READ, 0, 0, LONG, &[]).await;
        others.push(other);
    }
    for other in &mut others {
        assert_eq!(other.reply().await.errno, 0);
    }
}

/// Buffers that are kept for reuse are memory, too. Clients that leave a reply unread must not fill
/// the server's memory with them.
#[tokio::test]
async fn buffers_that_are_kept_count_and_are_few_when_there_are_many_clients() {
    const CLIENTS: usize = 40;
    const ROUND: usize = 7;
    let gate = Gate::open(8 << 20);
    let limits = Limits { server_bytes_in_flight_max: 64 * MIB, ..Limits::default() };
    let server = serving_with(Arc::new(FixedExports::new(vec![disk(gate)])), limits);
    let mut idle = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::open(&server, "disk", false).await;
        // The last client does not take its reply: while it waits, the buffers of the others are
        // kept.
        for _ in 0..ROUND + 1 {
            client.send(command::READ, 0, 0, MIB as u32, &[]).await;
        }
        for _ in 0..ROUND {
            client.reply().await;
        }
        idle.push(client);
    }
    // A client that talks gives the server the time to serve the others' requests.
    let mut other = Client::open(&server, "disk", false).await;
    assert_eq!(other.read(0, 512).await.len(), 512);
    // A reply of each, each connection's own share, and the further buffers of a few.
    let held = server.bytes_in_flight();
    assert!(held > CLIENTS * MIB, "{held} bytes are counted, and some are kept");
    assert!(held < CLIENTS * (MIB + (128 << 10)) + 40 * MIB, "{held} bytes");
}
