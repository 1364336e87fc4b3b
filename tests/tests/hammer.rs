//! Reloads, restarts and upgrades while a workload connects without a pause.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::check::{allowed, denied};
use grantd_e2e::kernel_view::Entries;
use grantd_e2e::machine;
use grantd_e2e::probe::Tally;
use grantd_e2e::server::Server;
use grantd_e2e::workload::{Holding, Running};
use grantd_e2e::world::{A, A6, World, at, scenario};
use serde_json::json;

/// Longest life of a grant that a workload may have where the config says nothing, in seconds.
const TTL: u64 = 900;

/// How often each change is made.
struct Rounds {
    reloads: usize,
    restarts: usize,
    upgrades: usize,
}

/// What must go on, and what must never come through, while the daemon changes.
struct Traffic {
    granted: Running,
    forbidden: Running,
    held: Vec<Holding>,
    forbidden_server: Server,
    _servers: Vec<Server>,
}

impl Traffic {
    fn begin(world: &World) -> Result<Self> {
        let servers = vec![
            Server::tcp(&world.srv_a, at(A, 5432)?)?,
            Server::tcp(&world.srv_a, at(A6, 8005)?)?,
        ];
        let forbidden_server = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let draft = world.draft()?.tcp(A, 5432).tcp_range("fd00:77:1::/64", 8000, 8010).ttl(TTL);
        world.control_plane.push(&draft)?.in_force()?;
        let held = vec![
            world.coding.hold(at(A, 5432)?, Some(5))?,
            world.coding.hold(at(A6, 8005)?, Some(5))?,
            world.coding.hold(at(A, 5432)?, None)?,
        ];
        // An emulated machine would have no time left for the daemon.
        let slower = if machine::is_emulated() { 20 } else { 1 };
        let start = |to: &str, pause_us: u32| {
            let pause = (pause_us * slower).to_string();
            world.coding.start(&["loop", "--interval-us", &pause, to])
        };
        Ok(Self {
            // Each leaves a port in TIME_WAIT for a minute.
            granted: start(&at(A, 5432)?.to_string(), 5000)?,
            forbidden: start(&forbidden_server.address().to_string(), 500)?,
            held,
            forbidden_server,
            _servers: servers,
        })
    }

    fn end(self) -> Result<()> {
        let granted: Tally = self.granted.finish()?;
        let forbidden: Tally = self.forbidden.finish()?;
        ensure!(granted.attempts > 100, "hardly anything was tried: {granted:?}");
        ensure!(granted.ok == granted.attempts, "granted connections were refused: {granted:?}");
        ensure!(forbidden.attempts > 100, "hardly anything forbidden was tried: {forbidden:?}");
        ensure!(
            forbidden.ok == 0 && forbidden.failed.keys().all(|error| error == "EPERM"),
            "something forbidden came through: {forbidden:?}"
        );
        ensure!(self.forbidden_server.count() == 0, "the forbidden server was reached");
        for held in &self.held {
            held.still_stands().context("a live connection was cut")?;
        }
        for busy in self.held.iter().take(2) {
            busy.next_exchange(Duration::from_secs(5)).context("a live connection is stuck")?;
        }
        Ok(())
    }
}

/// A deployment whose grants outlive the longest of these tests.
fn patient(world: &mut World) -> Result<()> {
    world.daemon.log_little();
    world.daemon.reconfigure(|config| {
        for ceiling in &mut config.ceilings {
            "15m".clone_into(&mut ceiling.max_ttl);
        }
    })
}

fn hammer(rounds: &Rounds) {
    scenario(|world| {
        patient(world)?;
        world.daemon.restart()?;
        let traffic = Traffic::begin(world)?;
        for _ in 0..rounds.reloads {
            world.daemon.ask(&json!({"op": "reload"}))?;
        }
        for round in 0..rounds.restarts {
            if round % 2 == 0 {
                world.daemon.stop()?;
            } else {
                world.daemon.kill9()?;
            }
            world.daemon.start()?;
        }
        let copy = world.workdir.path().join("grantd-upgraded");
        for round in 0..rounds.upgrades {
            world.daemon.install(copy.clone())?;
            world.daemon.stop()?;
            let older =
                (round == rounds.upgrades / 2).then(|| world.bpffs.age_pins()).transpose()?;
            world.daemon.start()?;
            ensure!(!older.is_some_and(|path| path.exists()), "the older pins are still there");
        }
        traffic.end()
    });
}

#[test]
fn f05_no_connect_is_refused_or_let_through_while_grantd_reloads_restarts_and_is_upgraded() {
    if machine::is_emulated() {
        // A start takes ten times as long there.
        hammer(&Rounds { reloads: 10, restarts: 2, upgrades: 2 });
    } else {
        hammer(&Rounds { reloads: 100, restarts: 6, upgrades: 5 });
    }
}

#[test]
#[ignore = "long: a thousand reloads, fifty restarts, fifty upgrades"]
fn f05_a_thousand_reloads_fifty_restarts_and_fifty_upgrades_refuse_nothing_and_let_nothing_through()
{
    hammer(&Rounds { reloads: 1000, restarts: 50, upgrades: 50 });
}

#[test]
fn an_upgrade_across_an_abi_change_keeps_grants_and_their_ends() {
    scenario(|world| {
        patient(world)?;
        world.daemon.restart()?;
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let short = Server::tcp(&world.srv_a, at(A, 5433)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 5432).ttl(TTL))?.in_force()?;
        let signed = world.draft()?.tcp(A, 5433).ttl(TTL).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let held = world.coding.hold(server.address(), Some(20))?;
        let revoked = world.coding.hold(short.address(), None)?;
        world.daemon.kill9()?;
        let older = world.bpffs.age_pins()?;
        denied("a connection without a grant", &world.coding.tcp(at(A, 22)?)?)?;
        world.daemon.start()?;
        ensure!(!older.exists(), "the older pins are still there: {}", listing(&older));
        assert_eq!(
            world.kernel.entries()?,
            Entries { exact: 2, live_slots: 2, ..Entries::default() },
            "the new maps do not hold what the old ones held"
        );
        allowed("a new connection under the old grant", &world.coding.tcp(server.address())?)?;
        held.next_exchange(Duration::from_secs(5)).context("a live connection is stuck")?;
        held.still_stands()?;
        let revoke = json!({"op": "revoke", "selector": {"id": signed.jti}});
        world.daemon.ask(&revoke)?;
        let end =
            revoked.wait_for_break(Duration::from_secs(5)).context("it outlived its grant")?;
        ensure!(end.exchanges == 0, "an idle connection said something");
        denied("a connection after the revocation", &world.coding.tcp(short.address())?)?;
        held.still_stands().map(drop)
    });
}

fn listing(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>().join(", ")
}
