//! What admission records of those that it turns away.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use grantd_audit::Recorder;
use grantd_audit::event::Event;
use grantd_grant::{ControlPlaneKeys, HostPolicy, PeerUris, Reason};
use tokio::sync::watch;

use super::{PushAdmission, Repeats, Terms};
use crate::clock::SystemClock;
use crate::config::{Config, FileFacts, Origin};
use crate::intake::{Admission as _, Asked, Peer, PushKind};
use crate::keys::OktaKeyStore;

fn config() -> Config {
    let facts = FileFacts { regular: true, uid: 0, mode: 0o644, euid: 0 };
    let origin = Origin { file: Path::new("config.toml"), facts: &facts, credentials: None };
    Config::parse(include_str!("../../../systemd/config.toml"), &origin).unwrap()
}

pub(super) fn policy() -> Arc<HostPolicy> {
    config().policy
}

pub(super) fn keys() -> Arc<ControlPlaneKeys> {
    // The public key of RFC 8037, appendix A.2.
    let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"cp-1","alg":"EdDSA","nbf":1,"exp":4102444800,
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    Arc::new(ControlPlaneKeys::from_jwks(jwks.as_bytes()).unwrap())
}

fn peer(uri: &str) -> Peer {
    let address = SocketAddr::from(([127, 0, 0, 1], 40000));
    Peer { uris: PeerUris::new([uri.to_owned()]), address }
}

#[tokio::test]
async fn a_certificate_that_may_not_push_leaves_one_record_of_what_it_tried_and_a_count() {
    let (recorder, recorded) = Recorder::collecting();
    let clock = Arc::new(SystemClock);
    let (okta, _task, _withdrawn) =
        OktaKeyStore::new(&config().okta, clock.clone(), Vec::new()).unwrap();
    let (_sender, terms) =
        watch::channel(Terms { policy: policy(), keys: keys(), changing: false });
    let (enforcer, _commands) = crate::enforcer::channel();
    let refused_peers = Arc::new(Repeats::default());
    let admission = PushAdmission {
        terms,
        okta,
        enforcer,
        recorder,
        refused_peers: Arc::clone(&refused_peers),
        clock,
        boot_id: String::new(),
        audit_required: true,
    };
    let grant = Asked::Push(PushKind::Grant);
    let cases = [
        ("spiffe://example.org/a", grant),
        ("spiffe://example.org/b", Asked::Push(PushKind::Revocation)),
        ("spiffe://example.org/c", Asked::Other),
    ];
    for (uri, asked) in cases {
        for _ in 0..100 {
            let refused = admission.check_peer(&peer(uri), asked).unwrap_err();
            assert_eq!(refused.reason, Reason::PeerNotAllowed);
        }
        let events = recorded.take();
        assert_eq!(events.len(), 1, "{uri}: not one record at once: {events:?}");
        let is_right = match asked {
            Asked::Push(PushKind::Grant) => matches!(events[0].0, Event::GrantRefused(_)),
            Asked::Push(PushKind::Revocation) => {
                matches!(events[0].0, Event::RevocationRefused(_))
            }
            Asked::Other => matches!(events[0].0, Event::ApiCall(_)),
        };
        assert!(is_right, "{uri}: recorded as something else: {events:?}");
    }
    assert_eq!(refused_peers.withheld(), 3 * 99);
    assert!(admission.check_peer(&peer("spiffe://example.org/control-plane"), grant).is_ok());
    assert!(recorded.take().is_empty(), "who is allowed was recorded as refused");
}
