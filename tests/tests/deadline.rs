//! Grants end by themselves, and live connections with them, whatever happens to grantd meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{CUT, GRANT_ENDED};
use grantd_e2e::check::{RECORD, allowed, denied, silent_after};
use grantd_e2e::clock::{sleep_until_unix, unix_now};
use grantd_e2e::grants::Signed;
use grantd_e2e::machine;
use grantd_e2e::probe::Tally;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, A6, World, at, scenario};

/// How late the end of a live connection may be seen by either side while grantd runs.
const CUT_WITHIN_US: u64 = 100_000;
/// How long before the deadline the last exchange of a busy connection may lie: what is later was
/// cut too early.
const TOO_EARLY: Duration = Duration::from_millis(500);
/// How far wall clock and boot clock may be apart in what they say about one instant.
const CLOCKS_DIFFER_US: u64 = 50_000;
const SOON: Duration = Duration::from_secs(3);

/// Pushes a grant for TCP port 5432 of [`A`] and gives it with its deadline in microseconds.
fn grant(world: &World, ttl: u64) -> Result<(Signed, u64)> {
    let signed = world.draft()?.tcp(A, 5432).ttl(ttl).sign()?;
    let answer = world.control_plane.push_signed(&signed)?.in_force()?;
    Ok((signed, answer.deadline_ms().context("no deadline in the answer")? * 1000))
}

/// What happens when in the life of one grant, in seconds from its start.
struct Course {
    ttl: u64,
    daemon_killed: u64,
    control_plane_cut_off: u64,
    used: u64,
}

#[test]
fn p06_expiry_comes_on_time_with_the_daemon_killed_and_the_control_plane_cut_off() {
    let course = Course { ttl: 8, daemon_killed: 2, control_plane_cut_off: 3, used: 4 };
    scenario(|world| run_its_course(world, &course));
}

#[test]
#[ignore = "long: a whole minute, as the promise says it"]
fn p06_a_grant_of_a_minute_ends_after_a_minute() {
    let course = Course { ttl: 60, daemon_killed: 20, control_plane_cut_off: 30, used: 31 };
    scenario(|world| run_its_course(world, &course));
}

fn run_its_course(world: &mut World, course: &Course) -> Result<()> {
    let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
    let (signed, deadline_us) = grant(world, course.ttl)?;
    let start = signed.exp - course.ttl;
    allowed("a fresh grant", &world.coding.tcp(server.address())?)?;
    let busy = world.coding.hold(server.address(), Some(20))?;

    sleep_until_unix(start + course.daemon_killed);
    world.daemon.kill9()?;
    sleep_until_unix(start + course.control_plane_cut_off);
    world.control_plane_link(false)?;
    sleep_until_unix(start + course.used);
    allowed("the grant, with nobody to serve it", &world.coding.tcp(server.address())?)?;
    busy.still_stands()?;

    sleep_until_unix(deadline_us.div_ceil(1_000_000));
    std::thread::sleep(Duration::from_millis(300));
    denied("the grant after its deadline", &world.coding.tcp(server.address())?)?;
    let before = silent_after(&server, busy.local, deadline_us)?;
    ensure!(
        before < machine::patience(TOO_EARLY),
        "the live connection fell silent {before:?} too early"
    );

    world.control_plane_link(true)?;
    world.daemon.start()?;
    denied("the old grant after a restart", &world.coding.tcp(server.address())?)?;
    ensure!(world.daemon.grants()?.is_empty(), "an expired grant was revived");
    grant(world, 60)?;
    allowed("a new grant", &world.coding.tcp(server.address())?)
}

#[test]
fn p07_at_the_deadline_both_ends_of_busy_and_idle_connections_see_a_reset_within_100_ms() {
    scenario(|world| {
        let servers =
            [Server::tcp(&world.srv_a, at(A, 5432)?)?, Server::tcp(&world.srv_a, at(A6, 5432)?)?];
        let draft = world.draft()?.tcp(A, 5432).tcp(A6, 5432).ttl(4);
        let signed = draft.sign()?;
        let answer = world.control_plane.push_signed(&signed)?.in_force()?;
        let deadline_us = answer.deadline_ms().context("no deadline in the answer")? * 1000;
        let mut held = Vec::new();
        for server in &servers {
            held.push((server, "busy", world.coding.hold(server.address(), Some(20))?));
            held.push((server, "idle", world.coding.hold(server.address(), None)?));
        }
        let in_time = machine::judges_time("P7: both ends see the reset within 100 ms")?;
        for (server, what, holding) in held {
            let what = format!("a {what} connection to {}", server.address());
            let local = holding.local;
            let broke = holding.wait_for_break(Duration::from_secs(8))?;
            let end = server.wait_for_end(local, SOON)?;
            for (side, at_us) in [("the agent", broke.at_us), ("the server", end.at_us)] {
                ensure!(
                    at_us + CLOCKS_DIFFER_US > deadline_us,
                    "{what}: {side} saw the end {} µs before the deadline",
                    deadline_us.saturating_sub(at_us)
                );
                ensure!(
                    !in_time || at_us < deadline_us + CUT_WITHIN_US,
                    "{what}: {side} saw the end only {} µs after the deadline",
                    at_us - deadline_us
                );
            }
            ensure!(!end.orderly, "{what} was closed in order, not reset");
            ensure!(broke.error != "EOF", "{what} was closed in order, not cut: {broke:?}");
        }
        world.spool.wait_for("connections that were cut", 4, RECORD, |record| {
            record.kind() == CUT && record.grant() == signed.jti && record.reason() == "expired"
        })?;
        world.spool.wait_for("the end of the grant", 1, RECORD, |record| {
            record.kind() == GRANT_ENDED && record.grant() == signed.jti
        })?;
        Ok(())
    });
}

