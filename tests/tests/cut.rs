//! Live connections end with their grant: in both directions, whatever ended it, dead daemon or alive, and
//! nothing of them comes through later.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{ALLOWED, CUT, Record};
use grantd_e2e::capture::{Capture, TCP_RST};
use grantd_e2e::check::{RECORD, allowed};
use grantd_e2e::clock::{sleep_until_unix, wait_until};
use grantd_e2e::grants::Signed;
use grantd_e2e::machine::{judges_time, patience};
use grantd_e2e::netns::{Netns, Prefix};
use grantd_e2e::server::Server;
use grantd_e2e::streams::{Seen, Side};
use grantd_e2e::workload::{Holding, Running, Workload};
use grantd_e2e::world::{A, A6, World, at, scenario};
use serde_json::json;

/// How late the end may be seen by either side while grantd runs.
const CUT_WITHIN_US: u64 = 100_000;
/// How far wall clock and boot clock may be apart, and a reader may lag behind what was delivered.
const SLACK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

fn slack_us() -> u64 {
    u64::try_from(patience(SLACK).as_micros()).unwrap_or(u64::MAX)
}

/// One stream between the workload and a server.
struct Stream {
    what: &'static str,
    agent: Running,
    server: Side,
}

impl Stream {
    fn open(world: &World, udp: bool, host: &str, port: u16) -> Result<Self> {
        let to = at(host, port)?;
        let (what, server, agent) = if udp {
            let server = Side::await_udp(&world.srv_a, to)?;
            ("UDP", server, world.coding.start(&["stream", "--udp", &to.to_string()])?)
        } else {
            let server = Side::await_tcp(&world.srv_a, to)?;
            ("TCP", server, world.coding.start(&["stream", &to.to_string()])?)
        };
        let _: Seen = agent.next(PATIENCE).with_context(|| format!("{what} to {to}"))?;
        Ok(Self { what, agent, server })
    }

    /// What the agent and the server have seen so far.
    fn seen(&mut self) -> Result<(Seen, Seen)> {
        Ok((self.agent.command("seen")?, self.server.seen()))
    }

    fn flows(&mut self) -> Result<()> {
        let before = self.seen()?;
        std::thread::sleep(Duration::from_millis(200));
        let after = self.seen()?;
        let more = |a: &Seen, b: &Seen| b.received > a.received + 1000 && b.error.is_none();
        ensure!(
            more(&before.0, &after.0) && more(&before.1, &after.1),
            "the {} stream does not flow both ways: {after:?}",
            self.what
        );
        Ok(())
    }

    /// Checks that it was silent both ways from an instant on, and that nothing comes any more.
    fn silent_since(&mut self, instant_us: u64) -> Result<()> {
        let (agent, server) = self.seen()?;
        for (side, seen) in [("the agent", &agent), ("the server", &server)] {
            ensure!(
                seen.last_us < instant_us + slack_us(),
                "{} heard something by {} {} µs after the deadline",
                side,
                self.what,
                seen.last_us.saturating_sub(instant_us)
            );
        }
        std::thread::sleep(Duration::from_millis(700));
        let later = self.seen()?;
        ensure!(
            later.0.received == agent.received && later.1.received == server.received,
            "the {} stream went on after the deadline: {later:?}",
            self.what
        );
        Ok(())
    }
}

/// A grant for the streams' ports, with its deadline in microseconds.
fn grant(world: &World, ttl: u64) -> Result<(Signed, u64)> {
    let draft = world.draft()?.tcp(A, 5432).tcp(A6, 5432).udp(A, 5353).udp(A6, 5353);
    let signed = draft.ttl(ttl).sign()?;
    let answer = world.control_plane.push_signed(&signed)?.in_force()?;
    Ok((signed, answer.deadline_ms().context("no deadline in the answer")? * 1000))
}

fn streams(world: &World) -> Result<Vec<Stream>> {
    Ok(vec![
        Stream::open(world, false, A, 5432)?,
        Stream::open(world, false, A6, 5432)?,
        Stream::open(world, true, A, 5353)?,
        Stream::open(world, true, A6, 5353)?,
    ])
}

