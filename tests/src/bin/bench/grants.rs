//! Grants on their way into the kernel and out of it.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use grantd_e2e::clock::{now, since};
use grantd_e2e::control_plane::Pusher;
use grantd_e2e::okta::AccessToken;
use grantd_e2e::probe::Latency;
use grantd_e2e::world::{A, World};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{nanos, row, spread};

const SAMPLES: usize = 500;
const WARM_UP: usize = 20;
/// Grants that are held while the memory is read.
const HELD: usize = 1_000;
/// Pushes on their way at once in the large apply.
const AT_ONCE: usize = 32;
/// Lifetime of the grants: longer than any measurement.
const TTL: u64 = 590;

/// Push to acknowledgement, and revocation to acknowledgement, one after another on one connection.
pub(crate) fn latency(world: &mut World) -> Result<()> {
    let token = world.token()?;
    let mut pairs = Vec::new();
    for _ in 0..SAMPLES + WARM_UP {
        let grant =
            world.control_plane.draft(&world.coding.name, &token)?.tcp(A, 5432).ttl(TTL).sign()?;
        let revocation = world.control_plane.revocation_body(&json!([{"jti": grant.jti}]))?;
        pairs.push((grant.body(), revocation));
    }
    let pusher = world.control_plane.pusher().clone();
    let (pushes, revocations) = world.control_plane.run(async move {
        let (mut pushes, mut revocations) = (Vec::new(), Vec::new());
        for (grant, revocation) in pairs {
            let pushed = pusher.post("/v1/grants", grant).await?.in_force()?;
            pushes.push(nanos(pushed.elapsed));
            let revoked = pusher.post("/v1/revocations", revocation).await?;
            ensure!(revoked.status == 200, "{revoked:?}");
            revocations.push(nanos(revoked.elapsed));
        }
        Ok((pushes.split_off(WARM_UP), revocations.split_off(WARM_UP)))
    })??;
    let pushes = Latency::of(pushes).context("no samples")?;
    let revocations = Latency::of(revocations).context("no samples")?;
    row("push, mutual TLS to acknowledgement (in force)", &spread(pushes), "median under 5 ms");
    row("revoke, mutual TLS to acknowledgement", &spread(revocations), "median under 2 ms");
    Ok(())
}

/// Resident memory of the daemon, idle and with grants in force.
pub(crate) fn memory(world: &mut World) -> Result<()> {
    let idle = resident(world)?;
    let bodies = bodies(world, HELD, 1)?;
    push_all(world, bodies)?;
    let held = resident(world)?;
    row("resident memory, idle", &idle, "under 20 MB");
    row(&format!("resident memory, {HELD} grants"), &held, "under 30 MB");
    Ok(())
}

/// Many grants of ten destinations each: until all are acknowledged, read back, and adopted by a
/// daemon that starts again.
pub(crate) fn large_apply(world: &mut World, grants: usize) -> Result<()> {
    let bodies = bodies(world, grants, 10)?;
    let start = now();
    push_all(world, bodies)?;
    let applied = since(start);
    let start = now();
    let listed = world.daemon.grants()?;
    let listing = since(start);
    ensure!(listed.len() == grants, "{} of {grants} grants are in force", listed.len());
    let unmatched = listed
        .iter()
        .filter(|grant| grant.pointer("/kernel/matches") != Some(&json!(true)))
        .count();
    ensure!(unmatched == 0, "{unmatched} grants are not in the kernel as the ledger says");
    let entries = world.kernel.entries()?;
    ensure!(entries.exact == grants * 10, "{entries:?}");
    row(
        &format!("{grants} grants of 10 destinations pushed, {AT_ONCE} at once"),
        &format!("{:.2} s ({:.0}/s)", applied.as_secs_f64(), grants as f64 / applied.as_secs_f64()),
        "under 10 s",
    );
    row(
        "the same, listed and compared with the kernel",
        &format!("{:.2} s", listing.as_secs_f64()),
        "",
    );
    world.daemon.kill9()?;
    let start = now();
    world.daemon.start()?;
    row(
        "the same, adopted by a new daemon",
        &format!("{:.2} s", since(start).as_secs_f64()),
        "under 1 s",
    );
    ensure!(world.daemon.grants()?.len() == grants, "not all were adopted");
    Ok(())
}

fn bodies(world: &World, grants: usize, destinations: u16) -> Result<Vec<Vec<u8>>> {
    let token: AccessToken = world.token()?;
    (0..grants)
        .map(|number| {
            let mut draft = world.control_plane.draft(&world.coding.name, &token)?.ttl(TTL);
            for destination in 0..destinations {
                let host = format!("fd00:77:1::{:x}:{:x}", number + 1, destination + 1);
                draft = draft.tcp(&host, 5432);
            }
            Ok(draft.sign()?.body())
        })
        .collect()
}

fn push_all(world: &World, bodies: Vec<Vec<u8>>) -> Result<()> {
    let pusher = world.control_plane.pusher().clone();
    world.control_plane.run(push_at_once(pusher, bodies))?
}

async fn push_at_once(pusher: Pusher, bodies: Vec<Vec<u8>>) -> Result<()> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut pushes = Vec::new();
    for body in bodies {
        let permit = Arc::clone(&room).acquire_owned().await?;
        let pusher = pusher.clone();
        pushes.push(tokio::spawn(async move {
            let answer = pusher.post("/v1/grants", body).await;
            drop(permit);
            answer?.in_force()
        }));
    }
    for push in pushes {
        push.await??;
    }
    Ok(())
}

fn resident(world: &World) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.daemon.pid()?))?;
    let figure = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name}"))?;
        line.trim().trim_end_matches(" kB").parse().context("a figure of /proc/PID/status")
    };
    Ok(format!(
        "{:.1} MB ({:.1} own, {:.1} of files)",
        figure("VmRSS:")? as f64 / 1e3,
        figure("RssAnon:")? as f64 / 1e3,
        figure("RssFile:")? as f64 / 1e3
    ))
}
