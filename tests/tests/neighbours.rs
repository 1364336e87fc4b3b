//! What a workload may do over loopback with its own sockets leads to nobody else's, and nobody else in. (D6)

use std::time::Duration;

use anyhow::{Result, ensure};
use grantd_e2e::server::Server;
use grantd_e2e::workload::{Running, Workload};
use grantd_e2e::world::{World, at, scenario};
use serde::Deserialize;

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/neighbour"));
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than a datagram takes over loopback.
const ARRIVAL: Duration = Duration::from_millis(300);
/// Longer than TCP waits before it calls for the fourth time.
const CALLS: Duration = Duration::from_secs(45);
/// The user of the neighbours, who is not the workload's.
const NEIGHBOUR: u32 = 61_009;

#[derive(Debug, Deserialize)]
struct Said {
    count: u64,
}

/// The program, and who runs it.
struct Cast {
    program: String,
    outsider: Workload,
    /// Of the workload's own user, outside.
    twin: Workload,
}

impl Cast {
    fn new(world: &World) -> Result<Self> {
        let program = world.workdir.write("neighbour", 0o755, PROGRAM)?.display().to_string();
        let outside = |uid| Workload::new("outsider", &world.host, &world.cgroups.outside(), uid);
        Ok(Self { program, outsider: outside(NEIGHBOUR), twin: outside(world.coding.uid()) })
    }

    /// Starts one, and waits until it is ready.
    fn start(&self, who: &Workload, arguments: &[&str]) -> Result<Running> {
        let running = who.start(&self.words(arguments))?;
        running.next::<Said>(PATIENCE)?;
        Ok(running)
    }

    /// Runs one to its end; how much was taken from it.
    fn run(&self, who: &Workload, arguments: &[&str]) -> Result<u64> {
        Ok(who.one::<Said>(&self.words(arguments))?.count)
    }

    fn words<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        ["exec", "--", &self.program].into_iter().chain(arguments.iter().copied()).collect()
    }
}

/// How many datagrams a listener has heard.
fn heard(listener: Running) -> Result<u64> {
    std::thread::sleep(ARRIVAL);
    Ok(listener.finish::<Said>()?.count)
}

/// What a neighbour hears of a workload that has a socket of its own at the neighbour's port, and sends there.
fn reaches(
    world: &World,
    cast: &Cast,
    who: &Workload,
    [to, port, own, how]: [&str; 4],
) -> Result<u64> {
    let neighbour = cast.start(who, &["hear", "0.0.0.0", port, how])?;
    cast.run(&world.coding, &["send-own", to, port, own, how])?;
    heard(neighbour)
}

#[test]
fn d06_a_port_or_an_address_that_others_share_is_no_way_to_them() {
    scenario(|world| {
        let cast = Cast::new(world)?;
        for (to, port) in [("127.0.0.1", "7001"), ("127.255.255.255", "7002")] {
            let neighbour = cast.start(&cast.outsider, &["hear", "0.0.0.0", port, "addr"])?;
            let sent = cast.run(&cast.outsider, &["send", to, port, "0.0.0.0", "0", "none"])?;
            let came = heard(neighbour)?;
            ensure!(sent > 0 && came == sent, "{to}: of {sent} datagrams outside {came} came");
        }
        for (number, to) in (0..).zip(["127.0.0.1", "127.255.255.255", "127.0.0.0", "127.0.0.255"])
        {
            for (half, own) in [(0, "0.0.0.0"), (10, "127.0.0.1")] {
                let port = (7010 + number + half).to_string();
                let came = reaches(world, &cast, &cast.outsider, [to, &port, own, "addr"])?;
                ensure!(
                    came == 0,
                    "{came} datagrams to {to} from beside {own} reached another user"
                );
            }
        }
        for (port, own) in [("7031", "127.0.0.1"), ("7032", "0.0.0.0")] {
            let came = reaches(world, &cast, &cast.twin, ["127.0.0.1", port, own, "port"])?;
            ensure!(came == 0, "{came} datagrams beside {own} reached another process of its user");
        }
        world.daemon.kill9()?;
        let port = ["127.255.255.255", "7040", "0.0.0.0", "addr"];
        let came = reaches(world, &cast, &cast.outsider, port)?;
        ensure!(came == 0, "with the daemon dead {came} datagrams reached another user");
        Ok(())
    });
}

#[test]
fn b09_a_port_that_others_share_is_no_way_in() {
    scenario(|world| {
        let cast = Cast::new(world)?;
        let bystander = cast.start(&cast.twin, &["hear-beside", "127.0.0.1", "7101", "7102"])?;
        let words = ["send", "127.0.0.1", "7101", "0.0.0.0", "7102", "addr"];
        let sent = cast.run(&cast.outsider, &words)?;
        let came = heard(bystander)?;
        ensure!(sent > 0 && came == sent, "of {sent} datagrams outside {came} came");

        let workload = cast.start(&world.coding, &["hear-beside", "127.0.0.1", "7103", "7104"])?;
        let words = ["send", "127.0.0.1", "7103", "0.0.0.0", "7104", "addr"];
        cast.run(&cast.outsider, &words)?;
        let came = heard(workload)?;
        ensure!(came == 0, "{came} datagrams of another user's came in");
        let workload = cast.start(&world.coding, &["hear-beside", "127.0.0.1", "7105", "7106"])?;
        let words = ["send", "127.0.0.1", "7105", "0.0.0.0", "0", "none"];
        let sent = cast.run(&world.coding, &words)?;
        let came = heard(workload)?;
        ensure!(sent > 0 && came == sent, "of {sent} datagrams of its own {came} came");
        Ok(())
    });
}

/// A connection that is still calling when its far end goes away; what a neighbour that listens there then reads.
fn parked(world: &World, cast: &Cast, who: &Workload, [port, own]: [u16; 2]) -> Result<Vec<u64>> {
    let mut calling = cast.start(who, &["park", &port.to_string(), &own.to_string()])?;
    let neighbour = Server::tcp(&world.host, at("127.0.0.1", port)?)?;
    calling.tell("go")?;
    calling.next::<Said>(CALLS)?;
    std::thread::sleep(ARRIVAL);
    Ok(neighbour.visits().iter().map(|visit| visit.bytes).collect())
}

#[test]
fn d06_a_connection_that_still_calls_is_not_answered_by_who_comes_after_its_own_listener() {
    scenario(|world| {
        let cast = Cast::new(world)?;
        let outside = parked(world, &cast, &cast.twin, [7200, 7299])?;
        ensure!(!outside.is_empty(), "outside nobody is reached in this way, so nothing is proven");
        let inside = parked(world, &cast, &world.coding.clone(), [7300, 7399])?;
        ensure!(inside.is_empty(), "another's listener was reached: {inside:?}");
        Ok(())
    });
}
