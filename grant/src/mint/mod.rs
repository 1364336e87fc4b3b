//! Minting: what an issuer does. For the control plane, the demo and tests, never for the daemon.
//!
//! Everything can be overridden ([`GrantDraft::set`], [`sign_compact`]), so that a test can make any
//! malformed variant of a message with a good signature.

mod drafts;
mod keys;
mod tokens;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub use self::drafts::{Draft, GrantDraft, RevocationDraft};
pub use self::keys::{GrantSigner, RevocationSigner, SigningAlgorithm};
pub use self::tokens::{OktaTokenMinter, TokenDraft};
use crate::jose::sha256;

/// A key could not be made or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MintError(pub(crate) &'static str);

/// Unpadded base64url.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `okta.ath` of a token: base64url of its SHA-256.
pub fn token_hash(token: &str) -> String {
    base64url(&sha256(token.as_bytes()))
}

/// The body of `POST /v1/grants`.
pub fn push_body(grant: &str, token: &str) -> Vec<u8> {
    json!({ "grant": grant, "subject_token": token }).to_string().into_bytes()
}

/// The body of `POST /v1/revocations`.
pub fn revocation_body(revocation: &str) -> Vec<u8> {
    json!({ "revocation": revocation }).to_string().into_bytes()
}

/// A JWK set of these keys.
pub fn jwks(keys: impl IntoIterator<Item = Value>) -> Vec<u8> {
    json!({ "keys": keys.into_iter().collect::<Vec<_>>() }).to_string().into_bytes()
}

/// A compact JWS over exactly these header and payload bytes, signed by `sign`.
///
/// # Errors
/// Those of `sign`.
pub fn sign_compact(
    header: &[u8],
    payload: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, MintError>,
) -> Result<String, MintError> {
    let input = format!("{}.{}", base64url(header), base64url(payload));
    let signature = sign(input.as_bytes())?;
    Ok(format!("{input}.{}", base64url(&signature)))
}
