//! The maps: written, read back and listed.

use std::collections::{BTreeMap, BTreeSet, HashMap as StdHashMap};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use grantd_common::{
    ExactKey, ExactRule, GrantSlot, InboundKey, PortSet, RangeKey, RangeRule, WorkloadEntry,
    WorkloadId,
};

use super::error::{Error, io_cause};
use super::held::Held;
use super::load::SHAPES;
use super::op::{Callers, Op, Prefix};
use super::pod::Pod;
use super::sys;

/// Everything that the policy maps hold. Empty slots and port sets are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// `WORKLOADS`, by cgroup id.
    pub workloads: BTreeMap<u64, WorkloadEntry>,
    /// `GRANTS`, by slot.
    pub slots: BTreeMap<u32, GrantSlot>,
    /// `EXACT`.
    pub exact: StdHashMap<ExactKey, ExactRule>,
    /// `RANGES`.
    pub ranges: BTreeMap<Prefix, RangeRule>,
    /// `PORTSETS`, by index.
    pub port_sets: BTreeMap<u32, PortSet>,
    /// `INBOUND`.
    pub inbound: BTreeSet<Callers>,
    /// `LIMITS`.
    pub limits: BTreeMap<WorkloadId, u64>,
}

/// Handles of the pinned maps.
pub(super) struct Maps {
    workloads: HashMap<MapData, u64, Pod<WorkloadEntry>>,
    grants: Array<MapData, Pod<GrantSlot>>,
    exact: HashMap<MapData, Pod<ExactKey>, Pod<ExactRule>>,
    ranges: LpmTrie<MapData, Pod<RangeKey>, Pod<RangeRule>>,
    port_sets: Array<MapData, Pod<PortSet>>,
    counters: PerCpuArray<MapData, u64>,
    inbound: LpmTrie<MapData, Pod<InboundKey>, u32>,
    limits: HashMap<MapData, u32, u64>,
}

impl Maps {
    pub(super) fn take(object: &mut aya::Ebpf) -> Result<Self, Error> {
        Ok(Self {
            workloads: take(object, "WORKLOADS")?,
            grants: take(object, "GRANTS")?,
            exact: take(object, "EXACT")?,
            ranges: take(object, "RANGES")?,
            port_sets: take(object, "PORTSETS")?,
            counters: take(object, "COUNTERS")?,
            inbound: take(object, "INBOUND")?,
            limits: take(object, "LIMITS")?,
        })
    }

    pub(super) fn apply(&mut self, ops: &[Op]) -> Result<(), Error> {
        ops.iter().try_for_each(|op| self.apply_one(op))
    }

