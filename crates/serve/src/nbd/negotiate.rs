//! From the first byte of a connection to an opened export.
//!
//! The client's whole part has a deadline, which stands still while an export is opened. Every
//! option is answered before the next is read, so a client can't pile up work. A client that only
//! asks claims nothing.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use super::check::Shape;
use super::control::{Control, Order};
use super::input::Input;
use super::wire::{
    self, ClientHello, InfoRequest, MetaRequest, OPTION_HEADER_BYTES, OptionHeader, allocation,
    info, option, reply, transmit,
};
use crate::export::{ClientInfo, Export, ExportInfo, Exports, OpenError};

/// Longest data of an option that is read: a name and some metadata queries of full length.
const OPTION_BYTES_MAX: u32 = 32 << 10;
/// Longest data of an option that is skipped. A client that sends more is broken or hostile.
const OPTION_SKIP_BYTES_MAX: u32 = 1 << 20;
/// Options that one client may send; tools send fewer than ten for each export they look at.
const OPTIONS_MAX: usize = 4096;

/// A connection that is ready for requests.
pub(crate) struct Agreed {
    pub(crate) export: Export,
    pub(crate) shape: Shape,
    /// Bytes of the client beyond the negotiation.
    pub(crate) input: Input,
}

/// Says why a negotiation ended without an export.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NegotiateError {
    #[error("the client left during the negotiation")]
    Left,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the client took longer than {0:?} to negotiate")]
    TooSlow(Duration),
    #[error("not the NBD protocol: {0}")]
    Protocol(&'static str),
    #[error("the client asked for an export in a way that has no error reply: {0}")]
    Refused(OpenError),
    #[error("connection failed during the negotiation: {0}")]
    Io(#[from] io::Error),
}

/// Negotiates on `stream`.
pub(crate) async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exports: &dyn Exports,
    client: ClientInfo,
    control: &Control,
    time_max: Duration,
) -> Result<Agreed, NegotiateError> {
    let deadline = Instant::now() + time_max;
    let line = Line { stream, input: Input::new(), out: Vec::new(), control, deadline, time_max };
    let mut negotiation =
        Negotiation { line, exports, client, hello: None, structured: false, meta_for: None };
    let export = negotiation.run().await?;
    let shape = negotiation.shape(&export.info);
    Ok(Agreed { export, shape, input: negotiation.line.input })
}

