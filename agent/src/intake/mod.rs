//! The push listener: mutual TLS in, bounded requests through, typed outcomes out.
//!
//! What this module guarantees, whatever the peer does:
//!
//! - TLS 1.3 only, with a client certificate from the private CA, checked against the revocation
//!   list at every handshake: no session resumption, no early data, and a connection ends at
//!   [`Limits::max_age`] or when the TLS material is reloaded, so no check is older than that.
//! - Every wait on the peer has an end ([`Limits`]): handshake, headers, body, idling, shutdown.
//! - At most [`Limits::max_connections`] authenticated connections and [`Limits::max_requests`] requests
//!   at once. Handshakes have places of their own, few for each source: strangers keep no peer out.
//! - The peer's URI SANs are read once per connection; [`Admission::check_peer`] answers before the
//!   body of any request is read.
//! - Every answer is JSON; every error is a problem of RFC 9457 with a stable `reason`.
//!
//! It knows nothing of what a body says: bytes and the peer's identity go to [`Admission`].

#![forbid(unsafe_code)]

mod admission;
mod body;
mod connection;
mod limits;
mod peer;
mod places;
mod problem;
mod routes;
mod serve;
mod tls;

#[cfg(test)]
mod tests;

pub use admission::{
    Acknowledgement, Admission, Answer, Asked, GrantOutcome, HostView, PushKind, RevocationOutcome,
    ShowOutcome,
};
pub use body::PushBody;
pub use limits::{Counters, CountersSnapshot, Limits};
pub use peer::Peer;
pub use problem::Problem;
pub use serve::{Listener, serve};
pub use tls::{TlsError, TlsMaterial};