#[test]
fn p07_at_the_deadline_streams_by_tcp_and_udp_are_cut_and_the_agent_is_told_within_100_ms() {
    scenario(|world| {
        let (_, deadline_us) = grant(world, 5)?;
        let mut streams = streams(world)?;
        streams.iter_mut().try_for_each(Stream::flows)?;
        sleep_until_unix(deadline_us.div_ceil(1_000_000));
        std::thread::sleep(patience(Duration::from_millis(300)));
        let timely = judges_time("live connections are cut within 100 ms of the deadline")?;
        for stream in &mut streams {
            let (agent, server) = stream.seen()?;
            let (error, at_us) = agent.error.clone().context("the agent was told nothing")?;
            ensure!(at_us + slack_us() > deadline_us, "{}: told too early: {agent:?}", stream.what);
            let mut last_us = at_us;
            if stream.what == "TCP" {
                let (error, at_us) = server.error.clone().context("the server was told nothing")?;
                ensure!(error == "ECONNRESET", "{server:?}");
                last_us = last_us.max(at_us);
            }
            let late_us = last_us.saturating_sub(deadline_us);
            if timely {
                ensure!(late_us < CUT_WITHIN_US, "{}: {error} after {late_us} µs", stream.what);
            }
            stream.silent_since(deadline_us)?;
        }
        Ok(())
    });
}

#[test]
fn f03_with_the_daemon_dead_no_byte_passes_after_the_deadline_in_either_direction() {
    scenario(|world| {
        let (_, deadline_us) = grant(world, 5)?;
        let mut streams = streams(world)?;
        streams.iter_mut().try_for_each(Stream::flows)?;
        world.daemon.kill9()?;
        streams.iter_mut().try_for_each(Stream::flows).context("with the daemon dead")?;
        let capture = Capture::start(&world.srv_a)?;
        sleep_until_unix(deadline_us.div_ceil(1_000_000));
        std::thread::sleep(Duration::from_millis(300));
        streams.iter_mut().try_for_each(|stream| stream.silent_since(deadline_us))?;
        // The servers go on sending: the packets are on the wire, and stop at the workload.
        let late = |packet: &&grantd_e2e::capture::Packet| packet.at_us > deadline_us + slack_us();
        let [from_agent, from_server] = [true, false].map(|agent| {
            let of_agent = move |p: &&grantd_e2e::capture::Packet| {
                matches!(p.port, 5432 | 5353) == agent
                    && p.flags & TCP_RST == 0
                    && matches!(p.protocol, 6 | 17)
            };
            capture.packets().iter().filter(late).filter(of_agent).count()
        });
        ensure!(from_agent == 0, "{from_agent} packets of the agent arrived after the deadline");
        ensure!(from_server > 10, "the servers sent nothing: nothing was tried");
        Ok(())
    });
}

#[test]
fn f02_what_was_queued_while_it_was_shut_never_leaves_after_a_new_grant() {
    scenario(|world| {
        let (_, deadline_us) = grant(world, 4)?;
        let mut streams = streams(world)?;
        streams.iter_mut().try_for_each(Stream::flows)?;
        world.daemon.kill9()?;
        sleep_until_unix(deadline_us.div_ceil(1_000_000) + 1);
        let before: Vec<(Seen, Seen)> =
            streams.iter_mut().map(Stream::seen).collect::<Result<_>>()?;
        ensure!(
            before.iter().any(|(agent, _)| agent.error.is_none()),
            "no socket was left with anything in its queue: nothing was tried"
        );
        world.daemon.start()?;
        grant(world, 60)?;
        std::thread::sleep(Duration::from_secs(2));
        for (stream, (_, before)) in streams.iter_mut().zip(&before) {
            let (agent, server) = stream.seen()?;
            ensure!(
                server.received == before.received,
                "{}: {} old bytes arrived under the new grant",
                stream.what,
                server.received.saturating_sub(before.received)
            );
            ensure!(agent.error.is_some(), "{}: the agent still holds the old socket", stream.what);
        }
        let fresh = Server::tcp(&world.srv_a, at(A, 8000)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 8000))?.in_force()?;
        allowed("a fresh connection", &world.coding.tcp(fresh.address())?)
    });
}

