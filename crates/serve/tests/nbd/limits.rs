//! What one client can make the server hold.

use std::sync::Arc;

use skerry_serve::memory::FixedExports;
use skerry_serve::nbd::Limits;
use skerry_serve::nbd::wire::command;

use crate::client::{Client, DISK_BYTES, connect, serving_with};
use crate::gate::Gate;

#[tokio::test]
async fn requests_in_flight_are_bounded_and_none_is_lost() {
    let gate = Gate::shut("disk", DISK_BYTES);
    let limits = Limits { requests_in_flight_max: 10, ..Limits::default() };
    let server = serving_with(Arc::new(FixedExports::new(vec![gate.clone()])), limits);
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
        let gate = Gate::shut("disk", DISK_BYTES);
        let server = serving_with(Arc::new(FixedExports::new(vec![gate.clone()])), limits);
        let mut client = Client::open(&server, "disk", false).await;
        for _ in 0..20 {
            client.send(command::READ, 0, 0, LEN, &[]).await;
        }
        // Buffers are somewhat longer than what they are for, so two requests may reach the limit.
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

/// A hint is answered when it has been followed, and what is on its way counts.
#[tokio::test]
async fn what_is_cached_counts_as_bytes_in_flight() {
    let gate = Gate::shut("disk", DISK_BYTES);
    let len = DISK_BYTES as u32;
    let limits = Limits {
        bytes_in_flight_max: 4 * DISK_BYTES as usize,
        cache_bytes_max: len,
        ..Limits::default()
    };
    let server = serving_with(Arc::new(FixedExports::new(vec![gate.clone()])), limits);
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
    let (held, free) = (Gate::shut("held", DISK_BYTES), Gate::open("free", DISK_BYTES));
    let exports = FixedExports::new(vec![held.clone(), free]);
    let server = serving_with(Arc::new(exports), limits);
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
    let disk = Arc::new(skerry_serve::memory::MemoryExport::new("disk", DISK_BYTES));
    let server = serving_with(Arc::new(FixedExports::new(vec![disk])), Limits::default());
    let mut client = Client::open(&server, "disk", false).await;
    client.write(0, &vec![1; DISK_BYTES as usize]).await;
    // Far more requests than the server may take while nobody reads its replies.
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
    let gate = Gate::open("disk", DISK_BYTES);
    let server = serving_with(Arc::new(FixedExports::new(vec![gate])), limits);
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
