//! The story, step by step.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{self, Record};
use grantd_e2e::check::RECORD;
use grantd_e2e::clock::{sleep_until_unix, unix_micros};
use grantd_e2e::control_plane::Answer;
use grantd_e2e::grants::Signed;
use grantd_e2e::jose;
use grantd_e2e::okta::AccessToken;
use grantd_e2e::probe::Attempt;
use grantd_e2e::server::Server;
use grantd_e2e::workload::Holding;
use grantd_e2e::world::{A, B, CODING_CLIENT, HOST_ID, SCOPES, World, at};
use serde_json::{Value, json};

use crate::timeline::Timeline;

/// Who is who.
pub(crate) const CAST: &str = "
  agent          a process in the workload `coding-agent`, an ordinary user, confined by its cgroup
  other agent    the same in the workload `research-agent`
  issuer         an OpenID provider in the shape of an Okta custom authorization server
  control plane  signs grants and pushes them to this host over mutual TLS
  grantd         verifies every grant on this host and writes it into kernel maps
  servers        database 10.77.1.2:5432 (also ssh on 22), second machine 10.77.2.2:5432
";

const DATABASE: u16 = 5432;
const SSH: u16 = 22;
/// Between two queries on the connection that is held.
const QUERY_MS: u64 = 50;

/// Tells it all.
pub(crate) fn tell(world: &mut World, timeline: &mut Timeline, seconds: u64) -> Result<()> {
    let servers = [
        Server::tcp(&world.srv_a, at(A, DATABASE)?)?,
        Server::tcp(&world.srv_a, at(A, SSH)?)?,
        Server::tcp(&world.srv_b, at(B, DATABASE)?)?,
    ];
    let token = nothing_is_open(world, timeline)?;
    let granted = one_thing_is_granted(world, timeline, &token, seconds)?;
    it_ends_by_itself(world, timeline, &granted, &servers[0])?;
    bad_grants_are_refused(world, timeline, &token, &granted.signed)?;
    all_of_it_is_on_record(world, timeline, &granted.signed)
}

struct Granted {
    signed: Signed,
    deadline_ms: u64,
    held: Holding,
}

fn nothing_is_open(world: &mut World, timeline: &mut Timeline) -> Result<AccessToken> {
    timeline.heading("Nothing is open");
    timeline.step("grantd", "starts", || {
        world.daemon.start()?;
        let status = world.daemon.ask(&json!({"op": "status"}))?;
        let hooks = status.get("coverage").and_then(Value::as_array).map_or(0, Vec::len);
        Ok(format!("enforcing: {hooks} hooks in the kernel, 0 grants"))
    })?;
    let mut token = None;
    timeline.step("agent", "logs in at the issuer with its own key (private_key_jwt)", || {
        token = Some(world.coding_agent.log_in(&SCOPES)?);
        Ok(format!("access token for client {CODING_CLIENT}, scopes {}", SCOPES.join(" ")))
    })?;
    timeline.step("agent", "connects to the database: it has a token, but no grant", || {
        denied(&world.coding.tcp(at(A, DATABASE)?)?)
    })?;
    token.context("no token")
}

