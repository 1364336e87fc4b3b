//! Which grant a slot was and which workload a number is: written by the enforcer alone, read by
//! whoever turns kernel events into audit records.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use grantd_audit::event::{Grant, Workload};
use grantd_common::{GrantRef, WorkloadId};

/// Datagram sockets that were cut and are still open, of which so many are remembered: more than a
/// workload may have unless its config says so.
const MOST_CUT: usize = 131_072;

/// See the module. A slot's entry stays until the slot is used again, so that events that come in
/// after a grant's end still name it; there are never more entries than slots.
#[derive(Debug, Default)]
pub struct Directory {
    grants: RwLock<HashMap<u32, (u32, Arc<Grant>)>>,
    /// Why grants ended that no other replaced, by slot and generation.
    ends: RwLock<HashMap<u32, (u32, &'static str)>>,
    workloads: RwLock<HashMap<WorkloadId, Arc<Workload>>>,
    /// Cookies of datagram sockets whose end is on record, each with when it was allowed.
    cut: Mutex<BTreeSet<(u64, u64)>>,
}

impl Directory {
    /// The grant that a slot was in one of its uses.
    #[must_use]
    pub fn grant(&self, of: GrantRef) -> Option<Arc<Grant>> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        grants
            .get(&of.slot())
            .filter(|(g, _)| *g == of.generation())
            .map(|(_, grant)| Arc::clone(grant))
    }

    /// Why this grant ended, if no other replaced it. The kernel cannot tell: it may let a connection go on
    /// under another grant of the workload in both cases.
    #[must_use]
    pub fn end_of_grant(&self, of: GrantRef) -> Option<&'static str> {
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        ends.get(&of.slot()).filter(|(g, _)| *g == of.generation()).map(|(_, why)| *why)
    }

    /// The workload with this number.
    #[must_use]
    pub fn workload(&self, id: WorkloadId) -> Option<Arc<Workload>> {
        self.workloads.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Whether the end of a datagram socket, allowed at this time, is on record already: the kernel reports
    /// it again when the process closes it. Forgets it.
    #[must_use]
    pub fn end_is_on_record(&self, cookie: u64, allowed_boot_ns: u64) -> bool {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.remove(&(cookie, allowed_boot_ns))
    }

    pub(super) fn put_end(&self, cookie: u64, allowed_boot_ns: u64) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        cut.insert((cookie, allowed_boot_ns));
        if cut.len() > MOST_CUT {
            // The oldest socket. Should it still be open, its end will be on record twice.
            cut.pop_first();
        }
    }

    pub(super) fn put_grant(&self, of: GrantRef, grant: Arc<Grant>) {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.insert(of.slot(), (of.generation(), grant));
    }

    pub(super) fn put_end_of_grant(&self, of: GrantRef, why: &'static str) {
        let mut ends = self.ends.write().unwrap_or_else(PoisonError::into_inner);
        ends.insert(of.slot(), (of.generation(), why));
    }

    pub(super) fn put_workload(&self, id: WorkloadId, workload: Workload) {
        let mut workloads = self.workloads.write().unwrap_or_else(PoisonError::into_inner);
        workloads.insert(id, Arc::new(workload));
    }
}
