//! Class 4001, Network Activity.

use super::names::{self, Id, Kind};
use super::objects::{Kernel, Rewritten, Traffic};
use super::record::{Context, Record};
use crate::event::{Connection, Direction};
use crate::text;

pub(super) fn allowed<'a>(context: &Context<'a>, connection: &'a Connection) -> Record<'a> {
    flow(context, connection, &names::NETWORK_OPEN, names::INFORMATIONAL, names::SUCCESS)
        .judged(names::ACTION_ALLOWED, names::ALLOWED)
}

pub(super) fn denied<'a>(context: &Context<'a>, connection: &'a Connection) -> Record<'a> {
    flow(context, connection, &names::NETWORK_REFUSE, names::LOW, names::FAILURE)
        .judged(names::ACTION_DENIED, names::BLOCKED)
}

pub(super) fn closed<'a>(context: &Context<'a>, connection: &'a Connection) -> Record<'a> {
    flow(context, connection, &names::NETWORK_CLOSE, names::INFORMATIONAL, names::SUCCESS)
        .judged(names::ACTION_ALLOWED, names::ALLOWED)
}

pub(super) fn cut<'a>(context: &Context<'a>, connection: &'a Connection) -> Record<'a> {
    flow(context, connection, &names::NETWORK_RESET, names::LOW, names::SUCCESS)
        .judged(names::ACTION_DENIED, names::ACCESS_REVOKED)
}

fn flow<'a>(
    context: &Context<'a>,
    connection: &'a Connection,
    kind: &Kind,
    severity: Id,
    status: Id,
) -> Record<'a> {
    let cutter = context.cutter;
    let mut record = context.record(kind, severity, status);
    context.add_grant(&mut record, connection.grant.as_ref());
    context.add_workload(&mut record, connection.workload.as_ref());
    let subject = connection.grant.as_ref().map(|grant| &grant.subject);
    record.actor = context.actor(subject, connection.process.as_ref());
    record.status_code = cutter.known(&connection.reason, text::ID);
    record.count = Some(connection.count.max(1));
    add_endpoints(context, &mut record, connection);
    record.connection_info = Some(context.connection_info(connection));
    record.duration = connection.duration_ms;
    record.traffic = connection.traffic.map(|traffic| Traffic {
        bytes: traffic.bytes_in.saturating_add(traffic.bytes_out),
        bytes_in: traffic.bytes_in,
        bytes_out: traffic.bytes_out,
        packets: traffic.packets_in.saturating_add(traffic.packets_out),
        packets_in: traffic.packets_in,
        packets_out: traffic.packets_out,
    });
    record.unmapped.hook = cutter.known(&connection.hook, text::ID);
    record.unmapped.rewritten_to = connection
        .rewritten_to
        .map(|address| Rewritten { ip: address.ip().to_string(), port: address.port() });
    record.unmapped.kernel = connection.kernel.map(|kernel| Kernel {
        cpu: kernel.cpu,
        sequence: kernel.sequence,
        boot_ns: kernel.boot_ns.to_string(),
    });
    record
}

/// The class asks for one endpoint at least. Where the initiator's address is not known yet and the
/// workload is the initiator, it is this host.
fn add_endpoints<'a>(context: &Context<'a>, record: &mut Record<'a>, connection: &'a Connection) {
    let source = connection.source.filter(|source| !source.ip().is_unspecified());
    record.src_endpoint = match (source, connection.direction) {
        (Some(source), _) => Some(context.endpoint(source)),
        (None, Direction::Outbound | Direction::Local) => Some(context.this_host()),
        (None, Direction::Inbound) => None,
    };
    let mut destination = connection.destination.map(|address| context.endpoint(address));
    if let Some(name) = context.cutter.known(&connection.destination_name, text::ID) {
        destination.get_or_insert_default().hostname = Some(name);
    }
    record.dst_endpoint = destination;
    if record.src_endpoint.is_none() && record.dst_endpoint.is_none() {
        record.dst_endpoint = Some(context.this_host());
    }
}
