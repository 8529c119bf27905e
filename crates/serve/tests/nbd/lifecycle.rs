//! Tests of the end of connections: by the client, by the server, and with requests in flight.

use std::sync::Arc;
use std::time::Duration;

use skerry_serve::nbd::wire::{InfoRequest, OptionHeader, command, option};
use skerry_serve::nbd::{Drained, Limits};
use skerry_serve::{ClientInfo, Export, ExportInfo, Exports, OpenError};
use tokio::io::AsyncWriteExt as _;

use crate::client::{Client, DISK_BYTES, disk, memory_server, serving, serving_with};
use crate::gate::Gate;

/// Long enough that only a hang reaches it.
const DRAIN: Duration = Duration::from_secs(60);

#[tokio::test]
async fn replies_overtake_a_request_that_waits() {
    let gate = Gate::shut(DISK_BYTES);
    let server = serving(vec![disk(gate.clone())]);
    let mut client = Client::open(&server, "disk", false).await;
    let waits = client.send(command::FLUSH, 0, 0, 0, &[]).await;
    gate.wait_until(|p| p.arrived == 1).await;
    let refused = client.call(command::READ, 0, DISK_BYTES, 512, &[]).await;
    assert_eq!(refused.errno, 22);
    gate.let_pass(1);
    assert_eq!(client.reply().await.cookie, waits);
}

#[tokio::test]
async fn disconnecting_answers_what_was_asked_before() {
    let gate = Gate::shut(DISK_BYTES);
    let server = serving(vec![disk(gate.clone())]);
    let mut client = Client::open(&server, "disk", false).await;
    let cookie = client.send(command::WRITE, 0, 0, 512, &[5; 512]).await;
    client.send(command::DISC, 0, 0, 0, &[]).await;
    gate.wait_until(|p| p.arrived == 1).await;
    gate.let_pass(1);
    let reply = client.reply().await;
    assert_eq!((reply.cookie, reply.errno), (cookie, 0));
    assert!(client.is_closed().await);
    client.task.await.expect("ended");
}

#[tokio::test]
async fn what_a_vanished_client_had_begun_runs_to_its_end() {
    let gate = Gate::shut(DISK_BYTES);
    let server = serving(vec![disk(gate.clone())]);
    let mut client = Client::open(&server, "disk", false).await;
    client.send(command::WRITE, 0, 0, 512, &[5; 512]).await;
    gate.wait_until(|p| p.arrived == 1).await;
    drop(client.stream);
    gate.let_pass(1);
    client.task.await.expect("ended");
    assert_eq!(gate.passed().left, 1);
    gate.let_pass(1);
    let mut next = Client::open(&server, "disk", false).await;
    assert_eq!(next.read(0, 512).await, [5; 512]);
}

#[tokio::test]
async fn a_stop_answers_what_was_begun_and_nothing_with_an_error() {
    let gate = Gate::shut(DISK_BYTES);
    let server = serving(vec![disk(gate.clone())]);
    let mut client = Client::open(&server, "disk", true).await;
    let begun = client.send(command::FLUSH, 0, 0, 0, &[]).await;
    gate.wait_until(|p| p.arrived == 1).await;
    let stopping = server.shutdown(DRAIN);
    let talking = async {
        for command in [command::READ, command::FLUSH, command::TRIM] {
            client.send(command, 0, 0, 512, &[]).await;
        }
        client.send(command::WRITE, 0, 0, 512, &[1; 512]).await;
        gate.let_pass(1);
        let reply = client.reply().await;
        assert_eq!((reply.cookie, reply.errno), (begun, 0));
        assert!(client.is_closed().await);
    };
    // The shutdown is polled first, so its order is given before the first request is sent.
    let (drained, ()) = tokio::join!(biased; stopping, talking);
    assert_eq!(drained, Drained { finished: 1, cut: 0 });
    assert_eq!(gate.passed().arrived, 1, "nothing was done that was not answered");
}

#[tokio::test]
async fn a_stop_cuts_a_request_that_is_half_there() {
    let server = memory_server();
    let mut client = Client::open(&server, "disk", false).await;
    client.send(command::WRITE, 0, 0, 64 << 10, &[1; 1 << 10]).await;
    assert_eq!(server.shutdown(DRAIN).await, Drained { finished: 1, cut: 0 });
    assert!(client.is_closed().await, "without a reply");
}

