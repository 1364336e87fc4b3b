//! Where a connection may go: one address, a CIDR, a name, or the names below a suffix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a text or value is not a destination. Texts are quoted only from authenticated input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDestination {
    /// Not an address, name or wildcard in canonical form.
    #[error("host is neither a canonical address nor a lower-case A-label name: {0}")]
    Host(&'static str),
    /// Not a CIDR in canonical form.
    #[error("cidr is not in canonical form: {0}")]
    Cidr(&'static str),
    /// A wildcard directly on (or above) a public suffix would cover other people's domains.
    #[error("a wildcard may not stand directly on a public suffix")]
    PublicSuffix,
    /// Ports are empty, zero, or from > to.
    #[error("ports are 1 to 65535, at least one, from not above to")]
    Ports,
    /// Addresses that can never be granted.
    #[error("covers {0} addresses, which cannot be granted")]
    Forbidden(&'static str),
}

/// The host part of a destination. Every value is canonical: two equal sets of hosts written as the
/// same kind of pattern compare equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// Exactly one address. Never IPv4-mapped IPv6.
    Address(IpAddr),
    /// All addresses of a prefix.
    Cidr(Cidr),
    /// Exactly one name.
    Name(DnsName),
    /// All names one or more labels below this one (`*.name`), the name itself excluded.
    Wildcard(DnsName),
}

impl HostPattern {
    /// Reads the `host` field: a canonical address literal, a name, or `*.name`.
    ///
    /// # Errors
    /// [`InvalidDestination`] for any other form, among them upper case, a trailing dot, `*` elsewhere,
    /// octal or short IPv4 forms, brackets, zone ids, IPv4-mapped IPv6.
    pub fn from_host(text: &str) -> Result<Self, InvalidDestination> {
        if let Ok(address) = text.parse::<IpAddr>() {
            // One spelling per address, so that what a person reads in two places can be compared.
            if address.to_string() != text {
                return Err(InvalidDestination::Host("write the address in its canonical form"));
            }
            refuse_mapped(address)?;
            return Ok(Self::Address(address));
        }
        match text.strip_prefix("*.") {
            Some(suffix) => Self::wildcard(DnsName::new(suffix)?),
            None => DnsName::new(text).map(Self::Name),
        }
    }

    /// Reads the `cidr` field.
    ///
    /// # Errors
    /// [`InvalidDestination::Cidr`] unless it is `address/length` with all host bits zero.
    pub fn from_cidr(text: &str) -> Result<Self, InvalidDestination> {
        Cidr::parse(text).map(Self::Cidr)
    }

    /// All names below `suffix`.
    ///
    /// # Errors
    /// [`InvalidDestination::PublicSuffix`] if `suffix` or every name directly below it is a public
    /// suffix in the ICANN section of the Public Suffix List.
    pub fn wildcard(suffix: DnsName) -> Result<Self, InvalidDestination> {
        // The list has rules such as `*.ck`: `ck` itself is no entry, but each of its children is.
        let probe = format!("grantd-probe.{}", suffix.as_str());
        if is_icann_suffix(suffix.as_str()) || is_icann_suffix(&probe) {
            return Err(InvalidDestination::PublicSuffix);
        }
        Ok(Self::Wildcard(suffix))
    }

    /// Whether every host of `inner` is a host of `self`.
    pub fn covers(&self, inner: &HostPattern) -> bool {
        match (self.as_cidr(), inner.as_cidr()) {
            (Some(outer), Some(inner)) => return outer.contains_cidr(&inner),
            (Some(_), None) | (None, Some(_)) => return false,
            (None, None) => {}
        }
        match (self, inner) {
            (Self::Name(outer), Self::Name(inner)) => outer == inner,
            (Self::Wildcard(suffix), Self::Name(name)) => name.is_below(suffix),
            (Self::Wildcard(outer), Self::Wildcard(inner)) => {
                inner == outer || inner.is_below(outer)
            }
            _ => false,
        }
    }

    /// Whether some host is a host of both. Names and addresses never overlap here: what a name
    /// resolves to is not known to this crate.
    pub fn overlaps(&self, other: &HostPattern) -> bool {
        match (self.as_cidr(), other.as_cidr()) {
            (Some(a), Some(b)) => a.contains_cidr(&b) || b.contains_cidr(&a),
            _ => self.covers(other) || other.covers(self),
        }
    }

    /// Whether `address` is a host of `self`; an IPv4-mapped address counts as its IPv4 address.
    pub fn matches_address(&self, address: IpAddr) -> bool {
        self.as_cidr().is_some_and(|cidr| cidr.contains(address.to_canonical()))
    }

    /// Whether `name` is a host of `self`.
    pub fn matches_name(&self, name: &DnsName) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Wildcard(suffix) => name.is_below(suffix),
            Self::Address(_) | Self::Cidr(_) => false,
        }
    }

    /// Refuses hosts that can never be granted, whatever the ceiling says: multicast, broadcast,
    /// unspecified (`0.0.0.0/8`, `::`), link-local, IPv4-mapped; also a prefix that contains any.
    ///
    /// # Errors
    /// [`InvalidDestination::Forbidden`] naming the range.
    pub fn check_grantable(&self) -> Result<(), InvalidDestination> {
        let Some(own) = self.as_cidr() else { return Ok(()) };
        match forbidden_ranges().iter().find(|(range, _)| own.overlaps(range)) {
            Some((_, name)) => Err(InvalidDestination::Forbidden(name)),
            None => Ok(()),
        }
    }

    fn as_cidr(&self) -> Option<Cidr> {
        match self {
            Self::Address(address) => Some(Cidr::host(*address)),
            Self::Cidr(cidr) => Some(*cidr),
            Self::Name(_) | Self::Wildcard(_) => None,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Cidr(cidr) => cidr.fmt(f),
            Self::Name(name) => name.fmt(f),
            Self::Wildcard(name) => write!(f, "*.{name}"),
        }
    }
}

