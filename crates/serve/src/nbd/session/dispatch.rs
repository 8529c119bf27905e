//! From bytes to requests to the device's fast path; and the encoding of every reply.

use std::task::Context;

use bytes::Bytes;
use skerry_device::{Attempt, Content, Error, ErrorKind, Result, StatusRange};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::check::{Command, check};
use super::super::wire::{self, REQUEST_BYTES, Request, allocation, chunk, command};
use super::Session;
use super::output::{HEADROOM_BYTES, PACKED_BYTES_MAX};
use super::slow::{self, EXTENTS_MAX, Work};

/// Longest write that waits in the receive buffer until it is whole. Longer ones go to a buffer of
/// their own, so that their bytes are not moved about.
const GATHERED_BYTES_MAX: usize = 32 << 10;

/// Longest payload of a refused write that is skipped. A client that announces more is cut off.
const SKIPPED_BYTES_MAX: u32 = 256 << 20;

/// Meaning of the client's next bytes.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A request's header.
    Header,
    /// The rest of a large write's data.
    Payload { request: Request, fua: bool, buf: Vec<u8>, filled: usize },
    /// The rest of a refused write's data. The reply is sent after it: a client that is still
    /// sending need not be able to match a reply.
    Skip { request: Request, error: Error, left: usize },
}

impl Incoming {
    /// Room for bytes that are best received in place.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        match self {
            Self::Payload { request, buf, filled, .. } if *filled < request.len as usize => {
                Some(&mut buf[*filled..request.len as usize])
            }
            _ => None,
        }
    }

    /// Notes that `n` bytes of the room were filled.
    pub(super) fn arrived(&mut self, n: usize) {
        if let Self::Payload { filled, .. } = self {
            *filled += n;
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Payload { buf, .. } => buf.len(),
            Self::Header | Self::Skip { .. } => 0,
        }
    }
}

/// Length of a read from which on it computes for longer than its move to another thread takes. If
/// a request stands behind it, another thread makes the read. Sequential reads of compressed data,
/// four of 64 KiB at a time, went from 0.42 to 0.57 of a plain file's speed.
const LONG_READ_BYTES: usize = 32 << 10;

