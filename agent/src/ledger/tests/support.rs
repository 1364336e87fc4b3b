//! A ledger in a directory of its own, and grants and revocations to put into it.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::LazyLock,
    time::Duration,
};

use grantd_grant::{
    ControlPlaneKeys, GrantId, HostId, HostPolicy, HostPolicyParts, PeerUris, ReplayAnswer,
    RevocationPush, Selector, UnixTime, VerifiedGrant, VerifiedRevocation,
    ids::BootId,
    mint::{RevocationDraft, RevocationSigner, SigningAlgorithm, revocation_body},
    policy::{ControlPlanePolicy, OktaPolicy},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    clock::Now,
    ledger::{AcceptError, Ledger, Opened, Placement, ReplayQuery},
};

/// The second at which most of the tests play.
pub(super) const NOW: u64 = 1_795_310_987;
const ISSUER: &str = "https://control.example.org";
const PUSHER: &str = "spiffe://example.org/control-plane";

pub(super) fn at(unix: u64) -> Now {
    let wall_ns = unix * 1_000_000_000;
    Now { boot_ns: wall_ns, tai_ns: wall_ns, wall_ns }
}

pub(super) fn id(text: &str) -> GrantId {
    text.parse().unwrap()
}

pub(super) fn host() -> HostId {
    "spiffe://example.org/host/build-7".parse().unwrap()
}

pub(super) fn boot(n: u8) -> BootId {
    format!("00000000-0000-4000-8000-0000000000{n:02x}").parse().unwrap()
}

/// A grant as it comes out of the ledger: the one other way to make a verified one.
#[derive(Clone)]
pub(super) struct Spec {
    id: String,
    of: char,
    hash: u8,
    issued: u64,
    ttl: u64,
}

pub(super) fn grant(id: &str) -> Spec {
    Spec { id: id.to_owned(), of: 'z', hash: 1, issued: NOW, ttl: 900 }
}

impl Spec {
    pub(super) fn of(self, of: char) -> Self {
        Self { of, ..self }
    }
    pub(super) fn hash(self, hash: u8) -> Self {
        Self { hash, ..self }
    }
    pub(super) fn issued(self, issued: u64) -> Self {
        Self { issued, ..self }
    }
    pub(super) fn ttl(self, ttl: u64) -> Self {
        Self { ttl, ..self }
    }

    pub(super) fn make(self) -> VerifiedGrant {
        let Self { id, of, hash, issued, ttl } = self;
        let stored = json!({
            "version": 1, "id": id, "txn": format!("txn-{of}"), "issued_at": issued,
            "not_before": issued, "expires": issued + ttl, "sub": format!("sub-{of}"),
            "cid": format!("cid-{of}"), "act": [format!("act-{of}"), "ai_agent"],
            "okta_issuer": "https://acme.okta.com/oauth2/aus1", "okta_kid": "k1",
            "okta_ath": vec![7; 32], "workload": format!("work-{of}"), "boot_id": null,
            "invocation_id": null, "replaces": null, "approval": null, "kid": "cp1",
            "jws_sha256": vec![hash; 32],
            "destinations": [{"host": {"address": "10.0.0.7"}, "ports": [[5432, 5432]],
                "protocol": "tcp"}],
        });
        VerifiedGrant::restore(serde_json::from_value(stored).unwrap()).unwrap()
    }
}