/// A prefix of addresses with all host bits zero (RFC 4632, section 3.1; RFC 4291, section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The prefix of `prefix` bits at `network`.
    ///
    /// # Errors
    /// [`InvalidDestination::Cidr`] if the length exceeds the family's or a host bit is set.
    pub fn new(network: IpAddr, prefix: u8) -> Result<Self, InvalidDestination> {
        if prefix > width(network) {
            return Err(InvalidDestination::Cidr("prefix length is 0 to 32, or 0 to 128 for IPv6"));
        }
        if bits(network) & host_mask(network, prefix) != 0 {
            return Err(InvalidDestination::Cidr("bits after the prefix must be zero"));
        }
        refuse_mapped(network)?;
        Ok(Self { network, prefix })
    }

    /// Reads `address/length`.
    ///
    /// # Errors
    /// [`InvalidDestination::Cidr`] for any form but the canonical one.
    pub fn parse(text: &str) -> Result<Self, InvalidDestination> {
        let form = InvalidDestination::Cidr("write address/length in canonical form");
        let (address, length) = text.split_once('/').ok_or_else(|| form.clone())?;
        let network: IpAddr = address.parse().map_err(|_| form.clone())?;
        let prefix: u8 = length.parse().map_err(|_| form.clone())?;
        if network.to_string() != address || prefix.to_string() != length {
            return Err(form);
        }
        Self::new(network, prefix)
    }

    /// The prefix that holds only `address`.
    pub fn host(address: IpAddr) -> Self {
        Self { network: address, prefix: width(address) }
    }

    /// First address.
    pub fn network(&self) -> IpAddr {
        self.network
    }

    /// Length in bits.
    pub fn prefix_len(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` (of the same family) lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.contains_cidr(&Cidr::host(address))
    }

    /// Whether all of `inner` lies inside.
    pub fn contains_cidr(&self, inner: &Cidr) -> bool {
        self.network.is_ipv4() == inner.network.is_ipv4()
            && self.prefix <= inner.prefix
            && bits(inner.network) & !host_mask(self.network, self.prefix) == bits(self.network)
    }

    /// Whether some address lies in both.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains_cidr(other) || other.contains_cidr(self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// A host name of lower-case A-labels (RFC 5890, section 2.3.2.1), no trailing dot, at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidDestination::Host`] for anything but letters, digits and hyphens in labels of 1 to 63,
    /// and for a last label that a resolver could read as part of an IPv4 address.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidDestination> {
        let text = text.into();
        if text.len() > 253 || !text.split('.').all(is_label) {
            return Err(InvalidDestination::Host("labels are 1 to 63 of a-z 0-9 -, 253 in all"));
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        let hexadecimal = last.strip_prefix("0x");
        if last.bytes().all(|b| b.is_ascii_digit())
            || hexadecimal.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(InvalidDestination::Host("ends in a number: an address in another form"));
        }
        Ok(Self(text))
    }

    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is one or more labels below `suffix`.
    pub fn is_below(&self, suffix: &DnsName) -> bool {
        self.0
            .strip_suffix(suffix.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty())
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_label(label: &str) -> bool {
    let hyphens_elsewhere = label.get(2..4) != Some("--") || label.starts_with("xn--");
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
        && hyphens_elsewhere
}

fn is_icann_suffix(name: &str) -> bool {
    psl::suffix(name.as_bytes())
        .is_some_and(|s| s == name.as_bytes() && s.typ() == Some(psl::Type::Icann))
}

/// IPv4-mapped IPv6 has two spellings for one host; only the IPv4 one is accepted.
fn refuse_mapped(address: IpAddr) -> Result<(), InvalidDestination> {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(InvalidDestination::Forbidden("IPv4-mapped"))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(()),
    }
}

fn forbidden_ranges() -> [(Cidr, &'static str); 8] {
    let v4 = |a, b, prefix| Cidr { network: IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), prefix };
    let v6 =
        |a, prefix| Cidr { network: IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, 0)), prefix };
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    [
        (v4(0, 0, 8), "unspecified"),
        (v4(169, 254, 16), "link-local"),
        (v4(224, 0, 4), "multicast"),
        (Cidr::host(IpAddr::V4(Ipv4Addr::BROADCAST)), "broadcast"),
        (v6(0, 128), "unspecified"),
        (v6(0xfe80, 10), "link-local"),
        (v6(0xff00, 8), "multicast"),
        (Cidr { network: IpAddr::V6(mapped), prefix: 96 }, "IPv4-mapped"),
    ]
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Ones where the host part of a prefix is.
fn host_mask(family: IpAddr, prefix: u8) -> u128 {
    let host_bits = u32::from(width(family).saturating_sub(prefix));
    1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1)
}