#[tokio::test]
async fn an_export_that_wants_a_new_connection_gets_one_and_no_error() {
    let server = serving(vec![disk(Gate::failing(DISK_BYTES, skerry_device::ErrorKind::Reattach))]);
    for command in [command::READ, command::FLUSH, command::TRIM] {
        let mut client = Client::open(&server, "disk", true).await;
        client.send(command, 0, 0, 512, &[]).await;
        assert!(client.is_closed().await, "command {command} was answered");
        client.task.await.expect("ended");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_cuts_off_who_is_not_done_in_time() {
    let gate = Gate::shut(DISK_BYTES);
    let server = serving(vec![disk(gate.clone())]);
    let mut stuck = Client::open(&server, "disk", false).await;
    stuck.send(command::FLUSH, 0, 0, 0, &[]).await;
    gate.wait_until(|p| p.arrived == 1).await;
    let _idle = Client::open(&server, "disk", false).await;
    let drained = server.shutdown(Duration::from_secs(5)).await;
    assert_eq!(drained, Drained { finished: 1, cut: 1 });
    assert!(stuck.is_closed().await);
    gate.let_pass(1);
    stuck.task.await.expect("ended once its request had");
}

/// Exports whose listing and opening never end.
struct Stuck(tokio::sync::Semaphore);

#[async_trait::async_trait]
impl Exports for Stuck {
    async fn list(&self) -> Result<Vec<String>, OpenError> {
        self.0.add_permits(1);
        std::future::pending().await
    }

    async fn describe(&self, _: &str, _: &ClientInfo) -> Result<ExportInfo, OpenError> {
        self.0.add_permits(1);
        std::future::pending().await
    }

    async fn open(&self, _: &str, _: &ClientInfo) -> Result<Export, OpenError> {
        self.0.add_permits(1);
        std::future::pending().await
    }
}

/// Work without end must not begin after the stop, and must not hold the stop up.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_no_export_that_is_being_opened() {
    let stuck = Arc::new(Stuck(tokio::sync::Semaphore::new(0)));
    let server = serving_with(stuck.clone(), Limits::default());
    let request = InfoRequest { name: "disk".to_owned(), wanted: vec![] }.encode();
    for (option, data) in
        [(option::LIST, vec![]), (option::INFO, request.clone()), (option::GO, request)]
    {
        let mut client = Client::greet(&server).await;
        let header = OptionHeader { option, len: data.len() as u32 };
        client.stream.write_all(&[header.encode().as_slice(), &data].concat()).await.expect("sent");
        stuck.0.acquire().await.expect("never closed").forget();
        tokio::spawn(async move { client.is_closed().await });
    }
    assert_eq!(server.shutdown(DRAIN).await, Drained { finished: 3, cut: 0 });
}

#[tokio::test]
async fn after_a_shutdown_nobody_is_let_in() {
    let server = memory_server();
    assert_eq!(server.shutdown(DRAIN).await, Drained { finished: 0, cut: 0 });
    let (_stream, task) = crate::client::connect(&server);
    task.await.expect("closed at once");
}

#[tokio::test]
async fn one_exports_clients_can_be_counted_and_disconnected() {
    let (a, b) = (Gate::shut(DISK_BYTES), Gate::open(DISK_BYTES));
    let server = serving(vec![Export::new("a", a.clone()), Export::new("b", b)]);
    let mut first = Client::open(&server, "", false).await;
    let mut second = Client::open(&server, "a", false).await;
    let mut other = Client::open(&server, "b", false).await;
    first.send(command::FLUSH, 0, 0, 0, &[]).await;
    a.wait_until(|p| p.arrived == 1).await;
    let counts = server.clients();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("a".into(), 2), ("b".into(), 1)]);

    let closing = async {
        assert!(first.is_closed().await, "without a reply to its flush");
        assert!(second.is_closed().await);
        a.let_pass(1);
    };
    let (killed, ()) = tokio::join!(server.disconnect("a"), closing);
    assert_eq!(killed, 2);
    assert_eq!(a.passed().left, 1, "what was begun has ended when disconnect returns");
    assert_eq!(server.clients().into_iter().collect::<Vec<_>>(), [("b".into(), 1)]);
    assert_eq!(other.read(0, 512).await, [0; 512]);
    assert_eq!(server.disconnect("nono").await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_goodbye_and_takes_no_replies_is_cut_off() {
    let server = memory_server();
    let mut client = Client::open(&server, "disk", false).await;
    client.write(0, &[1; 64 << 10]).await;
    client.send(command::READ, 0, 0, 64 << 10, &[]).await;
    client.send(command::DISC, 0, 0, 0, &[]).await;
    // The connection holds less than the reply, and the client does not read.
    let before = tokio::time::Instant::now();
    (&mut client.task).await.expect("ended");
    assert_eq!(before.elapsed(), skerry_serve::nbd::Limits::default().linger_time_max);
}
