//! Listeners and connections: their number, their bound, and their end.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::budget::{Budget, Share};
use super::control::{Control, Order};
use super::limits::Limits;
use super::negotiate::{NegotiateError, negotiate};
use super::quiet::Quiet;
use super::session::Session;
use super::threads::SessionThreads;
use crate::export::{ClientInfo, Exports};

/// Pause of accepting when the system has no descriptors left. Long enough not to spin, short
/// enough that a client's connect does not time out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence of a TCP client after which the system asks whether it is there. A guest whose host has
/// died must not stay a connected client for ever.
const TCP_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Outcome of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that ended in time, with all their replies.
    pub finished: usize,
    /// Connections that were cut off when the time was up.
    pub cut: usize,
}

/// An NBD server. Clones share it.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    exports: Arc<dyn Exports>,
    limits: Limits,
    budget: Arc<Budget>,
    /// The threads of sessions; without it, sessions run on the accepting runtime.
    threads: Option<SessionThreads>,
    seats: Mutex<Seats>,
    /// Changes whenever a connection ends.
    departures: watch::Sender<u64>,
    closing: watch::Sender<bool>,
    /// Clients that were turned away.
    turned_away: Quiet,
    /// Connections that could not be begun.
    unserved: Quiet,
    /// Negotiations that failed.
    not_agreed: Quiet,
}

impl Shared {
    fn turn_away(&self, peer: &str) {
        if let Some(times) = self.turned_away.happened() {
            tracing::warn!(
                peer,
                times,
                "turned a client away: too many connections, or shutting down"
            );
        }
    }
}

#[derive(Default)]
struct Seats {
    last_number: u64,
    taken: HashMap<u64, Seat>,
}

struct Seat {
    control: Arc<Control>,
    /// The export's own name, once one is open.
    export: Option<String>,
}

impl Server {
    /// A server of `exports`, with nothing listening yet.
    #[must_use]
    pub fn new(exports: Arc<dyn Exports>, limits: Limits) -> Self {
        Self::build(exports, limits, None)
    }

    /// As [`Self::new`], with sessions on threads of their own. Requests that must wait still run
    /// on the runtime that accepts connections.
    #[must_use]
    pub fn on_threads(exports: Arc<dyn Exports>, limits: Limits, threads: SessionThreads) -> Self {
        Self::build(exports, limits, Some(threads))
    }

    fn build(exports: Arc<dyn Exports>, limits: Limits, threads: Option<SessionThreads>) -> Self {
        let budget = Budget::new(limits.server_bytes_in_flight_max);
        let shared = Shared {
            exports,
            limits,
            budget,
            threads,
            seats: Mutex::default(),
            departures: watch::Sender::new(0),
            closing: watch::Sender::new(false),
            turned_away: Quiet::default(),
            unserved: Quiet::default(),
            not_agreed: Quiet::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Accepts clients from a Unix socket until [`shutdown`](Self::shutdown) is called.
    pub async fn serve_unix(&self, listener: UnixListener) {
        self.accept_all(
            || listener.accept(),
            |accepted| {
                let (stream, _) = accepted;
                let peer = unix_peer(&stream);
                let bare = stream.into_std();
                self.welcome(peer, move || UnixStream::from_std(bare?));
            },
        )
        .await;
    }

    /// Accepts clients from a TCP socket until [`shutdown`](Self::shutdown) is called.
    pub async fn serve_tcp(&self, listener: TcpListener) {
        self.accept_all(
            || listener.accept(),
            |accepted| {
                let (stream, address) = accepted;
                if let Err(error) = prepare_tcp(&stream) {
                    tracing::debug!(%error, %address, "options of a TCP connection can't be set");
                }
                let bare = stream.into_std();
                self.welcome(address.to_string(), move || TcpStream::from_std(bare?));
            },
        )
        .await;
    }

    /// Serves one connection that the caller has accepted (or wrapped, say in TLS), until its
    /// client has gone. `peer` names the other end for people.
    pub async fn serve_stream<S>(&self, stream: S, peer: String)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(place) = self.take_seat() else {
            self.shared.turn_away(&peer);
            return;
        };
        serve(place, stream, peer, Handle::current()).await;
    }

    /// Number of clients of each export, by the export's own name.
    #[must_use]
    pub fn clients(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for seat in self.shared.seats.lock().taken.values() {
            if let Some(name) = &seat.export {
                *counts.entry(name.clone()).or_insert(0) += 1;
            }
        }
        counts
    }

    /// Bytes of payload, both ways, that the server holds for all clients.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.shared.budget.used_bytes()
    }

    /// Closes every connection to the export of this name, without further replies. Waits until
    /// their requests have ended. Gives their number. A client that connects meanwhile is not
    /// affected: to keep clients out, refuse to open the export.
    pub async fn disconnect(&self, export: &str) -> usize {
        let mut departures = self.shared.departures.subscribe();
        let killed = self.give_order(Order::Kill, |seat| seat.export.as_deref() == Some(export));
        let gone = |_: &u64| {
            let seats = self.shared.seats.lock();
            killed.iter().all(|number| !seats.taken.contains_key(number))
        };
        // Can't fail: the sender lives as long as this server.
        let _ = departures.wait_for(gone).await;
        killed.len()
    }

