//! One connection after its negotiation: requests in, replies out, on one task.
//!
//! The task takes the bytes that have arrived, gives every whole request to the device's fast path,
//! and writes all replies with one call. Only then does it look for more. So a busy connection
//! costs two system calls for all requests that came together. A request that would have to wait
//! becomes a future, driven from the same task ([`slow`]), and its reply joins the same queue.
//!
//! Must hold:
//! - the device gets a request after the decision of every reply that was sent before it arrived.
//!   Requests are taken in order, and a reply is never sent before the device's answer;
//! - futures of the device run to their end, also when the client has gone;
//! - a stop is no error. Requests that have begun are answered, others are not, and the connection
//!   is closed. So a client that reconnects asks again (QEMU's `reconnect-delay`);
//! - memory for the client is bounded: past a limit the session reads nothing more.

mod deadline;
mod dispatch;
mod output;
mod slow;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use skerry_device::Device;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::Sleep;

use self::deadline::Deadline;
use self::dispatch::Incoming;
use self::output::Output;
use self::slow::SlowFuture;
use super::budget::Share;
use super::check::Shape;
use super::control::{Control, Order};
use super::input::Input;
use super::limits::Limits;
use super::negotiate::Agreed;

/// Bytes of waiting replies past which no further request is taken. The first replies of a batch
/// must not wait for the last, and should be written from the processor's cache.
const OUTPUT_PAUSE_BYTES: usize = 256 << 10;

/// The most bytes read from a socket before it is closed: more than a client's socket holds.
const PARTING_BYTES_MAX: usize = 64 << 20;
/// Bytes of one such read.
const PARTING_READ_BYTES: usize = 64 << 10;

/// A connection that serves requests.
pub(crate) struct Session<S> {
    /// Gone once nothing can be sent or received any more.
    stream: Option<S>,
    device: Arc<dyn Device>,
    shape: Shape,
    limits: Limits,
    control: Arc<Control>,
    share: Share,
    input: Input,
    incoming: Incoming,
    output: Output,
    slow: FuturesUnordered<SlowFuture>,
    slow_bytes: usize,
    /// False once the client has said or shown that it sends nothing more.
    input_open: bool,
    /// True once the device has said that another connection must go on.
    must_reconnect: bool,
    linger: Option<Pin<Box<Sleep>>>,
    /// Number of large writes that began.
    payloads: u64,
    /// Time for the client to send the rest of a large write.
    sending: Deadline,
    /// Time for the client to take the first of many replies.
    taking: Deadline,
    failures: u64,
    /// The runtime of requests that must wait.
    elsewhere: Handle,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(crate) fn new(
        stream: S,
        agreed: Agreed,
        limits: Limits,
        control: Arc<Control>,
        share: Share,
        elsewhere: Handle,
    ) -> Self {
        Self {
            stream: Some(stream),
            device: agreed.export.device,
            shape: agreed.shape,
            limits,
            control,
            share,
            input: agreed.input,
            incoming: Incoming::Header,
            output: Output::default(),
            slow: FuturesUnordered::new(),
            slow_bytes: 0,
            input_open: true,
            must_reconnect: false,
            linger: None,
            payloads: 0,
            sending: Deadline::default(),
            taking: Deadline::default(),
            failures: 0,
            elsewhere,
        }
    }

    /// Serves until the client has gone and all its requests have ended. Gives the number of
    /// requests that failed for reasons other than the client's own.
    pub(crate) async fn run(mut self) -> u64 {
        poll_fn(|cx| self.poll_run(cx)).await;
        self.part().await;
        self.failures
    }