struct Negotiation<'a, S> {
    line: Line<'a, S>,
    exports: &'a dyn Exports,
    client: ClientInfo,
    hello: Option<ClientHello>,
    structured: bool,
    /// The name of the export for which `base:allocation` was selected.
    meta_for: Option<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Negotiation<'_, S> {
    async fn run(&mut self) -> Result<Export, NegotiateError> {
        self.line.out.extend_from_slice(&wire::server_hello());
        self.line.send().await?;
        let flags = self.line.take::<4>().await?;
        let hello = ClientHello::decode(flags)
            .ok_or(NegotiateError::Protocol("unknown flags in the client's greeting"))?;
        self.hello = Some(hello);
        for _ in 0..OPTIONS_MAX {
            let header = self.line.take::<OPTION_HEADER_BYTES>().await?;
            let header = OptionHeader::decode(&header)
                .ok_or(NegotiateError::Protocol("an option without its magic number"))?;
            if header.len > OPTION_BYTES_MAX {
                self.refuse_long(header).await?;
                continue;
            }
            let data = self.line.take_vec(header.len as usize).await?;
            if let Some(export) = self.option(header.option, &data).await? {
                return Ok(export);
            }
        }
        Err(NegotiateError::Protocol("too many options"))
    }

    /// Answers one option. Gives an export when transmission begins.
    async fn option(&mut self, option: u32, data: &[u8]) -> Result<Option<Export>, NegotiateError> {
        match option {
            option::EXPORT_NAME => return self.export_name(data).await.map(Some),
            option::GO | option::INFO => return self.describe(option, data).await,
            option::LIST => self.list(data).await?,
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.structured = true;
                self.line.put(option, reply::ACK, &[]);
            }
            option::STRUCTURED_REPLY => self.malformed(option),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(option, data).await?;
            }
            option::ABORT => {
                self.line.put(option, reply::ACK, &[]);
                // The client may have gone already, and that is fine.
                let _ = self.line.send().await;
                return Err(NegotiateError::Left);
            }
            option::STARTTLS => self.line.put(option, reply::ERR_UNSUP, b"this server has no TLS"),
            _ => self.line.put(option, reply::ERR_UNSUP, b"this option isn't known here"),
        }
        self.line.send().await?;
        Ok(None)
    }

    async fn refuse_long(&mut self, header: OptionHeader) -> Result<(), NegotiateError> {
        if header.len > OPTION_SKIP_BYTES_MAX || header.option == option::EXPORT_NAME {
            return Err(NegotiateError::Protocol("an option of absurd length"));
        }
        self.line.skip(header.len as usize).await?;
        self.line.put(header.option, reply::ERR_TOO_BIG, b"option data is limited to 32 KiB");
        self.line.send().await
    }

    fn malformed(&mut self, option: u32) {
        self.line.put(option, reply::ERR_INVALID, b"the option's data is malformed");
    }

    /// Opens an export, for as long as it takes, unless the server stops meanwhile.
    async fn open(&mut self, name: &str) -> Result<Result<Export, OpenError>, NegotiateError> {
        let started = Instant::now();
        let opened =
            unless_stopped(self.line.control, self.exports.open(name, &self.client)).await?;
        self.line.deadline += started.elapsed();
        Ok(opened)
    }

    /// Asks about an export, as long as [`Self::open`] would.
    async fn ask(&mut self, name: &str) -> Result<Result<ExportInfo, OpenError>, NegotiateError> {
        let started = Instant::now();
        let asked =
            unless_stopped(self.line.control, self.exports.describe(name, &self.client)).await?;
        self.line.deadline += started.elapsed();
        Ok(asked)
    }

    async fn export_name(&mut self, data: &[u8]) -> Result<Export, NegotiateError> {
        let name = std::str::from_utf8(data)
            .map_err(|_| NegotiateError::Protocol("a name that isn't UTF-8"))?;
        let export = self.open(name).await?.map_err(NegotiateError::Refused)?;
        self.keep_meta_only_for(name);
        let info = &export.info;
        let no_zeroes = self.hello.is_some_and(|h| h.no_zeroes);
        let bytes = wire::export_name_reply(info.geometry.size_bytes, self.flags(info), no_zeroes);
        self.line.out.extend_from_slice(&bytes);
        self.line.send().await?;
        Ok(export)
    }

    async fn describe(
        &mut self,
        option: u32,
        data: &[u8],
    ) -> Result<Option<Export>, NegotiateError> {
        let Some(request) = InfoRequest::decode(data) else {
            self.malformed(option);
            self.line.send().await?;
            return Ok(None);
        };
        let found = match option {
            option::GO => self.open(&request.name).await?.map(|one| (one.info.clone(), Some(one))),
            _ => self.ask(&request.name).await?.map(|info| (info, None)),
        };
        let (described, export) = match found {
            Ok(found) => found,
            Err(error) => {
                self.line.put_refusal(option, &error);
                self.line.send().await?;
                return Ok(None);
            }
        };
        self.put_info(option, &request, &described);
        self.line.put(option, reply::ACK, &[]);
        self.line.send().await?;
        if export.is_some() {
            self.keep_meta_only_for(&request.name);
        }
        Ok(export)
    }

    fn put_info(&mut self, option: u32, request: &InfoRequest, described: &ExportInfo) {
        let flags = self.flags(described);
        let line = &mut self.line;
        line.put(option, reply::INFO, &wire::info_export(described.geometry.size_bytes, flags));
        let sizes = wire::info_block_size(
            described.geometry.sector_bytes,
            described.geometry.block_bytes,
            wire::PAYLOAD_BYTES_MAX,
        );
        line.put(option, reply::INFO, &sizes);
        if request.wanted.contains(&info::NAME) {
            line.put(option, reply::INFO, &wire::info_text(info::NAME, &described.name));
        }
        if request.wanted.contains(&info::DESCRIPTION) && !described.description.is_empty() {
            let text = wire::info_text(info::DESCRIPTION, &described.description);
            line.put(option, reply::INFO, &text);
        }
    }

    async fn list(&mut self, data: &[u8]) -> Result<(), NegotiateError> {
        if !data.is_empty() {
            self.malformed(option::LIST);
            return Ok(());
        }
        let started = Instant::now();
        let listed = unless_stopped(self.line.control, self.exports.list()).await?;
        self.line.deadline += started.elapsed();
        match listed {
            Ok(names) => {
                for name in names {
                    self.line.put(option::LIST, reply::SERVER, &wire::server_entry(&name));
                }
                self.line.put(option::LIST, reply::ACK, &[]);
            }
            Err(error) => self.line.put_refusal(option::LIST, &error),
        }
        Ok(())
    }

    async fn meta_context(&mut self, option: u32, data: &[u8]) -> Result<(), NegotiateError> {
        let selects = option == option::SET_META_CONTEXT;
        if selects {
            self.meta_for = None; // even when this one fails
        }
        if !self.structured {
            let text = b"structured replies must be negotiated first";
            self.line.put(option, reply::ERR_INVALID, text);
            return Ok(());
        }
        let Some(request) = MetaRequest::decode(data) else {
            self.malformed(option);
            return Ok(());
        };
        if let Err(error) = self.ask(&request.name).await? {
            self.line.put_refusal(option, &error);
            return Ok(());
        }
        let asks_all = !selects
            && (request.queries.is_empty() || request.queries.iter().any(|q| q == "base:"));
        if asks_all || request.queries.iter().any(|q| q == allocation::NAME) {
            let context = wire::meta_context(allocation::ID, allocation::NAME);
            self.line.put(option, reply::META_CONTEXT, &context);
            if selects {
                self.meta_for = Some(request.name);
            }
        }
        self.line.put(option, reply::ACK, &[]);
        Ok(())
    }

    /// Contexts hold for the export that they were selected for, under the name of the selection.
    fn keep_meta_only_for(&mut self, name: &str) {
        if self.meta_for.as_deref() != Some(name) {
            self.meta_for = None;
        }
    }

    fn shape(&self, info: &ExportInfo) -> Shape {
        Shape::new(info.geometry, self.structured, self.structured && self.meta_for.is_some())
    }

    fn flags(&self, info: &ExportInfo) -> u16 {
        let mut flags = transmit::HAS_FLAGS
            | transmit::SEND_FLUSH
            | transmit::SEND_FUA
            | transmit::SEND_CACHE
            | transmit::CAN_MULTI_CONN;
        if info.geometry.read_only {
            flags |= transmit::READ_ONLY;
        } else {
            flags |= transmit::SEND_TRIM | transmit::SEND_WRITE_ZEROES | transmit::SEND_FAST_ZERO;
        }
        if self.structured {
            flags |= transmit::SEND_DF;
        }
        flags
    }
}

