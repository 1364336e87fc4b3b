//! What can go wrong with the spool, with the path that it went wrong at.

use std::io;
use std::path::{Path, PathBuf};

/// The spool cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried: `create`, `write to`, …
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The path is not what it must be.
    #[error("{} is not {expected}: move it away and start again", path.display())]
    NotA {
        /// The path.
        path: PathBuf,
        /// What it must be.
        expected: &'static str,
    },
    /// Somebody else owns the directory or a segment.
    #[error(
        "{} is owned by uid {owner}, not by uid {expected}: the audit spool must belong to the user that writes it",
        path.display()
    )]
    ForeignOwner {
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who runs this.
        expected: u32,
    },
    /// Another process writes this spool.
    #[error("{} is in use by another process: stop it first", path.display())]
    InUse {
        /// The spool's directory.
        path: PathBuf,
    },
    /// The sizes make no sense.
    #[error(
        "audit spool: max_bytes ({max_bytes}) must be at least twice segment_bytes ({segment_bytes}), and segment_bytes at least {least}"
    )]
    Sizes {
        /// Size of one segment.
        segment_bytes: u64,
        /// Size of all segments.
        max_bytes: u64,
        /// The smallest segment.
        least: u64,
    },
    /// An event could not be encoded.
    #[error("cannot encode an audit event")]
    Encode(#[source] serde_json::Error),
}

impl SpoolError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
        move |source| SpoolError::Io { operation, path: path.to_owned(), source }
    }
}
