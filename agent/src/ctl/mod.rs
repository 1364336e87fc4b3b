//! The local control socket: its protocol, the daemon's end, and `grantctl`.
//!
//! The socket is `<run>/ctl.sock`, root and group `grantd`, mode 0660. Whoever may open it may read
//! state; only uid 0 may change anything; a caller inside the enforced slice is refused everything,
//! whatever its uid. [`serve`] knows nothing of what it controls: that is behind [`Control`].

pub mod cli;
pub mod exit;

mod bind;
mod client;
mod control;
mod line;
mod peer;
mod protocol;
mod server;

pub use bind::{BindError, ServerConfig, bind};
pub use client::{Client, ClientError};
pub use control::Control;
pub use peer::{Caller, Denied, authorise, cgroup_inside};
pub use protocol::{
    AuditStatus, CanaryStatus, Counter, Coverage, CtlError, Enrolled, ErrorCode, GRANTS_PER_PAGE,
    GrantPage, GrantView, KernelView, KeysStatus, MAX_REPLY_LINE, MAX_REQUEST_LINE,
    PROTOCOL_VERSION, Reloaded, Reply, ReplyLine, Request, RequestLine, RevokeSelector, Revoked,
    Status, Threat, WorkloadStatus,
};
pub use server::serve;

#[cfg(test)]
mod tests;
