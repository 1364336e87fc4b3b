//! Class 3005, User Access Management: what a grant gives and takes.

use super::names;
use super::objects::Approval;
use super::record::{Context, Record};
use crate::event::{EndCause, GrantEnded, GrantInForce, GrantRefused, Peer};
use crate::text;

pub(super) fn in_force<'a>(context: &Context<'a>, event: &'a GrantInForce) -> Record<'a> {
    let cutter = context.cutter;
    let mut record = context.record(&names::ACCESS_ASSIGN, names::INFORMATIONAL, names::SUCCESS);
    context.add_grant(&mut record, Some(&event.grant));
    context.add_workload(&mut record, Some(&event.workload));
    add_caller(context, &mut record, event.peer.as_ref());
    record.user = Some(context.user(Some(&event.grant.subject)));
    record.privileges = Some(cutter.list(&event.destinations, text::ITEM));
    record.resources = context.resources(Some(&event.workload));
    record.status_code = Some("applied".into());
    record.unmapped.duration_us = event.apply_us;
    if let Some(facts) = record.unmapped.grant.as_mut() {
        facts.issued_time = Some(event.issued_s.saturating_mul(1000));
        facts.jws_sha256 = cutter.known(&event.jws_sha256, text::ID);
        facts.replaces = cutter.known(&event.replaces, text::ID);
        facts.approval = event.approval.as_ref().map(|approval| Approval {
            by: cutter.cut(&approval.by, text::ID),
            time: approval.at_s.saturating_mul(1000),
            id: cutter.cut(&approval.id, text::ID),
        });
    }
    record.judged(names::ACTION_ALLOWED, names::ALLOWED)
}

pub(super) fn ended<'a>(context: &Context<'a>, event: &'a GrantEnded) -> Record<'a> {
    let cutter = context.cutter;
    let severity = match event.cause {
        EndCause::Expired | EndCause::Replaced => names::INFORMATIONAL,
        EndCause::WorkloadRestarted
        | EndCause::WorkloadGone
        | EndCause::Reboot
        | EndCause::CeilingChanged => names::LOW,
        EndCause::Revoked | EndCause::KeyWithdrawn | EndCause::Disarmed => names::MEDIUM,
        EndCause::LedgerLost | EndCause::ClockStepped | EndCause::KernelFailed => names::HIGH,
    };
    let mut record = context.record(&names::ACCESS_REVOKE, severity, names::SUCCESS);
    context.add_grant(&mut record, Some(&event.grant));
    context.add_workload(&mut record, Some(&event.workload));
    add_caller(context, &mut record, event.peer.as_ref());
    record.user = Some(context.user(Some(&event.grant.subject)));
    record.privileges = Some(cutter.list(&event.destinations, text::ITEM));
    record.resources = context.resources(Some(&event.workload));
    record.status_code = Some(event.cause.as_str().into());
    record.status_detail = cutter.known(&event.detail, text::DETAIL);
    if let Some(facts) = record.unmapped.grant.as_mut() {
        facts.replaced_by = cutter.known(&event.replaced_by, text::ID);
        facts.revocation = cutter.known(&event.revocation, text::ID);
        facts.connections_cut = event.connections_cut;
    }
    record.judged(names::ACTION_DENIED, names::ACCESS_REVOKED)
}

pub(super) fn refused<'a>(context: &Context<'a>, event: &'a GrantRefused) -> Record<'a> {
    let cutter = context.cutter;
    let mut record = context.record(&names::ACCESS_ASSIGN, names::MEDIUM, names::FAILURE);
    context.add_grant(&mut record, event.grant.as_ref());
    context.add_workload(&mut record, event.workload.as_ref());
    add_caller(context, &mut record, event.peer.as_ref());
    record.user = Some(context.user(event.grant.as_ref().map(|grant| &grant.subject)));
    record.privileges = Some(cutter.list(&event.destinations, text::ITEM));
    record.resources = context.resources(event.workload.as_ref());
    record.status_code = cutter.known(&event.reason, text::ID);
    record.status_detail = cutter.known(&event.detail, text::DETAIL);
    if event.check != 0 {
        record.unmapped.grant.get_or_insert_default().check = Some(event.check);
    }
    record.judged(names::ACTION_DENIED, names::BLOCKED)
}

fn add_caller<'a>(context: &Context<'a>, record: &mut Record<'a>, peer: Option<&'a Peer>) {
    record.actor = Some(context.caller(peer));
    record.src_endpoint = peer.map(|peer| context.caller_endpoint(Some(peer)));
    record.unmapped.peer = context.caller_facts(peer);
}