/// The connection during the negotiation. Every wait ends at the deadline, or at an order.
struct Line<'a, S> {
    stream: &'a mut S,
    input: Input,
    out: Vec<u8>,
    control: &'a Control,
    deadline: Instant,
    time_max: Duration,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<'_, S> {
    fn put(&mut self, option: u32, kind: u32, data: &[u8]) {
        wire::option_reply(&mut self.out, option, kind, data);
    }

    fn put_refusal(&mut self, option: u32, error: &OpenError) {
        self.put(option, wire::refusal(error), error.to_string().as_bytes());
    }

    async fn send(&mut self) -> Result<(), NegotiateError> {
        let (stream, out) = (&mut *self.stream, &self.out);
        let write = async {
            stream.write_all(out).await?;
            stream.flush().await
        };
        bounded(self.control, self.deadline, self.time_max, write).await?;
        self.out.clear();
        Ok(())
    }

    async fn take<const N: usize>(&mut self) -> Result<[u8; N], NegotiateError> {
        loop {
            if let Some(bytes) = self.input.available().first_chunk::<N>() {
                let bytes = *bytes;
                self.input.consume(N);
                return Ok(bytes);
            }
            self.fill().await?;
        }
    }

    async fn take_vec(&mut self, n: usize) -> Result<Vec<u8>, NegotiateError> {
        loop {
            if let Some(bytes) = self.input.available().get(..n) {
                let bytes = bytes.to_vec();
                self.input.consume(n);
                return Ok(bytes);
            }
            self.fill().await?;
        }
    }

    async fn skip(&mut self, mut n: usize) -> Result<(), NegotiateError> {
        loop {
            let here = n.min(self.input.available().len());
            self.input.consume(here);
            n -= here;
            if n == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), NegotiateError> {
        let (stream, input) = (&mut *self.stream, &mut self.input);
        let read = poll_fn(|cx| input.poll_fill(cx, stream));
        match bounded(self.control, self.deadline, self.time_max, read).await? {
            0 => Err(NegotiateError::Left),
            _ => Ok(()),
        }
    }
}

/// Waits for `work` until it is done or the server is ordered to stop.
async fn unless_stopped<T>(
    control: &Control,
    work: impl Future<Output = T>,
) -> Result<T, NegotiateError> {
    let stopped = poll_fn(|cx| match control.poll(cx) {
        Order::Serve => Poll::Pending,
        Order::Drain | Order::Kill => Poll::Ready(()),
    });
    tokio::select! {
        biased;
        () = stopped => Err(NegotiateError::ShuttingDown),
        done = work => Ok(done),
    }
}

/// Waits for `io` until it is done, the deadline has passed, or the server is ordered to stop.
async fn bounded<T>(
    control: &Control,
    deadline: Instant,
    time_max: Duration,
    io: impl Future<Output = io::Result<T>>,
) -> Result<T, NegotiateError> {
    match unless_stopped(control, tokio::time::timeout_at(deadline, io)).await? {
        Ok(done) => Ok(done?),
        Err(_) => Err(NegotiateError::TooSlow(time_max)),
    }
}
