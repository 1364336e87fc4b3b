//! Moments at which two things happen at once: an end, a renewal, a death of the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use grantd_e2e::audit::GRANT_ENDED;
use grantd_e2e::check::{RECORD, allowed, denied};
use grantd_e2e::clock::wall;
use grantd_e2e::grants::{Draft, Signed};
use grantd_e2e::machine;
use grantd_e2e::probe::Burst;
use grantd_e2e::server::Server;
use grantd_e2e::workload::Talking;
use grantd_e2e::world::{A, World, at, scenario};
use serde_json::json;

/// Chooses the moments at which the daemon is killed; `GRANTD_TEST_SEED` sets another.
const SEED: u64 = 1;
/// How often it is killed during a renewal, and at most how long after its begin.
const KILLS: usize = 12;
const LATEST_KILL_US: u64 = 6_000;
/// Longer than any renewal takes.
const AFTER_RENEWAL: Duration = Duration::from_millis(500);
/// When the daemon is told to stop, in microseconds after a deadline.
const STOPS_US: [i64; 6] = [-3_000, -1_000, -300, 300, 1_000, 3_000];
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_kill_at_any_moment_of_a_renewal_never_leaves_the_replaced_grants_reach() {
    scenario(|world| {
        let servers =
            [Server::tcp(&world.srv_a, at(A, 5432)?)?, Server::tcp(&world.srv_a, at(A, 5433)?)?];
        let mut acknowledged = 0;
        for (number, delay) in kills()?.into_iter().enumerate() {
            acknowledged +=
                usize::from(killed_renewal(world, &servers, delay).with_context(|| {
                    format!("kill {number}, {delay:?} after the renewal's begin; seed {:?}", seed())
                })?);
        }
        ensure!(acknowledged > 0, "no renewal was acknowledged: nothing of it was tried");
        ensure!(acknowledged < KILLS, "every renewal was acknowledged: no kill came in between");
        Ok(())
    });
}

fn seed() -> Result<u64> {
    match std::env::var("GRANTD_TEST_SEED") {
        Ok(text) => text.parse().context("GRANTD_TEST_SEED"),
        Err(_) => Ok(SEED),
    }
}

/// When to kill: at once, after all is done, and at moments in between.
fn kills() -> Result<Vec<Duration>> {
    let mut state = seed()?;
    let mut kills = vec![Duration::ZERO, AFTER_RENEWAL];
    kills.resize_with(KILLS, || {
        // Knuth's MMIX generator; its low bits are poor.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((state >> 33) % LATEST_KILL_US)
    });
    Ok(kills)
}

/// Renews a grant of two destinations by one of the first alone, and kills the daemon meanwhile.
/// Whether the renewal was acknowledged.
fn killed_renewal(world: &mut World, servers: &[Server; 2], delay: Duration) -> Result<bool> {
    let [kept, dropped] = [servers[0].address(), servers[1].address()];
    let old = world.draft()?.tcp(A, 5432).tcp(A, 5433).ttl(120).sign()?;
    world.control_plane.push_signed(&old)?.in_force()?;
    let new = world.draft()?.tcp(A, 5432).ttl(120).with("replaces", json!(old.jti)).sign()?;

    let (daemon, control_plane) = (&mut world.daemon, &world.control_plane);
    let answer = std::thread::scope(|scope| {
        let push = scope.spawn(|| control_plane.push_signed(&new));
        std::thread::sleep(machine::patience(delay));
        daemon.kill9()?;
        push.join().map_err(|_| anyhow!("the push panicked"))
    })?;
    let acknowledged = answer.is_ok_and(|answer| answer.status == 201);
    allowed("what both grants cover, with the daemon dead", &world.coding.tcp(kept)?)?;
    world.daemon.start()?;

    let live = world.daemon.grants()?;
    let ids: Vec<&str> = live.iter().filter_map(|grant| grant["id"].as_str()).collect();
    allowed("what both grants cover", &world.coding.tcp(kept)?)?;
    if ids == [old.jti.as_str()] {
        ensure!(!acknowledged, "an acknowledged renewal is gone after a kill");
        allowed("what the unreplaced grant covers", &world.coding.tcp(dropped)?)?;
    } else {
        assert_eq!(ids, [new.jti.as_str()], "live after a kill; the old one was {}", old.jti);
        denied("what only the replaced grant covered", &world.coding.tcp(dropped)?)?;
    }
    let again = world.control_plane.push_signed(&new)?;
    ensure!(matches!(again.status, 200 | 201), "the renewal, pushed again: {again:?}");
    denied("what only the replaced grant covered, at last", &world.coding.tcp(dropped)?)?;
    allowed("what both grants cover, at last", &world.coding.tcp(kept)?)?;
    world.control_plane.revoke(&json!([{"jti": new.jti}]))?;
    denied("what was revoked", &world.coding.tcp(kept)?)?;
    Ok(acknowledged)
}

