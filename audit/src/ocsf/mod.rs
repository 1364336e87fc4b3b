//! [`Event`] → one line of OCSF 1.8.0 JSON.
//!
//! # The shape of a line
//!
//! A line is one JSON object of one schema class, `metadata` first and `unmapped` last. `metadata.log_version`
//! is the version of this shape ([`LOG_VERSION`]); a reader ignores members that it does not know, so members
//! may be added without a new version. What OCSF 1.9 will have a place for is under `unmapped` by its 1.9
//! name: `unmapped.ai_agent`, `unmapped.delegation`. `unmapped.attestation` (the 1.9 record integrity
//! profile: fingerprint, previous event, chain) is reserved for the hash chain and the record's checksum,
//! and will always be the last member of `unmapped`.
//!
//! Numbers that may pass 2^53 (nanoseconds, cookies, ids of control groups) are strings, since readers
//! that follow RFC 8785 or JavaScript would round them.

mod access;
mod activity;
mod escape;
mod finding;
mod names;
mod network;
mod objects;
mod parts;
mod pretty;
mod record;

pub use pretty::pretty;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use crate::Producer;
use crate::event::Event;
use crate::text::Cutter;

/// The schema version that records follow (`metadata.version`).
pub const OCSF_VERSION: &str = "1.8.0";
/// The version of the line's own shape (`metadata.log_version`).
pub const LOG_VERSION: &str = "1";

/// What makes one record unlike every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// `metadata.sequence`.
    pub sequence: u64,
    /// `time`, in Unix milliseconds.
    pub time_ms: u64,
    /// `metadata.uid`: a UUIDv7 of that time, by which consumers dedupe.
    pub uid: Uuid,
}

impl Stamp {
    /// A stamp with a fresh uid.
    #[must_use]
    pub fn new(sequence: u64, time_ms: u64) -> Self {
        let nanos = u32::try_from(time_ms % 1000).unwrap_or(0) * 1_000_000;
        let timestamp = Timestamp::from_unix(NoContext, time_ms / 1000, nanos);
        Stamp { sequence, time_ms, uid: Uuid::new_v7(timestamp) }
    }
}

/// Appends the event as one line, newline included.
///
/// # Errors
///
/// Never for an [`Event`]; the serializer's signature allows for one.
pub fn encode(
    event: &Event,
    stamp: &Stamp,
    producer: &Producer,
    line: &mut Vec<u8>,
) -> serde_json::Result<()> {
    let cutter = Cutter::default();
    let context = record::Context { stamp, producer, cutter: &cutter };
    let record = match event {
        Event::ConnectionAllowed(connection) => network::allowed(&context, connection),
        Event::ConnectionDenied(connection) => network::denied(&context, connection),
        Event::ConnectionClosed(connection) => network::closed(&context, connection),
        Event::ConnectionCut(connection) => network::cut(&context, connection),
        Event::GrantInForce(grant) => access::in_force(&context, grant),
        Event::GrantEnded(grant) => access::ended(&context, grant),
        Event::GrantRefused(grant) => access::refused(&context, grant),
        Event::RevocationApplied(revocation) => activity::revocation_applied(&context, revocation),
        Event::RevocationRefused(revocation) => activity::revocation_refused(&context, revocation),
        Event::ApiCall(call) => activity::api_call(&context, call),
        Event::Lifecycle(lifecycle) => activity::lifecycle(&context, lifecycle),
        Event::Finding(found) => finding::finding(&context, found),
        Event::Loss(loss) => finding::loss(&context, loss),
    };
    let record = record.finish(&cutter);
    let mut serializer = serde_json::Serializer::with_formatter(&mut *line, escape::Escaping);
    record.serialize(&mut serializer)?;
    line.push(b'\n');
    Ok(())
}

/// The `metadata.sequence` of a line; none if the line is not a record.
pub(crate) fn sequence_of(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Line {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        sequence: u64,
    }
    serde_json::from_slice::<Line>(line).ok().map(|line| line.metadata.sequence)
}

#[cfg(test)]
mod tests;
