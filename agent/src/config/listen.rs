//! `listen` of a workload: who may connect to it.

use grantd_grant::{HostPattern, Protocol};

use super::reader::{Section, Value};
use super::values::{port_number, protocol};

/// A rule, as a person should write it.
const LISTEN: &str = "{ port = 8080, protocol = \"tcp\", from = [\"10.20.0.0/24\"] }";

/// A port of the workload, and who may reach it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The workload's own port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Callers: addresses and CIDRs, never names, never none.
    pub from: Vec<HostPattern>,
}

pub(super) fn read(value: &Value<'_>) -> Option<Vec<Listen>> {
    value.each(LISTEN, |item| item.table(LISTEN, rule))
}

fn rule(section: &mut Section<'_>) -> Option<Listen> {
    let port = section.required("port", "the workload's own port").and_then(|v| port_number(&v));
    let protocol =
        section.required("protocol", "\"tcp\" or \"udp\"").and_then(|value| protocol(&value));
    let from = section
        .required("from", "who may connect: addresses and CIDRs")
        .and_then(|value| value.each("addresses and CIDRs", caller));
    Some(Listen { port: port?, protocol: protocol?, from: from? })
}

/// Packets carry addresses: a name could not be compared with them.
fn caller(value: &Value<'_>) -> Option<HostPattern> {
    value.parse("an address or a CIDR such as \"10.20.0.0/24\"", |text| {
        let parsed = if text.contains('/') {
            HostPattern::from_cidr(text)
        } else {
            HostPattern::from_host(text)
        };
        match parsed {
            Ok(host @ (HostPattern::Address(_) | HostPattern::Cidr(_))) => Ok(host),
            Ok(_) => Err("is a name, and callers are known by their address".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
}
