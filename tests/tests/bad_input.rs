//! Whatever is pushed that is not a good grant: its reason code, one audit record, nothing programmed,
//! and what was accepted before stays as it is.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use grantd_e2e::ca::{Ca, Identity, Purpose};
use grantd_e2e::check::{RECORD, allowed, denied, refusals, refused_without_trace};
use grantd_e2e::clock::unix_now;
use grantd_e2e::control_plane::Pusher;
use grantd_e2e::grants::{Draft, Signed};
use grantd_e2e::jose::{self, SigningKey};
use grantd_e2e::okta::AccessToken;
use grantd_e2e::server::Server;
use grantd_e2e::world::{
    A, B, CODING_CLIENT, HOST_ID, LISTEN, PEER, SCOPES, World, at, pinned, scenario,
};
use serde_json::{Value, json};

/// A bad push: what it is, the reason that it must be refused for, and its body.
type Case = (&'static str, &'static str, Vec<u8>);

/// Pushes each case; before and after, a grant that was accepted earlier goes on working.
fn each_is_refused(cases: impl FnOnce(&World) -> Result<Vec<Case>>) {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let held = world.coding.hold(server.address(), Some(50))?;
        let cases = cases(world)?;
        let refused_before = refusals(world)?.len();
        for (what, reason, body) in &cases {
            refused_without_trace(world, what, reason, |world| {
                world.control_plane.push_body(body.clone())
            })?;
        }
        held.still_stands().context("a connection of the earlier grant")?;
        allowed("the earlier grant", &world.coding.tcp(server.address())?)?;
        denied("what no grant opened", &world.coding.tcp(shut.address())?)?;
        let records = refusals(world)?.len() - refused_before;
        assert_eq!(records, cases.len(), "one audit record for each refusal");
        ensure!(world.daemon.grants()?.len() == 1, "more than the earlier grant is in force");
        Ok(())
    });
}

fn good(world: &World) -> Result<Draft> {
    Ok(world.draft()?.tcp(A, 22))
}

fn body(signed: Result<Signed>) -> Result<Vec<u8>> {
    Ok(signed?.body())
}

