//! Who, where and under which grant: the parts that several events share.

use std::borrow::Cow;
use std::net::SocketAddr;

/// A short machine-readable code in `snake_case`, such as a refusal's reason. Both `"expired".into()` and
/// `String` make one, so that constant codes cost no allocation.
pub type Code = Cow<'static, str>;

/// The identity that Okta vouched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// The Okta uid, else the token's `sub`.
    pub uid: String,
    /// The OAuth client (`cid`).
    pub client_id: String,
    /// The AI agent that acts for the subject (`act.sub`).
    pub actor: String,
}

/// The grant that an event belongs to. Never its bytes: the `jti` and hashes name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// `jti`; becomes `metadata.correlation_uid`.
    pub id: String,
    /// `txn`: the control plane's transaction, the same from request to end.
    pub txn: String,
    /// Whom the grant is for.
    pub subject: Subject,
    /// The issuer (`iss`) of the grant: the control plane.
    pub issuer: String,
    /// The control plane's key that signed the grant.
    pub control_plane_kid: String,
    /// The issuer of the Okta token.
    pub okta_issuer: String,
    /// The Okta key that signed the token.
    pub okta_kid: String,
    /// base64url SHA-256 of the Okta token (`okta.ath`).
    pub ath: String,
    /// The grant's own end, in Unix seconds.
    pub expires_s: Option<u64>,
    /// The kernel slot that holds the deadline.
    pub slot: Option<u32>,
    /// The slot's generation.
    pub generation: Option<u32>,
}

/// A control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The kernel's id; 0 if not known.
    pub id: u64,
    /// The path below the cgroup mount.
    pub path: String,
}

/// The confined set of processes that an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The name in the host's config; empty for something confined that has no name.
    pub name: String,
    /// Where it runs.
    pub cgroup: Cgroup,
    /// The unit's InvocationID, if known.
    pub invocation_id: String,
}

/// A container, where one is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id.
    pub uid: String,
    /// The container's name.
    pub name: String,
    /// `docker`, `podman`, `containerd`, …
    pub runtime: String,
}

/// A process as it was when the event happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id (thread group) in the host's namespace.
    pub pid: u32,
    /// Start by CLOCK_BOOTTIME in nanoseconds: with the pid it names one process for good.
    pub start_boot_ns: Option<u64>,
    /// Start in Unix milliseconds.
    pub started_ms: Option<u64>,
    /// Real user id.
    pub uid: Option<u32>,
    /// The kernel's 15-byte name (`comm`).
    pub comm: String,
    /// Path of the executable.
    pub exe: String,
    /// Inode of the executable.
    pub exe_inode: Option<u64>,
    /// Arguments, joined by blanks.
    pub cmd_line: String,
    /// The container, if there is one.
    pub container: Option<Container>,
    /// The parent. Its own parent is not written.
    pub parent: Option<Box<Process>>,
}

/// Who called the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TLS client of the push listener.
    Tls {
        /// Where it called from.
        address: SocketAddr,
        /// URI SANs of its certificate; empty before it is authenticated.
        uris: Vec<String>,
        /// SHA-256 of its certificate in hexadecimal.
        certificate_sha256: String,
    },
    /// A process at a local socket, as the kernel reports it (SO_PEERCRED).
    Local {
        /// The process; `uid` and `pid` come from the kernel.
        process: Box<Process>,
        /// The socket's path.
        socket: String,
    },
    /// The daemon itself: a timer, a signal, its own start.
    Daemon,
}