fn one_thing_is_granted(
    world: &mut World,
    timeline: &mut Timeline,
    token: &AccessToken,
    seconds: u64,
) -> Result<Granted> {
    timeline.heading(&format!("One connection is granted, for {seconds} seconds"));
    let signed = world
        .control_plane
        .draft(&world.coding.name, token)?
        .tcp(A, DATABASE)
        .ttl(seconds)
        .sign()?;
    let mut deadline_ms = 0;
    timeline.step(
        "control plane",
        "pushes a grant: coding-agent → tcp 10.77.1.2:5432",
        || {
            let answer = world.control_plane.push_signed(&signed)?.in_force()?;
            deadline_ms = answer.deadline_ms().context("no deadline in the answer")?;
            Ok(format!(
                "201: in force, read back from the kernel ({:.1} ms)",
                answer.elapsed.as_secs_f64() * 1e3
            ))
        },
    )?;
    timeline.step("agent", "connects to the database", || {
        allowed(&world.coding.tcp(at(A, DATABASE)?)?)
    })?;
    let mut held = None;
    timeline.step("agent", "holds a connection: a query every 50 ms", || {
        let holding = world.coding.hold(at(A, DATABASE)?, Some(QUERY_MS))?;
        holding.next_exchange(Duration::from_secs(2))?;
        held = Some(holding);
        Ok("answered".to_owned())
    })?;
    timeline.step("agent", "tries another port of the same host, 10.77.1.2:22", || {
        denied(&world.coding.tcp(at(A, SSH)?)?)
    })?;
    timeline.step("agent", "tries another host, 10.77.2.2:5432", || {
        denied(&world.coding.tcp(at(B, DATABASE)?)?)
    })?;
    timeline.step("other agent", "tries the database that was granted to its neighbour", || {
        denied(&world.research.tcp(at(A, DATABASE)?)?)
    })?;
    Ok(Granted { signed, deadline_ms, held: held.context("no connection is held")? })
}

fn it_ends_by_itself(
    world: &mut World,
    timeline: &mut Timeline,
    granted: &Granted,
    database: &Server,
) -> Result<()> {
    timeline.heading("It ends by itself, with nobody left to end it");
    timeline.step("demo", "kills grantd (SIGKILL) and cuts the control plane off", || {
        // What a killed daemon has taken out of the kernel and not written yet is counted as lost.
        let so_far = "audit records of what was denied so far";
        let is_denied = |record: &Record| record.kind() == audit::DENIED;
        world.spool.wait_for(so_far, 4, RECORD, is_denied)?;
        world.daemon.kill9()?;
        world.control_plane_link(false)?;
        Ok("gone".to_owned())
    })?;
    timeline.step("agent", "uses its grant", || {
        granted.held.next_exchange(Duration::from_secs(2))?;
        let said = allowed(&world.coding.tcp(at(A, DATABASE)?)?)?;
        Ok(format!("still {said}; the held connection goes on"))
    })?;
    timeline.step("agent", "tries the other port and the other host again", || {
        denied(&world.coding.tcp(at(A, SSH)?)?)?;
        denied(&world.coding.tcp(at(B, DATABASE)?)?)
    })?;
    timeline.step("nobody", "…waits for the deadline", || {
        sleep_until_unix(granted.deadline_ms.div_ceil(1000));
        std::thread::sleep(Duration::from_millis(200));
        Ok("it has passed".to_owned())
    })?;
    timeline.step("agent", "connects to the database", || {
        denied(&world.coding.tcp(at(A, DATABASE)?)?)
    })?;
    timeline
        .step("database", "when did it hear from the agent last?", || silence(database, granted))?;
    timeline.step("grantd", "starts again, adopts what is in the kernel", || {
        world.control_plane_link(true)?;
        world.daemon.start()?;
        ensure!(world.daemon.grants()?.is_empty(), "it revived a grant");
        silence(database, granted)?;
        Ok("0 grants; the held connection stays silent".to_owned())
    })
}

fn silence(database: &Server, granted: &Granted) -> Result<String> {
    let visit = database
        .visits()
        .into_iter()
        .find(|visit| visit.peer == granted.held.local)
        .context("the database never saw the held connection")?;
    let deadline_us = granted.deadline_ms * 1000;
    ensure!(
        visit.last_byte_us <= deadline_us,
        "{} ms after the deadline",
        (visit.last_byte_us - deadline_us) / 1000
    );
    let before = (deadline_us - visit.last_byte_us) / 1000;
    ensure!(before < 20 * QUERY_MS, "{before} ms before the deadline: it was cut too early");
    let since = unix_micros().saturating_sub(deadline_us) / 1000;
    Ok(format!("{before} ms before the deadline; nothing in the {since} ms since"))
}

