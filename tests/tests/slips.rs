//! Identity that cannot be slipped: cgroups that are made anew, nested ones, and processes that move.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{DENIED, GRANT_ENDED};
use grantd_e2e::cgroup::kill_and_remove;
use grantd_e2e::check::{RECORD, allowed, denied};
use grantd_e2e::programs::not_run;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario};

/// Whether the kernel lets the daemon watch cgroups: what the pins say.
fn watched(world: &World) -> bool {
    world.kernel.link("cgroup_mkdir").exists()
}

/// The slice is stopped and started, as by `systemctl restart`: every cgroup in it is another one.
fn make_slice_anew(world: &World) -> Result<()> {
    kill_and_remove(&world.cgroups.slice())?;
    make(&world.cgroups.slice())?;
    make(world.coding.cgroup())?;
    make(world.research.cgroup())
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("making {}", path.display()))
}

#[test]
fn a08_nothing_leaves_a_slice_that_is_made_anew_while_the_daemon_is_dead() {
    scenario(|world| {
        if !watched(world) {
            return not_run("a08 with the daemon dead", "this kernel refuses the watch (tp_btf)");
        }
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(120))?.in_force()?;
        allowed("before", &world.coding.tcp(server.address())?)?;
        world.daemon.kill9()?;
        make_slice_anew(world)?;

        let bystander = world.coding.moved_to(&world.cgroups.outside());
        allowed("a process outside the slice", &bystander.tcp(server.address())?)?;
        denied("the first task of a new slice", &world.coding.tcp(server.address())?)?;
        denied("root in a new slice", &world.coding.as_root().tcp(server.address())?)?;
        let nameless = world.coding.moved_to(&world.cgroups.workload("nameless")?);
        denied("a cgroup that no config names", &nameless.tcp(server.address())?)?;

        world.daemon.start()?;
        denied("what its predecessor was granted", &world.coding.tcp(server.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("a grant of its own", &world.coding.tcp(server.address())?)?;
        world.spool.wait_for("the refusal to make a socket", 1, RECORD, |record| {
            record.kind() == DENIED && record.reason() == "slice_not_ready"
        })?;
        Ok(())
    });
}

#[test]
fn a08_a_workload_that_is_made_anew_inherits_nothing_while_the_daemon_is_dead() {
    scenario(|world| {
        if !watched(world) {
            return not_run("a08 of a workload", "this kernel refuses the watch (tp_btf)");
        }
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(120).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        world.control_plane.push(&world.research_draft()?.tcp(A, 5432).ttl(120))?.in_force()?;
        allowed("before", &world.coding.tcp(server.address())?)?;
        world.daemon.kill9()?;
        kill_and_remove(world.coding.cgroup())?;
        make(world.coding.cgroup())?;

        denied("the first task of a new workload", &world.coding.tcp(server.address())?)?;
        allowed("a workload that stayed", &world.research.tcp(server.address())?)?;
        world.daemon.start()?;
        world.spool.wait_for("the end of the predecessor's grant", 1, RECORD, |record| {
            record.kind() == GRANT_ENDED && record.grant() == signed.jti
        })?;
        denied("what its predecessor was granted", &world.coding.tcp(server.address())?)?;
        allowed("a workload that stayed, later", &world.research.tcp(server.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("a grant of its own", &world.coding.tcp(server.address())?)?;
        world.spool.wait_for("the refusal as pending", 1, RECORD, |record| {
            record.kind() == DENIED && record.reason() == "workload_pending"
        })?;
        Ok(())
    });
}

#[test]
fn a08_no_first_task_of_slices_that_come_and_go_gets_out_while_the_daemon_follows() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        for round in 0..8 {
            world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(120))?.in_force()?;
            allowed("before", &world.coding.tcp(server.address())?)?;
            make_slice_anew(world)?;
            let first = world.coding.tcp(server.address())?;
            if watched(world) {
                denied(&format!("the first task in round {round}"), &first)?;
            }
            let event_driven = Duration::from_millis(200);
            let patience = if watched(world) { event_driven } else { Duration::from_secs(2) };
            grantd_e2e::clock::wait_until("the slice's hooks", patience, || {
                let status = world.daemon.ask(&serde_json::json!({"op": "status"}))?;
                Ok((status.get("enforcing") == Some(&serde_json::Value::Bool(true))).then_some(()))
            })?;
            denied("what its predecessor was granted", &world.coding.tcp(server.address())?)?;
        }
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("a grant in the last slice", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn a07_nested_cgroups_inherit_what_their_workload_may_and_no_more() {
    scenario(|world| {
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let mut path = world.coding.cgroup().to_owned();
        // Deeper than the levels at which workloads are looked for.
        for depth in 1..=7 {
            path.push(format!("nested-{depth}"));
            make(&path)?;
            let nested = world.coding.moved_to(&path);
            allowed(&format!("what is granted, {depth} down"), &nested.tcp(granted.address())?)?;
            denied(&format!("what is not, {depth} down"), &nested.tcp(other.address())?)?;
        }
        ensure!(world.daemon.grants()?.len() == 1, "a nested cgroup ended a grant");
        Ok(())
    });
}