#[test]
fn a_renewed_grant_keeps_its_connection_and_the_old_deadline_does_not_cut_it() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let (old, old_deadline_us) = grant(world, 3)?;
        let held = world.coding.hold(server.address(), Some(10))?;
        held.next_exchange(SOON)?;
        let renewal = world.draft()?.tcp(A, 5432).ttl(7).with("replaces", old.jti.into());
        let answer = world.control_plane.push(&renewal)?.in_force()?;
        let deadline_us = answer.deadline_ms().context("no deadline in the answer")? * 1000;
        sleep_until_unix(old_deadline_us / 1_000_000 + 2);
        held.next_exchange(SOON).context("the connection after the old deadline")?;
        sleep_until_unix(deadline_us / 1_000_000 + 1);
        let before = silent_after(&server, held.local, deadline_us)?;
        ensure!(
            before < machine::patience(TOO_EARLY),
            "the renewed connection fell silent {before:?} too early"
        );
        denied("a new connection after the new deadline", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn killing_the_daemon_opens_nothing_and_cuts_no_granted_connection() {
    scenario(|world| {
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        grant(world, 60)?;
        let held = world.coding.hold(granted.address(), Some(10))?;
        let forbidden =
            world.coding.start(&["loop", "--interval-us", "500", &shut.address().to_string()])?;
        std::thread::sleep(Duration::from_millis(200));
        world.daemon.kill9()?;
        std::thread::sleep(Duration::from_secs(1));
        held.still_stands().context("the live connection while grantd is dead")?;
        held.next_exchange(SOON)?;
        allowed(
            "a new granted connection while grantd is dead",
            &world.coding.tcp(granted.address())?,
        )?;
        denied("the neighbour while grantd is dead", &world.research.tcp(granted.address())?)?;
        let late = world.cgroups.workload("made-while-grantd-is-dead")?;
        let late = world.coding.moved_to(&late);
        denied("a workload made while grantd is dead", &late.tcp(granted.address())?)?;
        world.daemon.start()?;
        std::thread::sleep(Duration::from_millis(300));
        held.still_stands().context("the live connection after the restart")?;
        let tally: Tally = forbidden.finish()?;
        ensure!(tally.attempts > 500, "too few attempts to prove anything: {tally:?}");
        assert_eq!(tally.ok, 0, "a forbidden connection opened: {tally:?}");
        assert_eq!(tally.failed.keys().collect::<Vec<_>>(), ["EPERM"], "{tally:?}");
        assert_eq!(shut.count(), 0);
        Ok(())
    });
}

#[test]
fn a_restart_adopts_what_is_in_force_without_refusing_one_granted_connection() {
    scenario(|world| {
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let (signed, deadline_us) = grant(world, 120)?;
        let target = granted.address().to_string();
        let hammering = world.coding.start(&["loop", "--interval-us", "300", &target])?;
        let forbidden =
            world.coding.start(&["loop", "--interval-us", "500", &shut.address().to_string()])?;
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            if round == 1 {
                world.daemon.stop()?;
            } else {
                world.daemon.kill9()?;
            }
            world.daemon.start()?;
            let grants = world.daemon.grants()?;
            let ids: Vec<&str> = grants.iter().filter_map(|grant| grant["id"].as_str()).collect();
            assert_eq!(ids, [signed.jti.as_str()], "what is in force after restart {round}");
            let deadline = grants[0]["deadline_unix_ms"].as_u64().context("no deadline")? * 1000;
            ensure!(
                deadline.abs_diff(deadline_us) < 1_000_000,
                "the restart moved the deadline by {} µs",
                deadline.abs_diff(deadline_us)
            );
        }
        let tally: Tally = hammering.finish()?;
        ensure!(tally.attempts > 500, "too few attempts to prove anything: {tally:?}");
        assert_eq!(tally.ok, tally.attempts, "granted connections were refused: {tally:?}");
        let tally: Tally = forbidden.finish()?;
        assert_eq!(tally.ok, 0, "a forbidden connection opened: {tally:?}");
        ensure!(unix_now() < signed.exp, "the grant ended during the test");
        Ok(())
    });
}
