//! `[[ceiling]]` and `[[deny]]`: what any grant may open at most, and what none may.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use grantd_grant::ids::{Group, Scope};
use grantd_grant::policy::{ApprovalRule, CeilingEntry, Deny};
use grantd_grant::{Cidr, Destination, HostPattern, PortRange, Protocol, WorkloadName};

use super::reader::{Section, Value};
use super::values::{ports, protocol, ttl};

/// A destination, as a person should write it.
const DESTINATION: &str =
    "{ host = \"db-1.internal\", ports = [5432], protocol = \"tcp\" }, or cidr in place of host";

/// Reads every `[[ceiling]]`. `workloads` are the names that the file defines; `None` if they could not
/// be read, and are then not compared.
pub(super) fn read(
    root: &mut Section<'_>,
    workloads: Option<&BTreeSet<WorkloadName>>,
) -> Option<Vec<CeilingEntry>> {
    let Some(value) = root.optional("ceiling") else { return Some(Vec::new()) };
    value.each("[[ceiling]] sections", |item| {
        item.table("a ceiling entry", |section| entry(section, workloads))
    })
}

fn entry(
    section: &mut Section<'_>,
    workloads: Option<&BTreeSet<WorkloadName>>,
) -> Option<CeilingEntry> {
    let scopes = set(section.optional("scopes"), "OAuth scopes", Scope::new);
    let groups = set(section.optional("groups"), "groups of the identity provider", Group::new);
    let bound = match (&scopes, &groups) {
        (Some(scopes), Some(groups)) if scopes.is_empty() && groups.is_empty() => {
            section.fault(
                "names neither scopes nor groups",
                "write scopes = [\"…\"] or groups = [\"…\"] that the token must carry",
            );
            None
        }
        _ => Some(()),
    };
    let names = section
        .required("workloads", "the workloads that it is for")
        .and_then(|value| value.each("names of [[workload]]", |name| known(name, workloads)));
    let allow = section
        .required("allow", &format!("what it allows: [{DESTINATION}]"))
        .and_then(|value| value.each(DESTINATION, |item| item.table(DESTINATION, destination)));
    let max_ttl = match section.optional("max_ttl") {
        Some(value) => ttl(&value).map(Some),
        None => Some(None),
    };
    let approval = section.optional("approval").map_or(Some(ApprovalRule::default()), |value| {
        value.parse("\"required\" or \"optional\"", |text| match text {
            "required" => Ok(ApprovalRule::Required),
            "optional" => Ok(ApprovalRule::Optional),
            _ => Err("is no such rule"),
        })
    });
    bound?;
    Some(CeilingEntry {
        scopes: scopes?,
        groups: groups?,
        workloads: names?.into_iter().collect(),
        allow: allow?,
        max_ttl: max_ttl?,
        approval: approval?,
    })
}

/// A set of texts; empty where the key is absent.
fn set<'d, T: Ord, E: Display>(
    value: Option<Value<'d>>,
    expected: &str,
    new: impl Fn(&'d str) -> Result<T, E>,
) -> Option<BTreeSet<T>> {
    let Some(value) = value else { return Some(BTreeSet::new()) };
    let items = value.each(expected, |item| item.parse(expected, &new))?;
    Some(items.into_iter().collect())
}

fn known(value: &Value<'_>, workloads: Option<&BTreeSet<WorkloadName>>) -> Option<WorkloadName> {
    let name = value.parse("a workload name", WorkloadName::new)?;
    if workloads.is_some_and(|workloads| !workloads.contains(&name)) {
        value.fault("no [[workload]] has this name", "name a workload of this file");
        return None;
    }
    Some(name)
}

fn destination(section: &mut Section<'_>) -> Option<Destination> {
    let host = host(section, true);
    let ports = section
        .required("ports", "ports, such as [443, { from = 8000, to = 8010 }]")
        .and_then(|value| ports(&value));
    let protocol =
        section.required("protocol", "\"tcp\" or \"udp\"").and_then(|value| protocol(&value));
    let (host, ports, protocol) = (host?, ports?, protocol?);
    Destination::new(host, ports, protocol)
        .map_err(|error| section.fault(error.to_string(), format!("write {DESTINATION}")))
        .ok()
}

/// Exactly one of `host` and `cidr`. What can never be granted is no use in a ceiling.
fn host(section: &mut Section<'_>, grantable: bool) -> Option<HostPattern> {
    let expected = "a lower-case name, *.name, or address in its usual form";
    let (value, host) = match (section.optional("host"), section.optional("cidr")) {
        (Some(value), None) => {
            let host = value.parse(expected, HostPattern::from_host)?;
            (value, host)
        }
        (None, Some(value)) => {
            let host = value.parse("a CIDR such as 10.20.0.0/24", HostPattern::from_cidr)?;
            (value, host)
        }
        _ => {
            section.fault("names none or both of host and cidr", format!("write {DESTINATION}"));
            return None;
        }
    };
    if grantable && let Err(error) = host.check_grantable() {
        value.fault(error.to_string(), "name unicast addresses only");
        return None;
    }
    Some(host)
}

/// Reads every `[[deny]]` and adds grantd's own port.
pub(super) fn read_denies(root: &mut Section<'_>) -> Option<Vec<Deny>> {
    let Some(value) = root.optional("deny") else { return Some(Vec::new()) };
    value.each("[[deny]] sections", |item| {
        item.table("a deny: { host = \"10.0.0.1\" }", |section| {
            let host = host(section, false);
            let ports = match section.optional("ports") {
                Some(value) => ports(&value).map(Some),
                None => Some(None),
            };
            let protocol = match section.optional("protocol") {
                Some(value) => protocol(&value).map(Some),
                None => Some(None),
            };
            Some(Deny { host: host?, ports: ports?, protocol: protocol? })
        })
    })
}

/// grantd's own port is never granted: on the address that it listens on, or on every address where it
/// listens on all, because which addresses those are changes while it runs.
pub(super) fn own_port(listen: SocketAddr) -> Vec<Deny> {
    let hosts = if listen.ip().is_unspecified() {
        [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            .into_iter()
            .filter_map(|any| Cidr::new(any, 0).ok())
            .map(HostPattern::Cidr)
            .collect()
    } else {
        vec![HostPattern::Address(listen.ip().to_canonical())]
    };
    let Ok(port) = PortRange::single(listen.port()) else { return Vec::new() };
    hosts
        .into_iter()
        .map(|host| Deny { host, ports: Some(vec![port]), protocol: Some(Protocol::Tcp) })
        .collect()
}
