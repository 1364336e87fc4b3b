//! The record of a datagram socket that was cut. Ends of TCP connections the kernel reports itself.

use std::net::SocketAddr;

use grantd_audit::Event;
use grantd_audit::event::{Connection, Direction, Process, Traffic};
use grantd_common::{Protocol, Reason, SocketState};

use super::fate::Fate;
use crate::enforcer::Enforcer;
use crate::kernel::DiagSocket;

impl Enforcer {
    pub(super) fn audit_cut(&self, socket: &DiagSocket, fate: Fate) {
        let (Some(state), Fate::Cut(reason)) = (&socket.state, fate) else { return };
        if socket.protocol != Protocol::UDP {
            return;
        }
        self.directory.put_end(socket.cookie, state.allowed_boot_ns);
        let now = self.clock.now();
        let [bytes_out, bytes_in, packets_out, packets_in] = state.counters;
        let connection = Connection {
            cookie: socket.cookie,
            protocol: socket.protocol.0,
            direction: direction(&socket.remote),
            source: Some(socket.local),
            destination: Some(socket.remote),
            hook: "sock_destroy".into(),
            reason: cause(reason, self.directory.end_of_grant(state.grant)).into(),
            workload: self.directory.workload(state.workload).map(|w| w.as_ref().clone()),
            grant: self.directory.grant(state.grant).map(|g| g.as_ref().clone()),
            process: process(state),
            traffic: Some(Traffic { bytes_in, bytes_out, packets_in, packets_out }),
            duration_ms: Some(now.boot_ns.saturating_sub(state.allowed_boot_ns) / 1_000_000),
            ..Connection::default()
        };
        self.recorder.record(Event::ConnectionCut(connection), now.unix_ms());
    }
}

fn direction(remote: &SocketAddr) -> Direction {
    if remote.ip().is_loopback() { Direction::Local } else { Direction::Outbound }
}

/// As in the kernel's own records.
fn cause(reason: Reason, ended: Option<&'static str>) -> &'static str {
    if matches!(reason, Reason::Ended | Reason::StaleGeneration) {
        return "revoked";
    }
    let told = if reason == Reason::Superseded { ended } else { None };
    told.unwrap_or(reason.as_str())
}

/// The task that was last allowed; it may be gone.
fn process(state: &SocketState) -> Option<Process> {
    if state.pid == 0 {
        return None;
    }
    let end = state.comm.iter().position(|b| *b == 0).unwrap_or(state.comm.len());
    let comm = String::from_utf8_lossy(state.comm.get(..end).unwrap_or_default()).into_owned();
    Some(Process { pid: state.pid, uid: Some(state.uid), comm, ..Process::default() })
}
