//! Live connections end with what they rest on: the peer sees it at once, nothing that was queued leaves
//! later, and what another grant covers goes on.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{ALLOWED, CLOSED, CUT, Record};
use grantd_e2e::check::{RECORD, allowed, denied};
use grantd_e2e::grants::{Draft, Signed};
use grantd_e2e::netns::{Netns, Prefix};
use grantd_e2e::peer::{RETRIES, accept, listener, read_out};
use grantd_e2e::pool::{Pool, only_ended, wait_for_ends};
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, A6, World, at, scenario};
use serde_json::json;

const NEIGHBOUR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/neighbour"));
const SOON: Duration = Duration::from_secs(3);

fn pushed(world: &World, draft: &Draft) -> Result<Signed> {
    let signed = draft.sign()?;
    world.control_plane.push_signed(&signed)?.in_force()?;
    Ok(signed)
}

fn revoke(world: &World, grant: &Signed) -> Result<()> {
    let answer = world.control_plane.revoke(&json!([{"jti": grant.jti}]))?;
    ensure!(answer.status == 200, "a revocation was refused: {answer:?}");
    Ok(())
}

#[test]
fn an_acknowledged_revocation_has_cut_its_connections_and_no_others() {
    scenario(|world| {
        let servers =
            [Server::tcp(&world.srv_a, at(A, 5432)?)?, Server::tcp(&world.srv_a, at(A, 22)?)?];
        let udp = Server::udp(&world.srv_a, at(A, 5353)?)?;
        let udp6 = Server::udp(&world.srv_a, at(A6, 5353)?)?;
        let first = pushed(world, &world.draft()?.tcp(A, 5432).udp(A, 5353).udp(A6, 5353))?;
        pushed(world, &world.draft()?.tcp(A, 22))?;
        let mut pool = Pool::start(&world.coding)?;
        let gone = pool.open("tcp", "tcp", servers[0].address())?;
        pool.open("udp", "udp", udp.address())?;
        pool.open("udp6", "udp", udp6.address())?;
        pool.open("other", "tcp", servers[1].address())?;
        only_ended("before", &mut pool, &[])?;
        revoke(world, &first)?;
        only_ended("at the answer", &mut pool, &["tcp", "udp", "udp6"])?;
        let end = servers[0].wait_for_end(gone, SOON)?;
        ensure!(!end.orderly, "the server saw an orderly close: {end:?}");
        pool.must("send other x 5")?;
        std::thread::sleep(Duration::from_millis(200));
        ensure!(pool.must("read other")?.count == 5, "the other grant's connection is silent");
        // Although another grant of the workload lives on, under which they might have gone on.
        world.spool.wait_for("the cuts", 3, RECORD, |r| {
            r.kind() == CUT && r.reason() == "revoked" && r.grant() == first.jti
        })?;
        denied("the revoked grant", &world.coding.tcp(servers[0].address())?)
    });
}

#[test]
fn a_withdrawn_key_and_a_narrowed_ceiling_cut_what_rested_on_them() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let other = Server::tcp(&world.srv_b, at(grantd_e2e::world::B, 5432)?)?;
        pushed(world, &world.draft()?.tcp(A, 5432))?;
        pushed(world, &world.draft()?.tcp(grantd_e2e::world::B, 5432))?;
        let mut pool = Pool::start(&world.coding)?;
        pool.open("a", "tcp", server.address())?;
        pool.open("b", "tcp", other.address())?;
        world.daemon.reconfigure(|config| {
            for ceiling in &mut config.ceilings {
                ceiling.allow.retain(|rule| !rule.contains(grantd_e2e::world::B));
            }
        })?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        only_ended("after the ceiling was narrowed", &mut pool, &["b"])?;
        let keys = world.daemon.config().credentials.join("control-plane.jwks");
        let next = grantd_e2e::jose::SigningKey::ed25519("cp-2")?;
        let jwks = json!({"keys": [grantd_e2e::world::pinned(&next)?]});
        std::fs::write(keys, jwks.to_string())?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        only_ended("after the key was withdrawn", &mut pool, &["a", "b"])
    });
}

