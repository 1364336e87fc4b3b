//! Sockets of programs that would send on an agent's behalf.

use std::path::Path;

use super::{Files, Finding, Severity, Subject};

/// Path, what listens there, and the ways out that it is.
const SOCKETS: [(&str, &str, &[&str]); 17] = [
    ("/run/docker.sock", "docker", &["D1"]),
    ("/run/podman/podman.sock", "podman", &["D1"]),
    ("/run/containerd/containerd.sock", "containerd", &["D1"]),
    ("/run/crio/crio.sock", "CRI-O", &["D1"]),
    ("/run/buildkit/buildkitd.sock", "BuildKit", &["D1", "D3"]),
    ("/run/libvirt/libvirt-sock", "libvirt", &["D1"]),
    ("/run/snapd.socket", "snapd", &["D1", "D2"]),
    ("/var/snap/lxd/common/lxd/unix.socket", "LXD", &["D1"]),
    ("/run/dbus/system_bus_socket", "the system bus", &["D2"]),
    ("/run/systemd/private", "systemd", &["D2"]),
    ("/run/systemd/resolve/io.systemd.Resolve", "resolved", &["D4"]),
    ("/run/systemd/userdb/io.systemd.DynamicUser", "user records", &["D4"]),
    ("/run/nscd/socket", "nscd", &["D4"]),
    ("/run/avahi-daemon/socket", "avahi", &["D4", "E2"]),
    ("/run/cups/cups.sock", "CUPS", &["D7"]),
    ("/dev/log", "the system's log, which may be forwarded", &["D7"]),
    ("/tmp/.X11-unix/X0", "the X server", &["D3"]),
];

pub(super) fn check(files: &Files<'_>, subject: &Subject, found: &mut Vec<Finding>) {
    for (path, what, threats) in SOCKETS {
        let Some(owner) = files.owner(Path::new(path)) else { continue };
        let open: Vec<&str> = subject
            .workloads
            .iter()
            .filter(|w| w.account.as_ref().is_some_and(|account| owner.writable_by(account)))
            .map(|w| w.name.as_str())
            .collect();
        if !open.is_empty() {
            found.push(Finding {
                severity: Severity::Warning,
                check: "socket",
                threats,
                found: format!("{what} listens at {path}, which {} may use", open.join(", ")),
                remedy: "start the agent with `grantctl run` or with the unit drop-in, which hide it; or \
                         take the account's right to write to it"
                    .into(),
            });
        }
    }
}
