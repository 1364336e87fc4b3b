//! Shared parts of events → OCSF objects.

use std::borrow::Cow;
use std::net::SocketAddr;

use super::names;
use super::objects::{
    Actor, AiAgent, Cgroup, ConnectionInfo, Container, Delegation, Device, Endpoint, File,
    GrantFacts, PeerFacts, Process, Resource, Unmapped, User,
};
use super::record::{Context, Record};
use crate::event::{self, Direction, Peer, Subject};
use crate::text;

/// `user.type_id` and `device.type_id` where we do not know better.
const UNKNOWN_TYPE: u32 = 0;
/// `file.type_id` of a regular file.
const REGULAR_FILE: u32 = 1;
/// Named where a class asks for a user and none is known.
const UNKNOWN_USER: &str = "unknown";

impl<'a> Device<'a> {
    pub(super) fn of(context: &Context<'a>) -> Self {
        let (producer, cutter) = (context.producer, context.cutter);
        Device {
            type_id: UNKNOWN_TYPE,
            uid: cutter.known(&producer.host_id, text::URI),
            hostname: cutter.known(&producer.hostname, text::ID),
            boot_uid: cutter.known(&producer.boot_id, text::ID),
        }
    }
}

impl Actor<'_> {
    /// Whether the process of this actor is in a container, which needs a profile of the schema.
    pub(super) fn has_container(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.container.is_some())
    }

    fn is_known(&self) -> bool {
        self.user.is_some() || self.app_uid.is_some() || self.process.is_some()
    }
}

impl Unmapped<'_> {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        let Unmapped {
            workload,
            cgroup,
            ai_agent,
            delegation,
            grant,
            revocation,
            peer,
            hook,
            rewritten_to,
            kernel,
            duration_us,
            state,
            loss,
        } = self;
        workload.is_none()
            && cgroup.is_none()
            && ai_agent.is_none()
            && delegation.is_none()
            && grant.is_none()
            && revocation.is_none()
            && peer.is_none()
            && hook.is_none()
            && rewritten_to.is_none()
            && kernel.is_none()
            && duration_us.is_none()
            && state.is_none()
            && loss.is_none()
    }
}

