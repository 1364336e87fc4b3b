//! Absolute denies: above every ceiling entry.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::destination::{Cidr, Destination, HostPattern, PortRange, Protocol};

/// What no grant may open, whatever the ceiling says. A grant that covers any part of it is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    /// The hosts.
    pub host: HostPattern,
    /// The ports; `None` means all.
    pub ports: Option<Vec<PortRange>>,
    /// The protocol; `None` means both.
    pub protocol: Option<Protocol>,
}

impl Deny {
    /// Denies every port and protocol of `host`.
    pub fn host(host: HostPattern) -> Self {
        Self { host, ports: None, protocol: None }
    }

    /// Whether `destination` covers any part of this.
    pub fn overlaps(&self, destination: &Destination) -> bool {
        let ports_meet = self.ports.as_ref().is_none_or(|denied| {
            denied.iter().any(|d| destination.ports().iter().any(|own| own.overlaps(d)))
        });
        ports_meet
            && self.protocol.is_none_or(|p| p == destination.protocol())
            && self.host.overlaps(destination.host())
    }

    /// The metadata services of cloud providers, which hand out credentials to whoever asks.
    pub(super) fn always() -> [Deny; 2] {
        [
            IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
        ]
        .map(|address| Deny::host(HostPattern::Address(address)))
    }

    /// This deny and the IPv6 spellings by which a translator or tunnel would reach the same IPv4
    /// hosts: NAT64 (RFC 6052), IPv4-compatible (RFC 4291, section 2.5.5.1), 6to4 (RFC 3056).
    pub(super) fn with_embeddings(self) -> Vec<Deny> {
        let (network, prefix) = match &self.host {
            HostPattern::Address(IpAddr::V4(v4)) => (*v4, 32),
            HostPattern::Cidr(cidr) => match cidr.network() {
                IpAddr::V4(v4) => (v4, cidr.prefix_len()),
                IpAddr::V6(_) => return vec![self],
            },
            HostPattern::Address(IpAddr::V6(_))
            | HostPattern::Name(_)
            | HostPattern::Wildcard(_) => return vec![self],
        };
        let low = u128::from(network.to_bits());
        let spellings = [(0x0064_ff9b << 96 | low, 96), (low, 96), (0x2002 << 112 | low << 80, 16)];
        // `::/104` would deny `::1`, which is a host of its own.
        let spellings = spellings.into_iter().filter(|(bits, _)| bits >> 24 != 0);
        let embedded = spellings.filter_map(|(bits, fixed)| {
            Cidr::new(IpAddr::V6(Ipv6Addr::from_bits(bits)), fixed + prefix).ok()
        });
        let embedded: Vec<Deny> =
            embedded.map(|cidr| Deny { host: HostPattern::Cidr(cidr), ..self.clone() }).collect();
        std::iter::once(self).chain(embedded).collect()
    }
}

impl fmt::Display for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host)
    }
}
