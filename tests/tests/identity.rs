//! Whose grant it is: the agent's identity at the issuer, one workload apart from the other.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::check::{RECORD, allowed, denied, refused_without_trace};
use grantd_e2e::clock::unix_now;
use grantd_e2e::issuer::{Issuer, Shape};
use grantd_e2e::jose::{self, SigningKey};
use grantd_e2e::okta::{AccessToken, Agent};
use grantd_e2e::server::Server;
use grantd_e2e::world::{
    self, A, A6, CODING_CLIENT, PERSON, RESEARCH_CLIENT, SCOPES, World, at, scenario, scenario_in,
};
use serde_json::{Value, json};

#[test]
fn p01_each_flaw_of_the_agents_token_refuses_the_grant_with_its_own_reason() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        for (what, reason, token) in flawed_tokens(world)? {
            refused_without_trace(world, what, reason, |world| {
                let draft = world.control_plane.draft(&world.coding.name, &token)?;
                world.control_plane.push(&draft.tcp(A, 5432))
            })?;
        }
        denied("a connection after refused grants only", &world.coding.tcp(server.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("a connection after a good grant", &world.coding.tcp(server.address())?)
    });
}

fn flawed_tokens(world: &World) -> Result<Vec<(&'static str, &'static str, AccessToken)>> {
    let issuer = &world.issuer;
    let claims = || issuer.claims_for(CODING_CLIENT, &SCOPES);
    let changed = |name: &str, value: Value| -> Result<AccessToken> {
        let mut claims = claims()?;
        jose::set(&mut claims, name, value);
        Ok(AccessToken::new(issuer.mint(&claims)?))
    };
    let own = issuer.signing_key();
    let header = json!({"kid": own.kid(), "alg": "RS256"});
    let impostor = Arc::new(SigningKey::rsa(own.kid())?);
    let stranger = SigningKey::rsa("not-published")?;
    let stranger_header = json!({"kid": stranger.kid(), "alg": "RS256"});
    let good = issuer.mint(&claims()?)?;
    let [_, _, signature] = jose::parts(&good)?;
    let now = unix_now();
    Ok(vec![
        (
            "a token signed by another key under the issuer's key id",
            "token_signature_invalid",
            AccessToken::new(impostor.sign_with(&header, &claims()?)?),
        ),
        (
            "a token signed by a key that the issuer does not publish",
            "token_key_unknown",
            AccessToken::new(stranger.sign_with(&stranger_header, &claims()?)?),
        ),
        (
            "a token of another issuer",
            "token_issuer_mismatch",
            changed("iss", json!(format!("{}/", issuer.url())))?,
        ),
        (
            "a token for another audience",
            "token_audience_mismatch",
            changed("aud", json!("api://default"))?,
        ),
        ("an expired token", "token_expired", {
            let mut claims = claims()?;
            jose::set(&mut claims, "iat", json!(now - 60));
            jose::set(&mut claims, "exp", json!(now - 1));
            AccessToken::new(issuer.mint(&claims)?)
        }),
        ("a token that is not valid yet", "token_not_yet_valid", changed("nbf", json!(now + 120))?),
        ("a token from the future", "token_issued_in_future", changed("iat", json!(now + 120))?),
        (
            "a token without the scope that this host demands",
            "token_scope_missing",
            changed("scp", json!(["net.test"]))?,
        ),
        (
            "an unsigned token",
            "token_alg_wrong",
            AccessToken::new(jose::unsigned(own.kid(), &claims()?, signature)),
        ),
        (
            "a token with an HMAC keyed with the issuer's public key",
            "token_alg_wrong",
            AccessToken::new(jose::hs256_keyed_with_public_key(&own, &claims()?)?),
        ),
        (
            "a token with RS384",
            "token_alg_wrong",
            AccessToken::new(
                own.sign_with(&json!({"kid": own.kid(), "alg": "RS384"}), &claims()?)?,
            ),
        ),
        (
            "a token whose claims were changed after signing",
            "token_signature_invalid",
            AccessToken::new(jose::with_claims_changed(&good, |claims| {
                claims.insert("groups".to_owned(), json!(["admins"]));
            })?),
        ),
    ])
}

