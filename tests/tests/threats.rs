//! Each way out of the list in `docs/threats.md`, by itself: the probes that are instances of it run outside
//! the box, where they arrive, and inside, while another destination is granted and works.

use anyhow::{Context, Result, ensure};
use grantd_e2e::check::{allowed, denied};
use grantd_e2e::escapes::{GRANTED_PORT, Who};
use grantd_e2e::server::Server;
use grantd_e2e::ways::{granted, granted_works, only_the_named};
use grantd_e2e::world::{A, World, at, scenario};

fn way(threat: &str) {
    scenario(|world| only_the_named(world, Who::User(world.coding.uid()), Some(threat)).map(drop));
}

/// As root with `CAP_NET_RAW`: an ordinary user may not try it at all.
fn way_of_containers(threat: &str) {
    scenario(|world| only_the_named(world, Who::Container, Some(threat)).map(drop));
}

#[test]
fn a09_a_foreign_socket_is_refused_even_for_a_granted_destination() {
    scenario(|world| {
        let shown = only_the_named(world, Who::User(world.coding.uid()), Some("A9"))?;
        let steps = |outcome: &grantd_e2e::escapes::Outcome| -> Result<String> {
            Ok(outcome.tried.get("foreign_to_granted").context("the probe")?.steps.clone())
        };
        let (outside, inside) = (steps(&shown.outside)?, steps(&shown.inside)?);
        ensure!(outside.contains("connect=ok"), "outside the box: {outside}");
        ensure!(inside.contains("connect=EPERM"), "inside the box: {inside}");
        Ok(())
    });
}

#[test]
fn b08_a_grant_for_tcp_is_none_for_udp_on_the_same_port() {
    scenario(|world: &mut World| {
        let _servers = granted(world)?;
        let tcp = Server::tcp(&world.srv_a, at(A, 8080)?)?;
        let udp = Server::udp(&world.srv_a, at(A, 8080)?)?;
        world.control_plane.push(&world.draft()?.tcp(A, 8080))?.in_force()?;
        allowed("TCP", &world.coding.tcp(tcp.address())?)?;
        denied("UDP to the same port", &world.coding.udp(udp.address())?)?;
        denied("connected UDP", &world.coding.udp_connected(udp.address())?)?;
        ensure!(udp.count() == 0, "datagrams arrived");
        allowed("UDP where it is granted", &world.coding.udp(at(A, GRANTED_PORT)?)?)?;
        granted_works(world, &world.coding)
    });
}

#[test]
fn a01_an_unconnected_socket_from_outside_leads_nowhere() {
    way("A1");
}

#[test]
fn a02_a_connected_socket_from_outside_is_open_only_as_named() {
    way("A2");
}

#[test]
fn a04_what_an_outsider_of_the_same_user_lends_is_open_only_as_named() {
    way("A4");
}

#[test]
fn a06_an_ordinary_user_does_not_leave_the_slice_by_the_cgroup_files() {
    way("A6");
}

#[test]
fn a07_a_nested_cgroup_is_confined_like_its_parent() {
    way("A7");
}

#[test]
fn b01_a_v4_address_inside_a_v6_address_leads_nowhere() {
    way("B1");
}

#[test]
fn b03_the_unspecified_address_is_loopback_and_not_granted() {
    way("B3");
}

#[test]
fn b04_a_v6_routing_header_leads_nowhere() {
    way("B4");
}

#[test]
fn b05_a_v4_source_route_leads_nowhere() {
    way_of_containers("B5");
}

#[test]
fn b06_broadcast_multicast_and_link_local_lead_nowhere_but_as_named() {
    way("B6");
}

#[test]
fn b07_multipath_tcp_leads_nowhere() {
    way("B7");
}

#[test]
fn b09_nobody_outside_calls_in_and_reads() {
    way("B9");
}

#[test]
fn c01_raw_sockets_lead_nowhere_even_with_the_capability() {
    way_of_containers("C1");
}

#[test]
fn c02_ping_sockets_lead_nowhere() {
    way("C2");
}

#[test]
fn c03_packet_sockets_are_open_only_as_named() {
    way_of_containers("C3");
}

#[test]
fn c04_families_beside_the_ip_stack_lead_nowhere() {
    way("C4");
}

#[test]
fn c05_vsock_is_open_only_as_named() {
    way("C5");
}

#[test]
fn c06_other_protocols_lead_nowhere_but_as_named() {
    way("C6");
}

#[test]
fn c07_io_uring_leads_nowhere() {
    way("C7");
}

#[test]
fn c08_system_calls_of_other_abis_lead_nowhere() {
    way("C8");
}

#[test]
fn c09_namespaces_of_its_own_lead_nowhere() {
    way("C9");
}

#[test]
fn c10_a_mark_or_a_priority_leads_nowhere() {
    way("C10");
}

#[test]
fn d01_a_socket_in_the_file_system_is_open_only_as_named() {
    way("D1");
}

#[test]
fn d03_other_local_sockets_are_open_only_as_named() {
    way("D3");
}

#[test]
fn d06_a_proxy_on_loopback_leads_nowhere() {
    way("D6");
}