#[test]
fn a_stop_at_the_moment_of_a_deadline_loses_no_record() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let mut grants = Vec::new();
        for offset_us in STOPS_US {
            let (first, deadline_us) = push(world, world.draft()?.tcp(A, 5432).ttl(2))?;
            let (second, _) = push(world, world.draft()?.tcp(A, 5433).ttl(300))?;
            allowed("a grant before its deadline", &world.coding.tcp(server.address())?)?;
            let stop = Duration::from_micros(deadline_us.saturating_add_signed(offset_us));
            std::thread::sleep(stop.saturating_sub(wall()));
            world.daemon.stop()?;
            world.daemon.start()?;
            let past = Duration::from_micros(deadline_us);
            std::thread::sleep(past.saturating_sub(wall()));
            denied("a grant after its deadline", &world.coding.tcp(server.address())?)?;
            let live = world.daemon.grants()?;
            ensure!(
                live.iter().any(|grant| grant["id"] == json!(second.jti)),
                "a grant that had not ended is gone after a stop {offset_us} µs after another's end"
            );
            world.control_plane.revoke(&json!([{"jti": second.jti}]))?;
            grants.push((offset_us, first));
            grants.push((offset_us, second));
        }
        one_end_each(world, &grants)
    });
}

/// Pushes a grant and gives it with its deadline in microseconds since 1970.
fn push(world: &World, draft: Draft) -> Result<(Signed, u64)> {
    let signed = draft.sign()?;
    let answer = world.control_plane.push_signed(&signed)?.in_force()?;
    Ok((signed, answer.deadline_ms().context("no deadline in the answer")? * 1000))
}

fn one_end_each(world: &World, grants: &[(i64, Signed)]) -> Result<()> {
    let ended = world
        .spool
        .wait_for("the grants' ends", grants.len(), RECORD, |r| r.kind() == GRANT_ENDED)?;
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for record in &ended {
        *told.entry(record.grant()).or_default() += 1;
    }
    for (offset_us, signed) in grants {
        let times = told.get(signed.jti.as_str()).copied().unwrap_or_default();
        ensure!(
            times == 1,
            "{times} records of a grant's end, with a stop {offset_us} µs after a deadline"
        );
    }
    Ok(())
}

#[test]
fn a_connection_that_was_silent_since_its_grant_was_renewed_survives_a_restart() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let (mut last, _) = push(world, world.draft()?.tcp(A, 5432).ttl(120))?;
        let mut once = world.coding.talk(server.address())?;
        let mut twice = world.coding.talk(server.address())?;
        answered("before any renewal", &mut twice)?;
        let mut renew = |world: &World| -> Result<()> {
            let renewal = world.draft()?.tcp(A, 5432).ttl(120).with("replaces", json!(last.jti));
            last = push(world, renewal)?.0;
            Ok(())
        };
        renew(world)?;
        world.daemon.restart()?;
        answered("silent since before a renewal and a restart", &mut once)?;
        let mut in_between = world.coding.talk(server.address())?;
        renew(world)?;
        world.daemon.restart()?;
        answered("silent since before two renewals and two restarts", &mut twice)?;
        renew(world)?;
        renew(world)?;
        world.daemon.kill9()?;
        world.daemon.start()?;
        for connection in [&mut once, &mut in_between, &mut twice] {
            answered("silent since before two renewals and a kill", connection)?;
        }
        let live = world.daemon.grants()?;
        ensure!(live.len() == 1, "four renewals of one grant leave {} live", live.len());
        world.control_plane.revoke(&json!([{"jti": live[0]["id"]}]))?;
        ensure!(!once.answered()?, "a connection is answered after the revocation");
        Ok(())
    });
}

fn answered(what: &str, connection: &mut Talking) -> Result<()> {
    ensure!(connection.answered()?, "a connection was lost that had been {what}");
    Ok(())
}

#[test]
fn a_renewal_race_never_lends_one_destinations_grant_to_another() {
    scenario(|world| {
        let own = Server::udp(&world.srv_a, at(A, 5011)?)?;
        let other = Server::udp(&world.srv_a, at(A, 5012)?)?;
        let (mut last, _) = push(world, world.draft()?.udp(A, 5011).ttl(120))?;
        let (to_own, to_other) = (own.address().to_string(), other.address().to_string());
        let mut sockets = world.coding.start(&["swap", &to_own, &to_other])?;
        let connected: Burst = sockets.next(PATIENCE)?;
        ensure!(connected.sockets >= 500, "too few sockets to prove anything: {connected:?}");
        for round in 0..3 {
            let (lent, _) = push(world, world.draft()?.udp(A, 5012).ttl(60))?;
            let renewal = world.draft()?.udp(A, 5011).ttl(120).with("replaces", json!(last.jti));
            last = push(world, renewal)?.0;
            let raced: Burst = sockets.command("race")?;
            ensure!(raced.taken == raced.sockets, "granted datagrams were refused: {raced:?}");
            world.control_plane.revoke(&json!([{"jti": lent.jti}]))?;
            let late: Burst = sockets.command("other")?;
            ensure!(late.taken == 0, "round {round}: sockets still send after the end: {late:?}");
            let still: Burst = sockets.command("own")?;
            ensure!(still.taken == still.sockets, "granted datagrams were refused: {still:?}");
        }
        std::thread::sleep(Duration::from_millis(300));
        ensure!(own.count() > 0 && other.count() > 0, "a server got nothing at all");
        let late = other.visits().iter().filter(|visit| visit.bytes == 4).count();
        ensure!(late == 0, "{late} datagrams arrived after the end of their grant");
        Ok(())
    });
}