    /// Closes a connection whose client may still be sending. Reads its remaining bytes first:
    /// closing over unread bytes resets a TCP connection, and replies can get lost.
    async fn part(&mut self) {
        let is_leaving = self.is_leaving();
        let Some(mut stream) = self.stream.take().filter(|_| is_leaving) else { return };
        // Whatever fails here, the connection is closed.
        let _ = stream.shutdown().await;
        let mut left = PARTING_BYTES_MAX;
        let mut scratch = vec![0; PARTING_READ_BYTES];
        poll_fn(|cx| {
            while left > 0 {
                let mut room = ReadBuf::new(&mut scratch);
                match Pin::new(&mut stream).poll_read(cx, &mut room) {
                    Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                        left = left.saturating_sub(room.filled().len());
                    }
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// True if nothing new is taken, and the connection is closed when all is answered.
    fn is_leaving(&self) -> bool {
        self.must_reconnect || self.control.now() != Order::Serve
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.control.poll(cx) == Order::Kill {
                self.hang_up();
            }
            self.output.pool.set_room(self.share.is_roomy());
            let mut busy = self.poll_slow(cx);
            busy |= self.take_requests(cx);
            busy |= self.poll_output(cx);
            busy |= self.poll_input(cx);
            self.count();
            if busy {
                continue;
            }
            if self.is_over() {
                return Poll::Ready(());
            }
            if self.held_bytes() == 0 && self.slow.is_empty() {
                self.output.pool.trim();
                self.count();
            }
            if !self.poll_linger(cx) && !self.poll_transfers(cx) {
                return Poll::Pending;
            }
        }
    }

    /// True if nothing is left to be done. Only asked when nothing could be done just now.
    fn is_over(&self) -> bool {
        let ends = !self.input_open || self.is_leaving();
        ends && self.slow.is_empty() && self.output.is_empty()
    }

    /// Bytes held for this client that grow with its requests.
    fn held_bytes(&self) -> usize {
        self.slow_bytes + self.output.len() + self.incoming.held_bytes()
    }

    /// Counts the bytes that the server holds for this client, with its buffers beyond each
    /// connection's share.
    fn count(&mut self) {
        self.share.set(self.held_bytes() + self.output.pool.extra_bytes());
    }

    /// True if another request may be taken.
    fn may_take(&self) -> bool {
        let held = self.held_bytes();
        let alone = held == 0 && self.slow.is_empty();
        let fits = held < self.limits.bytes_in_flight_max
            && self.slow.len() < self.limits.requests_in_flight_max
            && !self.share.is_exhausted();
        self.output.len() < OUTPUT_PAUSE_BYTES && (alone || fits)
    }

    fn poll_slow(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(finished)) = self.slow.poll_next_unpin(cx) {
            self.finish(finished);
            any = true;
        }
        any
    }

    fn poll_output(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        if self.output.is_empty() {
            return false;
        }
        match self.output.poll_write(cx, stream) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "the client can't be written to");
                self.hang_up();
                true
            }
        }
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.input_open || self.is_leaving() {
            return false;
        }
        let Some(stream) = &mut self.stream else { return false };
        let read = if let Some(room) = self.incoming.room() {
            let mut room = ReadBuf::new(room);
            let polled = Pin::new(stream).poll_read(cx, &mut room);
            let n = room.filled().len();
            self.incoming.arrived(n);
            polled.map_ok(|()| n)
        } else if self.may_take() && !self.input.is_full() {
            let Some(stream) = &mut self.stream else { return false };
            self.input.poll_fill(cx, stream)
        } else {
            return false;
        };
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(0)) => self.input_open = false,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "the client can't be read from");
                self.hang_up();
            }
        }
        true
    }

    /// Takes nothing more from the client. Requests that have begun are still answered.
    fn stop_reading(&mut self) {
        self.input_open = false;
        self.input.consume(usize::MAX / 2);
        self.incoming = Incoming::Header;
    }

    /// Closes the socket. The device's work goes on.
    fn hang_up(&mut self) {
        self.stop_reading();
        self.stream = None;
        self.output.clear();
    }

    /// Cuts off a client that takes too long over a transfer that others may wait for. True if it
    /// did.
    fn poll_transfers(&mut self, cx: &mut Context<'_>) -> bool {
        let time_max = self.limits.transfer_time_max;
        let is_sent = matches!(self.incoming, Incoming::Payload { .. });
        let is_sent_late = self.sending.poll(cx, is_sent.then_some(self.payloads), time_max);
        let is_much = self.output.len() > self.limits.request_bytes_assured;
        let is_taken_late = self.taking.poll(cx, is_much.then_some(self.output.passed()), time_max);
        if !is_sent_late && !is_taken_late {
            return false;
        }
        tracing::warn!(
            is_sent_late,
            "a client didn't send its data or take its replies in time; closed its connection"
        );
        self.hang_up();
        true
    }

    /// Gives a client from which nothing more is taken a bounded time to take its replies. True if
    /// that time is over, and the connection was closed for it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> bool {
        let ends = !self.input_open || self.is_leaving();
        let blocked = ends && !self.output.is_empty();
        if !blocked {
            self.linger = None;
            return false;
        }
        let time_max = self.limits.linger_time_max;
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(time_max)));
        if linger.as_mut().poll(cx).is_pending() {
            return false;
        }
        tracing::warn!("a client didn't take its last replies in time; closed its connection");
        self.hang_up();
        true
    }
}
