//! What a granted connection costs more than one that nothing looks at, side by side.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use grantd_e2e::probe::Tally;
use grantd_e2e::workload::Workload;
use grantd_e2e::world::{A, World, at};

use crate::{row, shown};

const ROUNDS: u64 = 12;
const CONNECTS: u64 = 1_000;

pub(crate) fn run(world: &mut World) -> Result<()> {
    for port in [5432, 5433] {
        let listener = world.srv_a.listen_tcp(at(A, port)?)?;
        std::thread::spawn(move || accept(&listener));
    }
    world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(590))?.in_force()?;
    let bystander = world.coding.moved_to(&world.cgroups.outside());
    let (mut granted, mut free, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Whoever goes first has no advantage on the whole.
        let (confined, unconfined) = if round % 2 == 0 {
            let confined = p10(&world.coding, 5432)?;
            (confined, p10(&bystander, 5433)?)
        } else {
            let unconfined = p10(&bystander, 5433)?;
            (p10(&world.coding, 5432)?, unconfined)
        };
        granted.push(confined);
        free.push(unconfined);
        ratios.push(confined * 1_000 / unconfined.max(1));
    }
    let ratio = median(ratios)?;
    row(
        "granted connect, p10, against none of ours",
        &format!("x {}.{:03}", ratio / 1_000, ratio % 1_000),
        "x 1.10",
    );
    row(
        "the same in absolute terms",
        &format!("{} against {}", shown(median(granted)?), shown(median(free)?)),
        "",
    );
    Ok(())
}

fn p10(workload: &Workload, port: u16) -> Result<u64> {
    let tally: Tally = workload.times(at(A, port)?, CONNECTS)?;
    ensure!(tally.ok == CONNECTS, "{tally:?}");
    Ok(tally.latency_ns.context("no samples")?.p10)
}

fn median(mut samples: Vec<u64>) -> Result<u64> {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().context("no samples")
}

fn accept(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        drop(stream);
    }
}
