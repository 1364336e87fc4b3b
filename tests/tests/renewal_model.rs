//! Random grants, renewals, revocations, expiries and deaths of the daemon, with live connections, against
//! a small model: nothing passes that no live grant covers, and nothing is cut that one does.
//!
//! `GRANTD_MODEL_SEED` repeats a run, `GRANTD_MODEL_SECONDS` lets it go on for longer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use grantd_e2e::clock::{now, since, unix_micros};
use grantd_e2e::pool::Pool;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario};
use serde_json::json;

const PORTS: [u16; 3] = [5432, 5433, 5434];
/// Nothing is judged so near to a deadline: clocks and machines are not that exact.
const MARGIN_US: u64 = 300_000;
/// How long a live connection may take to answer: TCP sends what was lost while the daemon was dead again.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_SOCKETS: usize = 12;
const MOST_GRANTS: usize = 5;
/// How long this runs when nothing else is said.
const SECONDS: u64 = 25;
const LONG_SECONDS: u64 = 300;
const STEPS: u64 = 14;

/// Numbers that look random (xorshift), the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }

    fn ports(&mut self) -> BTreeSet<u16> {
        let mask = 1 + self.below(7);
        (0_u32..).zip(PORTS).filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, port)| port).collect()
    }

    /// Mostly so short that it ends within the test.
    fn ttl(&mut self) -> u64 {
        if self.below(4) == 0 { 120 } else { 2 + self.below(4) }
    }
}

/// A grant, in force from `start_us` to `end_us`.
#[derive(Debug)]
struct Grant {
    jti: String,
    ports: BTreeSet<u16>,
    start_us: u64,
    end_us: u64,
}

/// A connection that stood at `start_us`.
#[derive(Debug)]
struct Socket {
    who: String,
    port: u16,
    start_us: u64,
}

struct Case<'a> {
    world: &'a mut World,
    pool: Pool,
    grants: Vec<Grant>,
    sockets: Vec<Socket>,
    opened: usize,
    log: Vec<String>,
}