    /// Stops accepting, lets requests in flight end and their replies go out, and takes no new
    /// ones. No request gets an error: a client that reconnects asks again. Cuts off connections
    /// that are not done after `drain_time_max`.
    pub async fn shutdown(&self, drain_time_max: Duration) -> Drained {
        let mut departures = self.shared.departures.subscribe();
        self.shared.closing.send_replace(true);
        let told = self.give_order(Order::Drain, |_| true).len();
        let empty = |_: &u64| self.shared.seats.lock().taken.is_empty();
        let drained = tokio::time::timeout(drain_time_max, departures.wait_for(empty)).await;
        if drained.is_ok() {
            return Drained { finished: told, cut: 0 };
        }
        let cut = self.give_order(Order::Kill, |_| true).len();
        tracing::warn!(cut, "connections weren't done in time and were cut off");
        Drained { finished: told.saturating_sub(cut), cut }
    }

    fn give_order(&self, order: Order, which: impl Fn(&Seat) -> bool) -> Vec<u64> {
        let seats = self.shared.seats.lock();
        let chosen = seats.taken.iter().filter(|(_, seat)| which(seat));
        chosen
            .map(|(number, seat)| {
                seat.control.give(order);
                *number
            })
            .collect()
    }

    async fn accept_all<T, F>(&self, mut accept: impl FnMut() -> F, welcome: impl Fn(T))
    where
        F: Future<Output = io::Result<T>>,
    {
        let mut closing = self.shared.closing.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => return,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(accepted) => welcome(accepted),
                Err(error) => {
                    if let Some(times) = self.shared.unserved.happened() {
                        tracing::warn!(
                            %error,
                            times,
                            "a connection can't be accepted; trying again"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection on the thread whose turn it is. `open` makes its stream there.
    fn welcome<S>(&self, peer: String, open: impl FnOnce() -> io::Result<S> + Send + 'static)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (server, here) = (self.clone(), Handle::current());
        let thread = self.shared.threads.as_ref().map_or(&here, SessionThreads::next).clone();
        thread.spawn(async move {
            let Some(place) = server.take_seat() else {
                server.shared.turn_away(&peer);
                return;
            };
            match open() {
                Ok(stream) => serve(place, stream, peer, here).await,
                Err(error) => {
                    if let Some(times) = server.shared.unserved.happened() {
                        tracing::warn!(%error, %peer, times, "a connection can't be served");
                    }
                }
            }
        });
    }

    fn take_seat(&self) -> Option<TakenSeat> {
        let mut seats = self.shared.seats.lock();
        let full = seats.taken.len() >= self.shared.limits.connections_max;
        // Asked under the lock, so that a shutdown reaches every connection with a seat.
        if full || *self.shared.closing.borrow() {
            return None;
        }
        seats.last_number += 1;
        let number = seats.last_number;
        let control = Arc::new(Control::default());
        seats.taken.insert(number, Seat { control: control.clone(), export: None });
        Some(TakenSeat { shared: self.shared.clone(), number, control })
    }
}

/// A connection's entry among the seats; dropping it gives it up.
struct TakenSeat {
    shared: Arc<Shared>,
    number: u64,
    control: Arc<Control>,
}

impl TakenSeat {
    fn serves(&self, export: &str) {
        if let Some(seat) = self.shared.seats.lock().taken.get_mut(&self.number) {
            seat.export = Some(export.to_owned());
        }
    }
}

impl Drop for TakenSeat {
    fn drop(&mut self) {
        self.shared.seats.lock().taken.remove(&self.number);
        self.shared.departures.send_modify(|count| *count += 1);
    }
}

/// Serves one connection, from its first byte to its last. Requests that must wait run on `slow`.
async fn serve<S>(place: TakenSeat, mut stream: S, peer: String, slow: Handle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = &place.shared;
    let connection = place.number;
    let client = ClientInfo { connection, peer: peer.clone() };
    let time_max = shared.limits.handshake_time_max;
    let exports = &*shared.exports;
    let agreed = match negotiate(&mut stream, exports, client, &place.control, time_max).await {
        Ok(agreed) => agreed,
        Err(NegotiateError::Left | NegotiateError::ShuttingDown) => return,
        Err(error) => {
            if let Some(times) = shared.not_agreed.happened() {
                tracing::warn!(connection, %peer, %error, times, "no export was agreed on");
            }
            return;
        }
    };
    let export = agreed.export.info.name.clone();
    place.serves(&export);
    let read_only = agreed.export.info.geometry.read_only;
    tracing::info!(connection, %peer, %export, read_only, "connected");
    let share = Share::new(shared.budget.clone(), connection);
    let session =
        Session::new(stream, agreed, shared.limits.clone(), place.control.clone(), share, slow);
    let failures = session.run().await;
    tracing::info!(connection, %peer, %export, failures, "disconnected");
}

fn unix_peer(stream: &UnixStream) -> String {
    match stream.peer_cred().ok().and_then(|cred| cred.pid()) {
        Some(pid) => format!("unix (pid {pid})"),
        None => "unix".to_owned(),
    }
}

fn prepare_tcp(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, TCP_KEEPALIVE_IDLE)?;
    Ok(())
}
