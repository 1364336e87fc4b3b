//! What the daemon must live through without opening anything: hostile grants, a full disk, a config
//! that moves a workload.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{GRANT_ENDED, Record, Spool};
use grantd_e2e::check::{RECORD, allowed, denied, refused_without_trace};
use grantd_e2e::clock::{sleep_until_unix, wait_until};
use grantd_e2e::control_plane::Answer;
use grantd_e2e::grants::Signed;
use grantd_e2e::issuer::Shape;
use grantd_e2e::machine;
use grantd_e2e::server::Server;
use grantd_e2e::tmpfs::Tmpfs;
use grantd_e2e::world::{A, World, at, scenario, scenario_in};
use serde_json::json;

/// Mebibytes for the ledger: enough for it, and soon full.
const DISK: u32 = 8;
/// The free pages that a ledger has inside its file last for fewer transactions than this.
const PUSHES_UNTIL_FULL: u16 = 100;
/// How long the daemon may take to see that there is space again.
const RECOVERY: Duration = Duration::from_secs(10);
/// What is watched while nothing can be written: how long, and the most that it may cost.
const WATCHED: Duration = Duration::from_secs(3);
const MOST_CPU: Duration = Duration::from_secs(1);
const MOST_LOG_LINES: usize = 20;

#[test]
fn a_grant_that_replaces_another_workloads_grant_is_refused_and_the_daemon_lives() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 5433)?)?;
        let first = world.draft()?.tcp(A, 5432).sign()?;
        world.control_plane.push_signed(&first)?.in_force()?;
        let what = "a grant that replaces another workload's";
        let answer = refused_without_trace(world, what, "replaces_unknown", |world| {
            let draft = world.research_draft()?.tcp(A, 5433).with("replaces", json!(first.jti));
            world.control_plane.push(&draft)
        })?;
        assert_eq!(answer.status, 409, "{answer:?}");
        allowed("the grant that was not replaced", &world.coding.tcp(server.address())?)?;
        denied("what was not granted", &world.research.tcp(other.address())?)?;
        ensure!(enforcing(world)?, "the daemon does not enforce any more");
        world.control_plane.push(&world.research_draft()?.tcp(A, 5433))?.in_force()?;
        allowed("a good grant afterwards", &world.research.tcp(other.address())?)
    });
}