impl Case<'_> {
    fn covered(&self, port: u16, at_us: u64) -> bool {
        let covers = |g: &Grant| g.ports.contains(&port) && (g.start_us..g.end_us).contains(&at_us);
        self.grants.iter().any(covers)
    }

    /// Whether grants have covered the connection without a gap.
    fn lives(&self, socket: &Socket, until_us: u64) -> bool {
        let mut from = socket.start_us;
        while from < until_us {
            let here = self.grants.iter().filter(|g| {
                g.ports.contains(&socket.port) && (g.start_us..g.end_us).contains(&from)
            });
            match here.map(|g| g.end_us).max() {
                Some(end) => from = end,
                None => return false,
            }
        }
        true
    }

    /// Waits while a deadline is so near that nobody can tell on which side of it something happens.
    fn settle(&self) {
        loop {
            let now = unix_micros();
            let near = self.grants.iter().find(|g| g.end_us.abs_diff(now) < MARGIN_US);
            let Some(near) = near else { return };
            let wait = (near.end_us + MARGIN_US).saturating_sub(now) + 1000;
            std::thread::sleep(Duration::from_micros(wait));
        }
    }

    fn live_grant(&self, dice: &mut Dice) -> Option<usize> {
        let now = unix_micros();
        let live: Vec<usize> =
            (0..).zip(&self.grants).filter(|(_, g)| g.end_us > now).map(|(i, _)| i).collect();
        let choice = usize::try_from(dice.below(64)).unwrap_or(0);
        if live.is_empty() { None } else { live.get(choice % live.len()).copied() }
    }

    fn push(&mut self, dice: &mut Dice, replaces: Option<usize>) -> Result<()> {
        let (ports, ttl) = (dice.ports(), dice.ttl());
        let mut draft = self.world.draft()?.ttl(ttl);
        for port in &ports {
            draft = draft.tcp(A, *port);
        }
        let old = replaces.and_then(|index| self.grants.get(index));
        if let Some(old) = old {
            draft = draft.with("replaces", json!(old.jti));
        }
        self.log.push(format!("grant {ports:?} for {ttl} s in place of {:?}", old.map(|o| &o.jti)));
        let signed = draft.sign()?;
        let answer = self.world.control_plane.push_signed(&signed)?.in_force()?;
        let (start_us, end) = (unix_micros(), answer.deadline_ms().context("no deadline")?);
        if let Some(old) = replaces.and_then(|index| self.grants.get_mut(index)) {
            old.end_us = old.end_us.min(start_us);
        }
        self.grants.push(Grant { jti: signed.jti, ports, start_us, end_us: end * 1000 });
        Ok(())
    }

    fn revoke(&mut self, index: usize) -> Result<()> {
        let Some(grant) = self.grants.get_mut(index) else { return Ok(()) };
        self.log.push(format!("revoke {}", grant.jti));
        let answer = self.world.control_plane.revoke(&json!([{"jti": grant.jti}]))?;
        ensure!(answer.status == 200, "{answer:?}");
        grant.end_us = unix_micros();
        Ok(())
    }

    /// Tries every port, and holds what stands.
    fn open(&mut self) -> Result<()> {
        for port in PORTS {
            self.settle();
            let covered = self.covered(port, unix_micros());
            let who = format!("s{}", self.opened);
            let done = self.pool.tell(&format!("open {who} tcp {}", at(A, port)?))?;
            self.opened += 1;
            self.log.push(format!("open {who} to {port}: {} ({covered})", done.ok));
            ensure!(done.ok == covered, "port {port}, covered: {covered}, and it is {done:?}");
            if done.ok {
                self.sockets.push(Socket { who, port, start_us: unix_micros() });
            }
        }
        Ok(())
    }

    /// Asks every connection, and compares with the model. Those that have ended are let go.
    fn check(&mut self, daemon_runs: bool) -> Result<()> {
        self.settle();
        let at_us = unix_micros();
        let sockets = std::mem::take(&mut self.sockets);
        for socket in &sockets {
            // What came late for an earlier question is not the answer to this one.
            self.pool.tell(&format!("read {}", socket.who))?;
            self.pool.tell(&format!("send {} x 1", socket.who))?;
        }
        std::thread::sleep(Duration::from_millis(100));
        for socket in sockets {
            let lives = self.lives(&socket, at_us);
            let mut answer = self.pool.tell(&format!("read {}", socket.who))?;
            let started = now();
            while lives
                && daemon_runs
                && answer.count == 0
                && answer.ok
                && since(started) < PATIENCE
            {
                std::thread::sleep(Duration::from_millis(20));
                answer = self.pool.tell(&format!("read {}", socket.who))?;
            }
            if lives {
                let stands = answer.ok && (answer.count > 0 || !daemon_runs);
                ensure!(stands, "{socket:?} is covered, and was cut: {answer:?}");
                self.sockets.push(socket);
                continue;
            }
            ensure!(answer.count == 0, "{socket:?} is not covered, and answers: {answer:?}");
            if daemon_runs {
                ensure!(!answer.ok, "{socket:?} is not covered, and was not cut: {answer:?}");
                self.pool.must(&format!("close {}", socket.who))?;
            } else {
                self.sockets.push(socket);
            }
        }
        Ok(())
    }

    fn step(&mut self, dice: &mut Dice) -> Result<()> {
        self.settle();
        match dice.below(10) {
            0..=2 if self.live_grant(dice).is_none() || self.grants.len() < MOST_GRANTS => {
                self.push(dice, None)?;
            }
            0..=4 => {
                let replaces = self.live_grant(dice);
                self.push(dice, replaces)?;
            }
            5 | 6 => {
                if let Some(index) = self.live_grant(dice) {
                    self.revoke(index)?;
                }
            }
            7 => {
                self.log.push("kill the daemon".to_owned());
                self.world.daemon.kill9()?;
                std::thread::sleep(Duration::from_millis(dice.below(2500)));
                self.check(false).context("while the daemon is dead")?;
                if self.sockets.len() < MOST_SOCKETS {
                    self.open().context("while the daemon is dead")?;
                }
                self.settle();
                self.world.daemon.start()?;
            }
            _ => std::thread::sleep(Duration::from_millis(dice.below(2000))),
        }
        self.check(true)?;
        if self.sockets.len() < MOST_SOCKETS { self.open() } else { Ok(()) }
    }

    /// Ends what is left, so that the next case begins with nothing.
    fn finish(&mut self) -> Result<()> {
        self.settle();
        let now = unix_micros();
        for index in 0..self.grants.len() {
            if self.grants.get(index).is_some_and(|g| g.end_us > now) {
                self.revoke(index)?;
            }
        }
        self.check(true)?;
        ensure!(self.sockets.is_empty(), "connections outlive every grant: {:?}", self.sockets);
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "a failed run is repeated by its seed")]
fn run(seconds: u64) {
    let said = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = said("GRANTD_MODEL_SECONDS").unwrap_or(seconds);
    let seed = said("GRANTD_MODEL_SEED").unwrap_or_else(unix_micros);
    println!("GRANTD_MODEL_SEED={seed}");
    scenario(|world| {
        let mut servers = Vec::new();
        for port in PORTS {
            servers.push(Server::tcp(&world.srv_a, at(A, port)?)?);
        }
        let (started, mut cases, mut dice) = (now(), 0, Dice(seed | 1));
        while cases == 0 || since(started) < Duration::from_secs(seconds) {
            let pool = Pool::start(&world.coding)?;
            let mut case = Case {
                world: &mut *world,
                pool,
                grants: Vec::new(),
                sockets: Vec::new(),
                opened: 0,
                log: Vec::new(),
            };
            let outcome = (0..STEPS).try_for_each(|_| case.step(&mut dice));
            if let Err(error) = outcome.and_then(|()| case.finish()) {
                let (log, grants) = (case.log.join("\n"), &case.grants);
                bail!(
                    "seed {seed}, case {cases}: {error:#}\n{log}\nat {}: {grants:#?}",
                    unix_micros()
                );
            }
            cases += 1;
        }
        println!("{cases} cases of {STEPS} steps");
        Ok(())
    });
}

#[test]
fn whatever_happens_to_grants_and_daemon_live_connections_go_on_exactly_while_a_grant_covers_them()
{
    run(SECONDS);
}

#[test]
#[ignore = "long: five minutes of the same"]
fn for_minutes_live_connections_go_on_exactly_while_a_grant_covers_them() {
    run(LONG_SECONDS);
}
