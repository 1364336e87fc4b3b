//! Destinations: host, ports and protocol, and the one matcher for all of them.

use std::fmt;
use std::net::IpAddr;

pub use crate::host::{Cidr, DnsName, HostPattern, InvalidDestination};

/// Transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP (QUIC included).
    Udp,
}

impl Protocol {
    /// `tcp` or `udp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Reads `tcp` or `udp`, lower case only; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ports `from` to `to`, both included, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    from: u16,
    to: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: PortRange = PortRange { from: 1, to: u16::MAX };

    /// Ports `from` to `to`.
    ///
    /// # Errors
    /// [`InvalidDestination::Ports`] if `from` is 0 or above `to`.
    pub fn new(from: u16, to: u16) -> Result<Self, InvalidDestination> {
        if from == 0 || from > to {
            return Err(InvalidDestination::Ports);
        }
        Ok(Self { from, to })
    }

    /// One port.
    ///
    /// # Errors
    /// [`InvalidDestination::Ports`] for port 0.
    pub fn single(port: u16) -> Result<Self, InvalidDestination> {
        Self::new(port, port)
    }

    /// First port.
    pub fn from(&self) -> u16 {
        self.from
    }

    /// Last port.
    pub fn to(&self) -> u16 {
        self.to
    }

    /// Whether `port` is inside.
    pub fn contains(&self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }

    fn contains_range(&self, inner: &PortRange) -> bool {
        self.from <= inner.from && inner.to <= self.to
    }

    /// Whether some port is in both.
    pub fn overlaps(&self, other: &PortRange) -> bool {
        self.from <= other.to && other.from <= self.to
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "{}", self.from)
        } else {
            write!(f, "{}-{}", self.from, self.to)
        }
    }
}

/// Hosts, ports and a protocol. What a grant opens, what a ceiling allows, what a host denies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    host: HostPattern,
    ports: Vec<PortRange>,
    protocol: Protocol,
}

impl Destination {
    /// A destination. Ports are sorted and touching ranges joined, so that equal sets compare equal.
    ///
    /// # Errors
    /// [`InvalidDestination::Ports`] without a port: empty never means "all".
    pub fn new(
        host: HostPattern,
        ports: impl Into<Vec<PortRange>>,
        protocol: Protocol,
    ) -> Result<Self, InvalidDestination> {
        let ports = join(ports.into());
        if ports.is_empty() {
            return Err(InvalidDestination::Ports);
        }
        Ok(Self { host, ports, protocol })
    }

    /// The hosts.
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// The ports: at least one range, sorted, disjoint, none touching the next.
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }

    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether every connection that `inner` allows is allowed by `self`.
    pub fn covers(&self, inner: &Destination) -> bool {
        self.protocol == inner.protocol
            && self.host.covers(&inner.host)
            && inner.ports.iter().all(|p| self.ports.iter().any(|own| own.contains_range(p)))
    }

    /// Whether some connection is allowed by both.
    pub fn overlaps(&self, other: &Destination) -> bool {
        self.protocol == other.protocol
            && self.host.overlaps(&other.host)
            && other.ports.iter().any(|p| self.ports.iter().any(|own| own.overlaps(p)))
    }

    /// Whether a connection to this address is allowed. An IPv4-mapped address counts as IPv4.
    #[must_use]
    pub fn matches(&self, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.matches_service(port, protocol) && self.host.matches_address(address)
    }

    /// Whether a connection to this name is allowed.
    #[must_use]
    pub fn matches_name(&self, name: &DnsName, port: u16, protocol: Protocol) -> bool {
        self.matches_service(port, protocol) && self.host.matches_name(name)
    }

    fn matches_service(&self, port: u16, protocol: Protocol) -> bool {
        self.protocol == protocol && self.ports.iter().any(|own| own.contains(port))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.host, HostPattern::Address(IpAddr::V6(_))) {
            write!(f, "{} [{}]:", self.protocol, self.host)?;
        } else {
            write!(f, "{} {}:", self.protocol, self.host)?;
        }
        for (at, range) in self.ports.iter().enumerate() {
            write!(f, "{}{range}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn join(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::with_capacity(ports.len());
    for next in ports {
        match joined.last_mut() {
            Some(last) if next.from <= last.to.saturating_add(1) => last.to = last.to.max(next.to),
            _ => joined.push(next),
        }
    }
    joined
}
