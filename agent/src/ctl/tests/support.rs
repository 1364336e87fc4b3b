//! A control that remembers what it was asked, and a server in front of it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tempfile::TempDir;

use crate::ctl::{
    Caller, Control, Counter, Coverage, CtlError, Enrolled, ErrorCode, GrantPage, GrantView,
    KernelView, Reloaded, Request, RevokeSelector, Revoked, ServerConfig, Status, WorkloadStatus,
    bind, serve,
};

/// The slice that the tests themselves are surely not in.
pub(super) const SLICE: &str = "/no-such-agents.slice";

#[derive(Default)]
pub(super) struct Fake {
    pub(super) state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) status: Status,
    pub(super) grants: Vec<GrantView>,
    /// Every change that got through, in words.
    pub(super) changes: Vec<String>,
    /// Every refusal that was reported.
    pub(super) refusals: Vec<String>,
    /// How long a request for the status, and a reload, takes.
    pub(super) delay: Duration,
}

impl Fake {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, caller: &Caller, what: String) {
        self.state().changes.push(format!("{} by {}", what, caller.uid));
    }
}

impl Control for Fake {
    async fn status(&self) -> Result<Status, CtlError> {
        let (status, delay) = {
            let state = self.state();
            (state.status.clone(), state.delay)
        };
        tokio::time::sleep(delay).await;
        Ok(status)
    }

    async fn grants(
        &self,
        workload: Option<String>,
        after: Option<String>,
        limit: usize,
    ) -> Result<GrantPage, CtlError> {
        let state = self.state();
        let wanted = |g: &&GrantView| {
            workload.as_ref().is_none_or(|w| g.workload == *w)
                && after.as_ref().is_none_or(|after| g.id > *after)
        };
        let mut grants: Vec<_> = state.grants.iter().filter(wanted).cloned().collect();
        let more = grants.len() > limit;
        grants.truncate(limit);
        let next = grants.last().filter(|_| more).map(|g| g.id.clone());
        Ok(GrantPage { grants, next })
    }

    async fn grant(&self, id: String) -> Result<GrantView, CtlError> {
        let found = self.state().grants.iter().find(|grant| grant.id == id).cloned();
        found.ok_or_else(|| CtlError::new(ErrorCode::NotFound, format!("no grant {id} is known")))
    }

    async fn revoke(&self, caller: Caller, selector: RevokeSelector) -> Result<Revoked, CtlError> {
        self.change(&caller, format!("revoke {selector:?}"));
        let mut state = self.state();
        let (ended, kept) = state.grants.drain(..).partition(|grant| match &selector {
            RevokeSelector::Id(id) => grant.id == *id,
            RevokeSelector::Workload(name) => grant.workload == *name,
            RevokeSelector::All => true,
            RevokeSelector::Sub(_) | RevokeSelector::Cid(_) | RevokeSelector::Txn(_) => false,
        });
        state.grants = kept;
        let ids: Vec<_> = Vec::into_iter(ended).map(|grant: GrantView| grant.id).collect();
        Ok(Revoked { ended: ids.len() as u64, ids })
    }

    async fn freeze(&self, caller: Caller) -> Result<(), CtlError> {
        self.change(&caller, "freeze".to_owned());
        Ok(())
    }

    async fn thaw(&self, caller: Caller) -> Result<(), CtlError> {
        self.change(&caller, "thaw".to_owned());
        Err(CtlError::new(ErrorCode::LedgerFailed, "the disk is full"))
    }

    async fn enrol(&self, caller: Caller, workload: String) -> Result<Enrolled, CtlError> {
        self.change(&caller, format!("enrol {workload}"));
        let cgroup = PathBuf::from("/sys/fs/cgroup/agents.slice/w");
        Ok(Enrolled { workload, cgroup, cgroup_id: 9, user: None, hide: vec![], unhide: vec![] })
    }

    async fn reload(&self, caller: Caller) -> Result<Reloaded, CtlError> {
        let delay = self.state().delay;
        tokio::time::sleep(delay).await;
        self.change(&caller, "reload".to_owned());
        Ok(Reloaded { config_sha256: "ab".to_owned(), ended: 2, needs_restart: Vec::new() })
    }

    fn refused(&self, caller: &Caller, request: Option<&Request>, why: &str) {
        self.state().refusals.push(format!("{} {request:?}: {why}", caller.uid));
    }
}

/// A server that lives as long as this does.
pub(super) struct Daemon {
    pub(super) fake: Arc<Fake>,
    pub(super) stop: tokio::sync::watch::Sender<bool>,
    pub(super) task: tokio::task::JoinHandle<()>,
    dir: TempDir,
}

impl Daemon {
    pub(super) fn start() -> Self {
        Self::start_with(SLICE)
    }

    pub(super) fn start_with(slice: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = bind(&config(&dir.path().join("ctl.sock"))).unwrap();
        let fake = Arc::new(Fake::default());
        let (stop, stops) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(serve(listener, Arc::clone(&fake), slice.to_owned(), stops));
        Self { fake, stop, task, dir }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("ctl.sock")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn config(path: &Path) -> ServerConfig {
    ServerConfig { path: path.to_owned(), group: "no-such-group-here".to_owned() }
}

/// Runs something that blocks, such as the client, beside the server.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub(super) fn grant(id: &str, workload: &str) -> GrantView {
    GrantView {
        id: id.to_owned(),
        txn: "req-7781".to_owned(),
        workload: workload.to_owned(),
        sub: "00u1ab".to_owned(),
        cid: Some("0oa4client".to_owned()),
        destinations: vec!["tcp 10.0.0.7:5432".to_owned(), "tcp 10.20.0.0/24:8000-8010".to_owned()],
        accepted_unix_ms: 1_795_310_987_000,
        deadline_unix_ms: 1_795_311_887_000,
        seconds_left: 845,
        state: "in_force".to_owned(),
        ended_cause: None,
        kernel: Some(KernelView {
            slot: 3,
            generation: 2,
            deadline_boot_ns: 77,
            entries: 2,
            matches: true,
        }),
    }
}

pub(super) fn enforcing() -> Status {
    Status {
        enforcing: true,
        version: "0.1.0".to_owned(),
        host_id: "spiffe://example.org/host/build-7".to_owned(),
        boot_id: "00000000-0000-4000-8000-000000000001".to_owned(),
        since_unix_ms: 1_795_310_987_000,
        pins: PathBuf::from("/sys/fs/bpf/grantd/abi-1"),
        workloads: vec![WorkloadStatus {
            name: "coding-agent".to_owned(),
            cgroup: PathBuf::from("/sys/fs/cgroup/agents.slice/coding-agent.service"),
            cgroup_id: Some(4711),
            present: true,
            live_grants: 1,
        }],
        live_grants: 1,
        next_deadline_unix_ms: Some(1_795_311_887_000),
        coverage: vec![Coverage {
            hook: "connect4".to_owned(),
            attached: true,
            detail: "root".to_owned(),
        }],
        verdicts: vec![Counter { name: "allowed".to_owned(), count: 12 }],
        clock_synchronised: true,
        ..Status::default()
    }
}