#[test]
fn a_body_that_is_no_push_is_refused() {
    each_is_refused(|world| {
        let signed = good(world)?.sign()?;
        let (grant, token) = (signed.jws.clone(), signed.token.reveal().to_owned());
        let with = |grant: &str| json!({"grant": grant, "subject_token": token}).to_string();
        let [header, claims, signature] = jose::parts(&grant)?;
        let cases = vec![
            ("an empty body", "push_malformed", String::new()),
            ("a body that is no JSON", "push_malformed", "grant=me".to_owned()),
            ("an array", "push_malformed", format!("[{}]", with(&grant))),
            (
                "a body with an unknown member",
                "push_malformed",
                json!({"grant": grant, "subject_token": token, "force": true}).to_string(),
            ),
            (
                "a body with a member twice",
                "push_malformed",
                format!(r#"{{"grant":"{grant}","grant":"{grant}","subject_token":"{token}"}}"#),
            ),
            ("a body without a token", "push_malformed", json!({"grant": grant}).to_string()),
            ("something after the body", "push_malformed", format!("{} {{}}", with(&grant))),
            ("a grant of two parts", "jws_malformed", with(&format!("{header}.{claims}"))),
            ("a grant of four parts", "jws_malformed", with(&format!("{grant}.{signature}"))),
            ("a grant without a signature", "jws_malformed", with(&format!("{header}.{claims}."))),
            ("a padded grant", "jws_malformed", with(&format!("{grant}="))),
            (
                "a body over the limit",
                "push_too_large",
                with(&format!("{header}.{}.{signature}", "A".repeat(70_000))),
            ),
        ];
        Ok(cases
            .into_iter()
            .map(|(what, reason, body)| (what, reason, body.into_bytes()))
            .collect())
    });
}

#[test]
fn a_grant_with_a_wrong_header_key_or_signature_is_refused() {
    each_is_refused(|world| {
        let draft = good(world)?;
        let header = |name: &'static str, value: Value| {
            body(draft.sign_with_header(|header| {
                header.insert(name.to_owned(), value);
            }))
        };
        let own = world.control_plane.letterhead.key.kid().to_owned();
        let unknown = Arc::new(SigningKey::ed25519("cp-unknown")?);
        let impostor = Arc::new(SigningKey::ed25519(&own)?);
        let other_alg = Arc::new(SigningKey::p256(&own)?);
        let mut broken = draft.sign()?;
        broken.jws = jose::with_signature_changed(&broken.jws)?;
        Ok(vec![
            ("a critical header", "header_forbidden", header("crit", json!(["b64"]))?),
            ("a key in the header", "header_forbidden", header("jwk", unknown.jwk()?)?),
            (
                "a key's address in the header",
                "header_forbidden",
                header("jku", json!("https://x"))?,
            ),
            ("a certificate in the header", "header_forbidden", header("x5c", json!([]))?),
            ("another kind of token", "typ_wrong", header("typ", json!("JWT"))?),
            ("a revocation's kind", "typ_wrong", header("typ", json!("hostrevoke+jwt"))?),
            ("no kind at all", "header_malformed", {
                body(draft.sign_with_header(|header| drop(header.remove("typ"))))?
            }),
            ("no signature algorithm", "alg_mismatch", header("alg", json!("none"))?),
            (
                "a key that is not pinned",
                "key_unknown",
                body(draft.clone().signed_by(unknown).sign())?,
            ),
            (
                "another key under a pinned id",
                "signature_invalid",
                body(draft.clone().signed_by(impostor).sign())?,
            ),
            (
                "another algorithm under a pinned id",
                "alg_mismatch",
                body(draft.clone().signed_by(other_alg).sign())?,
            ),
            ("a broken signature", "signature_invalid", broken.body()),
            ("a changed destination", "signature_invalid", {
                body(draft.sign()?.tampered(|claims| {
                    claims.insert("workload".to_owned(), json!("research-agent"));
                }))?
            }),
        ])
    });
}

