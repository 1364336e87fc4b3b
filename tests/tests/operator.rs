//! What the host's operator and the control plane see and can do.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use grantd_e2e::check::{RECORD, allowed, denied};
use grantd_e2e::clock::wait_until;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, HOST_ID, World, at, scenario};
use serde_json::{Value, json};

fn json_of(output: &Output) -> Result<Value> {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("what grantctl --json printed")
}

#[test]
fn grantctl_shows_what_is_in_force_as_the_kernel_holds_it() {
    scenario(|world| {
        let signed = world.draft()?.tcp(A, 5432).tcp_range("10.77.1.0/30", 8000, 8010).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let status = json_of(&world.daemon.run("grantctl", &["--json", "status"])?)?;
        assert_eq!(status["enforcing"], json!(true), "{status}");
        assert_eq!(status["live_grants"], json!(1), "{status}");
        assert_eq!(status["host_id"], json!(HOST_ID), "{status}");

        let shown = world.daemon.run("grantctl", &["--json", "grant", "show", &signed.jti])?;
        let shown = json_of(&shown)?;
        assert_eq!(shown["id"], json!(signed.jti), "{shown}");
        assert_eq!(shown["workload"], json!("coding-agent"), "{shown}");
        assert_eq!(shown["kernel"]["matches"], json!(true), "{shown}");
        let destinations = shown["destinations"].to_string();
        for destination in ["tcp 10.77.1.2:5432", "tcp 10.77.1.0/30:8000-8010"] {
            ensure!(destinations.contains(destination), "{destination} is not in {destinations}");
        }
        for arguments in [vec!["status"], vec!["grants"], vec!["grant", "show", &signed.jti]] {
            let output = world.daemon.run("grantctl", &arguments)?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(
                output.status.success() && text.contains("coding-agent"),
                "{arguments:?}: {text}"
            );
        }
        let unknown = world.daemon.run("grantctl", &["grant", "show", "no-such-grant"])?;
        assert_eq!(unknown.status.code(), Some(1), "exit status for a grant that is not there");
        Ok(())
    });
}

#[test]
fn the_control_plane_can_ask_the_host_what_it_is_and_what_is_in_force() {
    scenario(|world| {
        let signed = world.draft()?.tcp(A, 5432).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let host = world.control_plane.get("/v1/host")?;
        assert_eq!(host.status, 200, "{host:?}");
        assert_eq!(host.body["host_id"], json!(HOST_ID));
        assert_eq!(host.body["workloads"], json!(["coding-agent", "research-agent"]));
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        assert_eq!(host.body["boot_id"], json!(boot_id.trim()));
        let found = world.control_plane.get(&format!("/v1/grants/{}", signed.jti))?;
        assert_eq!(found.status, 200, "{found:?}");
        assert_eq!(found.body["id"], json!(signed.jti), "{found:?}");
        let absent = world.control_plane.get("/v1/grants/no-such-grant")?;
        assert_eq!(absent.status, 404, "{absent:?}");

        // A grant that is bound to this boot is taken on this boot.
        let bound = world.draft()?.tcp(A, 8080).with("boot_id", host.body["boot_id"].clone());
        world.control_plane.push(&bound)?.in_force()?;
        Ok(())
    });
}

#[test]
fn status_tells_a_dead_daemon_that_still_enforces_from_a_host_that_does_not() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let require = |world: &World| -> Result<Option<i32>> {
            let output = world.daemon.run("grantctl", &["status", "--require", "enforcing"])?;
            Ok(output.status.code())
        };
        assert_eq!(require(world)?, Some(0), "while grantd runs");
        world.daemon.kill9()?;
        assert_eq!(require(world)?, Some(0), "while grantd is dead and the pins deny");
        denied("a connection while grantd is dead", &world.coding.tcp(server.address())?)?;
        let unconfirmed = world.daemon.run("grantctl", &["disarm"])?;
        ensure!(!unconfirmed.status.success(), "enforcement was lifted without a confirmation");
        denied("a connection after that", &world.coding.tcp(server.address())?)?;
        let disarmed = world.daemon.run("grantctl", &["disarm", "--yes"])?;
        ensure!(disarmed.status.success(), "{}", String::from_utf8_lossy(&disarmed.stderr));
        assert_eq!(require(world)?, Some(1), "after enforcement was lifted");
        allowed("a connection once nothing is enforced", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn a_command_started_by_grantctl_run_is_confined_from_its_first_instruction() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let connect = format!("exec 3<>/dev/tcp/{A}/5432");
        let run = |words: &[&str]| -> Result<Output> {
            let mut arguments = vec!["run", "--workload", "coding-agent", "--user", "nobody", "--"];
            arguments.extend(words);
            world.daemon.run("grantctl", &arguments)
        };
        let whoami =
            run(&["sh", "-c", "id -u; cat /proc/self/cgroup; grep NoNewPrivs /proc/self/status"])?;
        let text = String::from_utf8_lossy(&whoami.stdout).into_owned();
        ensure!(text.starts_with("65534"), "not the user that was asked for: {text}");
        ensure!(text.contains("agents.slice/coding-agent"), "not in its workload: {text}");
        ensure!(text.contains("NoNewPrivs:\t1"), "may gain privileges: {text}");

        let refused = run(&["bash", "-c", &connect])?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(!refused.status.success(), "it connected without a grant");
        ensure!(said.contains("Operation not permitted"), "not denied by our verdict: {said}");
        world.control_plane.push(&world.draft()?.tcp(A, 5432))?.in_force()?;
        let connected = run(&["bash", "-c", &connect])?;
        ensure!(connected.status.success(), "{}", String::from_utf8_lossy(&connected.stderr));
        wait_until("the server to see the connection", RECORD, || {
            Ok((server.count() == 1).then_some(()))
        })?;
        assert_eq!(
            run(&["sh", "-c", "exit 7"])?.status.code(),
            Some(7),
            "the command's own status"
        );
        Ok(())
    });
}
