//! The pinned keys of the control plane: a root-owned JWKS file, never fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use grantd_grant::{ControlPlaneKeys, InvalidJwks, KeyId};
use serde_json::Value;
use thiserror::Error;

use crate::config::{FileError, read_trusted};

/// Largest key file, in bytes. Two keys take less than one KiB.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a key file cannot be used. What was in use before stays in use.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// It cannot be read, or somebody else could have written it.
    #[error("control_plane.keys")]
    File(#[from] FileError),
    /// It is not the key set that it must be.
    #[error("control_plane.keys: {}: {}", path.display(), join(faults))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every fault of it.
        faults: Vec<InvalidJwks>,
    },
}

fn join(faults: &[InvalidJwks]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The key file as last read.
#[derive(Debug)]
pub struct ControlPlaneKeyFile {
    path: PathBuf,
    keys: Arc<ControlPlaneKeys>,
    fingerprints: BTreeMap<KeyId, [u8; 32]>,
}

impl ControlPlaneKeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let document = read_trusted(path, MAX_BYTES)?;
        let keys = ControlPlaneKeys::from_jwks(&document)
            .map_err(|faults| KeyFileError::Invalid { path: path.to_owned(), faults })?;
        let fingerprints = fingerprints(&document, &keys);
        Ok(Self { path: path.to_owned(), keys: Arc::new(keys), fingerprints })
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Arc<ControlPlaneKeys> {
        Arc::clone(&self.keys)
    }

    /// Where they were read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which keys of this file `next` no longer has, or has other key material for: what they signed
    /// must end. A changed validity period is no other key.
    #[must_use]
    pub fn removed_in(&self, next: &Self) -> BTreeSet<KeyId> {
        self.fingerprints
            .iter()
            .filter(|(kid, own)| next.fingerprints.get(kid) != Some(own))
            .map(|(kid, _)| kid.clone())
            .collect()
    }
}

/// A hash per key over what makes it this key: kind, algorithm and public part.
fn fingerprints(document: &[u8], keys: &ControlPlaneKeys) -> BTreeMap<KeyId, [u8; 32]> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let objects = document.get("keys").and_then(Value::as_array).map(Vec::as_slice);
    keys.iter()
        .filter_map(|(kid, _)| {
            let has_kid =
                |key: &&Value| key.get("kid").and_then(Value::as_str) == Some(kid.as_str());
            let key = objects.unwrap_or_default().iter().find(has_kid)?;
            Some((kid.clone(), fingerprint(key)))
        })
        .collect()
}

fn fingerprint(key: &Value) -> [u8; 32] {
    let parts: Vec<&str> = ["kty", "alg", "crv", "x", "y"]
        .into_iter()
        .map(|member| key.get(member).and_then(Value::as_str).unwrap_or_default())
        .collect();
    // No member holds a line break: all are short identifiers or base64url.
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, parts.join("\n").as_bytes()).as_ref());
    hash
}