#[test]
fn a_narrower_replacement_cuts_only_what_neither_it_nor_another_grant_covers() {
    scenario(|world| {
        let ports = [5432, 5433, 5434];
        let servers = ports.map(|port| at(A, port).and_then(|at| Server::tcp(&world.srv_a, at)));
        let old = pushed(world, &world.draft()?.tcp_range("10.77.1.0/30", 5432, 5434))?;
        pushed(world, &world.draft()?.tcp(A, 5433))?;
        let mut pool = Pool::start(&world.coding)?;
        for (port, server) in ports.iter().zip(&servers) {
            let server = server.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            pool.open(&port.to_string(), "tcp", server.address())?;
        }
        pushed(world, &world.draft()?.tcp(A, 5432).with("replaces", old.jti.into()))?;
        only_ended("after the replacement", &mut pool, &["5434"])?;
        for who in ["5432", "5433"] {
            pool.must(&format!("send {who} x 5"))?;
            std::thread::sleep(Duration::from_millis(200));
            ensure!(pool.must(&format!("read {who}"))?.count == 5, "{who} does not go on");
        }
        world.spool.wait_for("the cut", 1, RECORD, |r| {
            r.kind() == CUT && r.reason() == "superseded" && r.destination().ends_with(":5434")
        })?;
        Ok(())
    });
}

#[test]
fn p07_a_connected_datagram_socket_gets_an_error_within_100_ms_and_sends_nothing_more() {
    scenario(|world| {
        let servers =
            [Server::udp(&world.srv_a, at(A, 5353)?)?, Server::udp(&world.srv_a, at(A6, 5353)?)?];
        let signed = world.draft()?.udp(A, 5353).udp(A6, 5353).ttl(4).sign()?;
        let answer = world.control_plane.push_signed(&signed)?.in_force()?;
        let deadline_us = answer.deadline_ms().context("no deadline in the answer")? * 1000;
        let mut held = Vec::new();
        for server in &servers {
            held.push((server, "busy", world.coding.hold_udp(server.address(), Some(20))?));
            held.push((server, "idle", world.coding.hold_udp(server.address(), None)?));
        }
        for (server, what, holding) in held {
            let what = format!("a {what} socket connected to {}", server.address());
            let broke = holding.wait_for_break(Duration::from_secs(8))?;
            let late = i128::from(broke.at_us) - i128::from(deadline_us);
            ensure!(
                (-50_000..100_000).contains(&late),
                "{what} broke {late} µs after the deadline"
            );
            // One that sends may be refused at the deadline itself, before it is destroyed.
            let refused = what.contains("busy") && broke.error == "EPERM";
            ensure!(broke.error == "ECONNABORTED" || refused, "{what} broke otherwise: {broke:?}");
            ensure!(
                what.contains("idle") || broke.exchanges > 50,
                "{what} was not busy: {broke:?}"
            );
        }
        for server in &servers {
            let late =
                server.visits().iter().filter(|v| v.opened_us > deadline_us + 50_000).count();
            ensure!(late == 0, "{late} datagrams came to {} after the deadline", server.address());
        }
        let cut = |r: &Record| r.kind() == CUT && r.grant() == signed.jti;
        world.spool.wait_for("sockets that were cut", 4, RECORD, cut)?;
        Ok(())
    });
}

#[test]
fn bytes_queued_before_a_revocation_never_leave_under_a_later_grant() {
    scenario(|world| {
        let listener = listener(world, 5432)?;
        let first = pushed(world, &world.draft()?.tcp(A, 5432))?;
        let mut pool = Pool::start(&world.coding)?;
        pool.open("c", "tcp", at(A, 5432)?)?;
        let mut peer = accept(&listener)?;
        let filled = pool.must("fill c a")?.count;
        revoke(world, &first)?;
        pushed(world, &world.draft()?.tcp(A, 5432))?;
        let after = pool.tell("send c b 5")?;
        ensure!(!after.ok, "the old connection takes bytes under the new grant: {after:?}");
        let (came, reset) = read_out(&mut peer, RETRIES)?;
        ensure!(reset, "the peer was not told");
        ensure!((came.len() as u64) < filled, "nothing was queued, so nothing is proven");
        ensure!(!came.contains(&b'b'), "bytes of after the end arrived");
        pool.open("new", "tcp", at(A, 5432)?)?;
        pool.must("send new n 5")?;
        let (came, _) = read_out(&mut accept(&listener)?, Duration::from_millis(300))?;
        ensure!(came == b"nnnnn", "the new connection carries something else: {came:?}");
        Ok(())
    });
}

