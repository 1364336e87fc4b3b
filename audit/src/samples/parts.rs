//! The samples' events, with every field set.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::TIME_MS;
use crate::event::{
    ApiCall, ApiKind, Approval, Cgroup, Connection, Container, Coverage, Direction, EndCause,
    Finding, FindingKind, Grant, GrantEnded, GrantInForce, GrantRefused, KernelStamp, LaneLoss,
    Lifecycle, LifecycleKind, Loss, LossSource, Peer, Process, RevocationApplied,
    RevocationRefused, Subject, Traffic, Workload,
};

/// An allowed connection with every field set.
#[must_use]
pub fn connection() -> Connection {
    Connection {
        cookie: 40_961,
        protocol: 6,
        direction: Direction::Outbound,
        source: Some(v4(10, 20, 0, 7, 51_544)),
        destination: Some(v4(10, 20, 0, 40, 5432)),
        destination_name: text("db-1.internal"),
        rewritten_to: None,
        hook: "connect4".into(),
        reason: "".into(),
        count: 1,
        workload: Some(workload()),
        grant: Some(grant()),
        process: Some(process()),
        traffic: None,
        duration_ms: None,
        kernel: Some(KernelStamp { cpu: 1, sequence: 8_812, boot_ns: 912_340_567_890_123 }),
    }
}

pub(super) fn denied() -> Connection {
    Connection {
        destination: Some(v4(10, 20, 0, 41, 22)),
        destination_name: String::new(),
        rewritten_to: Some(v4(172, 17, 0, 3, 22)),
        reason: "no_grant".into(),
        count: 3,
        grant: None,
        ..connection()
    }
}

pub(super) fn ended(reason: &'static str) -> Connection {
    Connection {
        reason: reason.into(),
        traffic: Some(Traffic {
            bytes_in: 48_211,
            bytes_out: 3_902,
            packets_in: 61,
            packets_out: 58,
        }),
        duration_ms: Some(61_204),
        ..connection()
    }
}

pub(super) fn in_force() -> GrantInForce {
    GrantInForce {
        grant: grant(),
        workload: workload(),
        destinations: vec![text("tcp db-1.internal:5432"), text("tcp 10.20.0.0/24:8000-8010")],
        issued_s: 1_795_339_799,
        jws_sha256: text("9b74c9897bac770ffc029102a200c5de3e4b7c1a5c2a7f0f5f7a4d8e6b1c2d3e"),
        replaces: text("01JD5E0N2M4Q8W1Z3X5C7V9B1N"),
        approval: Some(Approval { by: text("00u9zz4k2"), at_s: 1_795_339_750, id: text("apr-31") }),
        peer: Some(control_plane()),
        apply_us: Some(2_840),
    }
}

pub(super) fn grant_ended() -> GrantEnded {
    GrantEnded {
        destinations: vec![text("tcp db-1.internal:5432")],
        replaced_by: text("01JD5E5V7B9N1M3K5J7H9G1F3D"),
        revocation: text("rev-0042"),
        peer: Some(control_plane()),
        connections_cut: Some(2),
        detail: text("revoked by the control plane"),
        ..GrantEnded::new(grant(), workload(), EndCause::Revoked)
    }
}

pub(super) fn refused() -> GrantRefused {
    GrantRefused {
        reason: "over_ceiling".into(),
        check: 15,
        detail: text(
            "tcp db-9.internal:5432 is not inside any ceiling entry that scope net.prod-db satisfies",
        ),
        grant: Some(Grant { slot: None, generation: None, ..grant() }),
        workload: Some(workload()),
        destinations: vec![text("tcp db-9.internal:5432")],
        peer: Some(control_plane()),
    }
}

pub(super) fn revocation() -> RevocationApplied {
    RevocationApplied {
        id: text("rev-0042"),
        seq: Some(42),
        selectors: vec![text("sub=00u1ab7xk"), text("workload=coding-agent")],
        issued_before_s: Some(1_795_339_800),
        ended: vec![text("01JD5E2C3V5B7N9M1K3J5H7G9F")],
        peer: Some(control_plane()),
        apply_us: Some(910),
    }
}

pub(super) fn revocation_refused() -> RevocationRefused {
    RevocationRefused {
        reason: "sequence_not_newer".into(),
        detail: text("seq 41 is not above 42"),
        id: text("rev-0041"),
        peer: Some(control_plane()),
    }
}

pub(super) fn api_call() -> ApiCall {
    ApiCall {
        peer: control_plane(),
        kind: ApiKind::Create,
        operation: text("POST /v1/grants"),
        request_id: text("7c1e9f"),
        status: 403,
        reason: "over_ceiling".into(),
        detail: text("the grant asks for more than this host's ceiling allows"),
        about: text("01JD5E2C3V5B7N9M1K3J5H7G9F"),
        duration_us: Some(3_120),
    }
}

pub(super) fn control_call() -> ApiCall {
    ApiCall {
        peer: Peer::Local { process: Box::new(process()), socket: text("/run/grantd/ctl.sock") },
        kind: ApiKind::Update,
        operation: text("ctl.freeze"),
        request_id: String::new(),
        status: 0,
        reason: "".into(),
        detail: String::new(),
        about: String::new(),
        duration_us: None,
    }
}

