//! What the suite of [`crate::escapes`] has to show: from inside a workload that is granted one destination
//! nothing arrives at another, except by the ways that [`crate::open`] names. Each probe first runs outside
//! the box: what does not arrive from there proves nothing here, and is reported as not run.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::check::allowed;
use crate::clock;
use crate::escapes::{GRANTED_PORT, Outcome, Suite, Who};
use crate::open::{OPEN_WITHOUT_GUARD, Open};
use crate::programs::not_run;
use crate::server::Server;
use crate::workload::Workload;
use crate::world::{A, A6, World, at};

/// How long a granted exchange may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// What a run has shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// From outside the box.
    pub outside: Outcome,
    /// From inside.
    pub inside: Outcome,
}

/// Runs the probes of one threat, or all, outside and inside, and checks that only the named ways are open.
///
/// # Errors
/// When something gets out that is not named, a named way is closed, or the granted destination is not
/// reached before and after.
pub fn only_the_named(world: &World, who: Who, threat: Option<&str>) -> Result<Shown> {
    let _servers = granted(world)?;
    let suite = Suite::new(world)?;
    let probes = suite.probes(threat)?;
    ensure!(!probes.is_empty(), "no probe for {threat:?}");
    let outside = suite.run(world, &world.cgroups.outside(), who, &probes)?;
    let inside = suite.run(world, world.coding.cgroup(), who, &probes)?;
    granted_works(world, &world.coding).context("after the probes")?;

    every_probe_ran(&outside)?;
    every_probe_ran(&inside)?;
    let open = open_for(who, &closed(world)?);
    let expected: BTreeSet<String> = open
        .iter()
        .flat_map(|way| way.probes)
        .map(|probe| (*probe).to_owned())
        .filter(|probe| outside.arrived.contains(probe))
        .collect();
    let escaped: Vec<&String> = inside.arrived.difference(&expected).collect();
    ensure!(escaped.is_empty(), "{who:?} got out by:\n{}", inside.steps(escaped));
    let raced: BTreeSet<&str> =
        open.iter().filter(|way| way.raced).flat_map(|way| way.probes).copied().collect();
    let shut: Vec<&String> = expected
        .difference(&inside.arrived)
        .filter(|probe| !raced.contains(probe.as_str()))
        .collect();
    ensure!(
        shut.is_empty(),
        "named as open, and closed (take it from the list):\n{}",
        inside.steps(shut)
    );
    reported_as_open(world, &open)?;
    for (name, tried) in &outside.tried {
        // A9 is about the granted destination, where arriving is no sign.
        if !outside.arrived.contains(name) && tried.threat != "A9" {
            not_run(
                &format!("escapes as {who:?}: {name}"),
                &format!("does not arrive on this machine without a box either: {}", tried.steps),
            )?;
        }
    }
    Ok(Shown { outside, inside })
}

/// Grants [`GRANTED_PORT`] of one machine by TCP and UDP, v4 and v6, and shows that it works.
///
/// # Errors
/// When it does not.
pub fn granted(world: &World) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    let mut draft = world.draft()?.ttl(590);
    for host in [A, A6] {
        servers.push(Server::tcp(&world.srv_a, at(host, GRANTED_PORT)?)?);
        servers.push(Server::udp(&world.srv_a, at(host, GRANTED_PORT)?)?);
        draft = draft.tcp(host, GRANTED_PORT).udp(host, GRANTED_PORT);
    }
    world.control_plane.push(&draft)?.in_force()?;
    granted_works(world, &world.coding)?;
    Ok(servers)
}

/// Checks that the workload reaches what it is granted, with bytes, and that the daemon lives.
///
/// # Errors
/// When it does not.
pub fn granted_works(world: &World, workload: &Workload) -> Result<()> {
    for host in [A, A6] {
        let to = at(host, GRANTED_PORT)?;
        let held = workload.hold(to, Some(5))?;
        held.next_exchange(PATIENCE).context("the granted connection's bytes")?;
        // A datagram may be lost on a machine that is very busy.
        clock::wait_until("the granted datagram's echo", PATIENCE, || {
            Ok(workload.udp(to)?.ok.then_some(()))
        })?;
        allowed("the granted connection", &workload.tcp(to)?)?;
    }
    if kill(Pid::from_raw(world.daemon.pid()?), None::<Signal>).is_err() {
        bail!("grantd has ended during the run");
    }
    Ok(())
}

fn every_probe_ran(outcome: &Outcome) -> Result<()> {
    let died = outcome.tried.iter().filter(|(_, tried)| tried.outcome == "died");
    let died: Vec<&String> = died.map(|(name, _)| name).collect();
    ensure!(died.is_empty(), "probes that could not be started:\n{}", outcome.steps(died));
    let unknown: Vec<&String> =
        outcome.arrived.iter().filter(|name| !outcome.tried.contains_key(*name)).collect();
    ensure!(unknown.is_empty(), "something arrived that no probe owns: {unknown:?}");
    Ok(())
}

/// What the daemon says of each way out: its ID and state.
fn threats(world: &World) -> Result<Vec<(String, String)>> {
    let status = world.daemon.ask(&json!({"op": "status"}))?;
    let rows = status.get("threats").and_then(Value::as_array).context("status without threats")?;
    let text = |row: &Value, field: &str| {
        row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(rows.iter().map(|row| (text(row, "id"), text(row, "state"))).collect())
}

fn closed(world: &World) -> Result<BTreeSet<String>> {
    let closed = threats(world)?.into_iter().filter(|(_, state)| state == "closed");
    Ok(closed.map(|(id, _)| id).collect())
}

/// What the daemon calls closed on this host is not expected to be open, whatever the list says.
fn open_for(who: Who, closed: &BTreeSet<String>) -> Vec<Open> {
    let applies = |way: &&Open| way.holds_for(who) && !closed.contains(way.threat);
    OPEN_WITHOUT_GUARD.iter().filter(applies).copied().collect()
}

fn reported_as_open(world: &World, open: &[Open]) -> Result<()> {
    let told = threats(world)?;
    for way in open {
        let state = told.iter().find(|(id, _)| id == way.threat).map(|(_, state)| state.as_str());
        ensure!(
            matches!(state, Some("open" | "partly")),
            "{} lets something out ({}), and the daemon calls it {state:?}",
            way.threat,
            way.reason
        );
    }
    Ok(())
}
