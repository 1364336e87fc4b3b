//! One of every event, for documentation, for tests of what reads records, and for trying out a collector.

mod parts;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use parts::connection;
use parts::text;
use uuid::Builder;

use crate::Producer;
use crate::event::{
    Connection, Direction, EndCause, Event, Finding, FindingKind, Grant, GrantEnded, GrantInForce,
    GrantRefused, Lifecycle, LifecycleKind, Loss, LossSource, RevocationApplied, RevocationRefused,
    Workload,
};
use crate::ocsf::Stamp;

/// An event that stands for its kind.
#[derive(Clone, Debug)]
pub struct Sample {
    /// A heading.
    pub name: &'static str,
    /// When such an event is written.
    pub when: &'static str,
    /// The event, with every field set that it can have.
    pub event: Event,
}

/// When the samples happened: 22 November 2026, 09:30 UTC, in Unix milliseconds.
pub const TIME_MS: u64 = 1_795_339_800_000;

/// One sample of each kind of event.
#[must_use]
pub fn all() -> Vec<Sample> {
    let sample = |name, when, event| Sample { name, when, event };
    vec![
        sample(
            "Connection allowed",
            "a connection, or a datagram to a new destination, was allowed",
            Event::ConnectionAllowed(connection()),
        ),
        sample(
            "Connection denied",
            "a connection, datagram, socket or packet was refused",
            Event::ConnectionDenied(parts::denied()),
        ),
        sample(
            "Connection closed",
            "an allowed connection ended by itself",
            Event::ConnectionClosed(parts::ended("")),
        ),
        sample(
            "Connection cut",
            "a live connection was ended because its grant ended",
            Event::ConnectionCut(parts::ended("expired")),
        ),
        sample(
            "Grant in force",
            "a grant is in the ledger and in the kernel, and was read back",
            Event::GrantInForce(parts::in_force()),
        ),
        sample(
            "Grant ended",
            "a grant is no longer in the kernel",
            Event::GrantEnded(parts::grant_ended()),
        ),
        sample(
            "Grant refused",
            "a pushed grant failed a check; nothing was programmed",
            Event::GrantRefused(parts::refused()),
        ),
        sample(
            "Revocation applied",
            "a revocation is in force in the kernel",
            Event::RevocationApplied(parts::revocation()),
        ),
        sample(
            "Revocation refused",
            "a pushed revocation failed a check; nothing was revoked",
            Event::RevocationRefused(parts::revocation_refused()),
        ),
        sample(
            "Call answered",
            "the push listener or the control socket answered",
            Event::ApiCall(parts::api_call()),
        ),
        sample(
            "Lifecycle",
            "the daemon started, stopped, reloaded, adopted, was frozen, thawed or disarmed",
            Event::Lifecycle(parts::lifecycle()),
        ),
        sample("Finding", "something is not as it should be", Event::Finding(parts::finding())),
        sample(
            "Finding: a process left",
            "a process of the enforced slice was moved out of it",
            Event::Finding(parts::task_left()),
        ),
        sample(
            "Finding: a process came late",
            "a process was moved into the slice, and its sockets from outside were ended",
            Event::Finding(parts::late_enrolment()),
        ),
        sample(
            "Finding: a delegated workload",
            "a cgroup between a workload and the root is not root's alone; no grant is taken for it",
            Event::Finding(parts::delegated()),
        ),
        sample(
            "Finding: a privileged workload",
            "a workload's task has dangerous capabilities; no grant is taken for it",
            Event::Finding(parts::privileged()),
        ),
        sample("Loss", "events are missing from the record", Event::Loss(parts::loss())),
    ]
}

/// Every kind, cause and source there is, and every event with nothing known about it: what a reader
/// must be able to take.
#[must_use]
pub fn extremes() -> Vec<Event> {
    use {EndCause as Cause, FindingKind as Found, LifecycleKind as Life, LossSource as Source};
    let mut events: Vec<Event> = all().into_iter().map(|sample| sample.event).collect();
    events.extend([
        Event::ConnectionAllowed(Connection::default()),
        Event::ConnectionDenied(Connection {
            direction: Direction::Inbound,
            ..Connection::default()
        }),
        Event::ConnectionDenied(local_v6()),
        Event::GrantInForce(GrantInForce::default()),
        Event::GrantRefused(GrantRefused::default()),
        Event::RevocationApplied(RevocationApplied::default()),
        Event::RevocationRefused(RevocationRefused::default()),
        Event::ApiCall(parts::control_call()),
    ]);
    let causes = [
        Cause::Expired,
        Cause::Revoked,
        Cause::Replaced,
        Cause::KeyWithdrawn,
        Cause::WorkloadRestarted,
        Cause::WorkloadGone,
        Cause::CeilingChanged,
        Cause::Reboot,
        Cause::LedgerLost,
        Cause::ClockStepped,
        Cause::Disarmed,
        Cause::KernelFailed,
    ];
    let ended = |cause| GrantEnded::new(Grant::default(), Workload::default(), cause);
    events.extend(causes.map(|cause| Event::GrantEnded(ended(cause))));
    let kinds = [
        Life::Start,
        Life::Stop,
        Life::Reload,
        Life::Adopt,
        Life::Freeze,
        Life::Thaw,
        Life::Disarm,
    ];
    events.extend(kinds.map(|kind| Event::Lifecycle(Lifecycle::new(kind))));
    let kinds = [
        Found::Tamper,
        Found::CanaryFailed,
        Found::NotEnforcing,
        Found::ClockStep,
        Found::ReplayOtherHash,
        Found::LedgerCorrupt,
        Found::KeysStale,
        Found::DecodeFailed,
        Found::SpoolRepaired,
        Found::TaskLeft,
        Found::LateEnrolment,
        Found::WorkloadDelegated,
        Found::WorkloadPrivileged,
    ];
    events.extend(kinds.map(|kind| Event::Finding(Finding::new(kind, ""))));
    let sources = [
        Source::KernelRing,
        Source::KernelQuota,
        Source::Decode,
        Source::Queue,
        Source::Retention,
        Source::Damage,
    ];
    events.extend(sources.map(|source| Event::Loss(Loss::new(source, 1))));
    events
}

/// Who writes the samples.
#[must_use]
pub fn producer() -> Producer {
    Producer {
        product: text("grantd"),
        version: text("0.1.0"),
        host_id: text("spiffe://example.org/host/build-7"),
        hostname: text("build-7"),
        boot_id: text("6f0c1a52-7b7e-4b5e-9a55-0f4f2f0d9b11"),
    }
}

/// The same stamp for the same number, unlike [`Stamp::new`].
#[must_use]
pub fn stamp(sequence: u64) -> Stamp {
    let time_ms = TIME_MS + sequence;
    let mut random = [0x5a; 10];
    for (byte, digit) in random.iter_mut().rev().zip(sequence.to_le_bytes()) {
        *byte = digit;
    }
    Stamp {
        sequence,
        time_ms,
        uid: Builder::from_unix_timestamp_millis(time_ms, &random).into_uuid(),
    }
}

fn local_v6() -> Connection {
    let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
    Connection {
        direction: Direction::Local,
        protocol: 17,
        source: Some(SocketAddr::new(loopback, 0)),
        destination: Some(SocketAddr::new(loopback, 53)),
        rewritten_to: Some(SocketAddr::new(loopback, 8053)),
        count: 0,
        ..Connection::default()
    }
}