/// Result of looking for a request.
enum Step {
    Took,
    NeedsMore,
    /// The server holds too much to take this request now.
    NeedsRoom,
    Broken(&'static str),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Takes every request that is there, as far as limits allow. True if there was any.
    pub(super) fn take_requests(&mut self, cx: &Context<'_>) -> bool {
        let (mut any, mut needs_room) = (false, false);
        while !self.is_leaving() && (self.may_take() || !matches!(self.incoming, Incoming::Header))
        {
            match self.step(cx) {
                Step::Took => any = true,
                Step::NeedsMore => break,
                Step::NeedsRoom => {
                    needs_room = true;
                    break;
                }
                Step::Broken(reason) => {
                    tracing::warn!(reason, "dropped a connection that broke the protocol");
                    self.stop_reading();
                    any = true;
                    break;
                }
            }
        }
        if !needs_room {
            self.share.stop_waiting();
        }
        any
    }

    fn step(&mut self, cx: &Context<'_>) -> Step {
        match &mut self.incoming {
            Incoming::Header => self.next_request(cx),
            Incoming::Payload { request, filled, .. } => {
                if *filled < request.len as usize {
                    return Step::NeedsMore;
                }
                self.write_received();
                Step::Took
            }
            Incoming::Skip { left, .. } => {
                let here = (*left).min(self.input.available().len());
                *left -= here;
                let done = *left == 0;
                self.input.consume(here);
                if !done {
                    return Step::NeedsMore;
                }
                if let Incoming::Skip { request, error, .. } = self.next_is_header() {
                    self.refuse(&request, &error);
                }
                Step::Took
            }
        }
    }

    fn next_is_header(&mut self) -> Incoming {
        std::mem::replace(&mut self.incoming, Incoming::Header)
    }

    /// Takes room for a large request, before its buffer is allocated.
    fn poll_room(&mut self, cx: &Context<'_>, request: &Request, command: Command) -> bool {
        let bytes = match command {
            Command::Read | Command::Write { .. } => request.len,
            Command::Cache => request.len.min(self.limits.cache_bytes_max),
            _ => 0,
        } as usize;
        let is_small = bytes <= self.limits.request_bytes_assured.max(GATHERED_BYTES_MAX);
        is_small || self.share.poll_take(cx, bytes)
    }

    fn next_request(&mut self, cx: &Context<'_>) -> Step {
        let Some(header) = self.input.available().get(..REQUEST_BYTES) else {
            return Step::NeedsMore;
        };
        let Some(request) = Request::decode(header) else {
            return Step::Broken("a request without its magic number");
        };
        match check(&request, &self.shape) {
            Ok(command) if !self.poll_room(cx, &request, command) => return Step::NeedsRoom,
            Ok(Command::Write { fua }) => return self.begin_write(request, fua),
            Ok(command) => {
                self.input.consume(REQUEST_BYTES);
                self.give(request, command);
            }
            Err(error) => {
                self.input.consume(REQUEST_BYTES);
                if request.command != command::WRITE {
                    self.refuse(&request, &error);
                } else if request.len > SKIPPED_BYTES_MAX {
                    return Step::Broken("a write of absurd length");
                } else {
                    let left = request.len as usize;
                    self.incoming = Incoming::Skip { request, error, left };
                }
            }
        }
        Step::Took
    }

    fn begin_write(&mut self, request: Request, fua: bool) -> Step {
        let len = request.len as usize;
        let payload = &self.input.available()[REQUEST_BYTES..];
        if let Some(data) = payload.get(..len) {
            let attempt = self.device.try_write(request.offset, data);
            let data = match attempt {
                Attempt::WouldBlock => Bytes::copy_from_slice(data),
                Attempt::Done(()) | Attempt::Failed(_) => Bytes::new(),
            };
            self.input.consume(REQUEST_BYTES + len);
            self.wrote_or_waits(request, fua, attempt, data);
            return Step::Took;
        }
        if len <= GATHERED_BYTES_MAX {
            return Step::NeedsMore;
        }
        let filled = payload.len();
        let mut buf = self.output.pool.take(len);
        buf[..filled].copy_from_slice(payload);
        self.input.consume(REQUEST_BYTES + filled);
        self.payloads += 1;
        self.incoming = Incoming::Payload { request, fua, buf, filled };
        Step::Took
    }

    /// Gives a large write, received as a whole, to the device.
    fn write_received(&mut self) {
        let Incoming::Payload { request, fua, mut buf, .. } = self.next_is_header() else {
            return;
        };
        let attempt = self.device.try_write(request.offset, &buf[..request.len as usize]);
        if matches!(attempt, Attempt::WouldBlock) {
            buf.truncate(request.len as usize);
            self.wrote_or_waits(request, fua, attempt, Bytes::from(buf));
        } else {
            self.output.pool.give(buf);
            self.wrote_or_waits(request, fua, attempt, Bytes::new());
        }
    }

    fn wrote_or_waits(&mut self, request: Request, fua: bool, attempt: Attempt<()>, data: Bytes) {
        match attempt {
            Attempt::Done(()) if fua => self.flush(request),
            Attempt::Done(()) => self.answer(&request, Ok(())),
            Attempt::Failed(error) => self.answer(&request, Err(error)),
            Attempt::WouldBlock => self.wait_for(request, Work::Write { data, fua }),
        }
    }

    /// Answers a request when everything before it is durable.
    fn flush(&mut self, request: Request) {
        match self.device.try_flush() {
            Attempt::Done(()) => self.answer(&request, Ok(())),
            Attempt::Failed(error) => self.answer(&request, Err(error)),
            Attempt::WouldBlock => self.wait_for(request, Work::Flush),
        }
    }

    /// Gives anything but a write to the device.
    fn give(&mut self, request: Request, command: Command) {
        let empty = request.len == 0 && command != Command::Flush;
        match command {
            Command::Disconnect => self.stop_reading(),
            Command::Read => self.read(request),
            _ if empty => self.answer(&request, Ok(())),
            Command::Flush => self.flush(request),
            Command::Zero { fua } => self.wait_for(request, Work::Zero { fua }),
            Command::Cache => {
                let len = request.len.min(self.limits.cache_bytes_max);
                self.wait_for(request, Work::Cache { len });
            }
            Command::BlockStatus { one } => self.wait_for(request, Work::Status { one }),
            Command::Write { .. } => {} // never: writes come with data, see `begin_write`
        }
    }

    fn read(&mut self, request: Request) {
        let len = request.len as usize;
        if len == 0 {
            return self.read_nothing(&request);
        }
        if len <= PACKED_BYTES_MAX {
            return self.read_packed(request);
        }
        let mut buf = self.output.pool.take(HEADROOM_BYTES + len);
        let room = &mut buf[HEADROOM_BYTES..HEADROOM_BYTES + len];
        let is_followed = !self.input.available().is_empty();
        if len >= LONG_READ_BYTES && is_followed {
            return self.wait_for(request, Work::Read { buf });
        }
        match self.device.try_read(request.offset, room) {
            Attempt::Done(content) => self.answer_read(&request, buf, Ok(content)),
            Attempt::Failed(error) => self.answer_read(&request, buf, Err(error)),
            Attempt::WouldBlock => self.wait_for(request, Work::Read { buf }),
        }
    }

    /// Reads straight into the queue of replies.
    fn read_packed(&mut self, request: Request) {
        let header_len = self.read_header_len();
        let len = request.len as usize;
        let room = self.output.room(header_len + len);
        let (header, data) = room.split_at_mut(header_len);
        let content = match self.device.try_read(request.offset, data) {
            Attempt::Done(content) => content,
            Attempt::Failed(error) => return self.refuse(&request, &error),
            Attempt::WouldBlock => {
                let buf = self.output.pool.take(HEADROOM_BYTES + len);
                return self.wait_for(request, Work::Read { buf });
            }
        };
        if content == Content::Zeroes && self.shape.structured {
            let hole = wire::offset_hole(request.cookie, request.offset, request.len);
            return self.output.append(&hole);
        }
        if content == Content::Zeroes {
            data.fill(0);
        }
        put_read_header(header, &request);
        self.output.commit(header_len + len);
    }

    fn read_header_len(&self) -> usize {
        match self.shape.structured {
            true => wire::OFFSET_DATA_HEADER_BYTES,
            false => wire::SIMPLE_REPLY_BYTES,
        }
    }

    fn read_nothing(&mut self, request: &Request) {
        match self.shape.structured {
            true => self.output.append(&wire::chunk_header(chunk::NONE, request.cookie, 0)),
            false => self.output.append(&wire::simple_reply(request.cookie, 0)),
        }
    }

    /// Answers a read whose data, if it has any, begins at [`HEADROOM_BYTES`] of `buf`.
    pub(super) fn answer_read(
        &mut self,
        request: &Request,
        mut buf: Vec<u8>,
        result: Result<Content>,
    ) {
        let end = HEADROOM_BYTES + request.len as usize;
        match result {
            Ok(Content::Data) => {}
            Ok(Content::Zeroes) if self.shape.structured => {
                let hole = wire::offset_hole(request.cookie, request.offset, request.len);
                self.output.append(&hole);
                return self.output.pool.give(buf);
            }
            Ok(Content::Zeroes) => buf[HEADROOM_BYTES..end].fill(0),
            Err(error) => {
                self.refuse(request, &error);
                return self.output.pool.give(buf);
            }
        }
        let start = HEADROOM_BYTES - self.read_header_len();
        put_read_header(&mut buf[start..HEADROOM_BYTES], request);
        if end - start <= PACKED_BYTES_MAX {
            self.output.append(&buf[start..end]);
            self.output.pool.give(buf);
        } else {
            self.output.push(buf, start, end);
        }
    }

    /// Answers a request without data.
    pub(super) fn answer(&mut self, request: &Request, result: Result<()>) {
        match result {
            Ok(()) => self.output.append(&wire::simple_reply(request.cookie, 0)),
            Err(error) => self.refuse(request, &error),
        }
    }

    pub(super) fn answer_status(
        &mut self,
        request: &Request,
        one: bool,
        result: Result<Vec<StatusRange>>,
    ) {
        let extents = match result {
            Ok(extents) => status_pairs(&extents, request.len, one),
            Err(error) => return self.refuse(request, &error),
        };
        if extents.is_empty() {
            let error = Error::new(ErrorKind::Failed, "the device reported no ranges");
            return self.refuse(request, &error);
        }
        let reply = wire::block_status(request.cookie, allocation::ID, &extents);
        self.output.append(&reply);
    }

    /// Tells the client that its request failed. Leaves it unanswered if another connection may
    /// carry it out.
    fn refuse(&mut self, request: &Request, error: &Error) {
        if error.kind == ErrorKind::Reattach {
            if !self.must_reconnect {
                tracing::info!(reason = %error, "closing a connection: its client may come again");
            }
            self.must_reconnect = true;
            return;
        }
        if error.kind == ErrorKind::Failed {
            self.failures += 1;
            if self.failures == 1 {
                // Only the first: a guest that retries for ever must not fill the log.
                let Request { command, offset, len, .. } = *request;
                tracing::warn!(command, offset, len, %error, "a request failed");
            }
        }
        let errno = wire::errno(error.kind);
        let structured = matches!(request.command, command::READ | command::BLOCK_STATUS);
        if structured && self.shape.structured {
            let reply = wire::chunk_error(request.cookie, errno, &error.message);
            self.output.append(&reply);
        } else {
            self.output.append(&wire::simple_reply(request.cookie, errno));
        }
    }

    /// Passes a request to the device's asynchronous methods.
    fn wait_for(&mut self, request: Request, work: Work) {
        let bytes = work.held_bytes();
        self.slow_bytes += bytes;
        // At once, as many requests may be taken before the task comes round to this again.
        self.share.set(self.held_bytes());
        self.slow.push(slow::start(&self.elsewhere, self.device.clone(), request, work, bytes));
    }
}

fn put_read_header(room: &mut [u8], request: &Request) {
    if room.len() == wire::SIMPLE_REPLY_BYTES {
        room.copy_from_slice(&wire::simple_reply(request.cookie, 0));
    } else {
        let header = wire::offset_data_header(request.cookie, request.offset, request.len);
        room.copy_from_slice(&header);
    }
}

/// Ranges in the protocol's form: neighbours of equal status joined, cut to `len` bytes.
fn status_pairs(ranges: &[StatusRange], len: u32, one: bool) -> Vec<(u32, u32)> {
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    let mut left = len;
    for range in ranges {
        let here = left.min(u32::try_from(range.length).unwrap_or(u32::MAX));
        if here == 0 {
            continue;
        }
        let flags = if range.hole { allocation::HOLE | allocation::ZERO } else { 0 };
        let full = pairs.len() == if one { 1 } else { EXTENTS_MAX };
        match pairs.last_mut() {
            Some((len, last)) if *last == flags => *len += here, // at most `len` in all
            _ if full => break,
            _ => pairs.push((here, flags)),
        }
        left -= here;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(length: u64, hole: bool) -> StatusRange {
        StatusRange { offset: 0, length, hole }
    }

    #[test]
    fn extents_are_joined_and_cut() {
        let extents = [extent(0, true), extent(512, true), extent(512, true), extent(4096, false)];
        assert_eq!(status_pairs(&extents, 2048, false), [(1024, 3), (1024, 0)]);
        assert_eq!(status_pairs(&extents, 2048, true), [(1024, 3)]);
        assert_eq!(status_pairs(&extents, 512, false), [(512, 3)]);
        assert_eq!(status_pairs(&[extent(u64::MAX, false)], u32::MAX, false), [(u32::MAX, 0)]);
        assert_eq!(status_pairs(&[], 512, false), []);
    }

    #[test]
    fn a_fragmented_range_is_reported_in_part() {
        let extents: Vec<_> = (0..10_000).map(|i| extent(512, i % 2 == 0)).collect();
        let pairs = status_pairs(&extents, u32::MAX, false);
        assert_eq!(pairs.len(), EXTENTS_MAX);
        assert!(pairs.iter().all(|(len, _)| *len == 512));
    }
}
