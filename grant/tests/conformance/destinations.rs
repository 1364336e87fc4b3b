//! Endpoints: what is well-formed, what can never be granted, what a pattern matches.

use grantd_grant::{DnsName, HostPattern, InvalidDestination, PortRange, Protocol, Reason};
use serde_json::{Value, json};

use crate::attempt::{Attempt, tcp_to};
use crate::world::{destination, pattern, tcp};

fn to(endpoints: Value) -> Attempt {
    Attempt::new().claim("authorization_details", tcp_to(endpoints))
}

fn to_host(host: &str) -> Attempt {
    to(json!([{ "host": host, "ports": [443] }]))
}

fn to_cidr(cidr: &str) -> Attempt {
    to(json!([{ "cidr": cidr, "ports": [8000] }]))
}

#[test]
fn every_kind_of_endpoint_is_admitted() {
    let grant = to(json!([
        { "host": "db-1.internal", "ports": [5432] },
        { "host": "a.pkg.example.com", "ports": [443] },
        { "host": "*.eu.pkg.example.com", "ports": [443] },
        { "host": "10.20.3.4", "ports": [8000, { "from": 8005, "to": 8010 }] },
        { "cidr": "10.20.0.0/24", "ports": [{ "from": 8000, "to": 8010 }] },
    ]))
    .admitted();
    let shown: Vec<String> = grant.destinations().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "tcp db-1.internal:5432",
            "tcp a.pkg.example.com:443",
            "tcp *.eu.pkg.example.com:443",
            "tcp 10.20.3.4:8000,8005-8010",
            "tcp 10.20.0.0/24:8000-8010",
        ]
    );
}

