//! Classes 6003, API Activity, and 6002, Application Lifecycle: what was asked of the daemon and what it did.

use std::borrow::Cow;

use super::names::{self, Id, Kind};
use super::objects::{Api, Coverage, Request, Resource, Response, Revocation, Service, State};
use super::record::{Context, Record};
use crate::event::{
    ApiCall, ApiKind, Lifecycle, LifecycleKind, Peer, RevocationApplied, RevocationRefused,
};
use crate::text;

const APPLY_REVOCATION: &str = "revocation.apply";

pub(super) fn api_call<'a>(context: &Context<'a>, call: &'a ApiCall) -> Record<'a> {
    let cutter = context.cutter;
    let kind = match call.kind {
        ApiKind::Create => &names::API_CREATE,
        ApiKind::Read => &names::API_READ,
        ApiKind::Update => &names::API_UPDATE,
        ApiKind::Delete => &names::API_DELETE,
    };
    let failed = !call.reason.is_empty();
    let (severity, status) =
        if failed { (names::LOW, names::FAILURE) } else { (names::INFORMATIONAL, names::SUCCESS) };
    let mut record = call_record(context, kind, severity, status, Some(&call.peer));
    record.status_code = cutter.known(&call.reason, text::ID);
    record.status_detail = cutter.known(&call.detail, text::DETAIL);
    record.metadata.correlation_uid = cutter.known(&call.about, text::ID);
    record.unmapped.duration_us = call.duration_us;
    record.api = Some(Api {
        operation: cutter.cut(&call.operation, text::ID),
        service: Service { name: service_of(&call.peer) },
        request: cutter.known(&call.request_id, text::ID).map(|uid| Request { uid }),
        response: Some(Response {
            code: call.status,
            error: cutter.known(&call.reason, text::ID),
            error_message: cutter.known(&call.detail, text::DETAIL),
        }),
    });
    record
}

pub(super) fn revocation_applied<'a>(
    context: &Context<'a>,
    event: &'a RevocationApplied,
) -> Record<'a> {
    let cutter = context.cutter;
    let peer = event.peer.as_ref();
    let mut record = call_record(context, &names::API_DELETE, names::MEDIUM, names::SUCCESS, peer);
    record.metadata.correlation_uid = cutter.known(&event.id, text::ID);
    record.status_code = Some("applied".into());
    record.api = Some(revocation_call(peer));
    record.resources = cutter
        .list(&event.ended, text::ID)
        .into_iter()
        .map(|name| Resource { name, r#type: "grant" })
        .collect();
    record.unmapped.duration_us = event.apply_us;
    record.unmapped.revocation = Some(Revocation {
        id: cutter.cut(&event.id, text::ID),
        selectors: cutter.list(&event.selectors, text::ITEM),
        ended: cutter.list(&event.ended, text::ID),
        seq: event.seq,
        issued_before: event.issued_before_s.map(|seconds| seconds.saturating_mul(1000)),
    });
    record.judged(names::ACTION_ALLOWED, names::ACCESS_REVOKED)
}

pub(super) fn revocation_refused<'a>(
    context: &Context<'a>,
    event: &'a RevocationRefused,
) -> Record<'a> {
    let cutter = context.cutter;
    let peer = event.peer.as_ref();
    let mut record = call_record(context, &names::API_DELETE, names::MEDIUM, names::FAILURE, peer);
    record.metadata.correlation_uid = cutter.known(&event.id, text::ID);
    record.status_code = cutter.known(&event.reason, text::ID);
    record.status_detail = cutter.known(&event.detail, text::DETAIL);
    record.api = Some(revocation_call(peer));
    record.judged(names::ACTION_DENIED, names::BLOCKED)
}

pub(super) fn lifecycle<'a>(context: &Context<'a>, event: &'a Lifecycle) -> Record<'a> {
    let cutter = context.cutter;
    let (kind, name, severity) = match event.kind {
        LifecycleKind::Start => (&names::LIFECYCLE_START, "start", names::INFORMATIONAL),
        LifecycleKind::Stop => (&names::LIFECYCLE_STOP, "stop", names::LOW),
        LifecycleKind::Reload => (&names::LIFECYCLE_UPDATE, "reload", names::INFORMATIONAL),
        LifecycleKind::Adopt => (&names::LIFECYCLE_OTHER, "adopt", names::INFORMATIONAL),
        LifecycleKind::Freeze => (&names::LIFECYCLE_OTHER, "freeze", names::MEDIUM),
        LifecycleKind::Thaw => (&names::LIFECYCLE_OTHER, "thaw", names::MEDIUM),
        LifecycleKind::Disarm => (&names::LIFECYCLE_DISABLE, "disarm", names::HIGH),
    };
    let (severity, status) =
        if event.success { (severity, names::SUCCESS) } else { (names::HIGH, names::FAILURE) };
    let mut record = context.record(kind, severity, status);
    if kind.activity.0 == names::LIFECYCLE_OTHER.activity.0 {
        // The schema wants the source's own name where none of its activities fits.
        record.activity_name = name;
    }
    record.app = Some(context.product());
    record.actor = Some(context.caller(event.peer.as_ref()));
    record.status_code = cutter.known(&event.reason, text::ID);
    record.status_detail = cutter.known(&event.detail, text::DETAIL);
    record.unmapped.peer = context.caller_facts(event.peer.as_ref());
    let coverage = event.coverage.iter().take(text::ITEMS).map(|protection| Coverage {
        name: cutter.cut(&protection.name, text::ID),
        active: protection.active,
        detail: cutter.known(&protection.detail, text::DETAIL),
    });
    record.unmapped.state = Some(State {
        kind: name,
        config_sha256: cutter.known(&event.config_sha256, text::ID),
        ceiling_sha256: cutter.known(&event.ceiling_sha256, text::ID),
        live_grants: event.live_grants,
        coverage: (!event.coverage.is_empty()).then(|| coverage.collect()),
    });
    record
}

fn call_record<'a>(
    context: &Context<'a>,
    kind: &Kind,
    severity: Id,
    status: Id,
    peer: Option<&'a Peer>,
) -> Record<'a> {
    let mut record = context.record(kind, severity, status);
    record.actor = Some(context.caller(peer));
    record.src_endpoint = Some(context.caller_endpoint(peer));
    record.unmapped.peer = context.caller_facts(peer);
    record
}

fn revocation_call<'a>(peer: Option<&Peer>) -> Api<'a> {
    Api {
        operation: Cow::Borrowed(APPLY_REVOCATION),
        service: Service { name: peer.map_or("grantd", service_of) },
        request: None,
        response: None,
    }
}

fn service_of(peer: &Peer) -> &'static str {
    match peer {
        Peer::Tls { .. } => "push",
        Peer::Local { .. } => "control",
        Peer::Daemon => "grantd",
    }
}
