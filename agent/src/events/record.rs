//! One kernel event as one audit event.

use std::net::{IpAddr, SocketAddr};

use grantd_audit::event::{
    Cgroup, Connection, Direction, Event as AuditEvent, KernelStamp, Traffic, Workload,
};
use grantd_common::{Endpoint, Event, EventKind, GrantRef, Hook, Reason, WorkloadId};

use super::process::Processes;
use crate::clock::Now;
use crate::enforcer::Directory;

/// The audit event and its time in Unix milliseconds.
pub(super) fn record(
    event: &Event,
    (kind, hook, reason): (EventKind, Hook, Reason),
    directory: &Directory,
    processes: &mut Processes,
    now: Now,
) -> (AuditEvent, u64) {
    let ended = matches!(kind, EventKind::Closed | EventKind::Reset);
    let rewritten = reason == Reason::Rewritten;
    let asked = if rewritten { &event.allowed_to } else { &event.to };
    let connection = Connection {
        cookie: event.cookie,
        protocol: event.to.protocol.0,
        direction: direction(event, hook, asked),
        destination: socket_address(asked),
        rewritten_to: if rewritten { socket_address(&event.to) } else { None },
        hook: hook.as_str().into(),
        reason: cause(kind, reason, || {
            directory.end_of_grant(GrantRef::new(event.slot, event.generation))
        })
        .into(),
        workload: Some(workload(event, directory)),
        grant: directory
            .grant(GrantRef::new(event.slot, event.generation))
            .map(|grant| grant.as_ref().clone()),
        process: processes.describe(event, now.boot_ns),
        kernel: Some(KernelStamp {
            cpu: event.cpu,
            sequence: event.sequence,
            boot_ns: event.boot_ns,
        }),
        traffic: ended.then(|| traffic(event)),
        duration_ms: ended.then(|| event.boot_ns.saturating_sub(event.opened_boot_ns) / 1_000_000),
        ..Connection::default()
    };
    let age_ms = now.boot_ns.saturating_sub(event.boot_ns) / 1_000_000;
    let at_ms = now.unix_ms().saturating_sub(age_ms);
    let audit = match kind {
        EventKind::Allowed => AuditEvent::ConnectionAllowed(connection),
        EventKind::Denied | EventKind::Dropped => AuditEvent::ConnectionDenied(connection),
        EventKind::Closed => AuditEvent::ConnectionClosed(connection),
        EventKind::Reset => AuditEvent::ConnectionCut(connection),
    };
    (audit, at_ms)
}

/// Why, as records show it: nothing for what was granted.
fn cause(
    kind: EventKind,
    reason: Reason,
    ended: impl FnOnce() -> Option<&'static str>,
) -> &'static str {
    match (kind, reason) {
        (EventKind::Allowed | EventKind::Closed, Reason::Granted) => "",
        // The grant's own record says by whom and why.
        (EventKind::Reset, Reason::Ended) => "revoked",
        (EventKind::Reset, Reason::Superseded) => ended().unwrap_or(reason.as_str()),
        (_, reason) => reason.as_str(),
    }
}

fn traffic(event: &Event) -> Traffic {
    let [bytes_out, bytes_in, packets_out, packets_in] = event.counters;
    Traffic { bytes_in, bytes_out, packets_in, packets_out }
}

fn workload(event: &Event, directory: &Directory) -> Workload {
    let mut shown =
        directory.workload(event.workload).map(|w| w.as_ref().clone()).unwrap_or_default();
    // Of an unknown workload the cgroup is all that there is to find it by.
    if event.workload == WorkloadId::UNKNOWN && event.cgroup != 0 {
        shown.cgroup = Cgroup { id: event.cgroup, path: String::new() };
    }
    shown
}

fn direction(event: &Event, hook: Hook, to: &Endpoint) -> Direction {
    let loopback = match to.address.to_ip() {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback(),
    };
    match hook {
        Hook::Ingress => Direction::Inbound,
        _ if loopback => Direction::Local,
        // A connection that the other end opened is first seen when it stands.
        Hook::SockOps if event.slot == GrantRef::INBOUND.slot() => Direction::Inbound,
        Hook::SockCreate
        | Hook::Connect4
        | Hook::Connect6
        | Hook::Sendmsg4
        | Hook::Sendmsg6
        | Hook::Egress
        | Hook::SockOps
        | Hook::SockRelease
        | Hook::Setsockopt
        | Hook::GuardSocketCreate
        | Hook::GuardSocketConnect
        | Hook::GuardSocketSendmsg
        | Hook::GuardSocketRecvmsg
        | Hook::GuardFileReceive
        | Hook::GuardUnixStreamConnect
        | Hook::GuardUnixMaySend
        | Hook::GuardPtraceAccessCheck
        | Hook::GuardBpf
        | Hook::GuardUsernsCreate
        | Hook::GuardFilePermission => Direction::Outbound,
    }
}

/// None where there is no address: when the socket itself was refused.
fn socket_address(to: &Endpoint) -> Option<SocketAddr> {
    let known = to.address != grantd_common::Address::UNSPECIFIED || to.port.get() != 0;
    known.then(|| SocketAddr::new(to.address.to_ip(), to.port.get()))
}