    fn apply_one(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::PutWorkload { cgroup, entry } => {
                self.workloads.insert(cgroup, Pod(*entry), 0).map_err(writing("WORKLOADS"))
            }
            Op::DeleteWorkload { cgroup } => gone(self.workloads.remove(cgroup), "WORKLOADS"),
            Op::PutSlot { slot, value } => {
                self.grants.set(*slot, Pod(*value), 0).map_err(writing("GRANTS"))
            }
            Op::PutExact { key, rule } => {
                self.exact.insert(Pod(*key), Pod(*rule), 0).map_err(writing("EXACT"))
            }
            Op::DeleteExact { key } => gone(self.exact.remove(&Pod(*key)), "EXACT"),
            Op::PutPortSet { index, set } => {
                self.port_sets.set(*index, Pod(*set), 0).map_err(writing("PORTSETS"))
            }
            Op::PutRange { prefix, rule } => {
                self.ranges.insert(&range_key(prefix), Pod(*rule), 0).map_err(writing("RANGES"))
            }
            Op::DeleteRange { prefix } => gone(self.ranges.remove(&range_key(prefix)), "RANGES"),
            Op::PutInbound { callers } => {
                self.inbound.insert(&callers_key(callers), 1, 0).map_err(writing("INBOUND"))
            }
            Op::DeleteInbound { callers } => {
                gone(self.inbound.remove(&callers_key(callers)), "INBOUND")
            }
            Op::PutLimit { workload, sockets } => {
                self.limits.insert(workload.0, sockets, 0).map_err(writing("LIMITS"))
            }
        }
    }

    /// Checks what a batch left behind; where two changes touch the same entry the later one counts.
    pub(super) fn read_back(&self, ops: &[Op]) -> Result<(), Error> {
        let mut seen = std::collections::HashSet::new();
        for op in ops.iter().rev() {
            if seen.insert(entry_name(op)) {
                self.check(op)?;
            }
        }
        Ok(())
    }

    fn check(&self, op: &Op) -> Result<(), Error> {
        let (map, right) = match op {
            Op::PutWorkload { cgroup, entry } => {
                ("WORKLOADS", found(self.workloads.get(cgroup, 0))?.is_some_and(|v| v.0 == *entry))
            }
            Op::DeleteWorkload { cgroup } => {
                ("WORKLOADS", found(self.workloads.get(cgroup, 0))?.is_none())
            }
            Op::PutSlot { slot, value } => {
                ("GRANTS", found(self.grants.get(slot, 0))?.is_some_and(|v| v.0 == *value))
            }
            Op::PutExact { key, rule } => {
                ("EXACT", found(self.exact.get(&Pod(*key), 0))?.is_some_and(|v| v.0 == *rule))
            }
            Op::DeleteExact { key } => ("EXACT", found(self.exact.get(&Pod(*key), 0))?.is_none()),
            Op::PutPortSet { index, set } => {
                ("PORTSETS", found(self.port_sets.get(index, 0))?.is_some_and(|v| v.0 == *set))
            }
            Op::PutRange { prefix, rule } => (
                "RANGES",
                found(self.ranges.get(&range_key(prefix), 0))?.is_some_and(|v| v.0 == *rule),
            ),
            // A look-up would find a covering prefix: the listing of `contents` shows it instead.
            Op::DeleteRange { .. } => ("RANGES", true),
            Op::PutInbound { callers } => {
                ("INBOUND", found(self.inbound.get(&callers_key(callers), 0))?.is_some())
            }
            Op::DeleteInbound { .. } => ("INBOUND", true),
            Op::PutLimit { workload, sockets } => {
                ("LIMITS", found(self.limits.get(&workload.0, 0))? == Some(*sockets))
            }
        };
        if right { Ok(()) } else { Err(Error::ReadBack { map, entry: format!("{op:?}") }) }
    }

    pub(super) fn slot(&self, slot: u32) -> Result<GrantSlot, Error> {
        self.grants.get(&slot, 0).map(|v| v.0).map_err(reading("GRANTS"))
    }

    pub(super) fn contents(&self, held: &Held) -> Result<Contents, Error> {
        let mut all = Contents::default();
        for entry in self.workloads.iter() {
            let (cgroup, value) = entry.map_err(reading("WORKLOADS"))?;
            all.workloads.insert(cgroup, value.0);
        }
        // Whole at once: an array is asked for each of its entries otherwise, and the enforcer waits for it.
        let mut slot = 0;
        each_entry(held, "GRANTS", |_, value: GrantSlot| {
            if value != GrantSlot::EMPTY {
                all.slots.insert(slot, value);
            }
            slot += 1;
        })?;
        each_entry(held, "EXACT", |key, rule: ExactRule| {
            if let Some(key) = super::pod::read::<ExactKey>(key) {
                all.exact.insert(key, rule);
            }
        })?;
        let mut index = 0;
        each_entry(held, "PORTSETS", |_, set: PortSet| {
            if set != PortSet::EMPTY && set.workload.0 != 0 {
                all.port_sets.insert(index, set);
            }
            index += 1;
        })?;
        for entry in self.ranges.iter() {
            let (key, rule) = entry.map_err(reading("RANGES"))?;
            let bits = key.prefix_len().saturating_sub(RangeKey::FIXED_BITS);
            all.ranges.insert(Prefix { key: key.data().0, bits }, rule.0);
        }
        for entry in self.inbound.iter() {
            let (key, _) = entry.map_err(reading("INBOUND"))?;
            let bits = key.prefix_len().saturating_sub(InboundKey::FIXED_BITS);
            all.inbound.insert(Callers { key: key.data().0, bits });
        }
        for entry in self.limits.iter() {
            let (workload, sockets) = entry.map_err(reading("LIMITS"))?;
            all.limits.insert(WorkloadId(workload), sockets);
        }
        Ok(all)
    }

    pub(super) fn counters(&self) -> Result<Vec<u64>, Error> {
        self.counters
            .iter()
            .map(|values| values.map(|v| v.iter().sum()).map_err(reading("COUNTERS")))
            .collect()
    }
}

