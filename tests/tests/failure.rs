//! When something is missing, full or wrong: fail closed, and say what to do.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use grantd_e2e::cgroup;
use grantd_e2e::check::{allowed, denied, refused_without_trace};
use grantd_e2e::issuer::Shape;
use grantd_e2e::programs;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario, scenario_in};
use serde_json::json;

/// Exit status for bad input (`EX_DATAERR`).
const BAD_DATA: i32 = 65;

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs `grantd run --check` under a wrapper, and checks that it fails and names all of `remedy`.
fn check_fails(world: &World, wrapper: &[&str], remedy: &[&str]) -> Result<()> {
    let grantd = programs::find("grantd")?.display().to_string();
    let config = world.daemon.config_path().display().to_string();
    let mut words: Vec<&str> = wrapper.to_vec();
    words.extend([grantd.as_str(), "run", "--check", "--config", &config]);
    let (program, arguments) = words.split_first().context("a command")?;
    let output = world.host.enter(|| Command::new(program).args(arguments).output())??;
    let text = said(&output);
    ensure!(!output.status.success(), "the check passed: {text}");
    for word in remedy {
        ensure!(text.contains(word), "the error does not name {word}: {text}");
    }
    Ok(())
}

fn check_passes(world: &World) -> Result<()> {
    let config = world.daemon.config_path().display().to_string();
    let output = world.daemon.run("grantd", &["run", "--check", "--config", &config])?;
    ensure!(output.status.success(), "the check of a good host failed: {}", said(&output));
    Ok(())
}

#[test]
fn a_host_without_a_bpf_filesystem_is_told_how_to_mount_one() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        check_passes(world)?;
        let plain = world.workdir.subdir("no-bpffs", 0o700)?;
        world.daemon.reconfigure(|config| config.bpffs = plain.clone())?;
        check_fails(world, &[], &[&plain.display().to_string(), "mount -t bpf"])?;
        ensure!(world.daemon.start().is_err(), "it started without a place for its pins");
        let missing = plain.join("nowhere");
        world.daemon.reconfigure(|config| config.bpffs = missing.clone())?;
        check_fails(world, &[], &[&missing.display().to_string()])
    });
}

#[test]
fn a_host_with_cgroup_v1_only_is_told_what_is_missing() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        check_passes(world)?;
        // A mount namespace of its own, in which cgroup v2 is not mounted.
        let hide = format!("umount --lazy {} && exec \"$@\"", cgroup::mount_point()?.display());
        check_fails(world, &["unshare", "--mount", "sh", "-c", &hide, "sh"], &["cgroup", "v2"])
    });
}

#[test]
fn a_host_that_may_not_load_bpf_is_told_which_capability_is_missing() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        check_passes(world)?;
        let without = ["setpriv", "--bounding-set=-bpf,-sys_admin", "--inh-caps=-bpf,-sys_admin"];
        check_fails(world, &without, &["CAP_BPF"])
    });
}

#[test]
fn a_bad_config_is_refused_with_every_fault_at_once() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        let good = std::fs::read_to_string(world.daemon.config_path())?;
        let bad = good
            .replace("api://grantd", "api://default")
            .replace("bpffs = \"/", "bpffs = \"")
            .replace("max_ttl = \"10m\"", "max_ttl = \"10 parsecs\"")
            + "\n[surprise]\nkey = 1\n";
        std::fs::write(world.daemon.config_path(), bad)?;
        for (program, arguments) in
            [("grantctl", vec!["config", "check"]), ("grantd", vec!["run", "--check", "--config"])]
        {
            let config = world.daemon.config_path().display().to_string();
            let mut arguments = arguments.clone();
            if program == "grantd" {
                arguments.push(&config);
            }
            let output = world.daemon.run(program, &arguments)?;
            let text = said(&output);
            assert_eq!(output.status.code(), Some(BAD_DATA), "{program}: {text}");
            for fault in ["audience", "bpffs", "max_ttl", "surprise"] {
                ensure!(text.contains(fault), "{program} does not name {fault}: {text}");
            }
        }
        ensure!(world.daemon.start().is_err(), "it started with a bad config");
        Ok(())
    });
}

#[test]
fn a_bad_config_at_reload_changes_nothing_and_says_why() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let good = std::fs::read_to_string(world.daemon.config_path())?;
        std::fs::write(world.daemon.config_path(), format!("{good}\n[surprise]\nkey = 1\n"))?;
        let answer = world.daemon.ask(&json!({"op": "reload"}));
        let text = format!("{:#}", answer.err().context("a bad config was taken")?);
        ensure!(text.contains("surprise"), "the error does not name the fault: {text}");
        allowed("what was granted before", &world.coding.tcp(server.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 8080))?.in_force()?;
        Ok(())
    });
}

