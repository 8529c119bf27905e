//! Replies on their way out: a queue of buffers, written with one vectored write.
//!
//! Small replies are packed into shared buffers. Data of a large read stays in the buffer that the
//! export filled, so that only the kernel copies it, once. Buffers are kept and reused. They are
//! always initialised over their whole length, so nothing is zeroed twice.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::super::wire::OFFSET_DATA_HEADER_BYTES;

/// Replies up to this length are packed together; longer ones have their own buffer.
pub(super) const PACKED_BYTES_MAX: usize = 32 << 10;
/// Length of a buffer of packed replies. Larger ones would fall out of the second-level cache
/// before they are written.
const PACK_BYTES: usize = 128 << 10;
/// Unit of buffer lengths, so that buffers of similar size can stand in for each other.
const BUFFER_STEP_BYTES: usize = 64 << 10;
/// Longest buffer that is kept.
const KEPT_BUFFER_BYTES_MAX: usize = 2 << 20;
/// Bytes kept for reuse at most, on a connection with requests in flight while the server has room.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// Bytes kept at most while nothing is in flight, or while the server has no room. Enough for a
/// buffer for a request of 1 MiB, and some for small ones. Many connections are idle, and few are
/// busy.
const KEPT_IDLE_BYTES_MAX: usize = 3 << 19;
/// Slices in one vectored write: more than fit a socket's buffer anyway.
const SLICES_MAX: usize = 32;

/// Initialised buffers for reuse; bounded by [`KEPT_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Pool {
    kept: Vec<Vec<u8>>,
    kept_bytes: usize,
    /// True if the server has room for more than each connection's share.
    has_room: bool,
}

impl Pool {
    /// Sets whether the server has room for buffers beyond [`KEPT_IDLE_BYTES_MAX`].
    pub(super) fn set_room(&mut self, has_room: bool) {
        self.has_room = has_room;
    }

    /// Bytes kept beyond each connection's share.
    pub(super) fn extra_bytes(&self) -> usize {
        self.kept_bytes.saturating_sub(KEPT_IDLE_BYTES_MAX)
    }

    /// Gives a buffer of `len` bytes or more, of any content.
    pub(super) fn take(&mut self, len: usize) -> Vec<u8> {
        let fits = |buf: &Vec<u8>| buf.len() >= len && buf.len() <= len.max(PACK_BYTES) * 2;
        if let Some(at) = self.kept.iter().rposition(fits) {
            let buf = self.kept.swap_remove(at);
            self.kept_bytes -= buf.len();
            return buf;
        }
        vec![0; len.next_multiple_of(BUFFER_STEP_BYTES)]
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, buf: Vec<u8>) {
        let max = if self.has_room { KEPT_BYTES_MAX } else { KEPT_IDLE_BYTES_MAX };
        let fits = self.kept_bytes + buf.len() <= max;
        if fits && (BUFFER_STEP_BYTES..=KEPT_BUFFER_BYTES_MAX).contains(&buf.len()) {
            self.kept_bytes += buf.len();
            self.kept.push(buf);
        }
    }

    /// Frees the buffers that an idle connection does not need, oldest first.
    pub(super) fn trim(&mut self) {
        while self.kept_bytes > KEPT_IDLE_BYTES_MAX && !self.kept.is_empty() {
            self.kept_bytes -= self.kept.remove(0).len();
        }
    }
}

#[derive(Debug)]
struct Piece {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

/// Replies to be written, in order.
#[derive(Debug, Default)]
pub(super) struct Output {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Number of written pieces.
    passed: u64,
    pub(super) pool: Pool,
}

impl Output {
    /// Waiting bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The number of the piece that is being written.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Gives room for a reply of `len` bytes (at most [`PACKED_BYTES_MAX`]). It counts only once it
    /// is [committed](Self::commit).
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let fits = self.pieces.back().is_some_and(|piece| piece.buf.len() - piece.end >= len);
        if !fits {
            let buf = self.pool.take(PACK_BYTES.max(len));
            self.pieces.push_back(Piece { buf, start: 0, end: 0 });
        }
        match self.pieces.back_mut() {
            Some(piece) => &mut piece.buf[piece.end..piece.end + len],
            None => &mut [], // never: one was pushed above
        }
    }

