//! What the `probe` program reports, one JSON object a line.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One attempt to reach something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// The connection stood, or the datagram was sent and, if asked for, answered.
    pub ok: bool,
    /// The error's name, such as `EPERM`; `TIMEOUT` where nothing came back.
    pub error: Option<String>,
    /// How long it took until it stood or failed.
    pub elapsed_us: u64,
    /// When it began, microseconds since 1970.
    pub at_us: u64,
}

impl Attempt {
    /// Refused by the kernel before anything was sent.
    #[must_use]
    pub fn denied(&self) -> bool {
        !self.ok && self.error.as_deref() == Some("EPERM")
    }
}

/// What happens to a connection that is held open.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Held {
    /// It stands.
    Connected {
        /// When, microseconds since 1970.
        at_us: u64,
        /// This side's address.
        local: SocketAddr,
    },
    /// A request was answered.
    Exchange {
        /// How many were answered so far.
        number: u64,
        /// When, microseconds since 1970.
        at_us: u64,
    },
    /// It is over.
    Broke {
        /// When, microseconds since 1970.
        at_us: u64,
        /// The error's name; `EOF` where the peer closed.
        error: String,
        /// Requests that were answered.
        exchanges: u64,
    },
}

/// Who came to a listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Came {
    /// It listens.
    Listening {
        /// Its address.
        at: SocketAddr,
    },
    /// Somebody connected, or sent something.
    Caller {
        /// Who.
        from: SocketAddr,
        /// How much; 0 where a connection was accepted.
        bytes: usize,
    },
}

/// Many connections at once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Crowd {
    /// So many stand.
    Standing {
        /// How many.
        count: usize,
    },
    /// All of them are over.
    Broke {
        /// When the first was found to be over, microseconds since 1970.
        first_us: u64,
        /// When the last was.
        last_us: u64,
        /// How many ended how, by the error's name; `EOF` where the peer closed in order.
        errors: BTreeMap<String, u64>,
    },
}

/// Sockets that are held.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hoarded {
    /// How many.
    pub held: usize,
    /// The number of the error that ended it; none where as many are held as were asked for.
    pub error: Option<i32>,
}

/// A run of attempts to one destination.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many were made.
    pub attempts: u64,
    /// How many stood.
    pub ok: u64,
    /// How many failed, by the error's name.
    pub failed: BTreeMap<String, u64>,
    /// When the first failed, microseconds since 1970.
    pub first_failure_us: Option<u64>,
    /// When the last one stood, microseconds since 1970.
    pub last_ok_us: Option<u64>,
    /// Median, 10th and 99th percentile of the time until a connection stood, nanoseconds.
    pub latency_ns: Option<Latency>,
}

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// 10th percentile.
    pub p10: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
}

impl Latency {
    /// From samples in any order; `None` without samples.
    #[must_use]
    pub fn of(mut samples: Vec<u64>) -> Option<Self> {
        samples.sort_unstable();
        let at = |percent: usize| samples.get((samples.len().saturating_sub(1)) * percent / 100);
        Some(Self { p10: *at(10)?, p50: *at(50)?, p99: *at(99)? })
    }
}

/// Something that an agent's user must not be able to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attack {
    /// What was tried, in words.
    pub what: String,
    /// Whether it worked.
    pub succeeded: bool,
    /// What the system answered.
    pub answer: String,
}

/// Datagrams sent from many sockets at once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Burst {
    /// How many sockets there are.
    pub sockets: usize,
    /// How many of their datagrams the kernel took.
    pub taken: usize,
}