/// Connections of two grants, of which the first is about to end.
struct Pair {
    ending: Holding,
    staying: Holding,
    first: Signed,
}

fn pair(world: &World, servers: &[Server; 2]) -> Result<Pair> {
    let first = world.draft()?.tcp(A, 5432).ttl(120).sign()?;
    world.control_plane.push_signed(&first)?.in_force()?;
    world.control_plane.push(&world.research_draft()?.tcp(A, 5433).ttl(120))?.in_force()?;
    Ok(Pair {
        ending: world.coding.hold(servers[0].address(), Some(20))?,
        staying: world.research.hold(servers[1].address(), Some(20))?,
        first,
    })
}

/// Ends the first grant in some way and checks that its connection is reset at both ends by the time that
/// it is acknowledged, with one record, and that the other one goes on.
fn cut_by(
    world: &mut World,
    end: impl FnOnce(&mut World, &Signed) -> Result<()>,
) -> Result<Record> {
    let servers =
        [Server::tcp(&world.srv_a, at(A, 5432)?)?, Server::tcp(&world.srv_a, at(A, 5433)?)?];
    let Pair { ending, staying, first } = pair(world, &servers)?;
    ending.next_exchange(PATIENCE)?;
    end(world, &first)?;
    let broke = ending.wait_for_break(Duration::from_secs(2)).context("the connection lives on")?;
    ensure!(broke.error != "EOF", "it was closed in order: {broke:?}");
    let seen = servers[0].wait_for_end(ending.local, PATIENCE)?;
    ensure!(!seen.orderly, "the server saw an orderly end");
    staying.still_stands().context("another workload's connection")?;
    staying.next_exchange(PATIENCE)?;
    let records = world.spool.wait_for("the cut", 1, RECORD, |record| {
        record.kind() == CUT && record.grant() == first.jti
    })?;
    ensure!(records.len() == 1, "{} records of one cut", records.len());
    records.into_iter().next().context("no record")
}

#[test]
fn f01_a_revocation_cuts_before_it_is_acknowledged_and_the_record_has_bytes_and_duration() {
    scenario(|world| {
        let record = cut_by(world, |world, grant| {
            let revoke = json!({"op": "revoke", "selector": {"id": grant.jti}});
            world.daemon.ask(&revoke).map(drop)
        })?;
        assert_eq!(record.reason(), "revoked");
        let number = |pointer: &str| record.get(pointer).as_u64().unwrap_or_default();
        ensure!(number("/traffic/bytes_out") > 0, "no bytes sent: {}", record.0);
        ensure!(number("/traffic/bytes_in") > 0, "no bytes received: {}", record.0);
        ensure!(number("/duration") > 0, "no duration: {}", record.0);
        Ok(())
    });
}

#[test]
fn f01_a_withdrawn_control_plane_key_cuts_what_it_signed() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(120).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let held = world.coding.hold(server.address(), Some(20))?;
        let keys = world.daemon.config().credentials.join("control-plane.jwks");
        let other = grantd_e2e::jose::SigningKey::ed25519("cp-2")?;
        let set = json!({"keys": [grantd_e2e::world::pinned(&other)?]});
        std::fs::write(keys, set.to_string())?;
        held.next_exchange(PATIENCE)?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        held.wait_for_break(Duration::from_secs(2)).context("the connection lives on")?;
        let end = server.wait_for_end(held.local, PATIENCE)?;
        ensure!(!end.orderly, "the server saw an orderly end");
        Ok(())
    });
}

#[test]
fn f01_a_narrower_ceiling_cuts_what_it_no_longer_covers() {
    scenario(|world| {
        cut_by(world, |world, _| {
            world.daemon.reconfigure(|config| {
                for ceiling in &mut config.ceilings {
                    ceiling.allow =
                        vec![format!("{{ host = {A:?}, ports = [5433], protocol = \"tcp\" }}")];
                }
            })?;
            world.daemon.ask(&json!({"op": "reload"})).map(drop)
        })
        .map(drop)
    });
}

