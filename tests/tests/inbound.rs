//! Who may connect to a workload, and how many sockets it may hold.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::{ALLOWED, DENIED};
use grantd_e2e::check::{RECORD, allowed, denied};
use grantd_e2e::issuer::Shape;
use grantd_e2e::netns::Netns;
use grantd_e2e::probe::{Came, Hoarded};
use grantd_e2e::server::Server;
use grantd_e2e::workload::Running;
use grantd_e2e::world::{A, A6, World, at, scenario, scenario_in};
use serde_json::{Value, json};

const NEIGHBOUR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/neighbour"));
/// The workload's own address, as [`A`] and [`A6`] see it.
const HERE: &str = "10.77.1.1";
const HERE6: &str = "fd00:77:1::1";
/// How long a caller waits until it is sure that nobody answers.
const SILENCE: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(5);

/// A deployment whose coding workload has these lines more in its section.
fn with_lines(lines: &[&str]) -> Result<World> {
    let mut world = World::assemble(Shape::okta())?;
    world.daemon.reconfigure(|config| {
        if let Some(coding) = config.workloads.first_mut() {
            coding.more = lines.iter().map(|line| (*line).to_owned()).collect();
        }
    })?;
    world.daemon.start()?;
    Ok(world)
}

fn listening(running: &Running) -> Result<SocketAddr> {
    match running.next(PATIENCE)? {
        Came::Listening { at } => Ok(at),
        Came::Caller { from, .. } => anyhow::bail!("{from} came before it listened"),
    }
}

/// Whether a request from this namespace is answered.
fn answered(from: &Netns, to: SocketAddr) -> Result<bool> {
    from.enter(|| {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, SILENCE) else { return Ok(false) };
        stream.set_read_timeout(Some(SILENCE))?;
        stream.write_all(b"hello")?;
        let mut reply = [0; 5];
        Ok(stream.read_exact(&mut reply).is_ok() && &reply == b"hello")
    })?
}

/// The same with a datagram.
fn datagram_answered(from: &Netns, to: SocketAddr) -> Result<bool> {
    from.enter(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.send_to(b"hello", to)?;
        let mut reply = [0; 16];
        Ok(socket.recv_from(&mut reply).is_ok())
    })?
}

#[test]
fn b09_nobody_connects_to_a_workload_whose_config_lets_nobody_in() {
    scenario(|world| {
        let confined = world.coding.start(&["answer", "0.0.0.0:8080"])?;
        let udp = world.coding.start(&["answer", "--udp", "0.0.0.0:8080"])?;
        let bystander = world.coding.moved_to(&world.cgroups.outside());
        let free = bystander.start(&["answer", "0.0.0.0:8081"])?;
        for running in [&confined, &udp, &free] {
            listening(running)?;
        }
        ensure!(answered(&world.srv_a, at(HERE, 8081)?)?, "the network does not carry calls");
        for (name, from) in [("another machine", &world.srv_a), ("this machine", &world.host)] {
            ensure!(!answered(from, at(HERE, 8080)?)?, "{name} reached a confined listener");
            ensure!(!datagram_answered(from, at(HERE, 8080)?)?, "{name} reached it by UDP");
        }
        ensure!(confined.next::<Came>(SILENCE).is_err(), "the workload accepted somebody");
        ensure!(udp.next::<Came>(SILENCE).is_err(), "a datagram was delivered to the workload");
        Ok(())
    });
}