#[test]
fn p03_a_valid_token_without_a_grant_opens_nothing() {
    scenario(|world| {
        world.token()?;
        let everything = everything_tried(world)?;
        for (what, attempt) in &everything.attempts {
            denied(what, attempt)?;
        }
        let draft = world.draft()?.tcp(A, 5432).tcp(A6, 5432).udp(A, 5353).udp(A6, 5353);
        world.control_plane.push(&draft)?.in_force()?;
        for (what, attempt) in everything.again(world)? {
            allowed(&what, &attempt)?;
        }
        Ok(())
    });
}

struct Everything {
    attempts: Vec<(String, grantd_e2e::probe::Attempt)>,
    _servers: Vec<Server>,
}

fn everything_tried(world: &World) -> Result<Everything> {
    let mut servers = Vec::new();
    for host in [A, A6] {
        servers.push(Server::tcp(&world.srv_a, at(host, 5432)?)?);
        servers.push(Server::udp(&world.srv_a, at(host, 5353)?)?);
    }
    let mut everything = Everything { attempts: Vec::new(), _servers: servers };
    everything.attempts = everything.again(world)?;
    Ok(everything)
}

impl Everything {
    fn again(&self, world: &World) -> Result<Vec<(String, grantd_e2e::probe::Attempt)>> {
        let mut attempts = Vec::new();
        for host in [A, A6] {
            attempts.push((format!("TCP to {host}"), world.coding.tcp(at(host, 5432)?)?));
            attempts.push((format!("UDP to {host}"), world.coding.udp(at(host, 5353)?)?));
            let connected = world.coding.udp_connected(at(host, 5353)?)?;
            attempts.push((format!("connected UDP to {host}"), connected));
        }
        Ok(attempts)
    }
}

#[test]
fn p30_neither_of_two_workloads_can_use_the_others_grant() {
    scenario(|world| {
        let first = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let second = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        world.control_plane.push(&world.research_draft()?.tcp(A, 8080))?.in_force()?;

        allowed("the coding agent's own grant", &world.coding.tcp(first.address())?)?;
        allowed("the research agent's own grant", &world.research.tcp(second.address())?)?;
        denied("the research agent's grant", &world.coding.tcp(second.address())?)?;
        denied("the coding agent's grant", &world.research.tcp(first.address())?)?;

        // Nor can one agent's identity open something for the other's workload.
        refused_without_trace(world, "a grant for a neighbour", "subject_not_allowed", |world| {
            let token = world.research_agent.log_in(&SCOPES)?;
            let draft = world.control_plane.draft(&world.coding.name, &token)?;
            world.control_plane.push(&draft.tcp(A, 8080))
        })?;
        Ok(())
    });
}

#[test]
fn p31_an_agent_without_a_person_is_known_by_its_client_id_in_grant_and_audit() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let draft = world.research_draft()?.tcp(A, 5432);
        assert_eq!(draft.claims()["sub"], RESEARCH_CLIENT, "the token names a person");
        let signed = draft.sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        allowed("an agent that acts for nobody", &world.research.tcp(server.address())?)?;

        let granted = world.spool.wait_for("the grant", 1, RECORD, |record| {
            record.is_grant_in_force() && record.grant() == signed.jti
        })?;
        let user = granted[0].text("/user/uid").to_owned();
        assert_eq!(user, RESEARCH_CLIENT, "whom the record names: {:?}", granted[0]);
        let opened = world.spool.wait_for("its connection", 1, RECORD, |record| {
            record.kind() == grantd_e2e::audit::ALLOWED && record.workload() == "research-agent"
        })?;
        assert_eq!(opened[0].text("/actor/app_uid"), RESEARCH_CLIENT, "{:?}", opened[0]);
        assert_eq!(opened[0].grant(), signed.jti);

        // One that acts for a person is named by both.
        let signed = world.draft()?.tcp(A, 5432).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let granted = world.spool.wait_for("the other grant", 1, RECORD, |record| {
            record.is_grant_in_force() && record.grant() == signed.jti
        })?;
        assert_eq!(granted[0].text("/user/uid"), PERSON);
        Ok(())
    });
}

