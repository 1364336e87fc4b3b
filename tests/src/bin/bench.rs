//! The figures that we publish, measured on this machine with everything switched on: durable ledger,
//! read-back, audit to the spool.
//!
//! Absolute times depend on the machine and what else runs on it; ratios are taken side by side.

#[path = "bench/connect.rs"]
mod connect;
#[path = "bench/grants.rs"]
mod grants;
#[path = "bench/verify.rs"]
mod verify;

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use grantd_e2e::issuer::Shape;
use grantd_e2e::probe::Latency;
use grantd_e2e::world::World;

/// Measures grantd on this machine's kernel. Needs root and an optimised build: `cargo xtask bench`.
#[derive(Parser)]
struct Options {
    /// Only figures whose name contains this
    filter: Option<String>,
    /// Grants of the large apply
    #[arg(long, default_value_t = 10_000)]
    grants: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let wanted = |name: &str| options.filter.as_deref().is_none_or(|part| name.contains(part));
    row("figure", "measured", "to reach");
    if cfg!(debug_assertions) {
        row("(a debug build: the figures mean nothing)", "", "");
    }
    if wanted("verification") {
        verify::run()?;
    }
    if wanted("push and revoke") {
        grants::latency(&mut world()?)?;
    }
    if wanted("memory") {
        grants::memory(&mut world()?)?;
    }
    if wanted("connect") {
        connect::run(&mut world()?)?;
    }
    if wanted("large apply") {
        grants::large_apply(&mut world()?, options.grants)?;
    }
    Ok(())
}

/// A deployment whose quotas do not get in the way and whose daemon logs as in production.
fn world() -> Result<World> {
    let mut world = World::assemble(Shape::okta())?;
    world.daemon.log_little();
    world.daemon.reconfigure(|config| {
        for workload in &mut config.workloads {
            workload.max_live_grants = 65_536;
        }
    })?;
    world.daemon.start()?;
    Ok(world)
}

/// One line of the result.
fn row(figure: &str, measured: &str, target: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{figure:<52} {measured:<40} {target}");
    let _ = out.flush();
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds in a unit that is easy to read.
fn shown(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{}.{} µs", nanos / 1_000, nanos % 1_000 / 100),
        _ => format!("{}.{:02} ms", nanos / 1_000_000, nanos % 1_000_000 / 10_000),
    }
}

fn spread(latency: Latency) -> String {
    format!("median {}, p99 {}", shown(latency.p50), shown(latency.p99))
}
