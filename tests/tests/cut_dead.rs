//! What live connections do while the daemon is dead: nothing passes a deadline, and what another grant
//! covers goes on.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::clock::{sleep_until_unix, unix_micros};
use grantd_e2e::grants::Draft;
use grantd_e2e::peer::{RETRIES, accept, listener, read_out};
use grantd_e2e::pool::{Pool, only_ended};
use grantd_e2e::world::{A, World, at, scenario};

/// Pushes a grant, and returns its deadline in Unix microseconds.
fn pushed(world: &World, draft: &Draft) -> Result<u64> {
    let answer = world.control_plane.push(draft)?.in_force()?;
    Ok(answer.deadline_ms().context("no deadline in the answer")? * 1000)
}

#[test]
fn with_the_daemon_dead_nothing_passes_the_deadline_and_a_later_grant_delivers_no_old_byte() {
    scenario(|world| {
        let full = listener(world, 5432)?;
        let quiet = listener(world, 5433)?;
        let deadline_us = pushed(world, &world.draft()?.tcp(A, 5432).tcp(A, 5433).ttl(5))?;
        let mut pool = Pool::start(&world.coding)?;
        pool.open("full", "tcp", at(A, 5432)?)?;
        let mut full_peer = accept(&full)?;
        pool.open("quiet", "tcp", at(A, 5433)?)?;
        let mut quiet_peer = accept(&quiet)?;
        let filled = pool.must("fill full a")?.count;
        pool.must("send quiet a 100")?;
        world.daemon.kill9()?;
        sleep_until_unix(deadline_us.div_ceil(1_000_000));
        std::thread::sleep(Duration::from_millis(200));
        ensure!(unix_micros() > deadline_us, "the deadline has not passed");
        pool.must("send quiet b 100").context("the kernel takes bytes that it cannot send")?;
        let (before, _) = read_out(&mut full_peer, RETRIES)?;
        ensure!((before.len() as u64) < filled, "nothing was queued, so nothing is proven");
        let (came, _) = read_out(&mut quiet_peer, RETRIES)?;
        ensure!(came == [b'a'; 100], "bytes of after the deadline arrived: {}", came.len());

        world.daemon.start()?;
        pushed(world, &world.draft()?.tcp(A, 5432).tcp(A, 5433))?;
        for (what, peer) in [("the full", &mut full_peer), ("the quiet", &mut quiet_peer)] {
            let (late, reset) = read_out(peer, RETRIES)?;
            ensure!(late.is_empty(), "{what} connection delivered {} old bytes", late.len());
            ensure!(reset, "{what} connection's peer was not told");
        }
        only_ended("after the restart", &mut pool, &["full", "quiet"])?;
        pool.open("new", "tcp", at(A, 5432)?)?;
        pool.must("send new n 5")?;
        let (came, _) = read_out(&mut accept(&full)?, Duration::from_millis(300))?;
        ensure!(came == b"nnnnn", "the new connection carries something else: {came:?}");
        Ok(())
    });
}

#[test]
fn with_the_daemon_dead_nothing_more_is_delivered_to_the_workload_after_the_deadline() {
    scenario(|world| {
        let listener = listener(world, 5432)?;
        let datagrams = world.srv_a.bind_udp(at(A, 5353)?)?;
        let deadline_us = pushed(world, &world.draft()?.tcp(A, 5432).udp(A, 5353).ttl(4))?;
        let mut pool = Pool::start(&world.coding)?;
        pool.open("tcp", "tcp", at(A, 5432)?)?;
        let mut stream = accept(&listener)?;
        pool.open("udp", "udp", at(A, 5353)?)?;
        pool.must("send udp q 1")?;
        let (_, sender) = datagrams.recv_from(&mut [0; 16])?;
        world.daemon.kill9()?;
        stream.write_all(b"early")?;
        datagrams.send_to(b"early", sender)?;
        std::thread::sleep(Duration::from_millis(300));
        for who in ["tcp", "udp"] {
            let early = pool.must(&format!("read {who}"))?.count;
            ensure!(early == 5, "{who}: {early} bytes came before the deadline");
        }
        stream.write_all(b"buffered")?;
        datagrams.send_to(b"buffered", sender)?;
        sleep_until_unix(deadline_us.div_ceil(1_000_000));
        for who in ["tcp", "udp"] {
            let buffered = pool.must(&format!("read {who}"))?.count;
            ensure!(buffered == 8, "{who}: {buffered} bytes were in the buffer");
        }
        for _ in 0..20 {
            stream.write_all(b"late")?;
            datagrams.send_to(b"late", sender)?;
            std::thread::sleep(Duration::from_millis(100));
        }
        for who in ["tcp", "udp"] {
            let late = pool.tell(&format!("read {who}"))?.count;
            ensure!(late == 0, "{who}: {late} bytes were delivered after the deadline");
        }
        Ok(())
    });
}

#[test]
fn with_the_daemon_dead_a_connection_outlives_its_own_grant_where_another_one_covers_it() {
    scenario(|world| {
        let covered = listener(world, 5432)?;
        let left = listener(world, 5433)?;
        let deadline_us = pushed(world, &world.draft()?.tcp(A, 5432).tcp(A, 5433).ttl(5))?;
        let mut pool = Pool::start(&world.coding)?;
        pool.open("covered", "tcp", at(A, 5432)?)?;
        let mut covered_peer = accept(&covered)?;
        pool.open("left", "tcp", at(A, 5433)?)?;
        let mut left_peer = accept(&left)?;
        pushed(world, &world.draft()?.tcp(A, 5432).ttl(60))?;
        world.daemon.kill9()?;
        sleep_until_unix(deadline_us.div_ceil(1_000_000));
        for who in ["covered", "left"] {
            pool.must(&format!("send {who} x 100"))?;
        }
        covered_peer.write_all(b"answer")?;
        let (came, _) = read_out(&mut covered_peer, RETRIES)?;
        ensure!(came == [b'x'; 100], "{} bytes came by what a live grant covers", came.len());
        let answered = pool.must("read covered")?.count;
        ensure!(answered == 6, "{answered} bytes came back by what a live grant covers");
        let (late, _) = read_out(&mut left_peer, RETRIES)?;
        ensure!(late.is_empty(), "{} bytes came by what no live grant covers", late.len());
        world.daemon.start()?;
        only_ended("after the restart", &mut pool, &["left"])?;
        pool.must("send covered y 5")?;
        let (came, _) = read_out(&mut covered_peer, Duration::from_millis(300))?;
        ensure!(came == b"yyyyy", "after the restart {} bytes came", came.len());
        Ok(())
    });
}