#[test]
fn a_reload_that_moves_a_workload_to_another_cgroup_gives_the_new_processes_nothing() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let signed = world.draft()?.tcp(A, 5432).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let moved = world.coding.moved_to(&world.cgroups.workload("somebody-else")?);
        let mut live = world.coding.talk(server.address())?;
        ensure!(live.answered()?, "a granted connection is not answered");
        denied("a cgroup of no workload", &moved.tcp(server.address())?)?;

        world.daemon.reconfigure(|config| {
            for workload in &mut config.workloads {
                workload.cgroup = workload.cgroup.replace("coding-agent", "somebody-else");
            }
        })?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        denied("the new processes", &moved.tcp(server.address())?)?;
        denied("the processes that it was granted to", &world.coding.tcp(server.address())?)?;
        ensure!(!live.answered()?, "a live connection of the old processes is still answered");
        ensure!(world.daemon.grants()?.is_empty(), "the grant outlived its workload's cgroup");
        ended_once(world, &signed)?;

        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("the new processes with a grant of their own", &moved.tcp(server.address())?)?;
        denied("the old processes still", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn a_full_disk_opens_nothing_and_loses_no_revocation() {
    if !is_fast_enough() {
        return;
    }
    scenario_in(World::assemble(Shape::okta()), |world| {
        let disk = small_disk(world)?;
        let (kept, short, fresh) = (at(A, 5432)?, at(A, 5433)?, at(A, 5434)?);
        let servers: Result<Vec<Server>> =
            [kept, short, fresh].into_iter().map(|to| Server::tcp(&world.srv_a, to)).collect();
        let servers = servers?;
        let to_revoke = world.draft()?.tcp(A, 5432).ttl(300).sign()?;
        world.control_plane.push_signed(&to_revoke)?.in_force()?;
        let expiring = world.draft()?.tcp(A, 5433).ttl(4).sign()?;
        world.control_plane.push_signed(&expiring)?.in_force()?;
        allowed("the grant to be revoked", &world.coding.tcp(kept)?)?;
        allowed("the grant that will expire", &world.coding.tcp(short)?)?;

        fill(world, &disk, 6000)?;
        let revoked = world.control_plane.revoke(&json!([{"jti": to_revoke.jti}]))?;
        ensure!(
            revoked.status == 503 && revoked.reason() == "ledger_failed",
            "a revocation that could not be written was answered {revoked:?}"
        );
        denied("a revoked grant with a full disk", &world.coding.tcp(kept)?)?;
        not_taken("the revoked grant", &world.control_plane.push_signed(&to_revoke)?)?;
        expires_quietly(world, &expiring)?;
        denied("an expired grant with a full disk", &world.coding.tcp(short)?)?;
        not_taken("a grant with a full disk", &push_fresh(world)?)?;
        denied("what was refused", &world.coding.tcp(fresh)?)?;
        denied("the revoked grant again", &world.coding.tcp(kept)?)?;

        disk.free()?;
        taken_again(world)?;
        allowed("a grant once there is space", &world.coding.tcp(fresh)?)?;
        not_taken("the revoked grant", &world.control_plane.push_signed(&to_revoke)?)?;
        ended_once(world, &to_revoke)?;

        fill(world, &disk, 7000)?;
        let frozen = world.daemon.run("grantctl", &["freeze"])?;
        ensure!(!frozen.status.success(), "a freeze that could not be written was acknowledged");
        not_taken("a grant after a freeze that failed", &push_fresh(world)?)?;
        disk.free()?;
        wait_until("the ledger to be written", RECOVERY, || Ok(enforcing(world)?.then_some(())))?;
        push_fresh(world)?.refused("frozen").context("a grant after that freeze, with space")?;
        world.daemon.ask(&json!({"op": "thaw"}))?;
        taken_again(world)?;

        world.daemon.restart()?;
        not_taken("the revoked grant", &world.control_plane.push_signed(&to_revoke)?)?;
        denied("the revoked grant after a restart", &world.coding.tcp(kept)?)?;
        denied("the expired grant after a restart", &world.coding.tcp(short)?)?;
        allowed("what was granted since", &world.coding.tcp(fresh)?)?;
        ended_once(world, &to_revoke)?;
        ended_once(world, &expiring)?;
        drop(servers);
        Ok(())
    });
}

#[test]
fn a_revocation_that_a_full_disk_did_not_take_outlives_a_kill() {
    if !is_fast_enough() {
        return;
    }
    scenario_in(World::assemble(Shape::okta()), |world| {
        let disk = small_disk(world)?;
        let (over, kept) =
            (Server::tcp(&world.srv_a, at(A, 5432)?)?, Server::tcp(&world.srv_a, at(A, 5433)?)?);
        let to_revoke = world.draft()?.tcp(A, 5432).ttl(300).sign()?;
        world.control_plane.push_signed(&to_revoke)?.in_force()?;
        world.control_plane.push(&world.draft()?.tcp(A, 5433).ttl(300))?.in_force()?;
        fill(world, &disk, 6000)?;
        allowed("the grant to be revoked", &world.coding.tcp(over.address())?)?;
        world.control_plane.revoke(&json!([{"jti": to_revoke.jti}]))?.refused("ledger_failed")?;
        world.daemon.kill9()?;
        denied("the revoked grant with the daemon dead", &world.coding.tcp(over.address())?)?;
        disk.free()?;
        world.daemon.start()?;
        denied("the revoked grant after the kill", &world.coding.tcp(over.address())?)?;
        not_taken("the revoked grant", &world.control_plane.push_signed(&to_revoke)?)?;
        denied("the revoked grant, pushed again", &world.coding.tcp(over.address())?)?;
        allowed("the other grant", &world.coding.tcp(kept.address())?)
    });
}

/// The ledger makes room by itself: on an emulated machine it has done so before the next request comes.
fn is_fast_enough() -> bool {
    machine::judges_time("revocations while the disk is full").unwrap_or(true)
}

/// Starts the daemon with its ledger on a small disk and its audit spool elsewhere.
fn small_disk(world: &mut World) -> Result<Tmpfs> {
    let audit = world.workdir.subdir("audit", 0o700)?;
    world.spool = Spool::at(&audit);
    world.daemon.reconfigure(|config| config.audit = Some(audit))?;
    world.daemon.log_little();
    let disk = Tmpfs::over(&world.daemon.config().state, DISK)?;
    world.daemon.start()?;
    Ok(disk)
}

/// Fills the disk, and what room the ledger has inside its file, until a grant is refused for it.
/// Each of these grants is for a port of its own, from `port` on.
fn fill(world: &World, disk: &Tmpfs, port: u16) -> Result<()> {
    disk.fill()?;
    for port in port..port + PUSHES_UNTIL_FULL {
        let answer = world.control_plane.push(&world.draft()?.tcp(A, port).ttl(60))?;
        if answer.status != 201 {
            answer.refused("ledger_failed")?;
            return denied("a grant that was not written", &world.coding.tcp(at(A, port)?)?);
        }
    }
    anyhow::bail!("{PUSHES_UNTIL_FULL} grants were written to a full disk")
}

/// A grant that never came before.
fn push_fresh(world: &World) -> Result<Answer> {
    world.control_plane.push(&world.draft()?.tcp(A, 5434).ttl(300))
}

fn not_taken(what: &str, answer: &Answer) -> Result<()> {
    ensure!(answer.status >= 400, "{what} was acknowledged: {answer:?}");
    Ok(())
}

/// Waits until the daemon, by itself, takes grants and says that it enforces.
fn taken_again(world: &World) -> Result<()> {
    wait_until("a grant to be taken once there is space", RECOVERY, || {
        Ok((push_fresh(world)?.status == 201).then_some(()))
    })?;
    ensure!(enforcing(world)?, "it takes grants, but does not say that it enforces");
    Ok(())
}

fn enforcing(world: &World) -> Result<bool> {
    let status = world.daemon.ask(&json!({"op": "status"}))?;
    Ok(status.get("enforcing") == Some(&json!(true)))
}

fn log_lines(world: &World) -> Result<usize> {
    Ok(std::fs::read_to_string(world.daemon.log_path())?.lines().count())
}

/// Watches a grant expire that cannot be written as ended: told once, and no more work than that.
fn expires_quietly(world: &World, signed: &Signed) -> Result<()> {
    let (cpu, lines) = (world.daemon.cpu_time()?, log_lines(world)?);
    sleep_until_unix(signed.exp);
    std::thread::sleep(WATCHED);
    let (cpu, lines) = (world.daemon.cpu_time()? - cpu, log_lines(world)? - lines);
    ensure!(
        cpu < machine::patience(MOST_CPU),
        "with a full disk the daemon is busy: {cpu:?} of processor time"
    );
    ensure!(lines < MOST_LOG_LINES, "with a full disk the daemon floods its log: {lines} lines");
    ended_once(world, signed)
}

/// Checks that there is one record of a grant's end in the whole spool.
fn ended_once(world: &World, signed: &Signed) -> Result<()> {
    let of_it = |record: &Record| record.kind() == GRANT_ENDED && record.grant() == signed.jti;
    let records = world.spool.wait_for("the end of a grant", 1, RECORD, of_it)?;
    ensure!(records.len() == 1, "{} records of one grant's end", records.len());
    let first = records.first().context("a record")?;
    ensure!(!first.workload().is_empty(), "whose grant ended is not told: {}", first.summary());
    Ok(())
}
