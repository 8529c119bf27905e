//! A client that does one thing at a time, and can do things that no honest client does.

use std::collections::HashMap;
use std::sync::Arc;

use skerry_device::Device;
use skerry_device::memory::MemoryDevice;
use skerry_serve::nbd::wire::{
    self, Chunk, ClientHello, InfoRequest, MetaRequest, OptionHeader, OptionReplyHeader, Request,
    Simple, chunk, command, info, option, reply,
};
use skerry_serve::nbd::{Limits, Server};
use skerry_serve::{Export, Exports, FixedExports};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// Buffer of the pipe, like a socket's. Smaller than many messages, so that they arrive in parts.
const PIPE_BYTES: usize = 16 << 10;

pub(crate) const DISK_BYTES: u64 = 1 << 20;

/// A server of one memory disk named `disk`.
pub(crate) fn memory_server() -> Server {
    serving(vec![disk(Arc::new(MemoryDevice::new(DISK_BYTES)))])
}

/// An export named `disk`.
pub(crate) fn disk(device: Arc<dyn Device>) -> Export {
    Export::new("disk", device)
}

pub(crate) fn serving(exports: Vec<Export>) -> Server {
    serving_with(Arc::new(FixedExports::new(exports)), Limits::default())
}

pub(crate) fn serving_with(exports: Arc<dyn Exports>, limits: Limits) -> Server {
    Server::new(exports, limits)
}

/// A raw connection, and the task that serves it.
pub(crate) fn connect(server: &Server) -> (DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let server = server.clone();
    (ours, tokio::spawn(async move { server.serve_stream(theirs, "test".to_owned()).await }))
}

/// One answer to one request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    pub(crate) errno: u32,
    pub(crate) structured: bool,
    pub(crate) data: Vec<u8>,
    pub(crate) extents: Vec<(u32, u32)>,
}

pub(crate) struct Client {
    pub(crate) stream: DuplexStream,
    pub(crate) task: JoinHandle<()>,
    pub(crate) structured: bool,
    cookie: u64,
    /// Offsets and lengths of reads without an answer.
    reads: HashMap<u64, (u64, usize)>,
}

impl Client {
    /// Connects and exchanges greetings.
    pub(crate) async fn greet(server: &Server) -> Self {
        let (mut stream, task) = connect(server);
        let mut hello = [0; wire::SERVER_HELLO_BYTES];
        stream.read_exact(&mut hello).await.expect("hello");
        assert_eq!(hello, wire::server_hello());
        let flags = ClientHello { fixed_newstyle: true, no_zeroes: true };
        stream.write_all(&flags.encode()).await.expect("flags");
        Self { stream, task, structured: false, cookie: 0, reads: HashMap::new() }
    }

    /// Connects to an export, with or without structured replies and `base:allocation`.
    pub(crate) async fn open(server: &Server, name: &str, structured: bool) -> Self {
        let mut client = Self::greet(server).await;
        if structured {
            client.negotiate_structured().await;
            let meta = MetaRequest { name: name.into(), queries: vec!["base:allocation".into()] };
            let replies = client.option(option::SET_META_CONTEXT, &meta.encode()).await;
            assert_eq!(kinds(&replies), [reply::META_CONTEXT, reply::ACK]);
        }
        client.go(name).await;
        client
    }

    pub(crate) async fn negotiate_structured(&mut self) {
        let replies = self.option(option::STRUCTURED_REPLY, &[]).await;
        assert_eq!(kinds(&replies), [reply::ACK]);
        self.structured = true;
    }