/// A revocation that went the whole way from a signature.
pub(super) fn revocation(
    jti: &str,
    seq: u64,
    selectors: &[Selector],
    issued_before: u64,
) -> VerifiedRevocation {
    struct Issuer {
        signer: RevocationSigner,
        keys: ControlPlaneKeys,
        policy: HostPolicy,
    }
    static ISSUER_SIDE: LazyLock<Issuer> = LazyLock::new(|| {
        let kid = "cp1".parse().unwrap();
        let signer = RevocationSigner::generate(SigningAlgorithm::EdDsa, kid).unwrap();
        let jwk = signer.jwk(UnixTime(0), UnixTime::MAX);
        let keys = ControlPlaneKeys::from_jwks(json!({"keys": [jwk]}).to_string().as_bytes());
        let policy = HostPolicy::new(HostPolicyParts {
            host_id: host(),
            control_plane: ControlPlanePolicy {
                issuer: ISSUER.parse().unwrap(),
                pushers: [PUSHER.parse().unwrap()].into(),
            },
            okta: OktaPolicy {
                issuer: "https://acme.okta.com/oauth2/aus1".parse().unwrap(),
                audience: "api://grantd".parse().unwrap(),
                required_scopes: ["host.connect".parse().unwrap()].into(),
            },
            workloads: Vec::new(),
            ceiling: Vec::new(),
            denies: Vec::new(),
        });
        Issuer { signer, keys: keys.unwrap(), policy: policy.unwrap() }
    });
    let Issuer { signer, keys, policy } = &*ISSUER_SIDE;
    let issuer = ISSUER.parse().unwrap();
    let draft = RevocationDraft::new(&issuer, &host(), &id(jti), seq, selectors, UnixTime(NOW))
        .set("issued_before", issued_before);
    let body = revocation_body(&signer.sign(&draft).unwrap());
    let pusher = policy.check_pusher(&PeerUris::new([PUSHER.to_owned()])).unwrap();
    RevocationPush::parse(&body).unwrap().verify(&pusher, keys, policy, UnixTime(NOW)).unwrap()
}

pub(super) fn placement(deadline_boot_ns: u64) -> Placement {
    Placement {
        slot: 1,
        generation: 3,
        deadline_boot_ns,
        deadline_tai_ns: deadline_boot_ns,
        cgroup_id: 77,
        accepted_unix_ms: NOW * 1000,
    }
}

/// An open ledger, and the directory that outlives it.
pub(super) struct Home {
    dir: TempDir,
    ledger: Option<Ledger>,
    next_slot: u32,
}

impl Home {
    pub(super) fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, opened) = Ledger::open(dir.path(), &host(), &boot(1), at(NOW)).unwrap();
        assert!(matches!(opened, Opened::Fresh), "{opened:?}");
        Self { dir, ledger: Some(ledger), next_slot: 1 }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Closes the ledger, as a process that ends does.
    pub(super) fn close(&mut self) {
        self.ledger = None;
    }

    pub(super) fn open(&mut self, host: &HostId, boot: &BootId, now: Now) -> Opened {
        self.close();
        let (ledger, opened) = Ledger::open(self.dir.path(), host, boot, now).unwrap();
        self.ledger = Some(ledger);
        opened
    }

    /// Takes the file away, as a disk that fails does, and gives what brings it back.
    pub(super) fn break_disk(&mut self) -> impl FnOnce() + use<> {
        self.store.close();
        let (file, away) = (self.path().join("ledger.redb"), self.path().join("away"));
        std::fs::rename(&file, &away).unwrap();
        // Neither may the marker of a freeze be made.
        let marker = self.path().join("frozen");
        std::fs::create_dir(&marker).unwrap();
        move || {
            std::fs::remove_dir(&marker).unwrap();
            std::fs::rename(&away, &file).unwrap();
        }
    }

    /// Closes and opens it in the same boot.
    pub(super) fn reopen(mut self) -> Self {
        let opened = self.open(&host(), &boot(1), at(NOW));
        assert!(matches!(opened, Opened::Restored { .. }), "{opened:?}");
        self
    }

    pub(super) fn replay(&self, grant: &VerifiedGrant) -> ReplayAnswer {
        (**self).replay(&ReplayQuery::new(grant, *grant.jws_sha256()))
    }

    pub(super) fn accept(&mut self, grant: VerifiedGrant) -> Result<(), AcceptError> {
        let until = Duration::from_secs(grant.expires().as_secs()).as_nanos();
        self.accept_until(grant, u64::try_from(until).unwrap())
    }

    pub(super) fn accept_until(
        &mut self,
        grant: VerifiedGrant,
        deadline_boot_ns: u64,
    ) -> Result<(), AcceptError> {
        let slot = self.next_slot;
        self.next_slot += 1;
        let deadline_tai_ns = grant.expires().as_secs() * 1_000_000_000;
        let placement = Placement { slot, deadline_tai_ns, ..placement(deadline_boot_ns) };
        self.check_accept(&grant)?;
        self.accept_many([(grant, placement)]).unwrap();
        Ok(())
    }
}

impl Deref for Home {
    type Target = Ledger;
    fn deref(&self) -> &Ledger {
        self.ledger.as_ref().unwrap()
    }
}

impl DerefMut for Home {
    fn deref_mut(&mut self) -> &mut Ledger {
        self.ledger.as_mut().unwrap()
    }
}