fn each_entry<V: grantd_common::Abi>(
    held: &Held,
    map: &'static str,
    mut each: impl FnMut(&[u8], V),
) -> Result<(), Error> {
    let (_, _, key, value, _) = SHAPES
        .iter()
        .find(|(name, ..)| *name == map)
        .ok_or(Error::ObjectAbi { expected: grantd_common::ABI_VERSION })?;
    let fd = held.map(map).ok_or(Error::ObjectAbi { expected: grantd_common::ABI_VERSION })?;
    let read = sys::lookup_all(fd, *key, *value, |key, value| {
        if let Some(value) = super::pod::read::<V>(value) {
            each(key, value);
        }
    });
    read.map_err(|source| reading(map)(sys::map_error("bpf_map_lookup_batch", source)))
}

fn take<T>(object: &mut aya::Ebpf, name: &'static str) -> Result<T, Error>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map =
        object.take_map(name).ok_or(Error::ObjectAbi { expected: grantd_common::ABI_VERSION })?;
    T::try_from(map).map_err(reading(name))
}

fn callers_key(callers: &Callers) -> Key<Pod<InboundKey>> {
    Key::new(InboundKey::FIXED_BITS + callers.bits, Pod(callers.key))
}

fn range_key(prefix: &Prefix) -> Key<Pod<RangeKey>> {
    Key::new(RangeKey::FIXED_BITS + prefix.bits, Pod(prefix.key))
}

/// What a change is about, so that only the last of several is read back.
fn entry_name(op: &Op) -> (u8, Vec<u8>) {
    match op {
        Op::PutWorkload { cgroup, .. } | Op::DeleteWorkload { cgroup } => {
            (0, cgroup.to_ne_bytes().into())
        }
        Op::PutSlot { slot, .. } => (1, slot.to_ne_bytes().into()),
        Op::PutExact { key, .. } | Op::DeleteExact { key } => {
            let mut id: Vec<u8> = key.workload.0.to_ne_bytes().into();
            id.extend(key.port.0);
            id.push(key.protocol.0);
            id.extend(key.address.0);
            (2, id)
        }
        Op::PutPortSet { index, .. } => (3, index.to_ne_bytes().into()),
        Op::PutRange { prefix, .. } | Op::DeleteRange { prefix } => {
            let mut id: Vec<u8> = prefix.key.workload.into();
            id.push(prefix.key.protocol.0);
            id.extend(prefix.key.address.0);
            id.extend(prefix.bits.to_ne_bytes());
            (4, id)
        }
        Op::PutInbound { callers } | Op::DeleteInbound { callers } => {
            let mut id: Vec<u8> = callers.key.workload.into();
            id.extend(callers.key.port.0);
            id.push(callers.key.protocol.0);
            id.extend(callers.key.address.0);
            id.extend(callers.bits.to_ne_bytes());
            (5, id)
        }
        Op::PutLimit { workload, .. } => (6, workload.0.to_ne_bytes().into()),
    }
}

/// An entry that is already gone is as wanted.
fn gone(result: Result<(), MapError>, map: &'static str) -> Result<(), Error> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(source) if os_error(&source) == Some(libc::ENOENT) => Ok(()),
        Err(source) => Err(Error::Map { operation: "remove an entry of", map, source }),
    }
}

fn found<T>(result: Result<T, MapError>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(source) if os_error(&source) == Some(libc::ENOENT) => Ok(None),
        Err(source) => Err(Error::Map { operation: "read back", map: "policy", source }),
    }
}

fn writing(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| match os_error(&source) {
        Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM) => Error::MapFull { map },
        _ => Error::Map { operation: "write", map, source },
    }
}

fn reading(map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { operation: "read", map, source }
}

fn os_error(error: &MapError) -> Option<i32> {
    io_cause(error).and_then(std::io::Error::raw_os_error)
}