fn bad_grants_are_refused(
    world: &mut World,
    timeline: &mut Timeline,
    token: &AccessToken,
    old: &Signed,
) -> Result<()> {
    timeline.heading("What is not a good grant is refused, with the reason");
    let control_plane = &world.control_plane;
    let draft = || control_plane.draft(&world.coding.name, token);
    timeline.step("somebody", "pushes the same grant with a later end", || {
        let later = old.tampered(|claims| {
            claims.insert("exp".to_owned(), json!(old.exp + 600));
        })?;
        refused(control_plane.push_signed(&later)?, "signature_invalid")
    })?;
    timeline.step("somebody", "replays the grant as it was", || {
        refused(control_plane.push_signed(old)?, "expired")
    })?;
    timeline.step("control plane", "uses the id of the old grant for a new one", || {
        let reused = draft()?.tcp(A, DATABASE).with("jti", json!(old.jti));
        refused(control_plane.push(&reused)?, "jti_reused")
    })?;
    timeline.step("control plane", "grants more than the host's own ceiling allows", || {
        refused(control_plane.push(&draft()?.tcp(B, SSH))?, "destination_over_ceiling")
    })?;
    timeline.step("control plane", "grants on the strength of a forged token", || {
        let forged = AccessToken::new(jose::with_claims_changed(token.reveal(), |claims| {
            claims.insert("cid".to_owned(), json!("0oa4admin"));
        })?);
        let grant = control_plane.draft(&world.coding.name, &forged)?.tcp(A, DATABASE);
        refused(control_plane.push(&grant)?, "token_signature_invalid")
    })?;
    timeline.step("control plane", "pushes a grant that is meant for another host", || {
        let foreign = draft()?.tcp(A, DATABASE).with("aud", json!(format!("{HOST_ID}-2")));
        refused(control_plane.push(&foreign)?, "audience_mismatch")
    })?;
    timeline
        .step("agent", "connects to the database", || denied(&world.coding.tcp(at(A, DATABASE)?)?))
}

fn all_of_it_is_on_record(
    world: &mut World,
    timeline: &mut Timeline,
    signed: &Signed,
) -> Result<()> {
    timeline.heading("All of it is on record, where the agent cannot reach it");
    let spool = &world.spool;
    let wait = |what: &str, least: usize, fits: &dyn Fn(&Record) -> bool| {
        spool.wait_for(what, least, Duration::from_secs(5), fits).map(|found| found.len())
    };
    timeline.step("auditor", "counts the records", || {
        let in_force = wait("the grant", 1, &|record| {
            record.is_grant_in_force() && record.grant() == signed.jti
        })?;
        let ended = wait("its end", 1, &|record| {
            record.kind() == audit::GRANT_ENDED && record.grant() == signed.jti
        })?;
        let allowed = wait("allowed connections", 3, &|record| record.kind() == audit::ALLOWED)?;
        let denied = wait("denied connections", 8, &|record| record.kind() == audit::DENIED)?;
        let refused = wait("refused grants", 6, &Record::is_refused_grant)?;
        Ok(format!(
            "{in_force} granted, {allowed} allowed, {denied} denied, {ended} ended, {refused} refused"
        ))
    })?;
    let mut lines = String::new();
    timeline.step("auditor", "runs `grantctl audit tail`", || {
        let output = world.daemon.run("grantctl", &["audit", "tail", "-n", "14"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lines = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!lines.is_empty(), "it shows nothing");
        Ok("the newest:".to_owned())
    })?;
    timeline.aside(&lines);
    Ok(())
}

fn denied(attempt: &Attempt) -> Result<String> {
    ensure!(attempt.denied(), "it should be denied with EPERM: {attempt:?}");
    Ok(format!("denied at once: EPERM ({} µs)", attempt.elapsed_us))
}

fn allowed(attempt: &Attempt) -> Result<String> {
    ensure!(attempt.ok, "it should be allowed: {attempt:?}");
    Ok(format!("allowed ({} µs)", attempt.elapsed_us))
}

fn refused(answer: Answer, reason: &str) -> Result<String> {
    let answer = answer.refused(reason)?;
    Ok(format!("{}: {reason}", answer.status))
}
