//! Devices that carry packets past the IP stack.

use std::path::Path;

use super::{Files, Finding, Severity, Subject};

const DEVICES: [&str; 8] = [
    "/dev/net/tun",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
    "/dev/vsock",
    "/dev/kvm",
    "/dev/infiniband/rdma_cm",
    "/dev/vfio/vfio",
    "/dev/ppp",
];

pub(super) fn check(files: &Files<'_>, subject: &Subject, found: &mut Vec<Finding>) {
    for device in DEVICES {
        let Some(owner) = files.owner(Path::new(device)) else { continue };
        let accounts = subject.workloads.iter().filter_map(|w| w.account.as_ref().map(|a| (w, a)));
        let open: Vec<&str> = accounts
            .filter(|(_, account)| owner.writable_by(account))
            .map(|(workload, _)| workload.name.as_str())
            .collect();
        if !open.is_empty() {
            // A tun interface takes CAP_NET_ADMIN as well, which agents do not have.
            let severity =
                if device == "/dev/net/tun" { Severity::Note } else { Severity::Warning };
            found.push(Finding {
                severity,
                check: "device",
                threats: &["C4"],
                found: format!("{} may open {device}", open.join(", ")),
                remedy: "PrivateDevices=yes in the unit (the drop-in has it), or `chmod 0600` by a udev rule"
                    .into(),
            });
        }
    }
}
