//! What the control socket asks is answered here.

use std::path::PathBuf;
use std::sync::Arc;

use grantd_audit::Recorder;
use grantd_audit::event::{ApiCall, ApiKind, Event, Lifecycle, LifecycleKind, Peer, Process};
use grantd_common::Ring;
use grantd_common::event::counter;
use grantd_grant::{
    GrantId, Reason, Refusal, Selector, Subject, TxnId, WorkloadName, ids::ClientId,
};
use rustls::ServerConfig;
use tokio::sync::{Mutex, watch};

use crate::admission::{Repeats, Terms};
use crate::clock::Clock;
use crate::config::Config;
use crate::ctl::{
    AuditStatus, Caller, CanaryStatus, Control, Counter, Coverage, CtlError, Enrolled, ErrorCode,
    GrantPage, GrantView, KeysStatus, Reloaded, Request, RevokeSelector, Revoked, Status, Threat,
};
use crate::enforcer::EnforcerHandle;
use crate::intake::Counters;
use crate::keys::{ControlPlaneKeyFile, OktaKeyStore};

/// What the control socket, the signals and the push listener share.
pub(super) struct Shared {
    pub(super) enforcer: EnforcerHandle,
    pub(super) recorder: Recorder,
    pub(super) okta: OktaKeyStore,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) boot_id: String,
    pub(super) config_file: PathBuf,
    /// The config and the pinned keys in force; held for the whole of a reload, so that there is one at
    /// a time.
    pub(super) config: Mutex<(Config, ControlPlaneKeyFile)>,
    pub(super) terms: watch::Sender<Terms>,
    pub(super) tls: watch::Sender<Arc<ServerConfig>>,
    /// Counts of the push listener.
    pub(super) listener: Arc<Counters>,
    /// What peers that may ask nothing were refused.
    pub(super) refused_peers: Arc<Repeats>,
    /// What callers of the control socket were refused.
    pub(super) refused_callers: Repeats,
}

/// The receiving ends for the push listener.
pub(super) struct Sources {
    pub(super) terms: watch::Receiver<Terms>,
    pub(super) tls: watch::Receiver<Arc<ServerConfig>>,
    pub(super) audit_required: bool,
}

impl Shared {
    #[expect(
        clippy::too_many_arguments,
        reason = "called once, with everything that was brought up"
    )]
    pub(super) fn new(
        config: Config,
        config_file: PathBuf,
        key_file: ControlPlaneKeyFile,
        tls: Arc<ServerConfig>,
        enforcer: EnforcerHandle,
        okta: OktaKeyStore,
        recorder: Recorder,
        clock: Arc<dyn Clock>,
        boot_id: String,
    ) -> (Arc<Self>, Sources) {
        let terms =
            Terms { policy: Arc::clone(&config.policy), keys: key_file.keys(), changing: false };
        let (terms, terms_reader) = watch::channel(terms);
        let (tls, tls_reader) = watch::channel(tls);
        let audit_required = config.audit.required;
        let sources = Sources { terms: terms_reader, tls: tls_reader, audit_required };
        let config = Mutex::new((config, key_file));
        let shared = Self {
            enforcer,
            recorder,
            okta,
            clock,
            boot_id,
            config_file,
            config,
            terms,
            tls,
            listener: Arc::default(),
            refused_peers: Arc::default(),
            refused_callers: Repeats::default(),
        };
        (Arc::new(shared), sources)
    }

    fn audit(&self, event: Event) {
        self.recorder.record(event, self.clock.now().unix_ms());
    }

    /// Records refusals that were only counted so far: those whose time has come, or all of them.
    pub(super) fn tell_refused(&self, all: bool) {
        let now = self.clock.now();
        let (peers, callers) =
            (self.refused_peers.due(now, all), self.refused_callers.due(now, all));
        peers.into_iter().chain(callers).for_each(|event| self.audit(event));
    }

    async fn set_frozen(&self, caller: &Caller, frozen: bool) -> Result<(), CtlError> {
        let result = self.enforcer.set_frozen(frozen).await.map_err(|r| to_ctl(&r));
        let kind = if frozen { LifecycleKind::Freeze } else { LifecycleKind::Thaw };
        let mut event = Lifecycle::new(kind);
        event.success = result.is_ok();
        event.peer = Some(local_peer(caller));
        if let Err(error) = &result {
            event.reason = code(error.code).into();
            event.detail.clone_from(&error.message);
        }
        self.audit(Event::Lifecycle(event));
        result
    }
}

