//! What a grant opens, and what stays shut beside it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::DENIED;
use grantd_e2e::capture::Capture;
use grantd_e2e::check::{RECORD, allowed, denied, refused_without_trace, silent_after};
use grantd_e2e::clock::{unix_micros, wait_until};
use grantd_e2e::kernel_view::Entries;
use grantd_e2e::server::Server;
use grantd_e2e::workload::{Running, Workload};
use grantd_e2e::world::{A, A6, B, World, at, scenario};
use serde_json::json;

#[test]
fn p04_after_a_fresh_start_nothing_is_open_and_the_kernel_maps_are_empty() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        assert_eq!(world.kernel.entries()?, Entries::default(), "standing access in the maps");
        ensure!(world.daemon.grants()?.is_empty(), "grants before any was pushed");
        for workload in [&world.coding, &world.research] {
            denied(&workload.name, &workload.tcp(server.address())?)?;
        }
        let unnamed = world.cgroups.workload("nobody-knows-me")?;
        let unnamed = world.coding.moved_to(&unnamed);
        denied("a process in the slice in no workload", &unnamed.tcp(server.address())?)?;
        let bystander = world.coding.moved_to(&world.cgroups.outside());
        allowed("a process outside the slice", &bystander.tcp(server.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("a granted connection", &world.coding.tcp(server.address())?)?;
        denied("the unnamed process, after a grant", &unnamed.tcp(server.address())?)
    });
}

#[test]
fn p08_a_grant_for_one_port_of_one_host_opens_no_other_port_and_no_other_host() {
    scenario(|world| {
        let ssh = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let database = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other_host = Server::tcp(&world.srv_b, at(B, 22)?)?;
        let same_port_by_udp = Server::udp(&world.srv_a, at(A, 22)?)?;
        let same_host_by_v6 = Server::tcp(&world.srv_a, at(A6, 22)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 22))?.in_force()?;

        allowed("the granted port", &world.coding.tcp(ssh.address())?)?;
        denied("another port of the host", &world.coding.tcp(database.address())?)?;
        denied("the same port of another host", &world.coding.tcp(other_host.address())?)?;
        denied("the same port by UDP", &world.coding.udp(same_port_by_udp.address())?)?;
        denied(
            "the same host by its other address",
            &world.coding.tcp(same_host_by_v6.address())?,
        )?;
        assert_eq!((database.count(), other_host.count(), same_port_by_udp.count()), (0, 0, 0));
        Ok(())
    });
}

#[test]
fn a_range_of_ports_of_a_prefix_opens_that_range_and_not_its_neighbours() {
    scenario(|world| {
        let servers: Result<Vec<Server>> = [7999, 8000, 8005, 8010, 8011]
            .map(|port| Server::tcp(&world.srv_a, at(A, port)?))
            .into_iter()
            .collect();
        let range = world.draft()?.tcp_range("10.77.1.0/30", 8000, 8010);
        world.control_plane.push(&range)?.in_force()?;
        for server in servers? {
            let attempt = world.coding.tcp(server.address())?;
            match server.address().port() {
                8000..=8010 => allowed("a port in the range", &attempt)?,
                _ => denied("a port beside the range", &attempt)?,
            }
        }
        let outside = Server::tcp(&world.srv_b, at(B, 8005)?)?;
        denied("a host outside the prefix", &world.coding.tcp(outside.address())?)
    });
}

