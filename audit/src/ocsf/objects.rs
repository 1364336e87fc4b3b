//! The OCSF objects that records are made of.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Serialize;

use super::record::Product;

type Text<'a> = Cow<'a, str>;

/// Serializes a struct whose every `Option` is left out when it is none.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident $(<$lt:lifetime>)? { $($field:ident: $type:ty),* $(,)? }
     $(optional { $($opt:ident: $opt_type:ty),+ $(,)? })?) => {
        $(#[$doc])*
        #[derive(Default, Serialize)]
        pub(super) struct $name $(<$lt>)? {
            $(pub(super) $field: $type,)*
            $($(#[serde(skip_serializing_if = "Option::is_none")]
            pub(super) $opt: Option<$opt_type>,)+)?
        }
    };
}

object!(
    /// This host.
    Device<'a> { type_id: u32 }
    optional { uid: Text<'a>, hostname: Text<'a>, boot_uid: Text<'a> }
);
object!(
    /// A person, an agent, or a local account.
    User<'a> { type_id: u32 }
    optional { uid: Text<'a>, name: Text<'a> }
);
object!(
    /// An executable. `type_id` 1 is a regular file.
    File<'a> { name: Text<'a>, path: Text<'a>, type_id: u32 }
    optional { uid: String }
);
object!(
    /// A container.
    Container<'a> { uid: Text<'a> }
    optional { name: Text<'a>, runtime: Text<'a> }
);
object!(
    /// A process. `uid` is pid and start, which no other process of this boot has together.
    Process<'a> { pid: u32 }
    optional {
        uid: String,
        name: Text<'a>,
        created_time: u64,
        cmd_line: Text<'a>,
        file: File<'a>,
        user: User<'a>,
        container: Container<'a>,
        parent_process: Box<Process<'a>>,
    }
);
object!(
    /// Who did it.
    Actor<'a> {}
    optional {
        user: User<'a>,
        app_uid: Text<'a>,
        app_name: Text<'a>,
        process: Process<'a>,
    }
);
object!(
    /// One end of a flow or call.
    Endpoint<'a> {}
    optional {
        ip: IpAddr,
        port: u16,
        hostname: Text<'a>,
        uid: Text<'a>,
        svc_name: Text<'a>,
    }
);
object!(
    /// A flow.
    ConnectionInfo { direction_id: u32, direction: &'static str }
    optional {
        uid: String,
        protocol_num: u8,
        protocol_name: &'static str,
        protocol_ver_id: u32,
    }
);
object!(
    /// What a flow carried.
    Traffic { bytes: u64, bytes_in: u64, bytes_out: u64, packets: u64, packets_in: u64, packets_out: u64 }
);
object!(
    /// Something that a record is about: a workload, a grant.
    Resource<'a> { name: Text<'a>, r#type: &'static str }
);
object!(
    /// A call.
    Api<'a> { operation: Text<'a>, service: Service }
    optional { request: Request<'a>, response: Response<'a> }
);
object!(
    /// What was called.
    Service { name: &'static str }
);
object!(
    /// The call's own id.
    Request<'a> { uid: Text<'a> }
);
object!(
    /// The call's answer.
    Response<'a> { code: u16 }
    optional { error: Text<'a>, error_message: Text<'a> }
);
object!(
    /// What was found.
    FindingInfo<'a> { uid: String, title: &'static str, types: [&'static str; 1], created_time: u64 }
    optional { desc: Text<'a>, tags: Vec<Tag<'a>>, product: Product<'a> }
);
object!(
    /// A named fact.
    Tag<'a> { name: Text<'a>, value: Text<'a> }
);
object!(
    /// A control group.
    Cgroup<'a> { path: Text<'a> }
    optional { uid: String }
);
object!(
    /// OCSF 1.9 `ai_agent`.
    AiAgent<'a> { uid: Text<'a> }
    optional { instance_uid: Text<'a> }
);
object!(
    /// OCSF 1.9 `delegation`: the grant as an authority that was handed on.
    Delegation<'a> { uid: Text<'a> }
    optional { issuer_uid: Text<'a>, expiration_time: u64 }
);
object!(
    /// What a grant rests on and what became of it.
    GrantFacts<'a> {}
    optional {
        txn: Text<'a>,
        ath: Text<'a>,
        okta_issuer: Text<'a>,
        okta_kid: Text<'a>,
        control_plane_kid: Text<'a>,
        slot: u32,
        generation: u32,
        issued_time: u64,
        jws_sha256: Text<'a>,
        replaces: Text<'a>,
        replaced_by: Text<'a>,
        revocation: Text<'a>,
        connections_cut: u64,
        check: u8,
        approval: Approval<'a>,
    }
);
object!(
    /// Who approved.
    Approval<'a> { by: Text<'a>, time: u64, id: Text<'a> }
);
object!(
    /// Where the kernel's stream stood.
    Kernel { cpu: u32, sequence: u64, boot_ns: String }
);
object!(
    /// Where a packet went instead.
    Rewritten { ip: String, port: u16 }
);
object!(
    /// A revocation.
    Revocation<'a> { id: Text<'a>, selectors: Vec<Text<'a>>, ended: Vec<Text<'a>> }
    optional { seq: u64, issued_before: u64 }
);
object!(
    /// The certificate of a TLS peer.
    PeerFacts<'a> { uris: Vec<Text<'a>> }
    optional { certificate_sha256: Text<'a> }
);
object!(
    /// A protection and whether it is in effect.
    Coverage<'a> { name: Text<'a>, active: bool }
    optional { detail: Text<'a> }
);
object!(
    /// The daemon's own state.
    State<'a> { kind: &'static str }
    optional {
        config_sha256: Text<'a>,
        ceiling_sha256: Text<'a>,
        live_grants: u64,
        coverage: Vec<Coverage<'a>>,
    }
);
object!(
    /// What is missing from the record.
    Lost<'a> { source: &'static str, events: u64, attempts: u64 }
    optional { first_sequence: u64, last_sequence: u64, cpu: u32, lanes: Vec<LostLane<'a>> }
);
object!(
    /// What one lane lost.
    LostLane<'a> { lane: Text<'a>, events: u64, attempts: u64 }
);

object!(
    /// What OCSF 1.8.0 has no place for. Room is kept for `attestation` as the last member.
    Unmapped<'a> {}
    optional {
        workload: Text<'a>,
        cgroup: Cgroup<'a>,
        ai_agent: AiAgent<'a>,
        delegation: Delegation<'a>,
        grant: GrantFacts<'a>,
        revocation: Revocation<'a>,
        peer: PeerFacts<'a>,
        hook: Text<'a>,
        rewritten_to: Rewritten,
        kernel: Kernel,
        duration_us: u64,
        state: State<'a>,
        loss: Lost<'a>,
    }
);
