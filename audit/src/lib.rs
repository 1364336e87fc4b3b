//! The audit stream: what happened, as OCSF 1.8.0 records, in a spool that survives crashes.
//!
//! ```text
//! Event ─► Recorder (bounded lanes, never blocks) ─► writer thread ─► Spool (segments, fsync) ─► Reader
//! ```
//!
//! - [`Event`] is plain data, made by whoever saw the thing happen. It has no field for a token.
//! - [`Recorder`] takes events from any thread or task without waiting. What does not fit is counted, and
//!   the count becomes a record: records + counted losses = events handed in.
//! - [`Spool`] numbers, encodes and stores them; [`Reader`] reads them back and follows new ones.
//!
//! No clock is read here: every event comes with its time.

pub mod event;
pub mod ocsf;
mod reader;
mod recorder;
pub mod samples;
mod spool;
mod text;

pub use event::{Event, Lane};
pub use reader::{Line, ReadError, Reader, StartAt};
pub use recorder::{
    COMMIT_INTERVAL, Collector, FlushError, LaneStats, QueueLimits, Recorder, Stats, StopReport,
    Writer, WriterError,
};
pub use spool::{
    Corrected, DEFAULT_MAX_BYTES, DEFAULT_SEGMENT_BYTES, Recovery, Spool, SpoolConfig, SpoolError,
    SpoolStatus, TornTail,
};

/// Who writes the records: the same for every record of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producer {
    /// The product: `grantd`, or `grantd-control` for the control plane.
    pub product: String,
    /// Its version.
    pub version: String,
    /// This host's identity, a SPIFFE URI.
    pub host_id: String,
    /// This host's name.
    pub hostname: String,
    /// The kernel's boot id.
    pub boot_id: String,
}
