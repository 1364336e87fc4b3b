//! Identity that cannot be slipped: cgroups that are made anew, nested ones, and processes that move.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{CUT, DENIED, FINDING, GRANT_ENDED, Record};
use grantd_e2e::cgroup::kill_and_remove;
use grantd_e2e::check::{RECORD, allowed, denied, refused_without_trace};
use grantd_e2e::container::Engine;
use grantd_e2e::machine;
use grantd_e2e::netns::{Netns, Prefix};
use grantd_e2e::programs::not_run;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario, unguarded_scenario};

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
        let timely = machine::judges_time("a slice made anew has its hooks within 200 ms")?;
        for round in 0..8 {
            world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(120))?.in_force()?;
            allowed("before", &world.coding.tcp(server.address())?)?;
            make_slice_anew(world)?;
            let first = world.coding.tcp(server.address())?;
            if watched(world) {
                denied(&format!("the first task in round {round}"), &first)?;
            }
            let at_once = timely && watched(world);
            let patience = Duration::from_millis(if at_once { 200 } else { 2000 });
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

/// Moves a process as whoever manages cgroups would.
fn move_to(pid: u32, cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())
        .with_context(|| format!("moving {pid} to {}", cgroup.display()))
}

fn wait_for_finding(world: &World, kind: &str, about: u32) -> Result<()> {
    let found = world.spool.wait_for(kind, 1, RECORD, |record| {
        record.kind() == FINDING
            && record.get("/finding_info/types/0") == kind
            && (about == 0 || record.get("/actor/process/pid") == about)
    });
    found.map(drop)
}

#[test]
fn a03_what_a_process_opened_before_it_was_moved_in_is_ended_and_told() {
    unguarded_scenario(|world| {
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        let outside = world.coding.moved_to(&world.cgroups.outside());
        let late = outside.hold(other.address(), Some(20))?;
        let bystander = outside.hold(other.address(), Some(20))?;
        late.next_exchange(RECORD)?;

        move_to(late.pid(), world.coding.cgroup())?;
        // At once where the kernel tells of it, else at the next look.
        late.wait_for_break(Duration::from_secs(3)).context("a socket from outside")?;
        wait_for_finding(world, "late_enrolment", late.pid())?;
        bystander.next_exchange(RECORD).context("a process that stayed outside")?;

        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let inside = world.coding.hold(granted.address(), Some(20))?;
        inside.next_exchange(RECORD)?;
        // Within the workload it keeps what it has.
        let nested = world.coding.cgroup().join("nested");
        make(&nested)?;
        move_to(inside.pid(), &nested)?;
        std::thread::sleep(Duration::from_millis(700));
        inside.still_stands()?;
        inside.next_exchange(RECORD).map(drop)
    });
}

#[test]
fn a06_a_process_that_leaves_the_slice_raises_an_alarm() {
    scenario(|world| {
        let quiet = world.spool.records()?.iter().all(|record| record.kind() != FINDING);
        ensure!(quiet, "findings before anything was done: {}", world.spool.tail(10));
        let stays = world.coding.start(&["serve"])?;
        let leaves = world.coding.start(&["serve"])?;
        // It is known at the latest after two looks.
        std::thread::sleep(Duration::from_millis(2500));
        move_to(leaves.pid(), &world.cgroups.outside())?;
        wait_for_finding(world, "task_left", leaves.pid())?;

        // One that was started inside, and leaves before anybody has looked.
        let mut shell =
            world.coding.start(&["exec", "--", "/bin/sh", "-c", "sleep 60 & echo $!; wait"])?;
        let child: u32 = shell.next(RECORD)?;
        if watched(world) {
            move_to(child, &world.cgroups.outside())?;
            wait_for_finding(world, "task_left", child)?;
        }
        let told = world.spool.records()?;
        let told = told.iter().filter(|r| r.get("/finding_info/types/0") == "task_left");
        let about: Vec<_> = told.map(|r| r.get("/actor/process/pid").clone()).collect();
        ensure!(!about.contains(&stays.pid().into()), "one that stayed is told to have left");
        let again = about.iter().filter(|pid| **pid == leaves.pid()).count();
        ensure!(again == 1, "told {again} times");
        kill_and_remove_processes(&[child])?;
        drop(shell.command::<u32>(""));
        Ok(())
    });
}

