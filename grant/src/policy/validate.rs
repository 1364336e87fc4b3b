//! Faults of a host policy as a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{CeilingEntry, HARD_MAX_TTL, HostPolicyParts, WorkloadPolicy};

/// One fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {expected}")]
pub struct InvalidPolicy {
    /// Where, as a path of the configuration file, for example `workload[0].max_ttl`.
    pub key: String,
    /// What is there.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

pub(super) fn faults(parts: &HostPolicyParts) -> Vec<InvalidPolicy> {
    let mut faults = Faults(Vec::new());
    if parts.control_plane.pushers.is_empty() {
        faults.add("control_plane.peers", "[]", "name at least one URI SAN that may push");
    }
    if parts.okta.audience.as_str() == "api://default" {
        let wanted = "an audience of our own, such as api://grantd; any app can get this one";
        faults.add("okta.audience", "api://default", wanted);
    }
    if parts.okta.required_scopes.is_empty() {
        faults.add("okta.required_scopes", "[]", "at least one scope; empty never means all");
    }
    let mut names = BTreeSet::new();
    for (at, workload) in parts.workloads.iter().enumerate() {
        let key = format!("workload[{at}]");
        if !names.insert(&workload.name) {
            faults.add(&format!("{key}.name"), workload.name.as_str(), "names must be unique");
        }
        faults.of_workload(&key, workload);
    }
    for (at, entry) in parts.ceiling.iter().enumerate() {
        let key = format!("ceiling[{at}]");
        faults.of_ceiling(&key, entry);
        for name in entry.workloads.iter().filter(|name| !names.contains(name)) {
            let key = format!("{key}.workloads");
            faults.add(&key, name.as_str(), "no [[workload]] has this name");
        }
    }
    for (at, deny) in parts.denies.iter().enumerate() {
        if deny.ports.as_ref().is_some_and(Vec::is_empty) {
            faults.add(&format!("deny[{at}].ports"), "[]", "leave it out to deny every port");
        }
    }
    faults.0
}

struct Faults(Vec<InvalidPolicy>);

impl Faults {
    fn add(&mut self, key: &str, value: &str, expected: &'static str) {
        self.0.push(InvalidPolicy { key: key.to_owned(), value: value.to_owned(), expected });
    }

    fn of_workload(&mut self, key: &str, workload: &WorkloadPolicy) {
        if workload.subjects.is_empty() {
            let wanted = "at least one of { cid = … }, { uid = … }, { act = … }";
            self.add(&format!("{key}.subjects"), "[]", wanted);
        }
        self.ttl(&format!("{key}.max_ttl"), workload.max_ttl);
        if workload.max_live_grants == 0 {
            let wanted = "at least 1; leave the workload out to allow none";
            self.add(&format!("{key}.max_live_grants"), "0", wanted);
        }
        if workload.grant_rate.grants == 0 || workload.grant_rate.per.is_zero() {
            self.add(&format!("{key}.grant_rate"), "0", "at least 1 grant per period");
        }
    }

    fn of_ceiling(&mut self, key: &str, entry: &CeilingEntry) {
        if entry.scopes.is_empty() && entry.groups.is_empty() {
            let wanted = "scopes or groups that the token must carry; empty never means all";
            self.add(&format!("{key}.scopes"), "[]", wanted);
        }
        if entry.workloads.is_empty() {
            self.add(&format!("{key}.workloads"), "[]", "at least one workload");
        }
        if entry.allow.is_empty() {
            self.add(&format!("{key}.allow"), "[]", "at least one destination");
        }
        if let Some(max_ttl) = entry.max_ttl {
            self.ttl(&format!("{key}.max_ttl"), max_ttl);
        }
    }

    fn ttl(&mut self, key: &str, ttl: Duration) {
        if ttl.as_secs() == 0 || ttl.subsec_nanos() != 0 || ttl > HARD_MAX_TTL {
            self.add(key, &format!("{}s", ttl.as_secs_f64()), "whole seconds from 1s to 60m");
        }
    }
}
