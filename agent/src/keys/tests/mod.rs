//! Keys as users depend on them: an issuer that fails, lies, lags, rotates and withdraws.

mod cache;
mod control_plane;
mod discovery;
mod issuer;
mod store;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use grantd_grant::mint::OktaTokenMinter;
use grantd_grant::{KeyId, OktaKeys};
use serde_json::{Value, json};

use crate::clock::{Clock, Now};

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub(super) struct FakeClock(AtomicU64);

impl FakeClock {
    pub(super) fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Now {
        let boot_ns = self.0.load(Ordering::SeqCst);
        Now { boot_ns, tai_ns: boot_ns, wall_ns: boot_ns }
    }

    fn synchronised(&self) -> bool {
        true
    }
}

pub(super) fn kid(text: &str) -> KeyId {
    KeyId::new(text).expect("key id")
}

/// A JWK set with one RSA key under each of these ids.
pub(super) fn jwks(kids: &[&str]) -> Vec<u8> {
    // One key for all ids: only ids matter here, and making a key takes a while.
    static JWK: OnceLock<Value> = OnceLock::new();
    let jwk = JWK.get_or_init(|| OktaTokenMinter::generate(kid("any")).expect("key").jwk());
    let keys: Vec<Value> = kids
        .iter()
        .map(|id| {
            let mut key = jwk.clone();
            key["kid"] = json!(id);
            key
        })
        .collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

pub(super) fn keys(kids: &[&str]) -> OktaKeys {
    OktaKeys::from_jwks(&jwks(kids)).expect("key set")
}
