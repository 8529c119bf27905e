//! Every limit of the NBD server that somebody may want to set, with its reason.

use std::time::Duration;

/// Bounds on what clients can make the server hold or wait for.
///
/// Memory is bounded by `server_bytes_in_flight_max`, plus one request of 32 MiB, plus, for each connection, one request of
/// `request_bytes_assured` and 2 MiB of buffers that are kept for reuse. What a busy connection keeps beyond that counts
/// as bytes in flight, and is kept only while less than half of those are used.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more are closed at once. Each may cost a descriptor and its buffers.
    pub connections_max: usize,
    /// Requests of one connection that wait for the export; past it, reading from that connection
    /// pauses. Well above the queue depth of any client (QEMU: 16, the kernel: 128).
    pub requests_in_flight_max: usize,
    /// Bytes of payload, both ways, that one connection may have the server hold before reading
    /// from it pauses. Enough for two requests of the largest size.
    pub bytes_in_flight_max: usize,
    /// The same over all connections. Past it, a connection goes on with one request at a time, so that none starves,
    /// whatever the others hold. Requests that are longer than `request_bytes_assured` wait their turn for room, all
    /// connections in one queue; one request at a time goes beyond the limit.
    pub server_bytes_in_flight_max: usize,
    /// A connection that holds nothing always has room for a request of this length. More than a guest's kernel asks for
    /// at once, as few of them may be as there are connections.
    pub request_bytes_assured: usize,
    /// How long a client may take to send the data of one write, once there is a buffer for it, and to take one reply while
    /// more than `request_bytes_assured` of replies wait; then its connection is closed. A client that stops half-way
    /// must not hold for ever what others wait for.
    pub transfer_time_max: Duration,
    /// How much of one `NBD_CMD_CACHE` is fetched; the rest of the hint is ignored. What is being
    /// fetched counts as bytes in flight.
    pub cache_bytes_max: u32,
    /// How long the client may take over the whole negotiation; time that opening an export takes
    /// isn't counted. A client that connects and says nothing must not hold a place for ever.
    pub handshake_time_max: Duration,
    /// How long replies may take to be accepted by a client that has said that it is done.
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
