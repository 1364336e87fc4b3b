//! Bounds of the listener, and counts of what they cut off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Authenticated connections at once. A control plane needs a handful.
const MAX_CONNECTIONS: usize = 64;
/// TLS handshakes at once: whoever reaches the port can begin one.
const MAX_HANDSHAKES: usize = 128;
/// TLS handshakes at once of one source: a control plane that reconnects brings a few dozen.
const MAX_HANDSHAKES_PER_SOURCE: usize = 40;
/// Requests in hand at once, over all connections.
const MAX_REQUESTS: usize = 128;
/// Requests in hand at once on one HTTP/2 connection.
pub(super) const MAX_STREAMS: u32 = 32;
/// Bytes of one request's headers.
pub(super) const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header fields of one request.
pub(super) const MAX_HEADERS: usize = 64;

/// How long, and how many.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Authenticated connections at once; one more is dropped after its handshake, and counted.
    pub max_connections: usize,
    /// TLS handshakes at once, apart from the connections: strangers who begin handshakes and fall silent
    /// take no place from peers. One more is dropped and counted.
    pub max_handshakes: usize,
    /// TLS handshakes at once of one source: an IPv4 address, or an IPv6 /64.
    pub max_handshakes_per_source: usize,
    /// Requests in hand at once; one more is answered `503`.
    pub max_requests: usize,
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the first request's last header.
    pub headers: Duration,
    /// From a request's last header to the end of its body.
    pub body: Duration,
    /// Between requests of one connection.
    pub idle: Duration,
    /// Age at which a connection is ended, so that its certificate is checked anew.
    pub max_age: Duration,
    /// What requests in hand are given to finish when a connection or the listener ends.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_handshakes: MAX_HANDSHAKES,
            max_handshakes_per_source: MAX_HANDSHAKES_PER_SOURCE,
            max_requests: MAX_REQUESTS,
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(5),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            max_age: Duration::from_secs(300),
            drain: Duration::from_secs(5),
        }
    }
}

/// Counts since start; they only grow.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: AtomicU64,
    over_capacity: AtomicU64,
    handshakes_over_capacity: AtomicU64,
    source_over_capacity: AtomicU64,
    accept_failed: AtomicU64,
    handshake_failed: AtomicU64,
    handshake_timed_out: AtomicU64,
    requests: AtomicU64,
    problems: AtomicU64,
}

/// One reading of [`Counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// Authenticated connections taken into service.
    pub accepted: u64,
    /// Authenticated connections dropped because the most were open.
    pub over_capacity: u64,
    /// Connections dropped because the most handshakes were in hand.
    pub handshakes_over_capacity: u64,
    /// Connections dropped because their source had the most handshakes in hand.
    pub source_over_capacity: u64,
    /// Failures of `accept(2)` itself (descriptors exhausted).
    pub accept_failed: u64,
    /// Handshakes that failed: no or foreign or revoked certificate, old TLS, no TLS.
    pub handshake_failed: u64,
    /// Handshakes that took too long.
    pub handshake_timed_out: u64,
    /// Requests whose headers were read.
    pub requests: u64,
    /// Requests answered with a problem.
    pub problems: u64,
}

impl CountersSnapshot {
    /// Every count with its name.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 9] {
        [
            ("accepted", self.accepted),
            ("over_capacity", self.over_capacity),
            ("handshakes_over_capacity", self.handshakes_over_capacity),
            ("source_over_capacity", self.source_over_capacity),
            ("accept_failed", self.accept_failed),
            ("handshake_failed", self.handshake_failed),
            ("handshake_timed_out", self.handshake_timed_out),
            ("requests", self.requests),
            ("problems", self.problems),
        ]
    }
}

impl Counters {
    /// Reads all counts.
    pub fn snapshot(&self) -> CountersSnapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CountersSnapshot {
            accepted: read(&self.accepted),
            over_capacity: read(&self.over_capacity),
            handshakes_over_capacity: read(&self.handshakes_over_capacity),
            source_over_capacity: read(&self.source_over_capacity),
            accept_failed: read(&self.accept_failed),
            handshake_failed: read(&self.handshake_failed),
            handshake_timed_out: read(&self.handshake_timed_out),
            requests: read(&self.requests),
            problems: read(&self.problems),
        }
    }

    pub(super) fn accepted(&self) {
        add(&self.accepted);
    }

    pub(super) fn over_capacity(&self) {
        add(&self.over_capacity);
    }

    pub(super) fn handshakes_over_capacity(&self) {
        add(&self.handshakes_over_capacity);
    }

    pub(super) fn source_over_capacity(&self) {
        add(&self.source_over_capacity);
    }

    pub(super) fn accept_failed(&self) {
        add(&self.accept_failed);
    }

    pub(super) fn handshake_failed(&self) {
        add(&self.handshake_failed);
    }

    pub(super) fn handshake_timed_out(&self) {
        add(&self.handshake_timed_out);
    }

    pub(super) fn request(&self) {
        add(&self.requests);
    }

    pub(super) fn problem(&self) {
        add(&self.problems);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