#[test]
fn p34_another_openid_provider_takes_the_place_of_okta_by_two_lines_of_config() {
    scenario_in(World::start(), |world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let okta_token = world.token()?;
        let other = Issuer::start(&world.host, Shape::generic("https://hosts.example.net"))?;
        let agent = Agent::register(&other, &world.host, CODING_CLIENT, &SCOPES, &[])?;
        world.daemon.reconfigure(|config| {
            config.okta_issuer = other.url();
            config.okta_audience = other.audience().to_owned();
            // Its tokens carry no `cid`: its agents are known by `sub`.
            if let Some(workload) = config.workloads.first_mut() {
                workload.subjects = vec![format!("{{ uid = {CODING_CLIENT:?} }}")];
            }
        })?;
        world.daemon.restart()?;

        refused_without_trace(world, "a token of Okta", "token_issuer_mismatch", |world| {
            let draft = world.control_plane.draft(&world.coding.name, &okta_token)?;
            world.control_plane.push(&draft.tcp(A, 5432))
        })?;
        denied("a connection before a grant", &world.coding.tcp(server.address())?)?;
        let token = agent.log_in(&SCOPES)?;
        let claims = jose::claims(token.reveal())?;
        ensure!(claims.get("scp").is_none() && claims.get("cid").is_none(), "Okta's own: {claims}");
        let draft = world.control_plane.draft(&world.coding.name, &token)?.tcp(A, 5432);
        world.control_plane.push(&draft)?.in_force().context("a token of the other provider")?;
        allowed("a connection with the other provider", &world.coding.tcp(server.address())?)?;
        assert_ne!(world::CONTROL_PLANE, other.url());
        Ok(())
    });
}

#[test]
fn a_key_that_the_issuer_withdraws_ends_the_grants_whose_token_it_signed() {
    scenario(|world| {
        let first = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let second = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(120).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        allowed("a grant of the first key", &world.coding.tcp(first.address())?)?;

        world.issuer.rotate("okta-key-2")?;
        world.issuer.withdraw_key("okta-key-1");
        // A token by a key that is not known yet has the keys fetched again: once it is missing, and
        // only the second time, at least 10 s later, is it withdrawn.
        std::thread::sleep(Duration::from_secs(11));
        world.control_plane.push(&world.draft()?.tcp(A, 8080).ttl(120))?.in_force()?;
        allowed("a grant of the next key", &world.coding.tcp(second.address())?)?;
        allowed("the first, missing once", &world.coding.tcp(first.address())?)?;
        world.issuer.rotate("okta-key-3")?;
        std::thread::sleep(Duration::from_secs(11));
        world.control_plane.push(&world.draft()?.tcp(A, 8081).ttl(120))?.in_force()?;

        world.spool.wait_for("the end of the first grant", 1, RECORD, |record| {
            record.kind() == grantd_e2e::audit::GRANT_ENDED
                && record.grant() == signed.jti
                && record.reason() == "key_withdrawn"
        })?;
        denied("the grant of the withdrawn key", &world.coding.tcp(first.address())?)?;
        allowed("the grant of the key that stayed", &world.coding.tcp(second.address())?)
    });
}

#[test]
fn an_unreachable_issuer_changes_nothing_for_grants_in_force_and_keys_already_known() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let token = world.token()?;
        world.issuer.fail_keys(true);
        world.issuer.rotate("okta-key-2")?;
        let unknown = world.token()?;
        refused_without_trace(
            world,
            "a token by a key nobody can fetch",
            "token_key_unknown",
            |world| {
                let draft = world.control_plane.draft(&world.coding.name, &unknown)?;
                world.control_plane.push(&draft.tcp(A, 8080))
            },
        )?;
        allowed("a grant in force", &world.coding.tcp(server.address())?)?;
        let draft = world.control_plane.draft(&world.coding.name, &token)?.tcp(A, 8080);
        world.control_plane.push(&draft)?.in_force().context("a token by a known key")?;
        allowed("a new grant by a known key", &world.coding.tcp(other.address())?)
    });
}

#[test]
fn the_first_push_after_a_start_waits_for_the_issuers_keys() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        world.issuer.delay(Duration::from_millis(300));
        let token = world.token()?;
        world.daemon.start()?;
        let draft = world.control_plane.draft(&world.coding.name, &token)?.tcp(A, 5432);
        world.control_plane.push(&draft)?.in_force()?;
        Ok(())
    });
}
