//! What the daemon makes of a file without faults.

use std::net::IpAddr;
use std::time::Duration;

use grantd_grant::WorkloadName;
use grantd_grant::policy::{ApprovalRule, Deny, SubjectPattern};
use grantd_grant::{Destination, HostPattern, PortRange, Protocol};

use super::*;
use crate::config::{CgroupPath, GuardMode, Unsynchronised};

fn good() -> Config {
    match parse(GOOD) {
        Ok(config) => config,
        Err(faults) => panic!("the sample has faults:\n{faults}"),
    }
}

fn denied(denies: &[Deny], host: &str, port: u16) -> bool {
    let host = HostPattern::from_host(host).expect("host");
    let ports = vec![PortRange::single(port).expect("port")];
    let destination = Destination::new(host, ports, Protocol::Tcp).expect("destination");
    denies.iter().any(|deny| deny.overlaps(&destination))
}

#[test]
fn every_value_of_the_file_arrives() {
    let config = good();
    assert_eq!(config.host_id.as_str(), "spiffe://example.org/host/build-7");
    assert_eq!(config.okta.issuer.as_str(), "https://acme.okta.com/oauth2/aus123");
    assert_eq!(config.control_plane.listen.port(), 7443);
    assert_eq!(config.control_plane.tls.crl, None);
    assert_eq!(config.workloads.len(), 1);
    assert_eq!(config.workloads[0].cgroup.as_str(), "agents.slice/coding-agent.service");
    assert!(
        config.workloads[0].launch.unhide.is_empty(),
        "nothing is shown unless the file says so"
    );
    let policy = &config.policy;
    assert_eq!(policy.host_id(), &config.host_id);
    assert_eq!(policy.okta().audience.as_str(), "api://grantd");
    let name = WorkloadName::new("coding-agent").expect("name");
    let workload = policy.workload(&name).expect("known");
    assert_eq!(workload.max_ttl, Duration::from_secs(900));
    assert!(
        matches!(&workload.subjects[..], [SubjectPattern::Client(id)] if id.as_str() == "0oa4client")
    );
    let [entry] = policy.ceiling() else { panic!("one entry") };
    assert_eq!(entry.max_ttl, Some(Duration::from_secs(600)));
    assert_eq!(entry.approval, ApprovalRule::Optional);
    assert_eq!(entry.allow[0].to_string(), "tcp db-1.internal:5432");
}

#[test]
fn who_may_connect_to_a_workload_is_read_and_without_a_word_it_is_nobody() {
    assert_eq!(good().workloads[0].listen, []);
    assert_eq!(good().workloads[0].max_sockets, 65_536);
    assert!(!good().workloads[0].allow_privileged);
    let text = with(
        "[[workload]]",
        "max_sockets = 12\nlisten = [{ port = 8080, protocol = \"udp\", from = [\"10.2.0.0/16\", \"fd00::1\"] }]",
    );
    let workload = parse(&text).expect("no faults").workloads.remove(0);
    assert_eq!(workload.max_sockets, 12);
    let [listen] = &workload.listen[..] else { panic!("one rule") };
    assert_eq!((listen.port, listen.protocol, listen.from.len()), (8080, Protocol::Udp, 2));
}

#[test]
fn what_the_file_does_not_say_is_the_strict_choice() {
    let config = good();
    assert_eq!(config.unsynchronised, Unsynchronised::Refuse);
    assert!(config.audit.required, "grants without evidence would be the lax choice");
    assert!(!config.okta.development_http);
    assert_eq!(config.okta.staleness, Duration::from_secs(24 * 3600));
    assert_eq!(config.canary_period, Duration::from_secs(5));
    assert_eq!(config.paths.state, Path::new("/var/lib/grantd"));
    assert_eq!(config.audit.dir, Path::new("/var/lib/grantd/audit"));
    assert_eq!(config.enforcement.bpffs, Path::new("/sys/fs/bpf"));
    assert_eq!(config.enforcement.cgroup_root, None);
    let scopes: Vec<_> = config.policy.okta().required_scopes.iter().collect();
    assert_eq!(scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>(), ["host.connect"]);
}

#[test]
fn a_file_without_workloads_and_ceiling_allows_nothing_and_is_no_fault() {
    let text = GOOD.split("[[workload]]").next().expect("the part before the workloads");
    let config = parse(text).expect("confining everything is a good configuration");
    assert!(config.workloads.is_empty());
    assert!(config.policy.ceiling().is_empty());
}