#[test]
fn a_workload_at_its_quota_gets_no_further_grant() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        world.daemon.reconfigure(|config| {
            for workload in &mut config.workloads {
                workload.max_live_grants = 2;
            }
        })?;
        world.daemon.start()?;
        let servers: Result<Vec<Server>> = [8001, 8002, 8003]
            .map(|port| Server::tcp(&world.srv_a, at(A, port)?))
            .into_iter()
            .collect();
        let first = world.draft()?.tcp(A, 8001).sign()?;
        world.control_plane.push_signed(&first)?.in_force()?;
        world.control_plane.push(&world.draft()?.tcp(A, 8002))?.in_force()?;
        refused_without_trace(world, "a third grant of two", "quota", |world| {
            world.control_plane.push(&world.draft()?.tcp(A, 8003))
        })?;
        denied("the third grant's destination", &world.coding.tcp(at(A, 8003)?)?)?;
        allowed("the first grant's destination", &world.coding.tcp(at(A, 8001)?)?)?;
        world
            .control_plane
            .push(&world.research_draft()?.tcp(A, 8003))?
            .in_force()
            .context("the other workload's quota is its own")?;
        world.control_plane.revoke(&json!([{"jti": first.jti}]))?;
        world.control_plane.push(&world.draft()?.tcp(A, 8003))?.in_force()?;
        allowed("the third destination once there is room", &world.coding.tcp(at(A, 8003)?)?)?;
        drop(servers);
        Ok(())
    });
}

#[test]
fn when_a_kernel_map_is_full_the_whole_grant_is_refused_and_the_others_go_on() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        world.daemon.reconfigure(|config| {
            for workload in &mut config.workloads {
                workload.max_live_grants = 65_536;
            }
        })?;
        world.daemon.start()?;
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let token = world.token()?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(600))?.in_force()?;
        // Every grant takes 63 sets of ports; the kernel has room for fewer than this many grants.
        let most = grantd_common::capacity::PORTSETS / 63 + 4;
        for number in 1..=most {
            // Counting takes longer than pushing: only where the end may be near.
            let maps = (number + 10 > most).then(|| world.kernel.entries()).transpose()?;
            let mut draft =
                world.control_plane.draft("coding-agent", &token)?.tcp(A, 8000).ttl(300);
            for prefix in 1..64_u32 {
                let cidr = format!("fd00:77:1::{number:x}:{prefix:x}:0/112");
                let from = 1000 + number * 64 + prefix;
                draft = draft.endpoint(
                    "tcp",
                    json!({"cidr": cidr, "ports": [{"from": from, "to": from + 1}]}),
                );
            }
            let answer = world.control_plane.push(&draft)?;
            if answer.status == 201 {
                continue;
            }
            answer.refused("capacity")?;
            assert_eq!(
                Some(world.kernel.entries()?),
                maps,
                "a part of the refused grant is in the maps"
            );
            allowed("an earlier grant", &world.coding.tcp(server.address())?)?;
            ensure!(number > 100, "the maps were full after {number} grants");
            return Ok(());
        }
        anyhow::bail!("{most} grants of 64 sets of ports fit into the kernel: nothing was full")
    });
}

#[test]
fn a_frozen_host_takes_no_grant_until_it_is_thawed() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let frozen = world.daemon.run("grantctl", &["freeze"])?;
        ensure!(frozen.status.success(), "{}", said(&frozen));
        refused_without_trace(world, "a grant for a frozen host", "frozen", |world| {
            world.control_plane.push(&world.draft()?.tcp(A, 5432))
        })?;
        denied("a frozen host's destination", &world.coding.tcp(server.address())?)?;
        let thawed = world.daemon.run("grantctl", &["thaw"])?;
        ensure!(thawed.status.success(), "{}", said(&thawed));
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("after the thaw", &world.coding.tcp(server.address())?)?;
        let revoked = world.daemon.run("grantctl", &["revoke", "--all"])?;
        ensure!(revoked.status.success(), "{}", said(&revoked));
        denied("after the kill switch", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn a_host_with_an_unsynchronised_clock_takes_no_grant_unless_its_owner_says_so() {
    scenario_in(World::assemble(Shape::okta()), |world| {
        world.daemon.reconfigure(|config| config.unsynchronised = "refuse")?;
        world.daemon.start()?;
        let status = world.daemon.ask(&json!({"op": "status"}))?;
        if status["clock_synchronised"] == json!(true) {
            return programs::not_run(
                "refusal of grants while the clock is not synchronised",
                "this machine's clock is synchronised",
            );
        }
        refused_without_trace(world, "a grant", "clock_unsynchronised", |world| {
            world.control_plane.push(&world.draft()?.tcp(A, 5432))
        })?;
        world.daemon.reconfigure(|config| config.unsynchronised = "allow")?;
        world.daemon.restart()?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        Ok(())
    });
}