#[test]
fn a_grant_with_wrong_claims_is_refused() {
    each_is_refused(|world| {
        let draft = || good(world);
        let with = |claim: &str, value: Value| body(draft()?.with(claim, value).sign());
        let endpoint = |endpoint: Value| body(world.draft()?.endpoint("tcp", endpoint).sign());
        let now = unix_now();
        let twice = draft()?.claims().to_string().replacen('{', r#"{"ver":1,"#, 1);
        let detail = |name: &str, value: Value| -> Result<Vec<u8>> {
            let mut details = draft()?.claims()["authorization_details"].clone();
            jose::set(&mut details[0], name, value);
            with("authorization_details", details)
        };
        Ok(vec![
            ("an unknown claim", "claims_malformed", with("admin", json!(true))?),
            ("a claim twice", "claims_malformed", body(draft()?.sign_claims_text(&twice))?),
            ("no end", "claims_malformed", body(draft()?.without("exp").sign())?),
            ("an end that is text", "claims_malformed", with("exp", json!("9999999999"))?),
            ("several audiences", "claims_malformed", with("aud", json!([HOST_ID]))?),
            ("an unknown kind of permission", "claims_malformed", detail("type", json!("shell"))?),
            ("an unknown action", "claims_malformed", detail("actions", json!(["listen"]))?),
            ("an unknown protocol", "claims_malformed", detail("protocol", json!("sctp"))?),
            ("no endpoint", "claims_malformed", detail("endpoints", json!([]))?),
            ("no destinations", "claims_malformed", with("authorization_details", json!([]))?),
            ("port 0", "destination_invalid", endpoint(json!({"host": A, "ports": [0]}))?),
            ("no port", "claims_malformed", endpoint(json!({"host": A, "ports": []}))?),
            (
                "a prefix with host bits",
                "destination_invalid",
                endpoint(json!({"cidr": "10.77.1.2/24", "ports": [22]}))?,
            ),
            (
                "an IPv4 address in IPv6",
                "destination_forbidden",
                endpoint(json!({"host": "::ffff:10.77.1.2", "ports": [22]}))?,
            ),
            (
                "a multicast address",
                "destination_forbidden",
                endpoint(json!({"host": "224.0.0.1", "ports": [22]}))?,
            ),
            ("another control plane", "issuer_mismatch", with("iss", json!("https://other"))?),
            ("another host", "audience_mismatch", with("aud", json!(format!("{HOST_ID}1")))?),
            ("another version", "version_unsupported", with("ver", json!(2))?),
            ("one from the future", "issued_in_future", {
                body(draft()?.with("iat", json!(now + 120)).with("exp", json!(now + 180)).sign())?
            }),
            ("one that is not valid yet", "not_yet_valid", with("nbf", json!(now + 120))?),
            ("an old one", "issued_too_long_ago", with("iat", json!(now - 400))?),
            ("an expired one", "expired", {
                body(draft()?.with("iat", json!(now - 60)).with("exp", json!(now)).sign())?
            }),
            ("one that is too long", "ttl_too_long", body(draft()?.ttl(3601).sign())?),
        ])
    });
}

#[test]
fn a_grant_that_does_not_fit_its_token_ceiling_or_host_is_refused() {
    each_is_refused(|world| {
        let draft = || good(world);
        let with = |claim: &str, value: Value| body(draft()?.with(claim, value).sign());
        let minted = |name: &str, value: Value| -> Result<AccessToken> {
            let mut claims = world.issuer.claims_for(CODING_CLIENT, &SCOPES)?;
            jose::set(&mut claims, name, value);
            Ok(AccessToken::new(world.issuer.mint(&claims)?))
        };
        let for_token = |token: &AccessToken| {
            Ok::<_, anyhow::Error>(world.control_plane.draft("coding-agent", token)?.tcp(A, 22))
        };
        let short_lived = minted("exp", json!(unix_now() + 30))?;
        let unscoped = minted("scp", json!(["host.connect"]))?;
        let okta = draft()?.claims()["okta"].clone();
        let mut other_hash = okta.clone();
        jose::set(&mut other_hash, "ath", json!(jose::sha256_b64("another token")));
        Ok(vec![
            ("another token beside it", "token_hash_mismatch", with("okta", other_hash)?),
            ("another subject", "subject_mismatch", with("sub", json!("00u1other"))?),
            ("another client", "client_mismatch", with("cid", json!("0oa4other"))?),
            ("no client", "client_mismatch", body(draft()?.without("cid").sign())?),
            ("an actor that the token does not name", "actor_mismatch", {
                with("act", json!({"sub": "wlp1", "sub_profile": "ai_agent"}))?
            }),
            (
                "one that outlives its token",
                "outlives_token",
                body(for_token(&short_lived)?.sign())?,
            ),
            (
                "a token without the scope",
                "scope_over_ceiling",
                body(for_token(&unscoped)?.sign())?,
            ),
            ("too long for the ceiling", "ttl_over_ceiling", body(draft()?.ttl(700).sign())?),
            ("a port over the ceiling", "destination_over_ceiling", {
                body(world.draft()?.tcp(B, 22).sign())?
            }),
            ("a prefix over the ceiling", "destination_over_ceiling", {
                body(world.draft()?.tcp_range("10.77.0.0/16", 22, 22).sign())?
            }),
            ("the metadata service", "destination_forbidden", {
                body(world.draft()?.tcp("169.254.169.254", 80).sign())?
            }),
            ("grantd's own port", "destination_denied", {
                body(world.draft()?.tcp("10.77.9.1", 7443).sign())?
            }),
            (
                "a workload that is not here",
                "workload_unknown",
                with("workload", json!("mail-agent"))?,
            ),
            ("another boot", "boot_id_mismatch", {
                with("boot_id", json!("00000000-0000-0000-0000-000000000000"))?
            }),
            ("a renewal of nothing", "replaces_unknown", with("replaces", json!("no-such-grant"))?),
        ])
    });
}

#[test]
fn a_replayed_grant_changes_nothing_and_its_id_is_good_for_one_grant_only() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let signed = world.draft()?.tcp(A, 5432).sign()?;
        let first = world.control_plane.push_signed(&signed)?.in_force()?;
        let maps = world.kernel.entries()?;
        let again = world.control_plane.push_signed(&signed)?;
        assert_eq!(again.status, 200, "{again:?}");
        let moved = first.deadline_ms().zip(again.deadline_ms()).context("deadlines")?;
        ensure!(moved.0.abs_diff(moved.1) < 100, "a replay moved the deadline: {moved:?}");
        assert_eq!(world.kernel.entries()?, maps, "a replay changed the maps");

        refused_without_trace(world, "another grant under the same id", "jti_reused", |world| {
            let other = world.draft()?.tcp(A, 22).with("jti", json!(signed.jti));
            world.control_plane.push(&other)
        })?;
        denied("what the second grant of that id would open", &world.coding.tcp(shut.address())?)?;
        allowed("what the first opened", &world.coding.tcp(server.address())?)?;

        world.daemon.restart()?;
        let after = world.control_plane.push_signed(&signed)?;
        assert_eq!(after.status, 200, "the replay memory did not survive a restart: {after:?}");
        let answer = world.control_plane.revoke(&json!([{"jti": signed.jti}]))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        refused_without_trace(world, "a revoked grant", "grant_revoked", |world| {
            world.control_plane.push_signed(&signed)
        })?;
        denied("what was revoked", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn nobody_but_the_control_plane_can_push() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other_ca = Ca::new("another CA")?;
        let stranger = other_ca.issue(2, &[PEER], Purpose::Client)?;
        let colleague = world.ca.issue(7, &["spiffe://example.org/billing"], Purpose::Client)?;
        let two_faced =
            world.ca.issue(8, &[PEER, "spiffe://example.org/billing"], Purpose::Client)?;
        let signed = world.draft()?.tcp(A, 5432).sign()?;
        let push = |identity: Option<&Identity>| {
            let pusher = Pusher::new(LISTEN.into(), &world.ca.certificate(), identity)?;
            world.control_plane.post_as(&pusher, "/v1/grants", signed.body())
        };
        for (who, identity) in [("no certificate", None), ("another CA's", Some(&stranger))] {
            let answer = push(identity);
            ensure!(answer.is_err(), "a pusher with {who} was let in: {answer:?}");
        }
        for (who, identity) in [("another service", &colleague), ("two names", &two_faced)] {
            refused_without_trace(world, who, "peer_not_allowed", |_| push(Some(identity)))?;
        }
        denied("what nobody was allowed to push", &world.coding.tcp(server.address())?)?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        allowed("the same grant from the control plane", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn a_withdrawn_control_plane_key_ends_every_grant_that_it_signed() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        let keys = world.daemon.config().credentials.join("control-plane.jwks");
        let old = Arc::clone(&world.control_plane.letterhead.key);
        let next = Arc::new(SigningKey::p256("cp-2")?);
        let both = json!({"keys": [pinned(&old)?, pinned(&next)?]});
        std::fs::write(&keys, both.to_string())?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        world
            .control_plane
            .push(&world.draft()?.tcp(A, 8080).signed_by(Arc::clone(&next)))?
            .in_force()
            .context("a grant signed with the next key (ES256)")?;
        allowed("the old key's grant", &world.coding.tcp(server.address())?)?;

        std::fs::write(&keys, json!({"keys": [pinned(&next)?]}).to_string())?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        denied("the grant of a withdrawn key", &world.coding.tcp(server.address())?)?;
        allowed("the grant of the other key", &world.coding.tcp(other.address())?)?;
        refused_without_trace(world, "a grant by the withdrawn key", "key_unknown", |world| {
            world.control_plane.push(&world.draft()?.tcp(A, 5432))
        })?;
        world.spool.wait_for("the end of a grant", 1, RECORD, |record| {
            record.kind() == grantd_e2e::audit::GRANT_ENDED && record.reason() == "key_withdrawn"
        })?;
        Ok(())
    });
}
