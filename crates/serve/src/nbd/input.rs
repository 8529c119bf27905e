//! A connection's receive buffer: bytes that have arrived and are not consumed. Negotiation passes
//! it on to transmission, as a client may send requests before it has seen the last option's reply.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Size of the buffer. A Unix socket holds about 200 KiB, so one read can take all of it: 32 writes
/// of 4 KiB and more. Memory that was never reached is not resident.
const INPUT_BYTES: usize = 256 << 10;

/// The least room that a read is offered. Everything that must be contiguous in the buffer (an
/// option with its data, a small write) is at most [`CONTIGUOUS_BYTES_MAX`] long.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// The longest run of bytes that [`Input`] can ever hold in one piece.
pub(crate) const CONTIGUOUS_BYTES_MAX: usize = INPUT_BYTES - ROOM_BYTES_MIN;

/// Bytes that have arrived: `buf[start..end]`.
#[derive(Debug)]
pub(crate) struct Input {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { buf: vec![0; INPUT_BYTES], start: 0, end: 0 }
    }

    /// The bytes that have arrived and are not consumed.
    pub(crate) fn available(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Drops `n` bytes from the front, or everything if there is less.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start = self.end.min(self.start + n);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// True if there is no more room until bytes are consumed.
    pub(crate) fn is_full(&self) -> bool {
        self.end - self.start > CONTIGUOUS_BYTES_MAX
    }

    /// Reads once; 0 is the end of the stream. Must not be called when this is full.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        if self.buf.len() - self.end < ROOM_BYTES_MIN {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let mut room = ReadBuf::new(&mut self.buf[self.end..]);
        ready!(Pin::new(stream).poll_read(cx, &mut room))?;
        let n = room.filled().len();
        self.end += n;
        Poll::Ready(Ok(n))
    }
}