    /// Sends an option and collects its replies, up to the last one.
    pub(crate) async fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let header = OptionHeader { option, len: data.len() as u32 };
        self.stream.write_all(&header.encode()).await.expect("option");
        self.stream.write_all(data).await.expect("option data");
        let mut replies = Vec::new();
        loop {
            let mut header = [0; wire::OPTION_REPLY_HEADER_BYTES];
            self.stream.read_exact(&mut header).await.expect("option reply");
            let header = OptionReplyHeader::decode(&header).expect("an option reply");
            assert_eq!(header.option, option);
            let mut data = vec![0; header.len as usize];
            self.stream.read_exact(&mut data).await.expect("option reply data");
            let more = matches!(header.kind, reply::SERVER | reply::INFO | reply::META_CONTEXT);
            replies.push((header.kind, data));
            if !more {
                return replies;
            }
        }
    }

    /// Begins transmission; returns size and flags.
    pub(crate) async fn go(&mut self, name: &str) -> (u64, u16) {
        let request = InfoRequest { name: name.into(), wanted: vec![] };
        let replies = self.option(option::GO, &request.encode()).await;
        assert_eq!(replies.last().map(|r| r.0), Some(reply::ACK), "{replies:?}");
        size_and_flags(&replies)
    }

    /// Sends a request, and `payload` after it. Returns its cookie.
    pub(crate) async fn send(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> u64 {
        self.cookie += 1;
        let request = Request { flags, command, cookie: self.cookie, offset, len };
        if command == command::READ {
            self.reads.insert(self.cookie, (offset, len as usize));
        }
        self.stream.write_all(&request.encode()).await.expect("request");
        self.stream.write_all(payload).await.expect("payload");
        self.cookie
    }

    /// Receives one whole reply.
    pub(crate) async fn reply(&mut self) -> Reply {
        let magic = self.stream.read_u32().await.expect("a reply");
        match magic {
            wire::MAGIC_SIMPLE_REPLY => self.simple().await,
            wire::MAGIC_CHUNK => self.chunk().await,
            other => panic!("magic number of a reply: {other:#x}"),
        }
    }

    async fn simple(&mut self) -> Reply {
        let mut bytes = wire::MAGIC_SIMPLE_REPLY.to_be_bytes().to_vec();
        bytes.resize(wire::SIMPLE_REPLY_BYTES, 0);
        self.stream.read_exact(&mut bytes[4..]).await.expect("simple reply");
        let Simple { errno, cookie } = Simple::decode(&bytes).expect("a simple reply");
        let mut data = Vec::new();
        if let Some((_, len)) = self.reads.remove(&cookie) {
            assert!(!self.structured, "reads must be answered by structured replies");
            if errno == 0 {
                data.resize(len, 0);
                self.stream.read_exact(&mut data).await.expect("data");
            }
        }
        Reply { cookie, errno, structured: false, data, extents: Vec::new() }
    }

    async fn chunk(&mut self) -> Reply {
        assert!(self.structured, "not negotiated");
        let mut bytes = wire::MAGIC_CHUNK.to_be_bytes().to_vec();
        bytes.resize(wire::CHUNK_HEADER_BYTES, 0);
        self.stream.read_exact(&mut bytes[4..]).await.expect("chunk");
        let header = Chunk::decode(&bytes).expect("a chunk");
        assert_eq!(header.flags, chunk::FLAG_DONE, "this server sends one chunk a reply");
        let mut body = vec![0; header.len as usize];
        self.stream.read_exact(&mut body).await.expect("chunk body");
        let cookie = header.cookie;
        let mut reply =
            Reply { cookie, errno: 0, structured: true, data: Vec::new(), extents: Vec::new() };
        let read = self.reads.remove(&cookie);
        match header.kind {
            chunk::NONE => assert_eq!(read.map(|r| r.1), Some(0)),
            chunk::OFFSET_DATA => {
                let (offset, len) = read.expect("a read");
                assert_eq!(body[..8], offset.to_be_bytes());
                reply.data = body[8..].to_vec();
                assert_eq!(reply.data.len(), len);
            }
            chunk::OFFSET_HOLE => {
                let (offset, len) = read.expect("a read");
                assert_eq!(body[..8], offset.to_be_bytes());
                assert_eq!(body[8..], (len as u32).to_be_bytes());
                reply.data = vec![0; len];
            }
            chunk::BLOCK_STATUS => {
                assert_eq!(body[..4], 1u32.to_be_bytes());
                reply.extents = body[4..].chunks(8).map(|c| (be32(c), be32(&c[4..]))).collect();
            }
            chunk::ERROR => {
                reply.errno = be32(&body);
                let text = std::str::from_utf8(&body[6..]).expect("text");
                assert!(!text.is_empty());
            }
            other => panic!("chunk of type {other}"),
        }
        reply
    }

    /// One request and its reply.
    pub(crate) async fn call(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        len: u32,
        payload: &[u8],
    ) -> Reply {
        let cookie = self.send(command, flags, offset, len, payload).await;
        let reply = self.reply().await;
        assert_eq!(reply.cookie, cookie);
        reply
    }

    pub(crate) async fn read(&mut self, offset: u64, len: u32) -> Vec<u8> {
        let reply = self.call(command::READ, 0, offset, len, &[]).await;
        assert_eq!(reply.errno, 0);
        reply.data
    }

    pub(crate) async fn write(&mut self, offset: u64, data: &[u8]) {
        let reply = self.call(command::WRITE, 0, offset, data.len() as u32, data).await;
        assert_eq!(reply.errno, 0);
    }

    /// True if the server closes the connection now, without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest).await {
            Ok(_) => rest.is_empty(),
            Err(_) => true,
        }
    }
}

pub(crate) fn kinds(replies: &[(u32, Vec<u8>)]) -> Vec<u32> {
    replies.iter().map(|reply| reply.0).collect()
}

/// The export information among option replies.
pub(crate) fn size_and_flags(replies: &[(u32, Vec<u8>)]) -> (u64, u16) {
    let data = replies.iter().find(|(kind, data)| {
        *kind == reply::INFO && data[..2] == info::EXPORT.to_be_bytes() && data.len() == 12
    });
    let data = &data.expect("size and flags").1;
    (
        u64::from_be_bytes(data[2..10].try_into().expect("8 bytes")),
        u16::from_be_bytes([data[10], data[11]]),
    )
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes"))
}
