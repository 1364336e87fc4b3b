//! What the ledger writes is what it reads back, and nothing else is read.

use grantd_grant::{InvalidStoredGrant, StoredGrant, VerifiedGrant};
use serde_json::{Value, json};

use crate::attempt::{Attempt, tcp_to};
use crate::world::NOW;

fn full() -> VerifiedGrant {
    Attempt::new()
        .claim("boot_id", "3f1c2b7e-0000-4a4b-8c8d-1234567890ab")
        .claim("invocation_id", "0123456789abcdef0123456789abcdef")
        .claim("replaces", "01JDOLDER")
        .claim("approval", json!({ "by": "00u9zz", "at": NOW.0, "id": "apr-31" }))
        .claim(
            "authorization_details",
            tcp_to(json!([
                { "host": "db-1.internal", "ports": [5432] },
                { "host": "*.pkg.example.com", "ports": [443] },
                { "host": "10.20.0.1", "ports": [8000, 8002] },
                { "cidr": "10.20.0.0/24", "ports": [{ "from": 8000, "to": 8010 }] },
            ])),
        )
        .admitted()
}

fn restore(value: Value) -> Result<VerifiedGrant, String> {
    let stored: StoredGrant = serde_json::from_value(value).map_err(|error| error.to_string())?;
    VerifiedGrant::restore(stored).map_err(|error| error.to_string())
}

#[test]
fn a_stored_grant_comes_back_the_same() {
    for grant in [full(), Attempt::new().without("act").token_without("act").admitted()] {
        let value = serde_json::to_value(grant.to_stored()).unwrap();
        assert_eq!(restore(value).unwrap(), grant);
    }
}

#[test]
fn a_damaged_record_is_not_restored() {
    let good = serde_json::to_value(full().to_stored()).unwrap();
    assert!(restore(good.clone()).is_ok());
    for (pointer, value) in [
        ("/version", json!(2)),
        ("/id", json!("../x")),
        ("/destinations", json!([])),
        ("/expires", json!(0)),
        ("/expires", json!(NOW.0)),
        ("/destinations/0/ports", json!([])),
        ("/destinations/0/ports", json!([[0, 1]])),
        ("/destinations/0/ports", json!([[2, 1]])),
        ("/destinations/0/host", json!({ "address": "169.254.169.254" })),
        ("/destinations/0/host", json!({ "address": "::ffff:10.0.0.1" })),
        ("/destinations/0/host", json!({ "cidr": ["10.0.0.1", 8] })),
        ("/destinations/0/host", json!({ "cidr": ["0.0.0.0", 0] })),
        ("/destinations/0/host", json!({ "name": "UPPER.example.com" })),
        ("/okta_ath", json!([1, 2])),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).expect("the field exists") = value;
        assert!(restore(bad).is_err(), "{pointer}");
    }
    let mut extra = good.clone();
    extra["note"] = json!(1);
    assert!(restore(extra).is_err());
    let mut other = good;
    other["version"] = json!(9);
    let stored: StoredGrant = serde_json::from_value(other).unwrap();
    assert_eq!(VerifiedGrant::restore(stored), Err(InvalidStoredGrant::Version(9)));
}