    /// Makes the first `len` bytes of the last [`room`](Self::room) part of the output.
    pub(super) fn commit(&mut self, len: usize) {
        if let Some(piece) = self.pieces.back_mut() {
            piece.end += len;
            self.bytes += len;
        }
    }

    /// Appends a short message.
    pub(super) fn append(&mut self, message: &[u8]) {
        self.room(message.len()).copy_from_slice(message);
        self.commit(message.len());
    }

    /// Appends `buf[start..end]`, taking over the buffer.
    pub(super) fn push(&mut self, buf: Vec<u8>, start: usize, end: usize) {
        self.bytes += end - start;
        self.pieces.push_back(Piece { buf, start, end });
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.bytes = 0;
    }

    /// Writes once.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        let filled = self.pieces.iter().filter(|piece| piece.start < piece.end);
        for (slice, piece) in slices.iter_mut().zip(filled) {
            *slice = IoSlice::new(&piece.buf[piece.start..piece.end]);
            used += 1;
        }
        let stream = Pin::new(stream);
        let written = match &slices[..used] {
            [only] => ready!(stream.poll_write(cx, only))?,
            several => ready!(stream.poll_write_vectored(cx, several))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(piece) = self.pieces.front_mut() {
            let here = written.min(piece.end - piece.start);
            piece.start += here;
            written -= here;
            if piece.start < piece.end {
                return;
            }
            // Also drops pieces whose room was never committed.
            if let Some(piece) = self.pieces.pop_front() {
                self.passed += 1;
                self.pool.give(piece.buf);
            }
        }
    }
}

/// Offset of a read's data in a buffer of its own: every header fits in front.
pub(super) const HEADROOM_BYTES: usize = OFFSET_DATA_HEADER_BYTES;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_is_queued_comes_out_in_order_and_buffers_are_reused() {
        let (mut ours, mut theirs) = tokio::io::duplex(1000);
        let mut output = Output::default();
        let mut expected = Vec::new();
        for round in 0..50u8 {
            let message = vec![round; 100 * usize::from(round)];
            if round % 3 == 0 {
                output.push(message.clone(), 0, message.len());
            } else {
                output.append(&message);
            }
            output.room(64); // never committed
            expected.extend_from_slice(&message);
        }
        assert_eq!(output.len(), expected.len());
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            theirs.read_to_end(&mut got).await.expect("read");
            got
        });
        while !output.is_empty() {
            std::future::poll_fn(|cx| output.poll_write(cx, &mut ours)).await.expect("write");
        }
        drop(ours);
        assert_eq!(reader.await.expect("joined"), expected);
        assert!(output.pieces.is_empty());
        assert!(output.pool.kept_bytes > 0);
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_may() {
        let mut pool = Pool::default();
        let fill = |pool: &mut Pool| (0..100).for_each(|_| pool.give(vec![0; 1 << 20]));
        fill(&mut pool);
        assert_eq!(pool.kept_bytes, 1 << 20, "the server has no room");
        pool.set_room(true);
        fill(&mut pool);
        pool.give(vec![0; KEPT_BUFFER_BYTES_MAX + 1]);
        assert_eq!(pool.kept_bytes, KEPT_BYTES_MAX);
        assert_eq!(pool.extra_bytes(), KEPT_BYTES_MAX - KEPT_IDLE_BYTES_MAX);
        pool.trim();
        assert_eq!(pool.kept_bytes, 1 << 20);
        assert_eq!(pool.take(1 << 20).len(), 1 << 20);
        assert_eq!(pool.kept_bytes, 0);
        assert!(pool.take(4096).len() >= 4096);
    }
}
