//! What a person who writes a configuration file is told, and what the daemon makes of a good one.

mod faults;
mod files;
mod good;

use std::path::Path;

use super::{Config, ConfigFaults, Fault, FileFacts, Origin};

/// A file that uses most keys and has no fault.
pub(super) const GOOD: &str = r#"
host_id = "spiffe://example.org/host/build-7"

[okta]
issuer = "https://acme.okta.com/oauth2/aus123"
audience = "api://grantd"

[control_plane]
issuer = "https://control.example.org"
keys = "/etc/grantd/control-plane.jwks"
listen = "0.0.0.0:7443"
peers = ["spiffe://example.org/control-plane"]
tls = { certificate = "/etc/grantd/tls/host.pem", key = "/etc/grantd/tls/host.key", client_ca = "/etc/grantd/tls/ca.pem" }

[enforcement]
slice = "agents.slice"

[[workload]]
name = "coding-agent"
cgroup = "agents.slice/coding-agent.service"
subjects = [{ cid = "0oa4client" }]
max_ttl = "15m"

[[ceiling]]
scopes = ["net.prod-db"]
workloads = ["coding-agent"]
allow = [{ host = "db-1.internal", ports = [5432], protocol = "tcp" }]
max_ttl = "10m"
"#;

/// Root's file, 0644.
pub(super) const ROOTS: FileFacts = FileFacts { regular: true, uid: 0, mode: 0o644, euid: 0 };

pub(super) fn parse_as(text: &str, facts: FileFacts) -> Result<Config, ConfigFaults> {
    let file = Path::new("/etc/grantd/config.toml");
    Config::parse(text, &Origin { file, facts: &facts, credentials: None })
}

pub(super) fn parse(text: &str) -> Result<Config, ConfigFaults> {
    parse_as(text, ROOTS)
}

pub(super) fn faults(text: &str) -> Vec<Fault> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.faults,
    }
}

/// The good file with one piece of text replaced.
pub(super) fn changed(from: &str, to: &str) -> String {
    assert_eq!(GOOD.matches(from).count(), 1, "{from:?} is not once in the sample");
    GOOD.replace(from, to)
}

/// The good file with lines put at the start of a section (or of the file, for an empty name).
pub(super) fn with(section: &str, lines: &str) -> String {
    if section.is_empty() {
        return format!("{lines}\n{GOOD}");
    }
    changed(&format!("{section}\n"), &format!("{section}\n{lines}\n"))
}
