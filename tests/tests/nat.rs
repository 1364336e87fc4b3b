//! Addresses that the host translates on the way out: published ports of containers, service addresses.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::audit::DENIED;
use grantd_e2e::check::{RECORD, allowed, denied};
use grantd_e2e::issuer::Shape;
use grantd_e2e::netns::Netns;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario_in};

/// A service address, as a cluster gives them: nobody has it, and the host translates it.
const SERVICE: &str = "10.96.0.10";
/// The host's own address, at which a container's port is published.
const HERE: &str = "10.77.1.1";
const PATIENCE: Duration = Duration::from_secs(5);

/// A host that translates on the way out: `SERVICE:443` and its own `:8080` by TCP, `SERVICE:53` by UDP.
fn translating() -> Result<World> {
    let mut world = World::assemble(Shape::okta())?;
    world.daemon.reconfigure(|config| {
        for ceiling in &mut config.ceilings {
            for protocol in ["tcp", "udp"] {
                ceiling.allow.push(format!(
                    "{{ cidr = \"10.96.0.0/16\", ports = [{{ from = 1, to = 65535 }}], protocol = {protocol:?} }}"
                ));
            }
        }
    })?;
    world.host.ip(&format!("route add 10.96.0.0/16 via {A}"))?;
    let rules = format!(
        "table ip nat {{\nchain output {{\ntype nat hook output priority -100\n\
         ip daddr {SERVICE} tcp dport 443 dnat to {A}:5432\n\
         ip daddr {SERVICE} udp dport 53 dnat to {A}:5353\n\
         ip daddr {HERE} tcp dport 8080 dnat to {A}:5432\n}}\n}}\n"
    );
    nft(&world.host, &rules)?;
    world.daemon.start()?;
    Ok(world)
}

fn nft(host: &Netns, rules: &str) -> Result<()> {
    let output = host.enter(|| Command::new("nft").arg(rules).output())?.context("running nft")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft: {said}");
    Ok(())
}

#[test]
fn e09_a_service_address_works_when_it_and_what_stands_behind_it_are_granted() {
    scenario_in(translating(), |world| {
        let server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let names = Server::udp(&world.srv_a, at(A, 5353)?)?;
        denied("the service without a grant", &world.coding.tcp(at(SERVICE, 443)?)?)?;
        let both = world.draft()?.tcp(SERVICE, 443).tcp(A, 5432).udp(SERVICE, 53).udp(A, 5353);
        world.control_plane.push(&both)?.in_force()?;
        allowed("the granted service", &world.coding.tcp(at(SERVICE, 443)?)?)?;
        allowed("the granted service, by UDP", &world.coding.udp(at(SERVICE, 53)?)?)?;
        let connected = world.coding.udp_connected(at(SERVICE, 53)?)?;
        allowed("the granted service, by connected UDP", &connected)?;
        ensure!(server.count() == 1 && names.count() == 2, "what stands behind it was not reached");
        let held = world.coding.hold(at(SERVICE, 443)?, Some(20))?;
        held.next_exchange(PATIENCE)?;
        held.still_stands().map(drop)
    });
}

#[test]
fn e09_a_published_port_of_a_container_works_when_it_and_the_container_are_granted() {
    scenario_in(translating(), |world| {
        let container = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        denied("the published port without a grant", &world.coding.tcp(at(HERE, 8080)?)?)?;
        let both = world.draft()?.tcp(HERE, 8080).tcp(A, 5432);
        world.control_plane.push(&both)?.in_force()?;
        allowed("the granted published port", &world.coding.tcp(at(HERE, 8080)?)?)?;
        ensure!(container.count() == 1, "the container was not reached");
        denied("another port of the host", &world.coding.tcp(at(HERE, 8081)?)?)
    });
}

#[test]
fn e09_translation_leads_nowhere_that_is_not_granted_itself() {
    scenario_in(translating(), |world| {
        let hidden = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let names = Server::udp(&world.srv_a, at(A, 5353)?)?;
        let open = Server::tcp(&world.srv_a, at(A, 22)?)?;
        let only = world.draft()?.tcp(SERVICE, 443).tcp(HERE, 8080).udp(SERVICE, 53).tcp(A, 22);
        world.control_plane.push(&only)?.in_force()?;
        for (host, port) in [(SERVICE, 443), (HERE, 8080)] {
            let attempt = world.coding.tcp(at(host, port)?)?;
            ensure!(!attempt.ok, "{host}:{port} led to an address that nobody granted");
        }
        ensure!(!world.coding.udp(at(SERVICE, 53)?)?.ok, "so did a datagram");
        ensure!(hidden.count() == 0 && names.count() == 0, "something arrived");
        allowed("what is granted as it is", &world.coding.tcp(open.address())?)?;
        let records = world.spool.wait_for("rewritten packets", 2, RECORD, |record| {
            record.kind() == DENIED && record.reason() == "rewritten"
        })?;
        let text = serde_json::to_string(&records.first().map(|record| &record.0))?;
        ensure!(
            text.contains(A),
            "the record does not say where the packet would have gone: {text}"
        );
        ensure!(text.contains(SERVICE), "nor where the workload meant to go: {text}");
        Ok(())
    });
}