#[test]
fn f01_a_narrower_replacement_cuts_only_what_it_leaves_out() {
    scenario(|world| {
        let servers = [5432, 5433, 5434]
            .map(|port| at(A, port).and_then(|to| Server::tcp(&world.srv_a, to)))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let old = world.draft()?.tcp(A, 5432).tcp(A, 5433).tcp(A, 5434).ttl(120).sign()?;
        world.control_plane.push_signed(&old)?.in_force()?;
        world.control_plane.push(&world.draft()?.tcp(A, 5434).ttl(120))?.in_force()?;
        let held = servers
            .iter()
            .map(|server| world.coding.hold(server.address(), Some(20)))
            .collect::<Result<Vec<_>>>()?;
        let narrower = world.draft()?.tcp(A, 5432).ttl(120).with("replaces", json!(old.jti));
        world.control_plane.push(&narrower)?.in_force()?;
        let [kept, left_out, elsewhere] = &held[..] else { anyhow::bail!("three connections") };
        left_out.wait_for_break(Duration::from_secs(2)).context("what is left out lives on")?;
        std::thread::sleep(Duration::from_millis(500));
        for (what, connection) in [("kept", kept), ("covered by another grant", elsewhere)] {
            connection.still_stands().with_context(|| format!("the connection that is {what}"))?;
            connection.next_exchange(PATIENCE)?;
        }
        Ok(())
    });
}

#[test]
fn f01_connections_in_a_network_namespace_of_their_own_are_cut_there() {
    scenario(|world| {
        let container = Netns::new("container")?;
        let prefix = |last: u8| Prefix([10, 77, 1, last].into(), 24);
        // A second line to the server's network: the container has it to itself.
        world.srv_a.wire("side", &[], &container, &[prefix(9)])?;
        world.srv_a.ip("route add 10.77.1.9/32 dev side")?;
        let cgroup = world.coding.cgroup().to_owned();
        let inside = Workload::new(&world.coding.name, &container, &cgroup, 61_001);
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(120).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        let held =
            [world.coding.hold(server.address(), None)?, inside.hold(server.address(), None)?];
        world.daemon.ask(&json!({"op": "revoke", "selector": {"id": signed.jti}}))?;
        for connection in &held {
            let what = format!("the connection from {}", connection.local);
            connection.wait_for_break(Duration::from_secs(2)).with_context(|| what.clone())?;
            let end =
                server.wait_for_end(connection.local, PATIENCE).with_context(|| what.clone())?;
            ensure!(!end.orderly, "{what} was closed in order");
        }
        Ok(())
    });
}

#[test]
fn p24_a_connection_that_ends_by_itself_has_one_record_of_its_end_with_bytes() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(120).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        for _ in 0..5 {
            allowed("a connection", &world.coding.tcp(server.address())?)?;
        }
        let talking = world.coding.hold(server.address(), Some(10))?;
        talking.next_exchange(PATIENCE)?;
        drop(talking);
        let closed = |record: &Record| record.kind() == 400_102 && record.grant() == signed.jti;
        let records = world.spool.wait_for("ends of connections", 6, RECORD, closed)?;
        std::thread::sleep(Duration::from_millis(500));
        let total = world.spool.records()?.iter().filter(|r| closed(r)).count();
        ensure!(records.len() == 6 && total == 6, "{total} ends of 6 connections");
        let bytes = records.iter().filter_map(|r| r.get("/traffic/bytes_out").as_u64()).max();
        ensure!(bytes > Some(0), "none of the ends counts bytes: {bytes:?}");
        wait_until("the beginnings", RECORD, || {
            let records = world.spool.records()?;
            let begun: u64 =
                records.iter().filter(|r| r.kind() == ALLOWED).map(Record::count).sum();
            Ok((begun == 6).then_some(()))
        })
    });
}
