//! Processes that come into the slice and leave it.
//!
//! The watch tells of each move when it happens. Without it, the processes are compared at each look: one
//! that comes and goes between two looks is missed then.

use std::collections::{BTreeSet, HashMap, HashSet};

use grantd_audit::Event;
use grantd_audit::event::{Finding, FindingKind, Process};
use grantd_common::{Move, WorkloadId};
use grantd_grant::WorkloadName;

use super::Enforcer;
use crate::kernel::{self, DiagSocket, Namespace, NamespaceId, Which};
use crate::proc;
use crate::text::chain;

/// Nanoseconds of a clock tick (`USER_HZ` is 100).
const TICK_NS: u64 = 10_000_000;

/// The processes of the slice, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    known: HashMap<u32, (u64, WorkloadId)>,
    looked: bool,
}

impl Enforcer {
    /// Compares the processes of the slice with those of the last look. `watched`: moves are told as well.
    pub(super) fn look_at_tasks(&mut self, watched: bool) {
        let now = self.processes();
        let first = !std::mem::replace(&mut self.tasks.looked, true);
        let before = std::mem::take(&mut self.tasks.known);
        for (pid, (start, from)) in &before {
            if now.get(pid).is_none_or(|(s, _)| s != start) {
                self.look_whether_it_left(*pid, *start, *from);
            }
        }
        // At a restart, sockets of processes that were there are what they were; moves meanwhile were told.
        let sweep = if first { !watched || !self.kernel.adopted() } else { !watched };
        if sweep {
            let new = now.iter().filter(|(pid, seen)| before.get(pid) != Some(seen));
            let new: Vec<(u32, WorkloadId)> = new.map(|(pid, (_, of))| (*pid, *of)).collect();
            self.end_foreign_sockets(&new, None);
        }
        self.tasks.known = now;
    }

    fn processes(&self) -> HashMap<u32, (u64, WorkloadId)> {
        let mut of: HashMap<u32, WorkloadId> = proc::processes_below(&self.kernel.slice().path)
            .into_iter()
            .map(|pid| (pid, WorkloadId::UNKNOWN))
            .collect();
        for workload in self.workloads.values().filter(|w| w.cgroup.is_some()) {
            of.extend(proc::processes_below(&workload.path).into_iter().map(|p| (p, workload.id)));
        }
        of.into_iter().filter_map(|(pid, w)| Some((pid, (proc::start_ticks(pid)?, w)))).collect()
    }

    /// One that is no longer in the slice has ended, as a rule.
    fn look_whether_it_left(&mut self, pid: u32, start: u64, from: WorkloadId) {
        let Some(now_in) = proc::cgroup(pid) else { return };
        let mount = &self.settings.cgroup_mount;
        let Ok(slice) = self.kernel.slice().path.strip_prefix(mount) else { return };
        let slice = std::path::Path::new("/").join(slice);
        if now_in.starts_with(&slice) || proc::start_ticks(pid) != Some(start) {
            return;
        }
        let where_to = format!("it is in {} now", now_in.display());
        self.alarm_left(pid, &proc::comm(pid), from, &where_to, Vec::new());
    }

    /// The watch saw a process leave.
    pub(super) fn left(&mut self, told: &Move) {
        let start = told.start_boot_ns / TICK_NS;
        let known = self.tasks.known.get(&told.pid).is_some_and(|(s, _)| *s == start);
        if known {
            self.tasks.known.remove(&told.pid);
        }
        let evidence = vec![
            ("by_pid".into(), told.by_pid.to_string()),
            ("by_uid".into(), told.by_uid.to_string()),
            ("to_cgroup_id".into(), told.cgroup.to_string()),
        ];
        let by = format!("process {} of uid {} moved it", told.by_pid, told.by_uid);
        self.alarm_left(told.pid, &comm(&told.comm), told.from, &by, evidence);
    }