#[test]
fn b09_a_caller_that_the_config_names_is_let_in_and_no_other() {
    let listen = "listen = [\
        { port = 8080, protocol = \"tcp\", from = [\"10.77.1.2\", \"fd00:77:1::/64\"] }, \
        { port = 8080, protocol = \"udp\", from = [\"10.77.1.0/30\"] }]";
    scenario_in(with_lines(&[listen]), |world| {
        let tcp = world.coding.start(&["answer", "[::]:8080"])?;
        let udp = world.coding.start(&["answer", "--udp", "0.0.0.0:8080"])?;
        let other_port = world.coding.start(&["answer", "0.0.0.0:8082"])?;
        let research = world.research.start(&["answer", "0.0.0.0:8083"])?;
        for running in [&tcp, &udp, &other_port, &research] {
            listening(running)?;
        }
        ensure!(answered(&world.srv_a, at(HERE, 8080)?)?, "the named caller was kept out");
        ensure!(answered(&world.srv_a, at(HERE6, 8080)?)?, "the named v6 prefix was kept out");
        ensure!(datagram_answered(&world.srv_a, at(HERE, 8080)?)?, "the named sender was kept out");
        ensure!(!answered(&world.srv_b, at("10.77.2.1", 8080)?)?, "a machine that is not named");
        ensure!(!datagram_answered(&world.srv_b, at("10.77.2.1", 8080)?)?, "the same by UDP");
        ensure!(!answered(&world.srv_a, at(HERE, 8082)?)?, "a port that is not named");
        ensure!(!answered(&world.srv_a, at(HERE, 8083)?)?, "a workload that is not named");
        // To be let in is no permission to go out.
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        denied("a connection to the caller", &world.coding.tcp(server.address())?)
    });
}

#[test]
fn b09_by_udp_a_workload_may_send_from_its_listening_port_and_status_says_so() {
    let state = |world: &World| -> Result<Value> {
        let status = world.daemon.ask(&json!({"op": "status"}))?;
        let threats = status.get("threats").and_then(Value::as_array);
        let b9 = threats.into_iter().flatten().find(|threat| threat["id"] == "B9");
        Ok(b9.context("B9 in the status")?["state"].clone())
    };
    scenario(|world| {
        ensure!(state(world)? == "closed", "{}", state(world)?);
        Ok(())
    });
    let listen = "listen = [{ port = 8080, protocol = \"udp\", from = [\"10.77.1.2\"] }]";
    scenario_in(with_lines(&[listen]), |world| {
        let program = world.workdir.write("neighbour", 0o755, NEIGHBOUR)?.display().to_string();
        let named = Server::udp(&world.srv_a, at(A, 9999)?)?;
        let send = |from: &str| -> Result<u64> {
            let words = ["exec", "--", &program, "send", A, "9999", "0.0.0.0", from, "none"];
            let said: Value = world.coding.one(&words)?;
            said["count"].as_u64().context("a count")
        };
        ensure!(send("8081")? == 0, "it sent from a port that nobody may call");
        ensure!(send("8080")? > 0 && named.count() > 0, "security.md says that it may");
        ensure!(state(world)? == "partly", "{}", state(world)?);
        Ok(())
    });
}

#[test]
fn b09_who_is_let_in_over_loopback_is_told_from_the_workload_itself() {
    let listen = "listen = [{ port = 8080, protocol = \"tcp\", from = [\"127.0.0.0/8\"] }]";
    scenario_in(with_lines(&[listen]), |world| {
        let named = world.coding.start(&["answer", "127.0.0.1:8080"])?;
        let own = world.coding.start(&["answer", "127.0.0.1:8081"])?;
        for running in [&named, &own] {
            listening(running)?;
        }
        ensure!(answered(&world.host, at("127.0.0.1", 8080)?)?, "the named caller was kept out");
        allowed("its own listener", &world.coding.tcp(at("127.0.0.1", 8081)?)?)?;
        // The side that was called: its record is of the caller's address, whose port is any.
        for reason in ["listener", "same_workload"] {
            world.spool.wait_for(&format!("the call, as {reason}"), 1, RECORD, |r| {
                r.kind() == ALLOWED
                    && r.reason() == reason
                    && !r.text("/connection_info/direction").is_empty()
            })?;
        }
        let records = world.spool.records()?;
        let listener = records.iter().filter(|r| r.kind() == ALLOWED && r.reason() == "listener");
        ensure!(listener.count() == 1, "one caller was another's");
        Ok(())
    });
}

