//! Keys: the published ones of the token issuer, fetched and cached; the pinned ones of the control
//! plane, from a file.
//!
//! What the issuer's keys promise: an issuer that cannot be reached costs new keys and nothing else,
//! until [`crate::config::OktaConfig::staleness`] has passed; a flood of tokens with made-up key ids
//! costs the issuer one request per ten seconds; a key that the issuer withdraws is reported, so that
//! what it vouched for ends.

#![forbid(unsafe_code)]

mod cache;
mod control_plane;
mod fetch;
mod store;

#[cfg(test)]
mod tests;

pub use control_plane::{ControlPlaneKeyFile, KeyFileError};
pub use fetch::FetchError;
pub use store::{KeyLookupError, OktaKeyStatus, OktaKeyStore, OktaKeyTask};