    fn alarm_left(
        &mut self,
        pid: u32,
        comm: &str,
        from: WorkloadId,
        how: &str,
        evidence: Vec<(std::borrow::Cow<'static, str>, String)>,
    ) {
        let name = self.name_of(from);
        let shown = name.as_ref().map_or("no workload", |name| name.as_str());
        let detail = format!(
            "process {pid} ({comm}) of {shown} left the enforced slice: {how}. What it opens now is not \
             confined; end it, and find out who could move it"
        );
        tracing::error!("{detail}");
        let mut finding = Finding::new(FindingKind::TaskLeft, detail);
        finding.workload = name.map(|name| self.audit_workload(&name));
        finding.process = Some(Process { pid, comm: comm.to_owned(), ..Process::default() });
        finding.evidence = evidence;
        self.recorder.record(Event::Finding(finding), self.clock.now().unix_ms());
    }

    /// The watch saw processes come in: what they opened outside is ended.
    pub(super) fn entered(&mut self, told: &[Move]) {
        let came: Vec<(u32, WorkloadId)> = told.iter().map(|m| (m.pid, m.to)).collect();
        self.end_foreign_sockets(&came, told.first());
    }

    /// Ends the sockets of these processes that their workload did not make: the packets of one that is
    /// connected meet no hook of the slice.
    fn end_foreign_sockets(&mut self, of: &[(u32, WorkloadId)], told: Option<&Move>) {
        let mut by_namespace: HashMap<NamespaceId, Vec<(u32, WorkloadId, HashSet<u32>)>> =
            HashMap::new();
        let distinct: BTreeSet<(u32, WorkloadId)> = of.iter().copied().collect();
        for (pid, workload) in distinct {
            let held = proc::socket_inodes(pid);
            if let (false, Ok(namespace)) = (held.is_empty(), NamespaceId::of_task(pid)) {
                by_namespace.entry(namespace).or_default().push((pid, workload, held));
            }
        }
        for holders in by_namespace.into_values() {
            if let Err(problem) = self.end_foreign_in(&holders, told) {
                let detail = format!(
                    "sockets that processes brought into the slice could not be ended: {problem}. Unconnected \
                     ones are refused all the same"
                );
                tracing::error!("{detail}");
                self.audit_finding(FindingKind::NotEnforcing, detail);
            }
        }
    }

    fn end_foreign_in(
        &mut self,
        holders: &[(u32, WorkloadId, HashSet<u32>)],
        told: Option<&Move>,
    ) -> Result<(), String> {
        let Some((first, ..)) = holders.first() else { return Ok(()) };
        // It is gone, and its sockets with it.
        let Ok(namespace) = Namespace::of_task(*first) else { return Ok(()) };
        let diag = self.kernel.diag().map_err(|e| chain(&e))?;
        let mut foreign: Vec<(usize, DiagSocket)> = Vec::new();
        let listed = diag.sockets(&namespace, Which::All, |socket| {
            let born = socket.state.map_or(WorkloadId::NONE, |state| state.workload);
            let holder = holders
                .iter()
                .position(|(_, of, held)| held.contains(&socket.inode) && born != *of);
            foreign.extend(holder.map(|holder| (holder, socket)));
        });
        listed.map_err(|e: kernel::Error| chain(&e))?;
        if foreign.is_empty() {
            return Ok(());
        }
        // What is stored about datagram sockets was listed before them: one that was opened in between, inside,
        // is no stranger.
        let diag = self.kernel.diag().map_err(|e| chain(&e))?;
        let own = |(holder, socket): &(usize, DiagSocket)| {
            let of = holders.get(*holder).map(|(_, of, _)| *of);
            diag.stored(socket).is_some_and(|state| Some(state.workload) == of)
        };
        foreign.retain(|socket| !own(socket));
        let done = diag
            .destroy(&namespace, foreign.iter().map(|(_, socket)| socket))
            .map_err(|e| chain(&e))?;
        for (index, (pid, workload, _)) in holders.iter().enumerate() {
            let of_it = |at: &&usize| foreign.get(**at).is_some_and(|(holder, _)| *holder == index);
            let brought = foreign.iter().filter(|(holder, _)| *holder == index).count();
            if brought > 0 {
                let ended = done.ended.iter().filter(of_it).count();
                self.tell_late(*pid, *workload, (brought, ended), told);
            }
        }
        done.error.map_or(Ok(()), |error| Err(error.to_string()))
    }

    fn tell_late(
        &self,
        pid: u32,
        workload: WorkloadId,
        (brought, ended): (usize, usize),
        told: Option<&Move>,
    ) {
        let (name, comm) = (self.name_of(workload), proc::comm(pid));
        let shown = name.as_ref().map_or("the slice", |name| name.as_str());
        let detail = format!(
            "process {pid} ({comm}) came into {shown} with {brought} sockets that were made outside; {ended} \
             of them were ended. Start agents inside (`grantctl run`)"
        );
        tracing::warn!("{detail}");
        let mut finding = Finding::new(FindingKind::LateEnrolment, detail);
        finding.workload = name.map(|name| self.audit_workload(&name));
        finding.process = Some(Process { pid, comm, ..Process::default() });
        finding.evidence =
            vec![("sockets".into(), brought.to_string()), ("ended".into(), ended.to_string())];
        if let Some(told) = told.filter(|told| told.pid == pid) {
            finding.evidence.push(("by_pid".into(), told.by_pid.to_string()));
            finding.evidence.push(("by_uid".into(), told.by_uid.to_string()));
        }
        self.recorder.record(Event::Finding(finding), self.clock.now().unix_ms());
    }

    fn name_of(&self, id: WorkloadId) -> Option<WorkloadName> {
        self.workloads.iter().find(|(_, w)| w.id == id).map(|(name, _)| name.clone())
    }
}

fn comm(bytes: &[u8; 16]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