#[test]
fn an_unknown_type_action_or_protocol_is_refused() {
    for (pointer, values) in [
        (
            "/authorization_details/0/type",
            vec![json!("network_listen"), json!("Network_connect"), json!("")],
        ),
        (
            "/authorization_details/0/actions",
            vec![
                json!(["listen"]),
                json!(["connect", "listen"]),
                json!(["connect", "connect"]),
                json!([]),
                json!("connect"),
                json!(null),
            ],
        ),
        (
            "/authorization_details/0/protocol",
            vec![
                json!("TCP"),
                json!("sctp"),
                json!("any"),
                json!(""),
                json!(["tcp"]),
                json!(6),
                json!("*"),
            ],
        ),
    ] {
        for value in values {
            Attempt::new().claim_at(pointer, value).refused(Reason::ClaimsMalformed);
        }
    }
    for field in ["type", "actions", "protocol", "endpoints"] {
        let mut details = tcp_to(json!([{ "host": "db-1.internal", "ports": [5432] }]));
        details[0].as_object_mut().unwrap().remove(field);
        Attempt::new().claim("authorization_details", details).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn empty_lists_grant_nothing_and_are_refused() {
    Attempt::new().claim("authorization_details", json!([])).refused(Reason::ClaimsMalformed);
    to(json!([])).refused(Reason::ClaimsMalformed);
    to(json!([{ "host": "db-1.internal", "ports": [] }])).refused(Reason::ClaimsMalformed);
}

#[test]
fn an_endpoint_has_exactly_one_of_host_and_cidr() {
    to(json!([{ "ports": [443] }])).refused(Reason::ClaimsMalformed);
    to(json!([{ "host": "db-1.internal" }])).refused(Reason::ClaimsMalformed);
    let both = json!([{ "host": "10.20.0.1", "cidr": "10.20.0.0/24", "ports": [8000] }]);
    to(both).refused(Reason::ClaimsMalformed);
    to(json!(["db-1.internal:5432"])).refused(Reason::ClaimsMalformed);
}

#[test]
fn counts_are_bounded() {
    let endpoints = |count: usize| {
        let one = json!({ "host": "db-1.internal", "ports": [5432] });
        to(Value::Array(vec![one; count]))
    };
    endpoints(64).admitted();
    endpoints(65).refused(Reason::ClaimsMalformed);
    let details = |count: usize, each: usize| {
        let one = json!({ "host": "db-1.internal", "ports": [5432] });
        let detail = tcp_to(Value::Array(vec![one; each]))[0].clone();
        Attempt::new().claim("authorization_details", Value::Array(vec![detail; count]))
    };
    details(2, 32).admitted();
    details(2, 33).refused(Reason::ClaimsMalformed);
    let ports = |count: u16| {
        let items: Vec<u16> = (0..count).map(|at| 8000 + at).collect();
        to(json!([{ "host": "10.20.0.1", "ports": items }]))
    };
    ports(16).admitted();
    ports(17).refused(Reason::ClaimsMalformed);
}

#[test]
fn ports_are_1_to_65535_in_order() {
    for ports in [
        json!([0]),
        json!([65536]),
        json!([{ "from": 0, "to": 1 }]),
        json!([{ "from": 2, "to": 1 }]),
        json!([{ "from": 1, "to": 65536 }]),
        json!([4_294_967_738u64]),
    ] {
        to(json!([{ "host": "10.20.0.1", "ports": ports }])).refused(Reason::DestinationInvalid);
    }
    for ports in [
        json!(["443"]),
        json!([443.0]),
        json!([-1]),
        json!(["*"]),
        json!(443),
        json!([null]),
        json!([[443]]),
        json!([{ "from": 1 }]),
        json!([{ "to": 1 }]),
        json!([{}]),
        json!({ "from": 1, "to": 2 }),
    ] {
        to(json!([{ "host": "10.20.0.1", "ports": ports }])).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn hosts_have_one_spelling() {
    for host in [
        "",
        ".",
        "*",
        "*.",
        "DB-1.internal",
        "db-1.internal.",
        ".internal",
        "a..b",
        "a b.example.com",
        "bücher.example.com",
        "a_b.example.com",
        "-a.example.com",
        "a-.example.com",
        "a.*.example.com",
        "*a.pkg.example.com",
        "a*.pkg.example.com",
        "*.*.pkg.example.com",
        "**.pkg.example.com",
        "xx--a.example.com",
        "pkg.example.com:443",
        "https://pkg.example.com",
        "user@pkg.example.com",
        "pkg.example.com/",
        "pkg.example.com\u{200b}",
        "pkg\u{3002}example\u{3002}com",
        "pkg.example.com\n",
        // Addresses in forms that resolvers and people read differently.
        "10.20.0.01",
        "010.20.0.1",
        "10.20.1",
        "0x0a140001",
        "168034305",
        "10.20.0.0x1",
        "10.20.0.1.",
        "[2001:db8::1]",
        "2001:DB8::1",
        "2001:db8:0::1",
        "2001:0db8::1",
        "fe80::1%eth0",
        "1.2.3.4.5",
        "256.1.1.1",
        "example.1",
        "*.10",
        "*.0x1f",
        "10.20.0.0/24",
    ] {
        to_host(host).refused(Reason::DestinationInvalid);
    }
    let long = format!("{}.example.com", "a".repeat(64));
    to_host(&long).refused(Reason::DestinationInvalid);
    let long = format!("{}example.com", "abcdefg.".repeat(31));
    assert!(long.len() > 253);
    to_host(&long).refused(Reason::DestinationInvalid);
    for value in [json!(7), json!(["a"]), json!(null)] {
        to(json!([{ "host": value, "ports": [443] }])).refused(Reason::ClaimsMalformed);
    }
}

#[test]
fn prefixes_have_one_spelling() {
    for cidr in [
        "",
        "/",
        "10.20.0.0",
        "10.20.0.0/",
        "10.20.0.0/33",
        "10.20.0.0/024",
        "10.20.0.0/+24",
        "10.20.0.1/24",
        "10.20.0/24",
        "10.20.0.0/255.255.255.0",
        "10.20.0.0 /24",
        "10.20.0.0/24 ",
        "10.20.0.0/24/24",
        "2001:db8::/129",
        "2001:DB8::/32",
        "2001:db8::1/32",
        "db-1.internal/24",
        "*/0",
        "10.20.0.0/-1",
    ] {
        to_cidr(cidr).refused(Reason::DestinationInvalid);
    }
    to_cidr("10.20.0.0/32").admitted();
}

#[test]
fn scopes_without_an_owner_can_never_be_granted() {
    for host in [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "::",
        "fe80::1",
        "febf::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:10.20.0.1",
        "::ffff:169.254.169.254",
    ] {
        to_host(host).refused(Reason::DestinationForbidden);
    }
    for cidr in [
        "0.0.0.0/0",
        "0.0.0.0/8",
        "128.0.0.0/1",
        "169.254.0.0/16",
        "169.254.169.254/32",
        "168.0.0.0/6",
        "224.0.0.0/4",
        "224.0.0.0/3",
        "255.255.255.255/32",
        "254.0.0.0/7",
        "::/0",
        "::/128",
        "::/1",
        "fe80::/10",
        "fe80::/64",
        "ff00::/8",
        "fc00::/6",
        "::ffff:0.0.0.0/96",
        "::ffff:10.20.0.0/112",
    ] {
        to_cidr(cidr).refused(Reason::DestinationForbidden);
    }
}

#[test]
fn a_wildcard_never_stands_on_a_public_suffix() {
    for host in
        ["*.com", "*.co.uk", "*.uk", "*.ck", "*.foo.ck", "*.kawasaki.jp", "*.xn--p1ai", "*.app"]
    {
        to_host(host).refused(Reason::DestinationInvalid);
        let text = host.strip_prefix("*.").unwrap();
        let direct = HostPattern::wildcard(DnsName::new(text).unwrap());
        assert_eq!(direct, Err(InvalidDestination::PublicSuffix), "{host}");
    }
    for host in
        ["*.example.com", "*.example.co.uk", "*.www.ck", "*.city.kawasaki.jp", "*.db.internal"]
    {
        assert!(HostPattern::from_host(host).is_ok(), "{host}");
    }
}

#[test]
fn a_wildcard_matches_below_its_suffix_at_label_boundaries_only() {
    let wild = tcp("*.pkg.example.com", 443, 443);
    let matches = |name: &str| wild.matches_name(&DnsName::new(name).unwrap(), 443, Protocol::Tcp);
    assert!(matches("a.pkg.example.com"));
    assert!(matches("b.a.pkg.example.com"), "one or more labels deep");
    assert!(!matches("pkg.example.com"), "the suffix itself is not below itself");
    assert!(!matches("evilpkg.example.com"), "no label boundary");
    assert!(!matches("pkg.example.com.evil.example"));
    assert!(!matches("a.pkg.example.co"));
    assert!(!wild.matches_name(&DnsName::new("a.pkg.example.com").unwrap(), 444, Protocol::Tcp));
    assert!(!wild.matches_name(&DnsName::new("a.pkg.example.com").unwrap(), 443, Protocol::Udp));
    assert!(!wild.matches("192.0.2.1".parse().unwrap(), 443, Protocol::Tcp));
}

#[test]
fn a_destination_matches_its_hosts_ports_and_protocol_only() {
    let net = tcp("10.20.0.0/24", 8000, 8010);
    let matches =
        |address: &str, port, protocol| net.matches(address.parse().unwrap(), port, protocol);
    assert!(matches("10.20.0.0", 8000, Protocol::Tcp));
    assert!(matches("10.20.0.255", 8010, Protocol::Tcp));
    assert!(matches("::ffff:10.20.0.9", 8005, Protocol::Tcp), "mapped is the same host");
    assert!(!matches("10.20.1.0", 8000, Protocol::Tcp));
    assert!(!matches("10.19.255.255", 8000, Protocol::Tcp));
    assert!(!matches("10.20.0.1", 7999, Protocol::Tcp));
    assert!(!matches("10.20.0.1", 8011, Protocol::Tcp));
    assert!(!matches("10.20.0.1", 8000, Protocol::Udp), "a TCP grant is none for UDP");
    assert!(!matches("::10.20.0.1", 8000, Protocol::Tcp), "an embedding is another host");
    assert!(!matches("64:ff9b::a14:1", 8000, Protocol::Tcp), "an embedding is another host");
    let everything_v6 = destination("2000::/3", 1, 65535, Protocol::Tcp);
    assert!(!everything_v6.matches("10.20.0.1".parse().unwrap(), 8000, Protocol::Tcp));
}

#[test]
fn one_address_and_its_longest_prefix_are_the_same_hosts() {
    assert!(pattern("10.20.0.1").covers(&pattern("10.20.0.1/32")));
    assert!(pattern("10.20.0.1/32").covers(&pattern("10.20.0.1")));
    assert!(pattern("2001:db8::1/128").covers(&pattern("2001:db8::1")));
}

#[test]
fn touching_ports_join_so_that_equal_sets_are_equal() {
    let host = || pattern("10.20.0.1");
    let range = |from, to| PortRange::new(from, to).unwrap();
    let new = |ports: Vec<PortRange>| {
        grantd_grant::Destination::new(host(), ports, Protocol::Tcp).unwrap()
    };
    let split = new(vec![range(11, 20), range(1, 10), range(5, 6), range(30, 30)]);
    let joined = new(vec![range(1, 20), range(30, 30)]);
    assert_eq!(split, joined);
    assert!(split.covers(&tcp("10.20.0.1", 10, 11)), "a range across both parts is covered");
    assert!(!split.covers(&tcp("10.20.0.1", 20, 30)), "the gap is not");
    assert_eq!(new(vec![range(65535, 65535), range(1, 65535)]).ports(), &[PortRange::ALL]);
    assert!(grantd_grant::Destination::new(host(), [], Protocol::Tcp).is_err());
}
