//! Limits of the NBD server that an operator may want to set, each with its reason.

use std::time::Duration;

/// Bounds on memory and waits that clients can cause.
///
/// `server_bytes_in_flight_max` bounds memory, plus one request of 32 MiB. Each connection adds one
/// request of `request_bytes_assured`, and 2 MiB of buffers kept for reuse. A busy connection's
/// further buffers count as bytes in flight. It keeps them only while less than half of those are
/// used.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones are closed at once. Each may cost a descriptor and its
    /// buffers.
    pub connections_max: usize,
    /// Requests of one connection that wait for the export. Past it, reading from that connection
    /// pauses. Well above the queue depth of any client (QEMU: 16, the kernel: 128).
    pub requests_in_flight_max: usize,
    /// Bytes of payload, both ways, that one connection may have in the server before reading from
    /// it pauses. Enough for two requests of the largest size.
    pub bytes_in_flight_max: usize,
    /// Bytes of payload of all connections. Past it, a connection goes on with one request at a
    /// time, so that none starves, whatever the others hold. Requests longer than
    /// `request_bytes_assured` wait for room, all connections in one queue. One request at a time
    /// goes beyond the limit.
    pub server_bytes_in_flight_max: usize,
    /// A connection that holds nothing always has room for a request of this length. It is above
    /// the requests of a guest's kernel, and bounded in sum by the number of connections.
    pub request_bytes_assured: usize,
    /// Time in which a client must send the data of one write, once a buffer is there. Also the
    /// time for taking one reply while more than `request_bytes_assured` of replies wait. After it
    /// the connection is closed. A client that stops half-way must not hold for ever what others
    /// wait for.
    pub transfer_time_max: Duration,
    /// Bytes of one `NBD_CMD_CACHE` that are fetched; the rest of the hint is ignored. The fetches
    /// under way count as bytes in flight.
    pub cache_bytes_max: u32,
    /// Time for the client's part of the whole negotiation, without the time that opening an export
    /// takes. A client that connects and stays silent must not hold a place for ever.
    pub handshake_time_max: Duration,
    /// Time in which a client that has said that it is done must accept its replies.
    pub linger_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            requests_in_flight_max: 256,
            bytes_in_flight_max: 64 << 20,
            server_bytes_in_flight_max: 128 << 20,
            request_bytes_assured: 2 << 20,
            transfer_time_max: Duration::from_secs(60),
            cache_bytes_max: 4 << 20,
            handshake_time_max: Duration::from_secs(20),
            linger_time_max: Duration::from_secs(5),
        }
    }
}