#[test]
fn f02_a_workload_cannot_have_its_packets_held_back_until_after_the_deadline() {
    scenario(|world| {
        let udp = Server::udp(&world.srv_a, at(A, 5353)?)?;
        pushed(world, &world.draft()?.udp(A, 5353))?;
        let mut outside = Pool::start(&world.coding.as_root().moved_to(&world.cgroups.outside()))?;
        outside.open("u", "udp", udp.address())?;
        outside.must("hold-back u").context("this kernel has no SO_TXTIME")?;
        for user in [world.coding.clone(), world.coding.as_root()] {
            let mut pool = Pool::start(&user)?;
            pool.open("u", "udp", udp.address())?;
            let refused = pool.tell("hold-back u")?;
            ensure!(refused.error.as_deref() == Some("EPERM"), "{}: {refused:?}", user.uid());
        }
        Ok(())
    });
}

/// A namespace of the workload's own, from which [`A`] can be reached.
fn second_netns(world: &World) -> Result<Netns> {
    let netns = Netns::new("second")?;
    let prefix = |last: u8| Prefix([10, 77, 33, last].into(), 24);
    world.srv_a.wire("second", &[prefix(1)], &netns, &[prefix(2)])?;
    netns.ip("route add default via 10.77.33.1\n")?;
    Ok(netns)
}

#[test]
fn connections_in_every_network_namespace_of_a_workload_are_cut() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let udp = Server::udp(&world.srv_a, at(A, 5353)?)?;
        let signed = pushed(world, &world.draft()?.tcp(A, 5432).udp(A, 5353))?;
        let there = world.coding.in_netns(&second_netns(world)?);
        let (mut near, mut far) = (Pool::start(&world.coding)?, Pool::start(&there)?);
        for pool in [&mut near, &mut far] {
            pool.open("tcp", "tcp", server.address())?;
            pool.open("udp", "udp", udp.address())?;
        }
        revoke(world, &signed)?;
        for (what, pool) in [("in the host's namespace", &mut near), ("in its own", &mut far)] {
            only_ended(what, pool, &["tcp", "udp"])?;
        }
        Ok(())
    });
}

#[test]
fn half_open_half_closed_and_full_connections_are_cut_as_well() {
    scenario(|world| {
        let listener = listener(world, 5432)?;
        let signed = pushed(world, &world.draft()?.tcp(A, 5432).tcp("10.77.1.77", 5432))?;
        // A machine that never answers.
        world.host.ip("neigh add 10.77.1.77 lladdr 02:00:00:00:00:77 dev srv-a\n")?;
        let mut pool = Pool::start(&world.coding)?;
        pool.must("start calling 10.77.1.77:5432")?;
        let mut peers = Vec::new();
        for who in ["full", "fin-wait", "close-wait"] {
            pool.open(who, "tcp", at(A, 5432)?)?;
            peers.push(accept(&listener)?);
        }
        pool.must("fill full a")?;
        pool.must("shut fin-wait")?;
        peers[2].shutdown(std::net::Shutdown::Write)?;
        std::thread::sleep(Duration::from_millis(100));
        only_ended("before", &mut pool, &[])?;
        revoke(world, &signed)?;
        only_ended("after", &mut pool, &["calling", "full", "fin-wait", "close-wait"])?;
        let fds: Vec<_> = peers.iter().map(AsFd::as_fd).collect();
        let ends = wait_for_ends(&fds, SOON)?;
        ensure!(ends.iter().all(Option::is_some), "a peer was not told: {ends:?}");
        let call = pool.ended_by_now()?;
        ensure!(call.len() == 4, "{call:?}");
        Ok(())
    });
}