impl Control for Shared {
    async fn status(&self) -> Result<Status, CtlError> {
        let enforcer = self.enforcer.status().await.map_err(|r| to_ctl(&r))?;
        let config = &self.config.lock().await.0;
        let audit = self.recorder.stats();
        let okta = self.okta.status();
        let now = self.clock.now().unix();
        let usable = self
            .terms
            .borrow()
            .keys
            .iter()
            .filter(|(_, k)| k.not_before() <= now && now < k.expires())
            .count();
        Ok(Status {
            enforcing: enforcer.trouble.is_empty(),
            not_enforcing: enforcer.trouble,
            frozen: enforcer.frozen,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host_id: config.host_id.to_string(),
            boot_id: self.boot_id.clone(),
            since_unix_ms: enforcer.since_unix_ms,
            pins: enforcer.pins,
            workloads: enforcer.workloads,
            live_grants: enforcer.live_grants,
            next_deadline_unix_ms: enforcer.next_deadline_unix_ms,
            coverage: enforcer
                .coverage
                .into_iter()
                .map(|c| Coverage {
                    hook: c.hook.to_owned(),
                    attached: c.attached,
                    detail: c.detail,
                })
                .collect(),
            threats: enforcer.threats.into_iter().map(threat).collect(),
            canary: CanaryStatus {
                passed: enforcer.canary.passed,
                failed: enforcer.canary.failed,
                unclear: enforcer.canary.unclear,
                age_ms: enforcer.canary.age_ms,
                problem: enforcer.canary.problem,
            },
            losses: losses(&enforcer.counters, audit.lost()),
            verdicts: verdicts(&enforcer.counters),
            audit: AuditStatus {
                directory: config.audit.dir.clone(),
                written: audit.written,
                lost: audit.lost(),
                last_sequence: audit.spool.durable_sequence,
                bytes: audit.spool.bytes,
                error: audit.last_error,
            },
            keys: KeysStatus {
                okta_keys: okta.keys as u64,
                okta_age_s: okta.age.map(|age| age.as_secs()),
                okta_stale: !okta.usable,
                control_plane_keys: usable as u64,
            },
            listener: listener(&self.listener, &self.refused_peers),
            clock_synchronised: self.clock.synchronised(),
        })
    }

    async fn grants(
        &self,
        workload: Option<String>,
        after: Option<String>,
        limit: usize,
    ) -> Result<GrantPage, CtlError> {
        self.enforcer.grants(workload, after, limit).await.map_err(|r| to_ctl(&r))
    }

    async fn grant(&self, id: String) -> Result<GrantView, CtlError> {
        let missing = || CtlError::new(ErrorCode::NotFound, format!("no grant {id} is remembered"));
        let wanted = GrantId::new(id.clone()).map_err(|_| missing())?;
        self.enforcer.grant(wanted).await.map_err(|r| to_ctl(&r))?.ok_or_else(missing)
    }

    async fn revoke(&self, caller: Caller, selector: RevokeSelector) -> Result<Revoked, CtlError> {
        let asked = async {
            let selector = typed(selector)?;
            self.enforcer
                .revoke_locally(selector, local_peer(&caller))
                .await
                .map_err(|r| to_ctl(&r))
        };
        // One that succeeds is recorded by the enforcer, with what it ended.
        let revoked = asked.await.inspect_err(|error| {
            self.audit(call(&caller, ApiKind::Delete, "revoke", Some(error)));
        })?;
        let ended = revoked.ended.len() as u64;
        Ok(Revoked { ids: revoked.ended.into_iter().take(Revoked::MAX_IDS).collect(), ended })
    }

    async fn freeze(&self, caller: Caller) -> Result<(), CtlError> {
        self.set_frozen(&caller, true).await
    }

    async fn thaw(&self, caller: Caller) -> Result<(), CtlError> {
        self.set_frozen(&caller, false).await
    }

    async fn enrol(&self, caller: Caller, workload: String) -> Result<Enrolled, CtlError> {
        let asked = async {
            let name = WorkloadName::new(workload)
                .map_err(|e| CtlError::new(ErrorCode::BadRequest, e.to_string()))?;
            self.enforcer.enrol(name).await.map_err(|r| to_ctl(&r))
        };
        let result = asked.await;
        self.audit(call(&caller, ApiKind::Update, "enrol", result.as_ref().err()));
        result
    }

    async fn reload(&self, caller: Caller) -> Result<Reloaded, CtlError> {
        let result = self.reload().await;
        self.audit(call(&caller, ApiKind::Update, "reload", result.as_ref().err()));
        result
    }

    fn refused(&self, caller: &Caller, request: Option<&Request>, why: &str) {
        let error = CtlError::new(ErrorCode::NotPermitted, why);
        let changes = request.is_some_and(Request::changes);
        let kind = if changes { ApiKind::Update } else { ApiKind::Read };
        let operation = request.map_or("connect", operation);
        let cgroup = caller.cgroup.as_deref().unwrap_or("unknown");
        let who = format!("{} {operation} {cgroup}", caller.uid);
        let event = call(caller, kind, operation, Some(&error));
        if let Some(event) = self.refused_callers.take(&who, event, self.clock.now()) {
            self.audit(event);
        }
    }
}

