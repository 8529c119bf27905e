//! A minimal blocking NBD client that can hold many requests in flight.
//!
//! It negotiates fixed newstyle with `NBD_OPT_GO` and simple replies, and knows no more than a
//! crash test needs. It must tell a request that the server *refused* from one whose fate is
//! *unknown* because the connection broke. Only the latter may or may not have happened.

mod wire;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::uri::{Endpoint, NbdUri};
pub use wire::ExportInfo;

/// The largest request of this client, bytes: every server accepts it.
const REQUEST_BYTES_MAX: u32 = 32 << 20;

/// Bytes of one request of [`NbdClient::read_all`], and its number of requests in flight.
const READ_ALL_BYTES: u32 = 1 << 20;
const READ_ALL_DEPTH: usize = 4;

/// Failure of a request.
#[derive(Debug)]
pub enum NbdError {
    /// The server answered with this error number, and did nothing.
    Refused {
        /// The error number, as in NBD's list, whose numbers are Linux's.
        errno: u32,
    },
    /// The connection broke, or was never there. The request's fate is unknown.
    Lost(io::Error),
}

impl NbdError {
    /// True if the server answered with `errno`.
    #[must_use]
    pub fn is_refused_with(&self, wanted: u32) -> bool {
        matches!(self, NbdError::Refused { errno } if *errno == wanted)
    }
}

impl fmt::Display for NbdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NbdError::Refused { errno } => {
                write!(f, "the NBD server refused: {}", io::Error::from_raw_os_error(*errno as i32))
            }
            NbdError::Lost(error) => write!(f, "the NBD connection is lost: {error}"),
        }
    }
}

impl std::error::Error for NbdError {}

impl From<io::Error> for NbdError {
    fn from(error: io::Error) -> NbdError {
        NbdError::Lost(error)
    }
}

/// Time after which a silent server counts as hung: a failing test is better than an endless one.
const ANSWER_WAIT: Duration = Duration::from_secs(300);

/// A request, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Read `length` bytes.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u32,
    },
    /// Write the bytes of `data`.
    Write {
        /// In bytes.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
        /// True if the write must be durable before its answer.
        fua: bool,
    },
    /// Make all answered requests durable.
    Flush,
    /// Discard.
    Trim {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u32,
    },
    /// Write zeroes, which may make a hole.
    Zero {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u32,
    },
}

/// An answer to a request that was submitted.
#[derive(Debug)]
pub struct Reply {
    /// The number that the request was submitted with.
    pub cookie: u64,
    /// The bytes read (none for other requests), or the error number.
    pub result: Result<Vec<u8>, u32>,
}

/// One connection to one export.
#[derive(Debug)]
pub struct NbdClient {
    input: BufReader<Socket>,
    output: Socket,
    info: ExportInfo,
    /// The requests in flight, and the bytes that each reads.
    pending: HashMap<u64, u32>,
    cookie_next: u64,
}

impl NbdClient {
    /// Connects to an export.
    ///
    /// # Errors
    /// When there is no server, or it speaks another protocol, or has no such export.
    pub fn connect(uri: &NbdUri) -> io::Result<NbdClient> {
        let mut output = Socket::connect(&uri.endpoint)
            .map_err(|error| io::Error::new(error.kind(), format!("connect to {uri}: {error}")))?;
        let mut input = BufReader::with_capacity(1 << 16, output.try_clone()?);
        let info = wire::negotiate(&mut input, &mut output, &uri.export)
            .map_err(|error| io::Error::new(error.kind(), format!("open {uri}: {error}")))?;
        Ok(NbdClient { input, output, info, pending: HashMap::new(), cookie_next: 1 << 63 })
    }

    /// The server's description of the export.
    #[must_use]
    pub fn info(&self) -> ExportInfo {
        self.info
    }

