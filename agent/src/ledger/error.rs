//! Why the ledger says no.

use std::{
    io,
    path::{Path, PathBuf},
};

use grantd_grant::ReplayAnswer;

use super::StoreError;

/// Why the ledger could not be opened or changed. The store is opened anew at the next change.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file or directory is not a plain one of this user.
    #[error("{path}: is a link, a special file or somebody else's; move it away or chown it")]
    NotOurs {
        /// Which.
        path: PathBuf,
    },
    /// Another daemon has the ledger.
    #[error("{path}: another process has the ledger open; is another grantd running?")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The store cannot be opened for a reason that says nothing about its content.
    #[error("{path}: cannot open the ledger")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The file system failed.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A transaction failed.
    #[error("the ledger could not {operation}")]
    Write {
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: StoreError,
    },
    /// Four thousand million workload names were used.
    #[error("no workload ids are left; move the ledger away to begin a new one")]
    NoWorkloadIds,
}

impl LedgerError {
    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// Why a grant was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Check 10 has another answer by now: the same grant, or a revocation, came in between.
    #[error("the grant may no longer be accepted: {0:?}")]
    Replay(ReplayAnswer),
    /// The host is frozen.
    #[error("new grants are frozen on this host")]
    Frozen,
}
