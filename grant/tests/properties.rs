//! Matching and containment against a model that knows nothing of prefixes, suffixes and joined ranges.

#[cfg(test)]
mod properties {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use grantd_grant::policy::Deny;
    use grantd_grant::{Cidr, Destination, DnsName, HostPattern, PortRange, Protocol};
    use proptest::prelude::*;

    /// Hosts of a world small enough to try each: 16 addresses per family, and names of up to three
    /// labels over two letters below `example.com`.
    #[derive(Debug, Clone)]
    enum Host {
        Address(IpAddr),
        Name(DnsName),
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    fn v6(last: u8) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()))
    }

    fn all_names() -> Vec<String> {
        let mut names = vec!["example.com".to_owned()];
        let mut level = names.clone();
        for _ in 0..3 {
            level = level.iter().flat_map(|n| ["a", "b"].map(|l| format!("{l}.{n}"))).collect();
            names.extend(level.iter().cloned());
        }
        // Names that only a matcher without label boundaries would take for the ones above.
        names.extend(["xexample.com", "a.xexample.com", "aa.example.com"].map(str::to_owned));
        names
    }

    fn all_hosts() -> Vec<Host> {
        let addresses = (0..16).flat_map(|last| [v4(last), v6(last)]).map(Host::Address);
        let names = all_names().into_iter().map(|n| Host::Name(DnsName::new(n).unwrap()));
        addresses.chain(names).collect()
    }

    const PORTS: std::ops::RangeInclusive<u16> = 1..=12;

    fn address(last: u8, six: bool) -> IpAddr {
        if six { v6(last) } else { v4(last) }
    }

    fn pattern() -> impl Strategy<Value = HostPattern> {
        let names = all_names();
        let name = (0..names.len()).prop_map(move |at| DnsName::new(names[at].clone()).unwrap());
        prop_oneof![
            (0u8..16, any::<bool>()).prop_map(|(n, six)| HostPattern::Address(address(n, six))),
            (0u8..16, 0u8..=4, any::<bool>()).prop_map(|(last, host_bits, six)| {
                let network = address(last >> host_bits << host_bits, six);
                let width = if six { 128 } else { 32 };
                HostPattern::Cidr(Cidr::new(network, width - host_bits).unwrap())
            }),
            name.clone().prop_map(HostPattern::Name),
            name.prop_map(HostPattern::Wildcard),
        ]
    }

    fn ports() -> impl Strategy<Value = Vec<PortRange>> {
        let range = (PORTS, PORTS).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
        prop::collection::vec(range, 1..4)
    }

    fn protocol() -> impl Strategy<Value = Protocol> {
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
    }

    fn destination() -> impl Strategy<Value = Destination> {
        (pattern(), ports(), protocol()).prop_map(|(h, p, x)| Destination::new(h, p, x).unwrap())
    }

    /// Two destinations, of which the second is often inside the first: by chance alone, hardly any are.
    fn pair() -> impl Strategy<Value = (Destination, Destination)> {
        let shrink = (any::<bool>(), 0usize..4, 0u16..4, 0u16..4, any::<bool>());
        (destination(), destination(), shrink).prop_map(|(outer, other, shrink)| {
            let (related, at, cut_low, cut_high, same_host) = shrink;
            if !related {
                return (outer, other);
            }
            let range = outer.ports()[at % outer.ports().len()];
            let from = (range.from() + cut_low).min(range.to());
            let to = range.to().saturating_sub(cut_high).max(from);
            let host = if same_host { outer.host() } else { other.host() };
            let ports = [PortRange::new(from, to).unwrap()];
            let inner = Destination::new(host.clone(), ports, outer.protocol()).unwrap();
            (outer, inner)
        })
    }

    #[test]
    fn the_samples_hold_enough_pairs_of_either_kind() {
        use proptest::strategy::ValueTree;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let covered = (0..512)
            .filter(|_| {
                let (outer, inner) = pair().new_tree(&mut runner).unwrap().current();
                outer.covers(&inner)
            })
            .count();
        assert!((100..412).contains(&covered), "{covered} of 512 pairs are inside");
    }

    /// Everything that `destination` allows, tried one by one.
    fn allowed(destination: &Destination) -> Vec<bool> {
        let mut table = Vec::new();
        for host in all_hosts() {
            for port in PORTS {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    table.push(match &host {
                        Host::Address(address) => destination.matches(*address, port, protocol),
                        Host::Name(name) => destination.matches_name(name, port, protocol),
                    });
                }
            }
        }
        table
    }

    /// The model of a match: written from the prose, over texts and single numbers.
    fn model(pattern: &HostPattern, host: &Host) -> bool {
        match (pattern, host) {
            (HostPattern::Address(own), Host::Address(address)) => own == address,
            (HostPattern::Cidr(cidr), Host::Address(address)) => {
                let bits = |address: IpAddr| -> String {
                    match address {
                        IpAddr::V4(v4) => v4.octets().iter().map(|o| format!("{o:08b}")).collect(),
                        IpAddr::V6(v6) => v6.octets().iter().map(|o| format!("{o:08b}")).collect(),
                    }
                };
                let prefix = usize::from(cidr.prefix_len());
                cidr.network().is_ipv4() == address.is_ipv4()
                    && bits(cidr.network())[..prefix] == bits(*address)[..prefix]
            }
            (HostPattern::Name(own), Host::Name(name)) => own == name,
            (HostPattern::Wildcard(suffix), Host::Name(name)) => {
                let own: Vec<&str> = suffix.as_str().split('.').rev().collect();
                let labels: Vec<&str> = name.as_str().split('.').rev().collect();
                labels.len() > own.len() && labels[..own.len()] == own[..]
            }
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        #[test]
        fn a_destination_matches_what_the_model_matches(
            host in pattern(), ranges in ports(), protocol in protocol(),
        ) {
            let destination = Destination::new(host.clone(), ranges.clone(), protocol).unwrap();
            for candidate in all_hosts() {
                for port in PORTS {
                    for other in [Protocol::Tcp, Protocol::Udp] {
                        let expected = model(&host, &candidate)
                            && ranges.iter().any(|r| (r.from()..=r.to()).contains(&port))
                            && other == protocol;
                        let found = match &candidate {
                            Host::Address(address) => destination.matches(*address, port, other),
                            Host::Name(name) => destination.matches_name(name, port, other),
                        };
                        prop_assert_eq!(found, expected, "{} {:?} {} {}", destination, candidate, port, other);
                    }
                }
            }
        }

        #[test]
        fn what_a_grant_inside_the_ceiling_allows_the_ceiling_allows((outer, inner) in pair()) {
            if outer.covers(&inner) {
                let excess = allowed(&inner).iter().zip(allowed(&outer)).any(|(i, o)| *i && !o);
                prop_assert!(!excess, "{outer} covers {inner}, which allows more");
            }
        }

        #[test]
        fn a_grant_outside_the_ceiling_allows_something_that_the_ceiling_does_not(
            (outer, inner) in pair(),
        ) {
            // In this world every wildcard is wider than the names listed, so only those may differ.
            let wild = matches!(inner.host(), HostPattern::Wildcard(_));
            if !outer.covers(&inner) && !wild {
                let excess = allowed(&inner).iter().zip(allowed(&outer)).any(|(i, o)| *i && !o);
                prop_assert!(excess, "{outer} does not cover {inner}, though it allows as much");
            }
        }

        #[test]
        fn overlap_is_seen_whenever_some_connection_is_allowed_by_both((a, b) in pair()) {
            let both = allowed(&a).iter().zip(allowed(&b)).any(|(x, y)| *x && y);
            if both {
                prop_assert!(a.overlaps(&b) && b.overlaps(&a), "{a} and {b}");
                let deny = Deny {
                    host: a.host().clone(),
                    ports: Some(a.ports().to_vec()),
                    protocol: Some(a.protocol()),
                };
                prop_assert!(deny.overlaps(&b), "a grant of {b} slips past a deny of {a}");
            }
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }

        #[test]
        fn covering_is_reflexive_transitive_and_implies_overlap(
            (a, b) in pair(), c in destination(),
        ) {
            prop_assert!(a.covers(&a) && a.overlaps(&a));
            if a.covers(&b) {
                prop_assert!(a.overlaps(&b));
                if b.covers(&c) {
                    prop_assert!(a.covers(&c));
                }
                if b.covers(&a) {
                    prop_assert_eq!(allowed(&a), allowed(&b));
                }
            }
        }

        #[test]
        fn a_host_prints_as_it_is_read(host in pattern()) {
            let text = host.to_string();
            let read = match &host {
                HostPattern::Cidr(_) => HostPattern::from_cidr(&text),
                HostPattern::Address(_) | HostPattern::Name(_) | HostPattern::Wildcard(_) => {
                    HostPattern::from_host(&text)
                }
            };
            prop_assert_eq!(read.unwrap(), host);
        }

        #[test]
        fn prefixes_of_any_length_contain_exactly_their_addresses(
            bits in any::<u128>(), other in any::<u128>(), prefix in 0u8..=128, near in any::<bool>(),
        ) {
            let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) };
            let network = IpAddr::V6(Ipv6Addr::from_bits(bits & mask));
            let Ok(cidr) = Cidr::new(network, prefix) else {
                prop_assert!(network.to_canonical().is_ipv4(), "only mapped networks are refused");
                return Ok(());
            };
            let other = if near { (bits & mask) | (other & !mask) } else { other };
            let address = Ipv6Addr::from_bits(other);
            prop_assert_eq!(cidr.contains(IpAddr::V6(address)), other & mask == bits & mask);
            prop_assert!(!cidr.contains(v4(1)), "families are apart");
        }
    }
}