    /// Number of requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Sends a request without waiting for its answer. `cookie` must be below 2^63 and not in
    /// flight.
    ///
    /// # Errors
    /// When the connection broke: the server may have received the request or not.
    pub fn submit(&mut self, cookie: u64, request: Request<'_>) -> io::Result<()> {
        let expected = match request {
            Request::Read { length, .. } => length,
            _ => 0,
        };
        self.pending.insert(cookie, expected);
        wire::send(&mut self.output, cookie, request)
    }

    /// Waits for the next answer, of any request.
    ///
    /// # Errors
    /// When the connection broke: the fate of everything in flight is then unknown.
    pub fn next_reply(&mut self) -> io::Result<Reply> {
        let (cookie, errno) = wire::read_reply(&mut self.input)?;
        let length = self.pending.remove(&cookie).ok_or_else(|| {
            io::Error::other(format!("the server answered request {cookie}, which is not open"))
        })?;
        if errno != 0 {
            return Ok(Reply { cookie, result: Err(errno) });
        }
        let mut data = vec![0; length as usize];
        self.input.read_exact(&mut data)?;
        Ok(Reply { cookie, result: Ok(data) })
    }

    /// Sends a request and waits for its answer. No other may be in flight.
    ///
    /// # Errors
    /// When the server refused it, or the connection broke.
    pub fn call(&mut self, request: Request<'_>) -> Result<Vec<u8>, NbdError> {
        self.cookie_next += 1;
        self.submit(self.cookie_next, request)?;
        self.next_reply()?.result.map_err(|errno| NbdError::Refused { errno })
    }

    /// Reads `length` bytes at `offset`.
    ///
    /// # Errors
    /// As [`NbdClient::call`].
    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, NbdError> {
        self.call(Request::Read { offset, length })
    }

    /// Writes `data` at `offset`.
    ///
    /// # Errors
    /// As [`NbdClient::call`].
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), NbdError> {
        self.call(Request::Write { offset, data, fua: false }).map(drop)
    }

    /// Makes all answered requests durable.
    ///
    /// # Errors
    /// As [`NbdClient::call`].
    pub fn flush(&mut self) -> Result<(), NbdError> {
        self.call(Request::Flush).map(drop)
    }

    /// Reads the whole export.
    ///
    /// # Errors
    /// As [`NbdClient::call`].
    pub fn read_all(&mut self) -> Result<Vec<u8>, NbdError> {
        let mut image = Vec::new();
        self.read_each(|_, data| image.extend_from_slice(data))?;
        Ok(image)
    }

    /// Reads the whole export in order. Calls `each` with the offset and bytes of each piece.
    ///
    /// # Errors
    /// As [`NbdClient::call`].
    pub fn read_each(&mut self, mut each: impl FnMut(u64, &[u8])) -> Result<(), NbdError> {
        let size = self.info.size_bytes;
        let mut arrived: HashMap<u64, Vec<u8>> = HashMap::new();
        let (mut asked, mut given) = (0, 0);
        while given < size {
            while asked < size && self.in_flight() + arrived.len() < READ_ALL_DEPTH {
                let length = u64::from(READ_ALL_BYTES).min(size - asked) as u32;
                self.submit(asked, Request::Read { offset: asked, length })?;
                asked += u64::from(length);
            }
            let reply = self.next_reply()?;
            let data = reply.result.map_err(|errno| NbdError::Refused { errno })?;
            arrived.insert(reply.cookie, data);
            while let Some(data) = arrived.remove(&given) {
                each(given, &data);
                given += data.len() as u64;
            }
        }
        Ok(())
    }

    /// Says goodbye to the server.
    pub fn disconnect(mut self) {
        let _ = wire::send_disconnect(&mut self.output);
    }
}

/// A Unix or TCP stream.
#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn connect(endpoint: &Endpoint) -> io::Result<Socket> {
        match endpoint {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER_WAIT))?;
                Ok(Socket::Unix(stream))
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(ANSWER_WAIT))?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Unix(stream) => stream.try_clone().map(Socket::Unix),
            Socket::Tcp(stream) => stream.try_clone().map(Socket::Tcp),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => stream.write(buffer),
            Socket::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
