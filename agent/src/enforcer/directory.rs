//! Which grant a slot was and which workload a number is: written by the enforcer alone, read by
//! whoever turns kernel events into audit records.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use grantd_audit::event::{Grant, Workload};
use grantd_common::{GrantRef, WorkloadId};

/// See the module. A slot's entry stays until the slot is used again, so that events that come in
/// after a grant's end still name it; there are never more entries than slots.
#[derive(Debug, Default)]
pub struct Directory {
    grants: RwLock<HashMap<u32, (u32, Arc<Grant>)>>,
    workloads: RwLock<HashMap<WorkloadId, Arc<Workload>>>,
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

    /// The workload with this number.
    #[must_use]
    pub fn workload(&self, id: WorkloadId) -> Option<Arc<Workload>> {
        self.workloads.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(super) fn put_grant(&self, of: GrantRef, grant: Arc<Grant>) {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.insert(of.slot(), (of.generation(), grant));
    }

    pub(super) fn put_workload(&self, id: WorkloadId, workload: Workload) {
        let mut workloads = self.workloads.write().unwrap_or_else(PoisonError::into_inner);
        workloads.insert(id, Arc::new(workload));
    }
}