impl<'a> Context<'a> {
    /// The subject as `user`; the class that asks for one gets a named unknown.
    pub(super) fn user(&self, subject: Option<&'a Subject>) -> User<'a> {
        subject.and_then(|subject| self.known_user(subject)).unwrap_or(User {
            type_id: UNKNOWN_TYPE,
            uid: None,
            name: Some(UNKNOWN_USER.into()),
        })
    }

    fn known_user(&self, subject: &'a Subject) -> Option<User<'a>> {
        let uid = self.cutter.known(&subject.uid, text::ID)?;
        Some(User { type_id: UNKNOWN_TYPE, uid: Some(uid), name: None })
    }

    /// Who did it on this host: the subject of the grant, and the process.
    pub(super) fn actor(
        &self,
        subject: Option<&'a Subject>,
        process: Option<&'a event::Process>,
    ) -> Option<Actor<'a>> {
        let actor = Actor {
            user: subject.and_then(|subject| self.known_user(subject)),
            app_uid: subject.and_then(|subject| self.cutter.known(&subject.client_id, text::ID)),
            app_name: None,
            process: process.map(|process| self.process(process, true)),
        };
        actor.is_known().then_some(actor)
    }

    /// Who called.
    pub(super) fn caller(&self, peer: Option<&'a Peer>) -> Actor<'a> {
        match peer {
            Some(Peer::Tls { uris, .. }) => {
                let uri = uris.first().and_then(|uri| self.cutter.known(uri, text::URI));
                let name = uri.is_none().then_some(Cow::Borrowed("unauthenticated"));
                let user = User { type_id: UNKNOWN_TYPE, uid: uri, name };
                Actor { user: Some(user), ..Actor::default() }
            }
            Some(Peer::Local { process, .. }) => Actor {
                user: process.uid.map(local_user),
                process: Some(self.process(process, true)),
                ..Actor::default()
            },
            Some(Peer::Daemon) | None => Actor {
                app_name: Some(self.cutter.cut(&self.producer.product, text::ID)),
                ..Actor::default()
            },
        }
    }

    /// Where the call came from.
    pub(super) fn caller_endpoint(&self, peer: Option<&'a Peer>) -> Endpoint<'a> {
        match peer {
            Some(Peer::Tls { address, .. }) => self.endpoint(*address),
            Some(Peer::Local { socket, .. }) => {
                Endpoint { svc_name: self.cutter.known(socket, text::PATH), ..self.this_host() }
            }
            Some(Peer::Daemon) | None => self.this_host(),
        }
    }

    /// The certificate of a TLS caller.
    pub(super) fn caller_facts(&self, peer: Option<&'a Peer>) -> Option<PeerFacts<'a>> {
        match peer {
            Some(Peer::Tls { uris, certificate_sha256, .. }) => Some(PeerFacts {
                uris: self.cutter.list(uris, text::URI),
                certificate_sha256: self.cutter.known(certificate_sha256, text::ID),
            }),
            Some(Peer::Local { .. } | Peer::Daemon) | None => None,
        }
    }

    /// This host as an endpoint. A host without an identity is still named.
    pub(super) fn this_host(&self) -> Endpoint<'a> {
        let uid = self.cutter.known(&self.producer.host_id, text::URI);
        Endpoint { uid: uid.or(Some(Cow::Borrowed("localhost"))), ..Endpoint::default() }
    }

    /// An address as an endpoint, without a port that is not known.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Endpoint<'a> {
        let port = address.port();
        Endpoint {
            ip: Some(address.ip()),
            port: (port != 0).then_some(port),
            ..Endpoint::default()
        }
    }

    fn process(&self, process: &'a event::Process, with_parent: bool) -> Process<'a> {
        let parent = process.parent.as_deref().filter(|_| with_parent);
        Process {
            pid: process.pid,
            uid: process.start_boot_ns.map(|start| format!("{}-{start}", process.pid)),
            name: self.cutter.known(&process.comm, text::COMM),
            created_time: process.started_ms,
            cmd_line: self.cutter.known(&process.cmd_line, text::CMD_LINE),
            file: self.executable(process),
            user: process.uid.map(local_user),
            container: process.container.as_ref().map(|container| Container {
                uid: self.cutter.cut(&container.uid, text::ID),
                name: self.cutter.known(&container.name, text::ID),
                runtime: self.cutter.known(&container.runtime, text::ID),
            }),
            parent_process: parent.map(|parent| Box::new(self.process(parent, false))),
        }
    }

    fn executable(&self, process: &'a event::Process) -> Option<File<'a>> {
        let path = self.cutter.known(&process.exe, text::PATH)?;
        let name = process.exe.rsplit('/').next().unwrap_or_default();
        Some(File {
            name: self.cutter.cut(name, text::ID),
            path,
            type_id: REGULAR_FILE,
            uid: process.exe_inode.map(|inode| inode.to_string()),
        })
    }

    /// Adds workload and control group.
    pub(super) fn add_workload(
        &self,
        record: &mut Record<'a>,
        workload: Option<&'a event::Workload>,
    ) {
        let Some(workload) = workload else { return };
        let cgroup = &workload.cgroup;
        record.unmapped.workload = self.cutter.known(&workload.name, text::ID);
        if cgroup.id != 0 || !cgroup.path.is_empty() {
            record.unmapped.cgroup = Some(Cgroup {
                path: self.cutter.cut(&cgroup.path, text::PATH),
                uid: (cgroup.id != 0).then(|| cgroup.id.to_string()),
            });
        }
        if let Some(agent) = record.unmapped.ai_agent.as_mut() {
            agent.instance_uid = self.cutter.known(&workload.invocation_id, text::ID);
        }
    }

    /// Adds the grant: its id as correlation, its agent, its authority and its facts.
    pub(super) fn add_grant(&self, record: &mut Record<'a>, grant: Option<&'a event::Grant>) {
        let Some(grant) = grant else { return };
        let cutter = self.cutter;
        record.metadata.correlation_uid = cutter.known(&grant.id, text::ID);
        let subject = &grant.subject;
        let agent = [&subject.actor, &subject.client_id].into_iter().find(|id| !id.is_empty());
        record.unmapped.ai_agent =
            agent.map(|agent| AiAgent { uid: cutter.cut(agent, text::ID), instance_uid: None });
        record.unmapped.delegation = cutter.known(&grant.id, text::ID).map(|uid| Delegation {
            uid,
            issuer_uid: cutter.known(&grant.issuer, text::URI),
            expiration_time: grant.expires_s.map(|seconds| seconds.saturating_mul(1000)),
        });
        record.unmapped.grant = Some(GrantFacts {
            txn: cutter.known(&grant.txn, text::ID),
            ath: cutter.known(&grant.ath, text::ID),
            okta_issuer: cutter.known(&grant.okta_issuer, text::URI),
            okta_kid: cutter.known(&grant.okta_kid, text::ID),
            control_plane_kid: cutter.known(&grant.control_plane_kid, text::ID),
            slot: grant.slot,
            generation: grant.generation,
            ..GrantFacts::default()
        });
    }

    /// A workload as a resource, where a class has resources.
    pub(super) fn resources(&self, workload: Option<&'a event::Workload>) -> Vec<Resource<'a>> {
        let name = workload.and_then(|workload| self.cutter.known(&workload.name, text::ID));
        name.into_iter().map(|name| Resource { name, r#type: "workload" }).collect()
    }

    /// A flow.
    pub(super) fn connection_info(&self, connection: &event::Connection) -> ConnectionInfo {
        let direction = match connection.direction {
            Direction::Outbound => names::OUTBOUND,
            Direction::Inbound => names::INBOUND,
            Direction::Local => names::LOCAL,
        };
        let address = connection.destination.or(connection.source);
        ConnectionInfo {
            direction_id: direction.0,
            direction: direction.1,
            uid: (connection.cookie != 0).then(|| connection.cookie.to_string()),
            protocol_num: (connection.protocol != 0).then_some(connection.protocol),
            protocol_name: protocol_name(connection.protocol),
            protocol_ver_id: address.map(|address| if address.is_ipv4() { 4 } else { 6 }),
        }
    }
}

fn local_user<'a>(uid: u32) -> User<'a> {
    User { type_id: UNKNOWN_TYPE, uid: Some(Cow::Owned(uid.to_string())), name: None }
}

/// IANA protocol names of what a workload may try.
fn protocol_name(number: u8) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}