#[test]
fn metadata_services_and_grantds_own_port_are_never_granted() {
    let config = good();
    let denies = config.policy.denies();
    assert!(denied(denies, "169.254.169.254", 80));
    assert!(denied(denies, "fd00:ec2::254", 80));
    assert!(denied(denies, "10.9.9.9", 7443), "listening everywhere, it is denied everywhere");
    assert!(denied(denies, "2001:db8::1", 7443));
    assert!(!denied(denies, "10.9.9.9", 7444));
    let here = parse(&changed("0.0.0.0:7443", "10.1.1.1:7443")).expect("good");
    assert!(denied(here.policy.denies(), "10.1.1.1", 7443));
    assert!(!denied(here.policy.denies(), "10.9.9.9", 7443), "another host's port is not ours");
}

#[test]
fn the_owners_denies_are_heeded() {
    let text = format!(
        "{GOOD}\n[[deny]]\ncidr = \"10.66.0.0/16\"\n[[deny]]\nhost = \"10.67.0.1\"\nports = [22]\nprotocol = \"tcp\"\n"
    );
    let config = parse(&text).expect("good");
    let denies = config.policy.denies();
    assert!(denied(denies, "10.66.1.2", 1) && denied(denies, "10.67.0.1", 22));
    assert!(!denied(denies, "10.67.0.1", 23));
}

#[test]
fn the_tls_key_can_come_from_systemd() {
    let with_credentials = |text: &str| {
        let file = Path::new("/etc/grantd/config.toml");
        let credentials = Some(Path::new("/run/credentials/grantd.service"));
        Config::parse(text, &Origin { file, facts: &ROOTS, credentials })
            .map(|config| config.control_plane.tls.key)
    };
    let unnamed = changed(r#"key = "/etc/grantd/tls/host.key", "#, "");
    let named = changed(r#""/etc/grantd/tls/host.key""#, r#""credential:push.key""#);
    let directory = Path::new("/run/credentials/grantd.service");
    assert_eq!(with_credentials(&unnamed).expect("good"), directory.join("tls.key"));
    assert_eq!(with_credentials(&named).expect("good"), directory.join("push.key"));
    assert_eq!(with_credentials(GOOD).expect("good"), Path::new("/etc/grantd/tls/host.key"));
}

#[test]
fn levels_are_counted_by_whole_names() {
    let path = |text| CgroupPath::new(text).expect("path");
    let slice = path("agents.slice");
    assert_eq!(path("agents.slice").levels_below(&slice), Some(0));
    assert_eq!(path("agents.slice/a").levels_below(&slice), Some(1));
    assert_eq!(path("agents.slice/a/b").levels_below(&slice), Some(2));
    assert_eq!(path("agents.slice2/a").levels_below(&slice), None);
    assert_eq!(path("x/agents.slice/a").levels_below(&slice), None);
}

#[test]
fn every_sample_of_the_reference_is_a_good_file() {
    let reference = include_str!("../../../../docs/configuration.md");
    let samples: Vec<&str> = reference
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("closed"))
        .filter(|sample| sample.contains("host_id"))
        .collect();
    assert!(samples.len() >= 2, "the reference has lost its samples");
    for sample in samples {
        if let Err(faults) = parse(sample) {
            panic!("a user who copies this sample gets:\n{faults}\n{sample}");
        }
    }
}

#[test]
fn the_sample_that_is_installed_is_a_good_file() {
    if let Err(faults) = parse(include_str!("../../../../systemd/config.toml")) {
        panic!("a fresh installation starts with:\n{faults}");
    }
}

#[test]
fn an_address_of_the_listener_may_be_ipv6() {
    let config = parse(&changed("0.0.0.0:7443", "[::1]:7443")).expect("good");
    assert_eq!(config.control_plane.listen.ip(), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
}

#[test]
fn the_guard_is_used_where_it_can_be_and_opens_only_what_is_named() {
    assert_eq!(good().guard, GuardMode::Auto);
    assert!(good().workloads[0].unix_sockets.is_empty() && !good().workloads[0].user_namespaces);
    let text = format!("{GOOD}\n[guard]\nmode = \"required\"\n");
    assert_eq!(parse(&text).expect("good").guard, GuardMode::Required);
    assert!(parse(&format!("{GOOD}\n[guard]\nmode = \"on\"\n")).is_err());
    let text = with("[[workload]]", "unix_sockets = [\"/run/a.sock\"]\nuser_namespaces = true");
    let workload = parse(&text).expect("no faults").workloads.remove(0);
    assert_eq!(workload.unix_sockets, [Path::new("/run/a.sock")]);
    assert!(workload.user_namespaces);
}
