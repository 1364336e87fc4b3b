//! The guard stays in effect while the daemon is replaced, and when somebody undoes it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use grantd_e2e::check::{alarm, detach};
use grantd_e2e::guarded::{
    Services, all_allowed, all_refused, bystander, escape, guarded, in_effect, nothing,
};
use grantd_e2e::issuer::Shape;
use grantd_e2e::server::Server;
use grantd_e2e::workload::Workload;
use grantd_e2e::world::{A, World, at, scenario_in};

/// Tries to talk to a service outside, again and again: how often that was refused.
fn keep_trying(agent: &Workload, path: &str, ended: &AtomicBool) -> Result<u64> {
    let mut refusals = 0;
    while !ended.load(Ordering::Relaxed) {
        all_refused(&escape(agent, &["local", path])?)
            .with_context(|| format!("after {refusals} refusals"))?;
        refusals += 1;
    }
    Ok(refusals)
}

/// Ends the daemon in both ways and starts it again, the last time across a change of the kernel ABI.
fn replace_the_daemon(world: &mut World) -> Result<()> {
    world.daemon.restart()?;
    world.daemon.kill9()?;
    world.daemon.start()?;
    world.daemon.stop()?;
    let older = world.bpffs.age_pins()?;
    world.daemon.start()?;
    ensure!(!older.exists(), "the older pins are still there");
    ensure!(in_effect(world)?, "the guard is not in effect after an upgrade");
    Ok(())
}

#[test]
fn f05_the_guard_refuses_without_a_gap_while_the_daemon_is_killed_restarted_and_upgraded() {
    guarded("f05_the_guard_without_a_gap", nothing, |world| {
        let services = Services::start(world)?;
        let path = services.path("docker.sock");
        all_allowed(&escape(&bystander(world), &["local", &path])?)?;
        let (agent, ended) = (world.coding.as_root(), AtomicBool::new(false));
        let (replaced, refusals) = thread::scope(|scope| {
            let trying = scope.spawn(|| keep_trying(&agent, &path, &ended));
            let replaced = replace_the_daemon(world);
            ended.store(true, Ordering::Relaxed);
            (replaced, trying.join())
        });
        replaced?;
        let refusals = refusals.map_err(|_| anyhow::anyhow!("the one that tries panicked"))??;
        ensure!(refusals > 10, "it was tried only {refusals} times");
        // These hooks are attached for the whole host where the slice's form has no effect.
        let tcp = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let udp = Server::udp(&world.srv_a, at(A, 5353)?)?;
        let (to_tcp, to_udp) = (tcp.address().to_string(), udp.address().to_string());
        let cgroup = world.coding.cgroup().display().to_string();
        let late = escape(&bystander(world), &["late", &cgroup, &to_tcp, &to_udp])?;
        let [before, foreign @ .., _] = &late[..] else { anyhow::bail!("{late:?}") };
        all_allowed(std::slice::from_ref(before))?;
        all_refused(foreign)
    });
}

#[test]
fn c11_what_of_the_guard_is_undone_is_told_and_put_back() {
    guarded("c11_what_of_the_guard_is_undone", nothing, |world| {
        let services = Services::start(world)?;
        let path = services.path("docker.sock");
        let refuses =
            |world: &World| all_refused(&escape(&world.coding.as_root(), &["local", &path])?);
        let hook = "guard_unix_stream_connect";
        let pin = world.daemon.link_pin(hook)?;
        fs::remove_file(&pin)?;
        // The daemon holds the link itself: not even for a moment.
        refuses(world)?;
        alarm(world, &format!("the pin of the link {hook} was removed"))?;
        ensure!(pin.exists(), "{} is not back", pin.display());
        detach(world, &pin)?;
        alarm(world, &format!("the program {hook} was detached"))?;
        refuses(world)?;
        fs::remove_file(world.kernel.pin("LOCAL_PEERS"))?;
        alarm(world, "the pin of the map LOCAL_PEERS was removed")?;
        ensure!(in_effect(world)?, "the guard is not whole after the repair");
        // What was put back is what enforces without the daemon.
        world.daemon.kill9()?;
        refuses(world)
    });
}

#[test]
fn f10_a_host_that_requires_the_guard_starts_only_where_all_of_it_was_seen_to_refuse() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        world.daemon.start()?;
        let has = in_effect(world)?;
        world.daemon.reconfigure(|config| config.guard = "required")?;
        let restarted = world.daemon.restart();
        ensure!(restarted.is_ok() == has, "required, in effect {has}: {restarted:?}");
        if !has {
            let log = fs::read_to_string(world.daemon.log_path())?;
            ensure!(log.contains("[guard] mode is \"required\""), "no reason in the log");
        }
        world.daemon.reconfigure(|config| config.guard = "off")?;
        if has {
            world.daemon.restart()?;
        } else {
            world.daemon.start()?;
        }
        ensure!(!in_effect(world)?, "it was switched off");
        Ok(())
    });
}
