//! Whether the kernel still holds what this daemon left there, and putting it back.

use std::path::PathBuf;

use grantd_audit::event::{Finding, FindingKind};
use grantd_common::WorkloadEntry;

use super::Enforcer;
use crate::kernel::Op;
use crate::text::chain;

/// Findings that are told one by one; the rest of a round is counted in the last.
const TOLD: usize = 16;
/// How long an alarm stands in the status at least, also when all was put back at once.
const STANDS_NS: u64 = 10_000_000_000;

/// What was found, and whether it could be put back.
type Found = (String, Result<(), String>);

impl Enforcer {
    /// Compares links, programs and pins with what was attached; with `contents`, also every policy map
    /// with the model. What differs is an alarm, and is put back.
    pub(super) fn self_check(&mut self, contents: bool) {
        let now = self.clock.now().boot_ns;
        let present = self.workloads.values().filter(|w| contents && w.cgroup.is_some());
        let places: Vec<PathBuf> = present.map(|w| w.path.clone()).collect();
        let mut found: Vec<Found> = self
            .kernel
            .self_check(&places)
            .into_iter()
            .map(|t| (t.what, t.repaired.map_err(|error| chain(&error))))
            .collect();
        // What could not be written is known, and tried again elsewhere.
        if contents && self.trouble.is_none() && self.slice_trouble.is_none() {
            found.extend(self.check_contents());
        }
        if found.is_empty() {
            let over = |since: u64| now.saturating_sub(since) >= STANDS_NS;
            if contents && self.tampered_at.is_none_or(over) {
                self.tampered.clear();
            }
            return;
        }
        self.tampered = found.iter().take(TOLD).map(told).collect();
        self.tampered_at = Some(now);
        self.alarm(&found);
    }

    fn check_contents(&mut self) -> Vec<Found> {
        // The kernel itself follows cgroups that come and go: what differs is looked at again when the
        // daemon has followed too.
        let ops = match self.differences() {
            Ok(ops) if ops.is_empty() => return Vec::new(),
            Ok(_) => {
                self.look_at_cgroups();
                self.differences()
            }
            Err(error) => Err(error),
        };
        let ops = match ops {
            Ok(ops) if ops.is_empty() => return Vec::new(),
            Ok(ops) => ops,
            Err(error) => return vec![("the maps".to_owned(), Err(error))],
        };
        let repaired = self
            .kernel
            .apply_all(&ops)
            .and_then(|()| self.kernel.read_back(&ops))
            .map_err(|error| chain(&error));
        // Connections that came about under what was forged. A cut that fails is told and tried again.
        let all = self.workloads.values().map(|w| w.id).collect();
        let _ = self.cut(&all);
        ops.iter().map(|op| (differs(op), repaired.clone())).collect()
    }

    /// What would make the maps hold the model and nothing else.
    fn differences(&self) -> Result<Vec<Op>, String> {
        let mut contents = self.kernel.contents().map_err(|error| chain(&error))?;
        // What the kernel itself noted of a new slice or workload lets nobody through.
        contents.workloads.retain(|_, entry| {
            let new_slice = entry.flags == WorkloadEntry::SLICE;
            entry.flags & WorkloadEntry::PENDING == 0 && !new_slice
        });
        let mut ops = self.compiler.differences(&contents);
        let slice = self.kernel.slice().id;
        let wanted = Op::slice_attached(slice);
        let held = contents.workloads.get(&slice);
        let held = held.map(|entry| Op::PutWorkload { cgroup: slice, entry: *entry });
        if held != Some(wanted) {
            ops.insert(0, wanted);
        }
        let is_slice = |entry: &WorkloadEntry| entry.flags & WorkloadEntry::SLICE != 0;
        let forged =
            contents.workloads.iter().filter(|(id, entry)| is_slice(entry) && **id != slice);
        ops.extend(forged.map(|(id, _)| Op::DeleteWorkload { cgroup: *id }));
        Ok(ops)
    }

    fn alarm(&mut self, found: &[Found]) {
        let now = self.clock.now();
        for (at, item) in found.iter().take(TOLD).enumerate() {
            let mut detail = told(item);
            let more = found.len().saturating_sub(TOLD);
            if at + 1 == TOLD && more > 0 {
                detail.push_str(&format!("; and {more} more"));
            }
            tracing::error!("{detail}");
            let mut finding = Finding::new(FindingKind::Tamper, detail);
            let repaired = if item.1.is_ok() { "yes" } else { "no" };
            finding.evidence.push(("repaired".into(), repaired.to_owned()));
            self.recorder.record(grantd_audit::event::Event::Finding(finding), now.unix_ms());
        }
    }
}

fn told((what, repaired): &Found) -> String {
    match repaired {
        Ok(()) => {
            format!("{what} behind grantd's back; put back. Find out who may act as root here")
        }
        Err(error) => format!("{what} behind grantd's back, and could not be put back: {error}"),
    }
}

/// What somebody else wrote, as the change that undoes it tells.
fn differs(op: &Op) -> String {
    match op {
        Op::PutWorkload { cgroup, .. } => {
            format!("the entry of the cgroup {cgroup} in WORKLOADS was changed or removed")
        }
        Op::DeleteWorkload { cgroup } => {
            format!("an entry for the cgroup {cgroup} was put into WORKLOADS")
        }
        Op::PutSlot { slot, .. } => format!("slot {slot} of GRANTS was written"),
        Op::PutExact { key, .. } => format!(
            "the rule of workload {} for {}:{} in EXACT was changed or removed",
            key.workload.0,
            key.address.to_ip(),
            key.port.get()
        ),
        Op::DeleteExact { key } => format!(
            "a rule of workload {} for {}:{} was put into EXACT",
            key.workload.0,
            key.address.to_ip(),
            key.port.get()
        ),
        Op::PutPortSet { index, .. } => format!("set {index} of PORTSETS was written"),
        Op::PutRange { prefix, .. } => {
            format!(
                "the prefix {}/{} in RANGES was changed or removed",
                prefix.key.address.to_ip(),
                prefix.bits
            )
        }
        Op::DeleteRange { prefix } => {
            format!("the prefix {}/{} was put into RANGES", prefix.key.address.to_ip(), prefix.bits)
        }
        Op::PutInbound { callers } | Op::DeleteInbound { callers } => {
            format!("the callers of port {} in INBOUND were changed", callers.key.port.get())
        }
        Op::PutLimit { workload, .. } => {
            format!("the limit of workload {} in LIMITS was changed", workload.0)
        }
    }
}
