//! Class 2004, Detection Finding: what someone should look at, and what is missing from the record.

use super::names::{self, Id};
use super::objects::{FindingInfo, Lost, LostLane, Tag};
use super::record::{Context, Record};
use crate::event::{Finding, FindingKind, Loss, LossSource};
use crate::text;

pub(super) fn finding<'a>(context: &Context<'a>, event: &'a Finding) -> Record<'a> {
    let cutter = context.cutter;
    let (title, severity) = describe(event.kind);
    let mut record = found(context, severity, title, event.kind.as_str());
    context.add_grant(&mut record, event.grant.as_ref());
    context.add_workload(&mut record, event.workload.as_ref());
    let subject = event.grant.as_ref().map(|grant| &grant.subject);
    record.actor = match event.peer.as_ref() {
        Some(peer) => Some(context.caller(Some(peer))),
        None => context.actor(subject, event.process.as_ref()),
    };
    record.unmapped.peer = context.caller_facts(event.peer.as_ref());
    record.resources = context.resources(event.workload.as_ref());
    record.message = cutter.known(&event.detail, text::DETAIL);
    let tags = event.evidence.iter().take(text::ITEMS).map(|(name, value)| Tag {
        name: cutter.cut(name, text::ID),
        value: cutter.cut(value, text::DETAIL),
    });
    if let Some(info) = record.finding_info.as_mut() {
        info.desc = cutter.known(&event.detail, text::DETAIL);
        info.tags = (!event.evidence.is_empty()).then(|| tags.collect());
    }
    record
}

pub(super) fn loss<'a>(context: &Context<'a>, event: &'a Loss) -> Record<'a> {
    let severity = match event.source {
        // Making room is what the size limit is for.
        LossSource::Retention => names::LOW,
        LossSource::KernelRing
        | LossSource::KernelQuota
        | LossSource::Decode
        | LossSource::Queue
        | LossSource::Damage => names::HIGH,
    };
    let mut record = found(context, severity, "Audit events are missing", "event_loss");
    context.add_workload(&mut record, event.workload.as_ref());
    record.resources = context.resources(event.workload.as_ref());
    record.status_code = Some(event.source.as_str().into());
    record.count = Some(event.events);
    record.start_time = event.first_ms;
    record.end_time = event.last_ms;
    let lanes = event.lanes.iter().take(text::ITEMS).map(|lane| LostLane {
        lane: context.cutter.cut(&lane.lane, text::ID),
        events: lane.events,
        attempts: lane.attempts,
    });
    record.unmapped.loss = Some(Lost {
        source: event.source.as_str(),
        events: event.events,
        attempts: event.attempts,
        first_sequence: event.sequences.map(|(first, _)| first),
        last_sequence: event.sequences.map(|(_, last)| last),
        cpu: event.cpu,
        lanes: (!event.lanes.is_empty()).then(|| lanes.collect()),
    });
    record
}

fn found<'a>(
    context: &Context<'a>,
    severity: Id,
    title: &'static str,
    kind: &'static str,
) -> Record<'a> {
    let mut record = context.record(&names::FINDING_CREATE, severity, names::NEW);
    record.is_alert = Some(true);
    record.finding_info = Some(FindingInfo {
        uid: context.stamp.uid.to_string(),
        title,
        types: [kind],
        created_time: context.stamp.time_ms,
        desc: None,
        tags: None,
        product: None,
    });
    record
}

fn describe(kind: FindingKind) -> (&'static str, Id) {
    match kind {
        FindingKind::Tamper => ("Enforcement or evidence was tampered with", names::CRITICAL),
        FindingKind::CanaryFailed => ("The enforcement probe failed", names::CRITICAL),
        FindingKind::NotEnforcing => ("Enforcement is not in effect", names::CRITICAL),
        FindingKind::ClockStep => ("The wall clock was stepped", names::HIGH),
        FindingKind::ReplayOtherHash => {
            ("A grant id came back with other content", names::CRITICAL)
        }
        FindingKind::LedgerCorrupt => ("The ledger could not be trusted", names::HIGH),
        FindingKind::KeysStale => ("Keys are stale", names::HIGH),
        FindingKind::DecodeFailed => ("A kernel event could not be decoded", names::HIGH),
        FindingKind::SpoolRepaired => ("The audit spool was repaired", names::MEDIUM),
        FindingKind::TaskLeft => ("A process left its confinement", names::CRITICAL),
        FindingKind::LateEnrolment => ("A process was confined late", names::HIGH),
        FindingKind::WorkloadDelegated => {
            ("A workload can be moved out of its confinement", names::HIGH)
        }
        FindingKind::WorkloadPrivileged => ("A workload can undo its confinement", names::HIGH),
    }
}
