//! The pure core of grantd: grants, Okta tokens, ceiling, destinations, revocations.
//!
//! Nothing here does I/O, reads a clock or waits: `now` is an argument. A grant comes into being only
//! along one way, and each step has its own type, so that a later stage cannot be handed an earlier one:
//!
//! | step | checks | gives |
//! | --- | --- | --- |
//! | [`HostPolicy::check_pusher`] | 1: the peer's certificate | [`Pusher`] |
//! | [`Push::parse`], [`Push::verify`] | 2 to 9: form, key, signature, claims, time | [`SignedGrant`] |
//! | [`SignedGrant::check_replay`] | 10: what the ledger remembers | [`FreshGrant`] |
//! | [`FreshGrant::bind`] | 11 to 15: Okta token, identities, ceiling | [`VerifiedGrant`] |
//!
//! Checks 16 and 17 are the host's; their codes are in [`Reason`] too. The first failure ends it with
//! one [`Refusal`]. No verdict is cached anywhere.

pub mod destination;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grant;
mod host;
pub mod ids;
mod jose;
mod json;
pub mod keys;
pub mod limits;
#[cfg(feature = "mint")]
pub mod mint;
pub mod policy;
mod push;
mod reason;
pub mod revocation;
mod secret;
mod stored;
mod token;
mod verified;
mod wire;

pub use crate::destination::{
    Cidr, Destination, DnsName, HostPattern, InvalidDestination, PortRange, Protocol,
};
pub use crate::grant::{
    Actor, Approval, BindError, FreshGrant, GrantFacts, ReplayAnswer, ReplayOutcome, SignedGrant,
};
pub use crate::ids::{GrantId, HostId, KeyId, Subject, TxnId, UnixTime, WorkloadName};
pub use crate::keys::{ControlPlaneKeys, InvalidJwks, OktaKeys};
pub use crate::policy::{HostPolicy, HostPolicyParts, InvalidPolicy, PeerUris, Pusher};
pub use crate::push::Push;
pub use crate::reason::{About, Reason, Refusal};
pub use crate::revocation::{
    RevocationList, RevocationPush, Selector, VerifiedRevocation, VerifiedRevocationList,
};
pub use crate::stored::{InvalidStoredGrant, StoredGrant};
pub use crate::verified::VerifiedGrant;
