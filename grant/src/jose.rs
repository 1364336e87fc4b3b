//! Compact JWS (RFC 7515, section 7.1), read strictly, and signatures.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use zeroize::Zeroizing;

/// The parts of a compact JWS, decoded; nothing in them is to be believed yet.
pub(crate) struct Compact<'a> {
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Zeroizing<Vec<u8>>,
    signature: Vec<u8>,
    signing_input: &'a [u8],
}

impl<'a> Compact<'a> {
    /// Splits and decodes: exactly three non-empty parts of unpadded base64url, no whitespace, and no
    /// bits set beyond the last byte (two texts for the same bytes would defeat hashing).
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not three parts: expected header.payload.signature");
        };
        let signing_input = text
            .as_bytes()
            .get(..header.len() + 1 + payload.len())
            .ok_or("not three parts: expected header.payload.signature")?;
        Ok(Self {
            header: decode(header)?,
            payload: Zeroizing::new(decode(payload)?),
            signature: decode(signature)?,
            signing_input,
        })
    }

    /// Whether `key` made the signature over header and payload with `algorithm`.
    pub(crate) fn is_signed_by(&self, key: &DecodingKey, algorithm: Algorithm) -> bool {
        // The backend is named, not the process's default, which other code could have replaced.
        (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key)
            .is_ok_and(|verifier| verifier.verify(self.signing_input, &self.signature).is_ok())
    }
}

/// Decodes a non-empty part of strict unpadded base64url (RFC 7515, section 2).
pub(crate) fn decode(part: &str) -> Result<Vec<u8>, &'static str> {
    if part.is_empty() {
        return Err("a part is empty");
    }
    URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| "a part is not strict base64url (unpadded, no spaces, no trailing bits)")
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