/// The record of a call at the control socket.
fn call(caller: &Caller, kind: ApiKind, operation: &str, refused: Option<&CtlError>) -> Event {
    Event::ApiCall(ApiCall {
        peer: local_peer(caller),
        kind,
        operation: format!("ctl.{operation}"),
        request_id: String::new(),
        status: u16::from(refused.is_some()),
        reason: refused.map_or("", |e| code(e.code)).into(),
        detail: refused.map(|e| e.message.clone()).unwrap_or_default(),
        about: String::new(),
        duration_us: None,
    })
}

fn listener(counters: &Counters, refused_peers: &Repeats) -> Vec<Counter> {
    let withheld = ("refusals_only_counted", refused_peers.withheld());
    let counts = counters.snapshot().named().into_iter().chain([withheld]);
    counts.map(|(name, count)| Counter { name: name.to_owned(), count }).collect()
}

const fn operation(request: &Request) -> &'static str {
    match request {
        Request::Status {} => "status",
        Request::Grants { .. } => "grants",
        Request::GrantShow { .. } => "grant_show",
        Request::Revoke { .. } => "revoke",
        Request::Freeze {} => "freeze",
        Request::Thaw {} => "thaw",
        Request::Enrol { .. } => "enrol",
        Request::Reload {} => "reload",
    }
}

fn typed(selector: RevokeSelector) -> Result<Selector, CtlError> {
    let bad = |e: grantd_grant::ids::InvalidId| CtlError::new(ErrorCode::BadRequest, e.to_string());
    Ok(match selector {
        RevokeSelector::Id(id) => Selector::Jti(GrantId::new(id).map_err(bad)?),
        RevokeSelector::Workload(w) => Selector::Workload(WorkloadName::new(w).map_err(bad)?),
        RevokeSelector::Sub(sub) => Selector::Sub(Subject::new(sub).map_err(bad)?),
        RevokeSelector::Cid(cid) => Selector::Cid(ClientId::new(cid).map_err(bad)?),
        RevokeSelector::Txn(txn) => Selector::Txn(TxnId::new(txn).map_err(bad)?),
        RevokeSelector::All => Selector::All,
    })
}

pub(super) fn to_ctl(refusal: &Refusal) -> CtlError {
    let code = if refusal.reason == Reason::WorkloadUnknown {
        ErrorCode::NotFound
    } else if refusal.reason == Reason::LedgerFailed {
        ErrorCode::LedgerFailed
    } else if matches!(refusal.reason, Reason::KernelFailed | Reason::NotEnforcing) {
        ErrorCode::KernelFailed
    } else if matches!(refusal.reason, Reason::Busy | Reason::Stopping) {
        ErrorCode::Busy
    } else {
        ErrorCode::Internal
    };
    CtlError::new(code, refusal.to_string())
}

pub(super) const fn code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "bad_request",
        ErrorCode::Version => "version",
        ErrorCode::NotPermitted => "not_permitted",
        ErrorCode::NotFound => "not_found",
        ErrorCode::Busy => "busy",
        ErrorCode::InvalidConfig => "invalid_config",
        ErrorCode::LedgerFailed => "ledger_failed",
        ErrorCode::KernelFailed => "kernel_failed",
        ErrorCode::Internal => "internal",
    }
}

pub(super) fn local_peer(caller: &Caller) -> Peer {
    let process = Process {
        pid: u32::try_from(caller.pid).unwrap_or(0),
        uid: Some(caller.uid),
        ..Process::default()
    };
    Peer::Local { process: Box::new(process), socket: "ctl.sock".to_owned() }
}

fn threat(judged: crate::coverage::Threat) -> Threat {
    let crate::coverage::Threat { id, way, state, reason, doc } = judged;
    Threat {
        id: id.to_owned(),
        way: way.to_owned(),
        state: state.as_str().to_owned(),
        reason,
        doc: doc.to_owned(),
    }
}

fn at(counters: &[u64], index: u32) -> u64 {
    counters.get(index as usize).copied().unwrap_or(0)
}

fn losses(counters: &[u64], audit_lost: u64) -> Vec<Counter> {
    let ring = |name: &str, ring: Ring| Counter {
        name: name.to_owned(),
        count: at(counters, counter::LOST + ring as u32),
    };
    vec![
        ring("kernel_ring_denials", Ring::Denials),
        ring("kernel_ring_flows", Ring::Flows),
        Counter { name: "audit_queue".to_owned(), count: audit_lost },
    ]
}

/// Verdicts on sockets by reason, then dropped packets by reason.
fn verdicts(counters: &[u64]) -> Vec<Counter> {
    let sockets = grantd_common::Reason::ALL
        .iter()
        .map(|r| (r.as_str().to_owned(), counter::REASONS + *r as u32));
    let packets = grantd_common::Reason::ALL
        .iter()
        .map(|r| (format!("packet_{}", r.as_str()), counter::DROPS + *r as u32));
    let repeated = std::iter::once(("repeated_datagram".to_owned(), counter::REPEATED));
    sockets
        .chain(packets)
        .chain(repeated)
        .map(|(name, index)| Counter { name, count: at(counters, index) })
        .filter(|c| c.count > 0)
        .collect()
}
