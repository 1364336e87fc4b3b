//! Why the daemon does not run.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigFaults;
use crate::ctl;
use crate::enforcer::StartError;
use crate::intake::TlsError;
use crate::kernel;
use crate::keys::{FetchError, KeyFileError};

/// What kept the daemon from starting, or ended it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The config has faults.
    #[error("the config is not usable")]
    Config(#[from] ConfigFaults),
    /// The control plane's pinned keys.
    #[error("the control plane's keys")]
    Keys(#[from] KeyFileError),
    /// The listener's TLS files.
    #[error("the push listener's TLS files")]
    Tls(#[from] TlsError),
    /// Fetching Okta's keys could not be set up.
    #[error("fetching Okta's keys could not be set up")]
    Okta(#[from] FetchError),
    /// Ledger or kernel.
    #[error("enforcement could not be begun")]
    Enforce(#[from] StartError),
    /// The kernel side.
    #[error("the kernel side")]
    Kernel(#[from] kernel::Error),
    /// The config requires the guard, and the kernel does not have all of it.
    #[error(
        "[guard] mode is \"required\", and this kernel does not give it whole: {missing}. Boot a kernel with CONFIG_BPF_LSM and bpf in its lsm= list, or set the mode to \"auto\""
    )]
    Guard {
        /// What is missing, each with why.
        missing: String,
    },
    /// The audit spool.
    #[error("the audit spool")]
    Audit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The audit spool could not be read back.
    #[error("the audit spool could not be read back")]
    Spool(#[from] grantd_audit::ReadError),
    /// The control socket.
    #[error("the control socket")]
    Control(#[from] ctl::BindError),
    /// The push listener's address.
    #[error("cannot listen on {address}")]
    Listen {
        /// `[control_plane] listen`.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A directory of `[paths]`.
    #[error("cannot make the directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A part of the daemon ended by itself.
    #[error("{part} ended: {problem}")]
    Ended {
        /// Which part.
        part: &'static str,
        /// Why, as far as it said.
        problem: String,
    },
    /// The operating system refused something.
    #[error("cannot {operation}")]
    System {
        /// What.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn signals(source: io::Error) -> Self {
        Self::System { operation: "listen for signals", source }
    }
}
