//! Clients that write stamped blocks over NBD, several in flight, until the server dies or a test
//! stops them. They record in a [`History`] all that they may rely on.
//!
//! Each connection has its own share of the blocks, and never two requests for one block in flight.
//! Otherwise no client could tell which came last.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::history::{FlushSent, History, Kind};
use crate::nbd::{NbdClient, Request};
use crate::stamp::{self, BLOCK_BYTES, Block, Sequence};
use crate::uri::NbdUri;

/// Behaviour of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSettings {
    /// Seed of the choices of block, kind and flush.
    pub seed: u64,
    /// Number of connections to the export. More than one needs an export with `CAN_MULTI_CONN`.
    pub connections: u64,
    /// Number of requests in flight on each.
    pub depth: usize,
    /// Mean number of requests for each flush; 0 sends none.
    pub flush_every: u32,
    /// Share of requests that make a block zero, percent.
    pub zero_percent: u32,
    /// Share of writes with FUA, percent.
    pub fua_percent: u32,
    /// Share of requests to the first sixteenth of the disk, percent.
    pub hot_percent: u32,
    /// Number of requests on each connection after which it ends by itself.
    pub requests_max: u64,
}

impl LoadSettings {
    /// Two connections, sixteen requests in flight on each, a flush now and then, until stopped.
    #[must_use]
    pub fn busy(seed: u64) -> LoadSettings {
        LoadSettings {
            seed,
            connections: 2,
            depth: 16,
            flush_every: 40,
            zero_percent: 5,
            fua_percent: 2,
            hot_percent: 30,
            requests_max: u64::MAX,
        }
    }

    /// One request at a time on one connection, so that the history is one exact order.
    #[must_use]
    pub fn ordered(seed: u64) -> LoadSettings {
        LoadSettings { connections: 1, depth: 1, ..LoadSettings::busy(seed) }
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<io::Result<Ending>>>,
}

/// The end of a load's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The load was stopped, or had sent all requests; everything was answered.
    Finished,
    /// The server went away. The fate of requests in flight is unknown.
    Lost,
    /// The server refused a request with this error number.
    Refused(u32),
}

impl Load {
    /// Connects, and begins to write.
    ///
    /// # Errors
    /// When a connection fails, or the export and the history differ in size.
    pub fn start(uri: &NbdUri, history: Arc<History>, settings: LoadSettings) -> io::Result<Load> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..settings.connections {
            let nbd = NbdClient::connect(uri)?;
            let blocks = nbd.info().size_bytes / BLOCK_BYTES as u64;
            if blocks != history.blocks() {
                return Err(io::Error::other(format!("{uri} has {blocks} blocks")));
            }
            let client = Client {
                nbd,
                history: history.clone(),
                settings,
                number,
                rng: StdRng::seed_from_u64(settings.seed.wrapping_add(number)),
                busy: HashSet::new(),
                open: HashMap::new(),
            };
            let stop = stop.clone();
            clients.push(std::thread::spawn(move || client.run(&stop)));
        }
        Ok(Load { history, stop, clients })
    }

    /// The record that the load writes.
    #[must_use]
    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// Stops sending, waits for all answers, and gives the end of each connection.
    ///
    /// # Errors
    /// When the server broke the protocol.
    pub fn stop(self) -> io::Result<Vec<Ending>> {
        self.stop.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until every connection has ended by itself.
    ///
    /// # Errors
    /// When the server broke the protocol.
    pub fn join(self) -> io::Result<Vec<Ending>> {
        let join = |client: JoinHandle<io::Result<Ending>>| {
            client.join().map_err(|_| io::Error::other("a load's client panicked"))?
        };
        self.clients.into_iter().map(join).collect()
    }
}

/// One connection.
struct Client {
    nbd: NbdClient,
    history: Arc<History>,
    settings: LoadSettings,
    number: u64,
    rng: StdRng,
    busy: HashSet<Block>,
    open: HashMap<u64, Open>,
}

/// A request in flight.
enum Open {
    Change { sequence: Sequence, block: Block, fua: bool },
    Flush(FlushSent),
}

impl Client {
    fn run(mut self, stop: &AtomicBool) -> io::Result<Ending> {
        match self.serve(stop) {
            Ok(ending) => Ok(ending),
            Err(error) if is_loss(&error) => Ok(Ending::Lost),
            Err(error) => Err(error),
        }
    }

    fn serve(&mut self, stop: &AtomicBool) -> io::Result<Ending> {
        let mut sent = 0;
        loop {
            let is_over = sent >= self.settings.requests_max || stop.load(Ordering::Relaxed);
            if !is_over && self.open.len() < self.settings.depth {
                sent += 1;
                self.send(sent)?;
                continue;
            }
            if self.open.is_empty() {
                return Ok(Ending::Finished);
            }
            if let Some(errno) = self.receive()? {
                return Ok(Ending::Refused(errno));
            }
        }
    }

    fn send(&mut self, cookie: u64) -> io::Result<()> {
        let flush_every = self.settings.flush_every;
        if flush_every > 0 && self.rng.random_ratio(1, flush_every) {
            self.open.insert(cookie, Open::Flush(self.history.send_flush()));
            return self.nbd.submit(cookie, Request::Flush);
        }
        let block = self.pick();
        let offset = block * BLOCK_BYTES as u64;
        self.busy.insert(block);
        if self.percent(self.settings.zero_percent) {
            let sequence = self.history.issue(block, Kind::Zero);
            self.open.insert(cookie, Open::Change { sequence, block, fua: false });
            let length = BLOCK_BYTES as u32;
            let request = match self.rng.random_bool(0.5) {
                true => Request::Zero { offset, length },
                false => Request::Trim { offset, length },
            };
            return self.nbd.submit(cookie, request);
        }
        let fua = self.percent(self.settings.fua_percent);
        let sequence = self.history.issue(block, Kind::Write);
        let data = stamp::make(self.history.seed(), block, sequence);
        self.open.insert(cookie, Open::Change { sequence, block, fua });
        self.nbd.submit(cookie, Request::Write { offset, data: &data, fua })
    }

    /// Takes one answer. Gives the error number of a refusal.
    fn receive(&mut self) -> io::Result<Option<u32>> {
        let reply = self.nbd.next_reply()?;
        let open = self.open.remove(&reply.cookie);
        if let Err(errno) = reply.result {
            return Ok(Some(errno));
        }
        match open {
            Some(Open::Change { sequence, block, fua }) => {
                self.busy.remove(&block);
                self.history.acknowledge(sequence, fua);
            }
            Some(Open::Flush(flush)) => self.history.flushed(flush),
            None => return Err(io::Error::other("an answer to a request that isn't open")),
        }
        Ok(None)
    }

    /// Picks a block of this connection's share without a request in flight.
    fn pick(&mut self) -> Block {
        let share = self.history.blocks() / self.settings.connections;
        loop {
            let hot = self.percent(self.settings.hot_percent);
            let range = if hot { (share / 16).max(1) } else { share };
            let block = self.rng.random_range(0..range) * self.settings.connections + self.number;
            if !self.busy.contains(&block) {
                return block;
            }
        }
    }

    fn percent(&mut self, chance: u32) -> bool {
        self.rng.random_ratio(chance, 100)
    }
}

/// True if the error is that of a connection whose server was killed.
fn is_loss(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted | UnexpectedEof)
}