#[test]
fn b09_a_listener_that_a_reload_removes_lets_nobody_in_any_more() {
    let listen = "listen = [{ port = 8080, protocol = \"tcp\", from = [\"10.77.1.2\"] }]";
    scenario_in(with_lines(&[listen]), |world| {
        let confined = world.coding.start(&["answer", "0.0.0.0:8080"])?;
        listening(&confined)?;
        ensure!(answered(&world.srv_a, at(HERE, 8080)?)?, "the named caller was kept out");
        world.daemon.reconfigure(|config| config.workloads[0].more.clear())?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        ensure!(!answered(&world.srv_a, at(HERE, 8080)?)?, "it is let in after the reload");
        world.daemon.reconfigure(|config| config.workloads[0].more = vec![listen.to_owned()])?;
        world.daemon.ask(&json!({"op": "reload"}))?;
        ensure!(answered(&world.srv_a, at(HERE, 8080)?)?, "the reload did not let it in again");
        world.daemon.kill9()?;
        ensure!(answered(&world.srv_a, at(HERE, 8080)?)?, "it needs the daemon");
        world.daemon.start()?;
        ensure!(answered(&world.srv_a, at(HERE, 8080)?)?, "a restart forgot the listener");
        Ok(())
    });
}

#[test]
fn d06_a_workload_reaches_its_own_listeners_over_loopback_and_nobody_elses() {
    scenario(|world| {
        for (host, any) in [("127.0.0.1", "0.0.0.0"), ("::1", "::")] {
            let own = world.coding.start(&["answer", &at(any, 9000)?.to_string()])?;
            let own_udp = world.coding.start(&["answer", "--udp", &at(host, 9000)?.to_string()])?;
            let other = world.research.start(&["answer", &at(host, 9001)?.to_string()])?;
            let bystander = world.coding.moved_to(&world.cgroups.outside());
            let proxy = bystander.start(&["answer", &at(host, 9002)?.to_string()])?;
            let proxy_udp = bystander.start(&["answer", "--udp", &at(host, 9002)?.to_string()])?;
            for running in [&own, &own_udp, &other, &proxy, &proxy_udp] {
                listening(running)?;
            }
            allowed("its own listener", &world.coding.tcp(at(host, 9000)?)?)?;
            allowed("its own listener, by UDP", &world.coding.udp(at(host, 9000)?)?)?;
            denied("another workload's", &world.coding.tcp(at(host, 9001)?)?)?;
            denied("another workload to ours", &world.research.tcp(at(host, 9000)?)?)?;
            denied("a proxy outside", &world.coding.tcp(at(host, 9002)?)?)?;
            denied("a proxy outside, by UDP", &world.coding.udp(at(host, 9002)?)?)?;
            ensure!(answered(&world.host, at(host, 9002)?)?, "the proxy does not answer at all");
        }
        Ok(())
    });
}

#[test]
fn f06_a_workload_that_hoards_sockets_stops_at_its_own_bound_and_others_go_on() {
    scenario_in(with_lines(&["max_sockets = 50"]), |world| {
        let mut hoarder = world.coding.start(&["hoard", "80"])?;
        let first: Hoarded = hoarder.next(PATIENCE)?;
        ensure!(first.held == 50, "the bound is 50, and it holds {}", first.held);
        ensure!(first.error == Some(libc_eperm()), "another error: {:?}", first.error);
        let again: Hoarded = hoarder.command("again")?;
        ensure!(again.held == 50, "what it closed does not count any more: {}", again.held);
        world.spool.wait_for("the refusal", 1, RECORD, |r| {
            r.kind() == DENIED && r.reason() == "max_sockets"
        })?;
        let research: Hoarded = world.research.start(&["hoard", "80"])?.next(PATIENCE)?;
        ensure!(research.held == 80, "another workload is bound by it: {research:?}");
        let server = Server::tcp(&world.srv_a, at(A6, 5432)?)?;
        world.control_plane.push(&world.research_draft()?.tcp(A6, 5432))?.in_force()?;
        allowed("the other workload's grant", &world.research.tcp(server.address())?)
    });
}

const fn libc_eperm() -> i32 {
    nix::errno::Errno::EPERM as i32
}
