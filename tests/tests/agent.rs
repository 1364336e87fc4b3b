//! What the agent itself may try against its confinement.

use std::fs::OpenOptions;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::check::{allowed, denied};
use grantd_e2e::clock::unix_now;
use grantd_e2e::grants::Signed;
use grantd_e2e::machine;
use grantd_e2e::probe::Attack;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, LISTEN, World, at, scenario};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::json;

#[test]
fn p13_the_agents_user_can_neither_mint_nor_extend_nor_widen_its_reach() {
    scenario(|world| {
        let granted = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let shut = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(60).sign()?;
        let answer = world.control_plane.push_signed(&signed)?.in_force()?;
        let deadline_ms = answer.deadline_ms().context("no deadline in the answer")?;
        let maps = world.kernel.entries()?;
        let config = std::fs::read(world.daemon.config_path())?;
        root_can(world)?;

        let attacks = attack(world)?;
        ensure!(attacks.len() > 15, "only {} things were tried", attacks.len());
        for attack in &attacks {
            ensure!(!attack.succeeded, "the agent's user could {}", attack.what);
        }
        denied("the push port", &world.coding.tcp(LISTEN.into())?)?;
        replay_and_alter(world, &signed, deadline_ms)?;

        assert_eq!(world.kernel.entries()?, maps, "the maps were changed");
        assert_eq!(std::fs::read(world.daemon.config_path())?, config, "the config was changed");
        ensure!(
            unix_now().abs_diff(deadline_ms / 1000) < 2 * machine::life(60),
            "the clock was set"
        );
        allowed("what was granted", &world.coding.tcp(granted.address())?)?;
        denied("what was not granted", &world.coding.tcp(shut.address())?)?;
        ensure!(world.daemon.grants()?.len() == 1, "another grant is in force");
        Ok(())
    });
}

/// The same objects answer to root, so that a refusal above means something.
fn root_can(world: &World) -> Result<()> {
    OpenOptions::new().append(true).open(world.daemon.config_path())?;
    std::fs::read_dir(&world.daemon.config().state)?;
    kill(Pid::from_raw(world.daemon.pid()?), None)?;
    world.daemon.ask(&json!({"op": "status"}))?;
    ensure!(world.kernel.pin("EXACT").exists(), "there is no pin EXACT to attack");
    ensure!(world.cgroups.outside().join("cgroup.procs").exists(), "no cgroup to move to");
    Ok(())
}

fn attack(world: &World) -> Result<Vec<Attack>> {
    let config = world.daemon.config();
    let credential = config.credentials.join("control-plane.jwks");
    let targets = [
        ("--daemon-pid", world.daemon.pid()?.to_string()),
        ("--config", world.daemon.config_path().display().to_string()),
        ("--keys", credential.display().to_string()),
        ("--state", config.state.display().to_string()),
        ("--socket", world.daemon.socket().display().to_string()),
        ("--bpffs", world.bpffs.path().display().to_string()),
        ("--map", world.kernel.pin("EXACT").display().to_string()),
        ("--outside", world.cgroups.outside().display().to_string()),
        ("--other", world.research.cgroup().display().to_string()),
        ("--slice", world.cgroups.slice().display().to_string()),
    ];
    let mut arguments = vec!["attack"];
    for (name, value) in &targets {
        arguments.extend([*name, value.as_str()]);
    }
    world.coding.many(&arguments)
}

/// What somebody could do who got hold of the grant, token and all, and even of the control plane's
/// certificate.
fn replay_and_alter(world: &World, signed: &Signed, deadline_ms: u64) -> Result<()> {
    std::thread::sleep(Duration::from_millis(1100));
    let replay = world.control_plane.push_signed(signed)?;
    assert_eq!(replay.status, 200, "the same grant again: {replay:?}");
    let moved = replay.deadline_ms().context("no deadline in the answer")?.abs_diff(deadline_ms);
    ensure!(moved < 100, "a replay moved the deadline by {moved} ms");
    for (claim, value) in [
        ("exp", json!(signed.exp + 600)),
        ("workload", json!(world.research.name)),
        ("jti", json!("another-id")),
    ] {
        let altered = signed.tampered(|claims| {
            claims.insert(claim.to_owned(), value.clone());
        })?;
        world
            .control_plane
            .push_signed(&altered)?
            .refused("signature_invalid")
            .with_context(|| format!("an altered {claim}"))?;
    }
    Ok(())
}
