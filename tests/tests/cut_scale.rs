//! Very many live connections of one grant end with it.

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use grantd_e2e::audit::CUT;
use grantd_e2e::check::allowed;
use grantd_e2e::clock::unix_micros;
use grantd_e2e::machine;
use grantd_e2e::probe::Crowd;
use grantd_e2e::server::Server;
use grantd_e2e::workload::Running;
use grantd_e2e::world::{A, World, at, scenario};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::json;

const CONNECTIONS: usize = 10_000;
/// From the revocation's request until both ends of the last connection know.
const BOUND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that takes connections and does nothing with them.
fn take_all(world: &World, count: usize) -> Result<std::thread::JoinHandle<Vec<TcpStream>>> {
    let listener: TcpListener = world.srv_a.listen_tcp(at(A, 5432)?)?;
    Ok(std::thread::spawn(move || listener.incoming().map_while(Result::ok).take(count).collect()))
}

/// How many of these a reset has reached, and when the last was found to be.
fn resets(streams: &[TcpStream]) -> Result<(usize, u64)> {
    use std::io::Read;
    let mut count = 0;
    for mut stream in streams {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let error = stream.read(&mut [0; 16]).err().and_then(|e| e.raw_os_error());
        count += usize::from(error == Some(nix::errno::Errno::ECONNRESET as i32));
    }
    Ok((count, unix_micros()))
}

fn crowd(world: &World, count: usize) -> Result<Running> {
    let running = world.coding.start(&["crowd", &count.to_string(), &at(A, 5432)?.to_string()])?;
    match running.next(PATIENCE)? {
        Crowd::Standing { count: stand } if stand == count => Ok(running),
        other @ (Crowd::Standing { .. } | Crowd::Broke { .. }) => {
            Err(anyhow!("not all of them stand: {other:?}"))
        }
    }
}

#[test]
fn ten_thousand_live_connections_of_one_grant_are_cut_within_a_second() {
    let limit = u64::try_from(CONNECTIONS).unwrap_or(u64::MAX) + 4096;
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit).expect("as many descriptors");
    scenario(|world| {
        world.daemon.log_little();
        world.daemon.restart()?;
        let other = Server::tcp(&world.srv_a, at(A, 5433)?)?;
        let server = take_all(world, CONNECTIONS)?;
        let signed = world.draft()?.tcp(A, 5432).ttl(300).sign()?;
        world.control_plane.push_signed(&signed)?.in_force()?;
        world.control_plane.push(&world.draft()?.tcp(A, 5433).ttl(300))?.in_force()?;
        let bystander = world.coding.hold(other.address(), Some(20))?;
        let crowd = crowd(world, CONNECTIONS)?;
        let streams = server.join().map_err(|_| anyhow!("the server panicked"))?;
        ensure!(streams.len() == CONNECTIONS, "only {} were accepted", streams.len());

        let begun = unix_micros();
        world.daemon.ask(&json!({"op": "revoke", "selector": {"id": signed.jti}}))?;
        let acknowledged = unix_micros();
        let (count, peers_us) = resets(&streams)?;
        let Crowd::Broke { last_us, errors, .. } = crowd.next(PATIENCE)? else {
            return Err(anyhow!("they stand twice"));
        };
        let took = |until: u64| Duration::from_micros(until.saturating_sub(begun));
        let told = format!(
            "{CONNECTIONS} connections: acknowledged after {:?}, the workload knew after {:?}, the peer after {:?}",
            took(acknowledged),
            took(last_us),
            took(peers_us),
        );
        println!("{told}");
        ensure!(count == CONNECTIONS, "the peer saw {count} resets");
        let aborted = errors.get("ECONNABORTED").copied().unwrap_or_default();
        ensure!(aborted == CONNECTIONS as u64, "the workload saw {errors:?}");
        if machine::judges_time("10,000 connections are cut in under a second")? {
            ensure!(took(peers_us.max(last_us)) < BOUND, "too slow: {told}");
        }
        bystander.still_stands().context("a connection of another grant")?;
        bystander.next_exchange(Duration::from_secs(5))?;
        allowed("the other grant", &world.coding.tcp(other.address())?)?;
        let records = world.spool.wait_for("cut connections", CONNECTIONS, PATIENCE, |record| {
            record.kind() == CUT && record.grant() == signed.jti
        })?;
        ensure!(records.len() == CONNECTIONS, "{} records of the cut", records.len());
        Ok(())
    });
}
