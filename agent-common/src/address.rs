//! Addresses and ports as they lie in kernel structures: network byte order, behind constructors.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP address in 16 bytes, network order; IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2),
/// so that one key form serves both families and a mapped destination equals its IPv4 form. Aligned
/// to a word, so that the kernel programs load words instead of bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// `::`, which no destination may be.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// From the four octets of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(o: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, o[0], o[1], o[2], o[3]])
    }

    /// From the sixteen octets of an IPv6 address; a mapped one is thereby its IPv4 form.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(o: [u8; 16]) -> Self {
        Self(o)
    }

    /// Whether this is an IPv4 address (in mapped form).
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        let a = &self.0;
        a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6] | a[7] | a[8] | a[9] == 0
            && a[10] == 0xff
            && a[11] == 0xff
    }

    /// Whether this is `0.0.0.0` or `::`, which the kernel takes for loopback when connecting.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        let a = &self.0;
        let high = a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6] | a[7] | a[8] | a[9];
        let low = a[12] | a[13] | a[14] | a[15];
        high | low == 0 && ((a[10] == 0 && a[11] == 0) || (a[10] == 0xff && a[11] == 0xff))
    }

    /// Whether this is an address of `127.0.0.0/8` or `::1`: what is sent there is delivered in the same
    /// network namespace, to one socket. Addresses that end in 0 or 255 are left out: depending on the
    /// interface's prefix they are broadcast addresses, and every socket of the port gets what is sent there.
    #[inline(always)]
    #[must_use]
    pub const fn is_loopback(&self) -> bool {
        let a = &self.0;
        if self.is_v4() {
            return a[12] == 127 && a[15] != 0 && a[15] != 255;
        }
        let high = a[0] | a[1] | a[2] | a[3] | a[4] | a[5] | a[6] | a[7] | a[8] | a[9];
        high | a[10] | a[11] | a[12] | a[13] | a[14] == 0 && a[15] == 1
    }

    /// The loopback address of the same family: what the kernel would use in place of an
    /// unspecified destination.
    #[inline(always)]
    #[must_use]
    pub const fn loopback_of_same_family(&self) -> Self {
        if self.is_v4() {
            Self::from_v4([127, 0, 0, 1])
        } else {
            Self::from_v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        }
    }

    /// The standard library's form; a mapped address comes back as IPv4.
    #[must_use]
    pub const fn to_ip(self) -> IpAddr {
        let a = self.0;
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::new(a[12], a[13], a[14], a[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from_octets(a))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

/// A port in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(pub [u8; 2]);

impl Port {
    /// From a number.
    #[inline(always)]
    #[must_use]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be_bytes())
    }

    /// As a number.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

/// A transport protocol by its IANA number. A plain byte, since it is read from packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
}

/// Address, port and protocol: where something is sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: Port,
    /// The protocol.
    pub protocol: Protocol,
    /// Always zero.
    pub padding: u8,
}

impl Endpoint {
    /// No endpoint: the state of a socket that was never connected.
    pub const NONE: Self = Self::new(Address::UNSPECIFIED, Port([0, 0]), Protocol(0));

    /// From its parts.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: Port, protocol: Protocol) -> Self {
        Self { address, port, protocol, padding: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_destination_is_the_same_key_as_its_ipv4_form() {
        let mapped: Ipv6Addr = "::ffff:10.1.2.3".parse().unwrap();
        let plain: Ipv4Addr = "10.1.2.3".parse().unwrap();
        assert_eq!(Address::from(IpAddr::V6(mapped)), Address::from(IpAddr::V4(plain)));
        assert_eq!(Address::from(IpAddr::V6(mapped)).to_ip(), IpAddr::V4(plain));
    }

    #[test]
    fn only_what_stays_in_the_namespace_counts_as_loopback() {
        for text in ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"] {
            assert!(Address::from(text.parse::<IpAddr>().unwrap()).is_loopback(), "{text}");
        }
        for text in [
            "128.0.0.1",
            "0.0.0.0",
            "::",
            "::7f00:1",
            "::2",
            "64:ff9b::7f00:1",
            "fe80::1",
            "127.255.255.255",
            "127.0.0.0",
            "127.0.0.255",
            "::ffff:127.255.255.255",
        ] {
            assert!(!Address::from(text.parse::<IpAddr>().unwrap()).is_loopback(), "{text}");
        }
    }

    #[test]
    fn every_unspecified_form_is_known_and_becomes_loopback_of_its_family() {
        for (text, loopback) in
            [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::ffff:0.0.0.0", "127.0.0.1")]
        {
            let a = Address::from(text.parse::<IpAddr>().unwrap());
            assert!(a.is_unspecified(), "{text}");
            assert_eq!(a.loopback_of_same_family().to_ip(), loopback.parse::<IpAddr>().unwrap());
        }
        for text in ["127.0.0.1", "::1", "1.0.0.0", "::ffff:0.0.0.1", "::1:0:0", "::fffe:0:0"] {
            assert!(!Address::from(text.parse::<IpAddr>().unwrap()).is_unspecified(), "{text}");
        }
    }
}