fn kill_and_remove_processes(pids: &[u32]) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    for pid in pids {
        kill(nix::unistd::Pid::from_raw(i32::try_from(*pid)?), Signal::SIGKILL)?;
    }
    Ok(())
}

#[test]
fn a06_a_workload_whose_cgroups_another_than_root_can_write_gets_no_grant() {
    scenario(|world| {
        let uid = world.coding.uid();
        let handles = [
            world.coding.cgroup().join("cgroup.procs"),
            world.cgroups.slice().join("cgroup.procs"),
            world.cgroups.slice().join("cgroup.subtree_control"),
            world.cgroups.root().join("cgroup.threads"),
            world.cgroups.slice(),
        ];
        for handle in &handles {
            std::os::unix::fs::chown(handle, Some(uid), None)?;
            let what = handle.display().to_string();
            refused_without_trace(world, &what, "workload_delegated", |world| {
                world.control_plane.push(&world.draft()?.tcp(A, 5432))
            })?;
            std::os::unix::fs::chown(handle, Some(0), None)?;
            world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        }
        wait_for_finding(world, "workload_delegated", 0)
    });
}

#[test]
fn c12_a_workload_with_rights_to_undo_its_confinement_gets_no_grant() {
    scenario(|world| {
        world.daemon.reconfigure(|config| {
            config.workloads.iter_mut().for_each(|workload| workload.allow_privileged = false);
        })?;
        world.daemon.restart()?;
        let ordinary = world.coding.start(&["serve"])?;
        let privileged = world.research.as_root().start(&["serve"])?;
        let finding = |record: &Record| {
            record.kind() == FINDING && record.get("/finding_info/types/0") == "workload_privileged"
        };
        let patience = Duration::from_secs(10);
        let found = world.spool.wait_for("privileges", 1, patience, finding)?;
        ensure!(found.iter().all(|record| record.workload() == "research-agent"), "{found:?}");
        refused_without_trace(world, "a root agent", "workload_privileged", |world| {
            world.control_plane.push(&world.research_draft()?.tcp(A, 5432))
        })?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        drop(privileged);
        world.control_plane.push(&world.research_draft()?.tcp(A, 5432))?.in_force()?;
        drop(ordinary);
        Ok(())
    });
}

#[test]
fn a_container_in_its_own_network_namespace_is_a_workload_like_any_other() {
    scenario(|world| {
        world.daemon.reconfigure(|config| {
            config.workloads.iter_mut().for_each(|workload| workload.allow_privileged = false);
        })?;
        world.daemon.restart()?;
        let netns = Netns::new("container")?;
        let (near, far) = ("10.77.5.2".parse()?, "10.77.5.1".parse()?);
        world.srv_a.wire("box", &[Prefix(far, 24)], &netns, &[Prefix(near, 24)])?;
        netns.ip("route add 10.77.1.0/24 via 10.77.5.1\n")?;
        let Some(engine) = Engine::new(&world.workdir, world.coding.cgroup(), &netns)? else {
            return not_run("containers", "there is no runc: `cargo xtask setup` installs it");
        };
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        let (to, not_to) = (granted.address().to_string(), other.address().to_string());
        denied("before a grant", &engine.one(&["tcp", &to])?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(20).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        allowed("what is granted", &engine.one(&["tcp", &to])?)?;
        denied("what is not", &engine.one(&["tcp", &not_to])?)?;

        let holding = engine.hold(&["hold", "--interval-ms", "20", &to])?;
        holding.next_exchange(RECORD)?;
        world.daemon.ask(&serde_json::json!({"op": "revoke", "selector": {"id": signed.jti}}))?;
        let cut = holding.wait_for_break(Duration::from_secs(5))?;
        ensure!(cut.error != "TIMEOUT", "silent instead of cut: {cut:?}");
        let end = granted.wait_for_end(holding.local, RECORD)?;
        ensure!(!end.orderly, "the server saw no reset: {end:?}");
        world
            .spool
            .wait_for("the cut", 1, RECORD, |r| r.kind() == CUT && r.grant() == signed.jti)?;
        denied("after the cut", &engine.one(&["tcp", &to])?)
    });
}