#[test]
fn p10_a_correctly_signed_grant_beyond_the_hosts_ceiling_is_refused_whole() {
    scenario(|world| {
        let inside = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let outside = Server::tcp(&world.srv_b, at(B, 22)?)?;
        refused_without_trace(world, "outside the ceiling", "destination_over_ceiling", |world| {
            world.control_plane.push(&world.draft()?.tcp(B, 22))
        })?;
        refused_without_trace(world, "partly outside", "destination_over_ceiling", |world| {
            world.control_plane.push(&world.draft()?.tcp(A, 5432).tcp(B, 22))
        })?;
        denied("the part inside the ceiling", &world.coding.tcp(inside.address())?)?;
        denied("the part outside the ceiling", &world.coding.tcp(outside.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("a grant inside the ceiling", &world.coding.tcp(inside.address())?)
    });
}

#[test]
fn p11_during_the_second_task_the_first_tasks_destination_is_shut() {
    scenario(|world| {
        let first = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let second = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        let grant = world.draft()?.tcp(A, 5432).sign()?;
        world.control_plane.push_signed(&grant)?.in_force()?;
        allowed("the first task's destination", &world.coding.tcp(first.address())?)?;
        let live = world.coding.hold(first.address(), Some(20))?;
        live.next_exchange(Duration::from_secs(2))?;

        let answer = world.control_plane.revoke(&json!([{"jti": grant.jti}]))?;
        assert_eq!(answer.status, 200, "{answer:?}");
        let revoked_us = unix_micros();
        denied("the first destination right after", &world.coding.tcp(first.address())?)?;
        std::thread::sleep(Duration::from_millis(300));
        silent_after(&first, live.local, revoked_us)?;
        world.control_plane.push(&world.draft()?.tcp(A, 8080))?.in_force()?;
        allowed("the second task's destination", &world.coding.tcp(second.address())?)?;
        denied("the first task's destination", &world.coding.tcp(first.address())?)?;

        let replay = world.control_plane.push_signed(&grant)?;
        assert_eq!(replay.status, 410, "a revoked grant pushed again: {replay:?}");
        denied("the first destination after a replay", &world.coding.tcp(first.address())?)
    });
}

#[test]
fn e04_e05_e06_e08_a_grant_of_a_name_is_refused_whole_and_opens_nothing() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        world.daemon.reconfigure(|config| {
            for ceiling in &mut config.ceilings {
                for name in ["db-1.example.com", "*.example.com"] {
                    ceiling
                        .allow
                        .push(format!("{{ host = {name:?}, ports = [5432], protocol = \"tcp\" }}"));
                }
            }
        })?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        for name in ["db-1.example.com", "*.example.com"] {
            refused_without_trace(world, name, "names_unsupported", |world| {
                world.control_plane.push(&world.draft()?.tcp(name, 5432).tcp(A, 5432))
            })?;
        }
        denied("an address beside a name", &world.coding.tcp(server.address())?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        allowed("the address alone", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn p15_with_only_the_gateway_granted_the_databases_own_address_is_refused_and_logged() {
    scenario(|world| {
        let gateway = Server::tcp(&world.srv_a, at(A, 6432)?)?;
        let database = Server::tcp(&world.srv_b, at(B, 5432)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 6432))?.in_force()?;
        allowed("the gateway", &world.coding.tcp(gateway.address())?)?;
        denied("the database around the gateway", &world.coding.tcp(database.address())?)?;
        assert_eq!(database.count(), 0);
        let records = world.spool.wait_for("the direct attempt", 1, RECORD, |record| {
            record.kind() == DENIED && record.destination() == format!("{B}:5432")
        })?;
        let record = &records[0];
        assert_eq!(record.workload(), "coding-agent", "{record:?}");
        assert_eq!(record.reason(), "no_grant", "{record:?}");
        assert_eq!(record.get("/actor/process/user/uid"), "61001", "{record:?}");
        ensure!(record.get("/actor/process/pid").is_u64(), "without a process: {record:?}");
        Ok(())
    });
}

#[test]
fn p16_no_packet_of_a_denied_attempt_reaches_the_target() {
    scenario(|world| {
        let capture = Capture::start(&world.srv_a)?;
        let mut servers = Vec::new();
        for host in [A, A6] {
            servers.push(Server::tcp(&world.srv_a, at(host, 22)?)?);
            servers.push(Server::tcp(&world.srv_a, at(host, 5432)?)?);
            servers.push(Server::udp(&world.srv_a, at(host, 5353)?)?);
        }
        for host in [A, A6] {
            denied("TCP", &world.coding.tcp(at(host, 22)?)?)?;
            denied("TCP to a closed port", &world.coding.tcp(at(host, 23)?)?)?;
            denied("UDP", &world.coding.udp(at(host, 5353)?)?)?;
            denied("connected UDP", &world.coding.udp_connected(at(host, 5353)?)?)?;
        }
        // Packets on a wire keep their order: when these are seen, any earlier one was seen too.
        let draft = world.draft()?.tcp(A, 5432).tcp(A6, 5432);
        world.control_plane.push(&draft)?.in_force()?;
        for host in [A, A6] {
            allowed("a granted connection", &world.coding.tcp(at(host, 5432)?)?)?;
        }
        wait_until("the capture to see both granted connections", RECORD, || {
            let hosts = [A, A6].map(|host| {
                capture
                    .packets()
                    .iter()
                    .any(|packet| packet.port == 5432 && packet.destination.to_string() == host)
            });
            Ok((hosts == [true, true]).then_some(()))
        })?;
        for (protocol, port) in [(6, 22), (6, 23), (17, 5353)] {
            let packets = capture.to_port(protocol, port);
            assert_eq!(packets, 0, "packets to port {port}: {:?}", capture.packets());
        }
        Ok(())
    });
}

#[test]
fn p32_an_agents_own_git_remote_works_unchanged_while_it_is_granted() {
    scenario(|world| {
        let _git = git_server(world)?;
        let clone = agents_clone(world)?;
        let config = clone.join(".git/config");
        let before = std::fs::read(&config)?;
        let fetch = || {
            let directory = clone.to_string_lossy();
            let arguments = ["-C", &*directory, "fetch", "--quiet", "origin"];
            world.coding.run("git", &arguments, &[("HOME", &*directory)])
        };
        let refused = fetch()?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success(), "git fetched without a grant");
        ensure!(said.contains("Operation not permitted"), "git was not told at once: {said}");

        world.control_plane.push(&world.draft()?.tcp(A, 9418))?.in_force()?;
        let fetched = fetch()?;
        let said = String::from_utf8_lossy(&fetched.stderr).into_owned();
        ensure!(fetched.status.success(), "git does not fetch with a grant: {said}");
        let directory = clone.to_string_lossy();
        let log = world.coding.run(
            "git",
            &["-C", &directory, "log", "--format=%s", "origin/main"],
            &[("HOME", &directory)],
        )?;
        assert_eq!(String::from_utf8_lossy(&log.stdout).trim(), "hello from the server");
        assert_eq!(std::fs::read(&config)?, before, "the agent's own config was changed");
        Ok(())
    });
}

/// A repository with one commit, served by `git daemon` on the machine [`A`].
fn git_server(world: &World) -> Result<Running> {
    let base = world.workdir.subdir("repositories", 0o755)?;
    let repository = base.join("tool.git");
    let path = repository.to_string_lossy().into_owned();
    git(&["init", "--quiet", "--bare", "--initial-branch=main", &path])?;
    let tree = git(&["-C", &path, "write-tree"])?;
    let commit = git(&["-C", &path, "commit-tree", "-m", "hello from the server", tree.trim()])?;
    git(&["-C", &path, "update-ref", "refs/heads/main", commit.trim()])?;
    let server = Workload::new("git", &world.srv_a, &world.cgroups.outside(), 0).as_root();
    let base = format!("--base-path={}", base.display());
    let running = server.start(&[
        "exec",
        "--",
        "git",
        "daemon",
        "--export-all",
        "--reuseaddr",
        "--listen=10.77.1.2",
        &base,
    ])?;
    let bystander = world.coding.moved_to(&world.cgroups.outside());
    wait_until("git daemon to listen", RECORD, || {
        Ok(bystander.tcp(at(A, 9418)?)?.ok.then_some(()))
    })?;
    Ok(running)
}

/// A repository of the agent's own, with the server as its remote.
fn agents_clone(world: &World) -> Result<std::path::PathBuf> {
    let clone = world.workdir.subdir("clone", 0o755)?;
    let path = clone.to_string_lossy().into_owned();
    git(&["init", "--quiet", &path])?;
    git(&["-C", &path, "remote", "add", "origin", "git://10.77.1.2:9418/tool.git"])?;
    let owner = world.coding.uid().to_string();
    let chown = std::process::Command::new("chown")
        .args(["-R", &format!("{owner}:{owner}"), &path])
        .status()?;
    ensure!(chown.success(), "chown failed");
    Ok(clone)
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new("git")
        .args(arguments)
        .envs([
            ("GIT_AUTHOR_NAME", "server"),
            ("GIT_AUTHOR_EMAIL", "server@example.org"),
            ("GIT_COMMITTER_NAME", "server"),
            ("GIT_COMMITTER_EMAIL", "server@example.org"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
        ])
        .output()
        .context("running git")?;
    ensure!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