#[test]
fn what_a_process_left_behind_in_the_kernel_is_cut_after_its_end() {
    scenario(|world| {
        let listener = listener(world, 5432)?;
        let signed = pushed(world, &world.draft()?.tcp(A, 5432))?;
        let mut pool = Pool::start(&world.coding)?;
        pool.open("c", "tcp", at(A, 5432)?)?;
        let mut peer = accept(&listener)?;
        let filled = pool.must("fill c a")?.count;
        drop(pool);
        std::thread::sleep(Duration::from_millis(200));
        revoke(world, &signed)?;
        pushed(world, &world.draft()?.tcp(A, 5432))?;
        let (came, reset) = read_out(&mut peer, RETRIES)?;
        ensure!(reset, "the peer was not told");
        ensure!((came.len() as u64) < filled, "what the process left behind was sent to the end");
        allowed("the new grant", &world.coding.tcp(at(A, 5432)?)?)
    });
}

#[test]
fn each_connection_has_one_record_of_its_end_with_bytes_and_duration() {
    scenario(|world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let udp = Server::udp(&world.srv_a, at(A, 5353)?)?;
        let signed = pushed(world, &world.draft()?.tcp(A, 5432).udp(A, 5353))?;
        let mut pool = Pool::start(&world.coding)?;
        for number in 0..6 {
            pool.open(&format!("t{number}"), "tcp", server.address())?;
            pool.must(&format!("send t{number} x {}", 100 + number))?;
            pool.open(&format!("u{number}"), "udp", udp.address())?;
            pool.must(&format!("send u{number} x {}", 100 + number))?;
        }
        std::thread::sleep(Duration::from_millis(300));
        for who in ["t0", "t1", "u0", "u1"] {
            pool.must(&format!("close {who}"))?;
        }
        let closed = |r: &Record| r.kind() == CLOSED && r.grant() == signed.jti;
        let closed = world.spool.wait_for("ends", 4, RECORD, closed)?;
        ensure!(closed.len() == 4, "{} records of 4 ends", closed.len());
        revoke(world, &signed)?;
        let cut = |r: &Record| r.kind() == CUT && r.grant() == signed.jti;
        world.spool.wait_for("cuts", 8, RECORD, cut)?;
        // A socket that was cut is closed later: that is no second end.
        drop(pool);
        std::thread::sleep(Duration::from_secs(1));
        let records = world.spool.records()?;
        let of = |kind: u64| -> Vec<&Record> {
            records.iter().filter(|r| r.kind() == kind && r.grant() == signed.jti).collect()
        };
        let summary: Vec<String> = records.iter().map(Record::summary).collect();
        ensure!(of(CLOSED).len() == 4, "ends: {summary:#?}");
        ensure!(of(CUT).len() == 8, "cuts: {summary:#?}");
        let mut bytes: Vec<u64> = Vec::new();
        for record in of(CUT) {
            bytes.push(record.get("/traffic/bytes_out").as_u64().context("no bytes")?);
            let duration = record.get("/duration").as_u64().context("no duration")?;
            ensure!((250..10_000).contains(&duration), "it lasted {duration} ms: {record:?}");
        }
        bytes.sort_unstable();
        // The kernel counts the SYN of a TCP connection as a byte.
        ensure!(bytes == [102, 103, 103, 104, 104, 105, 105, 106], "bytes sent: {bytes:?}");
        let cookies: BTreeSet<&str> =
            [of(CUT), of(CLOSED)].concat().iter().map(|r| r.text("/connection_info/uid")).collect();
        ensure!(cookies.len() == 12, "each socket has one end: {cookies:?}");
        Ok(())
    });
}

#[test]
fn a_connection_that_was_allowed_and_that_the_kernel_then_refuses_has_an_end_on_record() {
    scenario(|world| {
        let program = world.workdir.write("neighbour", 0o755, NEIGHBOUR)?.display().to_string();
        pushed(world, &world.draft()?.tcp(A, 5432))?;
        // From a loopback address nothing can be sent to another machine.
        let said: serde_json::Value =
            world.coding.one(&["exec", "--", &program, "call", A, "5432", "127.0.0.1"])?;
        ensure!(said["count"] == 0, "the kernel took it, so nothing is proven");
        for (what, kind) in [("its beginning", ALLOWED), ("its end", CLOSED)] {
            world.spool.wait_for(what, 1, RECORD, |r| {
                r.kind() == kind && r.destination() == format!("{A}:5432")
            })?;
        }
        Ok(())
    });
}