pub(super) fn lifecycle() -> Lifecycle {
    let protection =
        |name, active, detail| Coverage { name: text(name), active, detail: text(detail) };
    Lifecycle {
        detail: text("adopted the programs of an earlier run"),
        peer: Some(Peer::Daemon),
        config_sha256: text("5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"),
        ceiling_sha256: text("6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        live_grants: Some(3),
        coverage: vec![
            protection("connect", true, ""),
            protection("packets", true, "egress and ingress"),
            protection("lsm", false, "this kernel refuses BPF LSM programs"),
        ],
        ..Lifecycle::new(LifecycleKind::Start)
    }
}

pub(super) fn finding() -> Finding {
    let detail =
        "a grant id came back with other content; the control plane or its key may be compromised";
    Finding {
        grant: Some(Grant { slot: None, generation: None, ..grant() }),
        workload: Some(workload()),
        process: None,
        peer: Some(control_plane()),
        evidence: vec![
            ("jws_sha256".into(), text("9b74c9897bac770f…")),
            ("earlier_jws_sha256".into(), text("1f0c2ab94de0317a…")),
        ],
        ..Finding::new(FindingKind::ReplayOtherHash, detail)
    }
}

pub(super) fn task_left() -> Finding {
    let detail = "process 4711 (psql) of coding-agent left the enforced slice: process 1 of uid 0 moved it. \
                  What it opens now is not confined; end it, and find out who could move it";
    Finding {
        workload: Some(workload()),
        process: Some(moved()),
        evidence: vec![
            ("by_pid".into(), text("1")),
            ("by_uid".into(), text("0")),
            ("to_cgroup_id".into(), text("1187")),
        ],
        ..Finding::new(FindingKind::TaskLeft, detail)
    }
}

pub(super) fn late_enrolment() -> Finding {
    let detail = "process 4711 (psql) came into coding-agent with 2 sockets that were made outside; 2 of them \
                  were ended. Start agents inside (`grantctl run`)";
    Finding {
        workload: Some(workload()),
        process: Some(moved()),
        evidence: vec![
            ("sockets".into(), text("2")),
            ("ended".into(), text("2")),
            ("by_pid".into(), text("1")),
            ("by_uid".into(), text("0")),
        ],
        ..Finding::new(FindingKind::LateEnrolment, detail)
    }
}

pub(super) fn delegated() -> Finding {
    let detail = "workload coding-agent can be moved out of its confinement: \
                  /sys/fs/cgroup/agents.slice/cgroup.procs belongs to uid 997. Give the cgroup back to root \
                  (Delegate=no, chown root); until then no grant is taken for it";
    Finding { workload: Some(workload()), ..Finding::new(FindingKind::WorkloadDelegated, detail) }
}

pub(super) fn privileged() -> Finding {
    let detail = "task 4711 (psql) of workload coding-agent has NET_RAW: it can undo what confines it. Start it \
                  without (`grantctl run`, or CapabilityBoundingSet= in its unit), or set \
                  allow_privileged = true; until then no grant is taken for it";
    Finding { workload: Some(workload()), ..Finding::new(FindingKind::WorkloadPrivileged, detail) }
}

fn moved() -> Process {
    Process { pid: 4_711, comm: text("psql"), ..Process::default() }
}

pub(super) fn loss() -> Loss {
    Loss {
        attempts: 1_500,
        sequences: Some((20_481, 21_480)),
        cpu: None,
        workload: None,
        first_ms: Some(TIME_MS - 400),
        last_ms: Some(TIME_MS),
        lanes: vec![LaneLoss { lane: "allowed".into(), events: 1_000, attempts: 1_500 }],
        ..Loss::new(LossSource::Queue, 1_000)
    }
}

fn grant() -> Grant {
    Grant {
        id: text("01JD5E2C3V5B7N9M1K3J5H7G9F"),
        txn: text("req-7781"),
        subject: Subject {
            uid: text("00u1ab7xk"),
            client_id: text("0oa4client"),
            actor: text("wlp8agent"),
        },
        issuer: text("https://control.example.org"),
        control_plane_kid: text("cp-2026-11"),
        okta_issuer: text("https://acme.okta.com/oauth2/aus123"),
        okta_kid: text("okta-key-9"),
        ath: text("6jV2c7r9Xn0Qm4bYt1Lk8wZs3Hd5Pf7Ga2Ev9Ru0Ti4"),
        expires_s: Some(1_795_340_699),
        slot: Some(17),
        generation: Some(4),
    }
}

fn workload() -> Workload {
    Workload {
        name: text("coding-agent"),
        cgroup: Cgroup { id: 8_213, path: text("/agents.slice/coding-agent.service") },
        invocation_id: text("4f2b9d0c6a7e4d1f8b3a5c9e7d1f2a3b"),
    }
}

fn process() -> Process {
    let parent = Process {
        pid: 4_301,
        start_boot_ns: Some(901_220_000_000_000),
        started_ms: Some(TIME_MS - 11_120_000),
        uid: Some(997),
        comm: text("agent"),
        exe: text("/usr/bin/agent"),
        ..Process::default()
    };
    Process {
        pid: 4_711,
        start_boot_ns: Some(912_340_000_000_000),
        started_ms: Some(TIME_MS - 567),
        uid: Some(997),
        comm: text("psql"),
        exe: text("/usr/lib/postgresql/17/bin/psql"),
        exe_inode: Some(1_311_768),
        cmd_line: text("psql -h db-1.internal -d orders"),
        container: Some(Container {
            uid: text("3e9a1f0c2b7d"),
            name: text("coding-agent-1"),
            runtime: text("podman"),
        }),
        parent: Some(Box::new(parent)),
    }
}

fn control_plane() -> Peer {
    Peer::Tls {
        address: v4(10, 20, 0, 2, 40_112),
        uris: vec![text("spiffe://example.org/control-plane")],
        certificate_sha256: text(
            "d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35",
        ),
    }
}

fn v4(a: u8, b: u8, c: u8, d: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
}

pub(super) fn text(text: &str) -> String {
    text.to_owned()
}
