//! What the kernel maps hold, read from the pins and not through the daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData};
use grantd_common::{
    ABI_VERSION, Address, ExactKey, ExactRule, GrantSlot, Protocol, RangeKey, RangeRule,
    WorkloadEntry, WorkloadId, capacity,
};

const EXACT_KEY: usize = size_of::<ExactKey>();
const EXACT_RULE: usize = size_of::<ExactRule>();
const RANGE_KEY: usize = size_of::<RangeKey>();
const RANGE_RULE: usize = size_of::<RangeRule>();
const ENTRY: usize = size_of::<WorkloadEntry>();
const SLOT: usize = size_of::<GrantSlot>();
/// A slot begins with its deadline.
const DEADLINE: usize = 8;

/// The pinned maps of one grantd.
#[derive(Clone, Debug)]
pub struct KernelView {
    maps: PathBuf,
}

/// How much the maps hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Entries of `EXACT`.
    pub exact: usize,
    /// Entries of `RANGES`.
    pub ranges: usize,
    /// Slots of `GRANTS` whose deadline is not zero.
    pub live_slots: usize,
}

impl KernelView {
    /// The maps pinned below a BPF filesystem.
    #[must_use]
    pub fn of(bpffs: &Path) -> Self {
        Self { maps: bpffs.join("grantd").join(format!("abi-{ABI_VERSION}")).join("maps") }
    }

    /// The pin of a map.
    #[must_use]
    pub fn pin(&self, map: &str) -> PathBuf {
        self.maps.join(map)
    }

    /// The pin of a hook's link.
    #[must_use]
    pub fn link(&self, hook: &str) -> PathBuf {
        self.maps.with_file_name("links").join(hook)
    }

    /// Counts what the maps hold beyond the canary's own grant.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn entries(&self) -> Result<Entries> {
        let exact: HashMap<_, [u8; EXACT_KEY], [u8; EXACT_RULE]> =
            Map::HashMap(self.map("EXACT")?).try_into().context("EXACT")?;
        let ranges: LpmTrie<_, [u8; RANGE_KEY], [u8; RANGE_RULE]> =
            Map::LpmTrie(self.map("RANGES")?).try_into().context("RANGES")?;
        let mut entries = Entries::default();
        let mut of_canary = None;
        for rule in exact.iter() {
            let (key, rule) = rule.context("reading EXACT")?;
            if key.starts_with(&WorkloadId::CANARY.0.to_ne_bytes()) {
                of_canary = rule.first_chunk().map(|slot| u32::from_ne_bytes(*slot));
            } else {
                entries.exact += 1;
            }
        }
        entries.live_slots = self.live_slots(of_canary)?;
        for key in ranges.keys() {
            key.context("reading RANGES")?;
            entries.ranges += 1;
        }
        Ok(entries)
    }

    /// Removes a cgroup from `WORKLOADS`, as somebody with root could.
    ///
    /// # Errors
    /// When it is not there.
    pub fn forget_cgroup(&self, cgroup: u64) -> Result<()> {
        let mut workloads: HashMap<_, u64, [u8; ENTRY]> =
            Map::HashMap(self.map("WORKLOADS")?).try_into().context("WORKLOADS")?;
        workloads.remove(&cgroup).with_context(|| format!("removing {cgroup} from WORKLOADS"))
    }

    /// What `WORKLOADS` says of a cgroup: workload and flags.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn workload(&self, cgroup: u64) -> Result<WorkloadEntry> {
        let workloads: HashMap<_, u64, [u8; ENTRY]> =
            Map::HashMap(self.map("WORKLOADS")?).try_into().context("WORKLOADS")?;
        let bytes = workloads.get(&cgroup, 0).with_context(|| format!("{cgroup} in WORKLOADS"))?;
        let [a, b, c, d, e, f, g, h] = bytes;
        let workload = WorkloadId(u32::from_ne_bytes([a, b, c, d]));
        Ok(WorkloadEntry { workload, flags: u32::from_ne_bytes([e, f, g, h]) })
    }

    /// Writes a slot that nothing granted, and a rule that points there, as somebody with root could.
    ///
    /// # Errors
    /// When the maps cannot be written.
    pub fn forge(&self, slot: u32, workload: WorkloadId, to: SocketAddr) -> Result<()> {
        let mut grants: Array<_, [u8; SLOT]> =
            Map::Array(self.map("GRANTS")?).try_into().context("GRANTS")?;
        let far = u64::MAX.to_ne_bytes();
        let generation = 1_u32.to_ne_bytes();
        let value = far.into_iter().chain(far).chain(generation);
        grants.set(slot, filled(value), 0).context("writing GRANTS")?;
        let mut exact: HashMap<_, [u8; EXACT_KEY], [u8; EXACT_RULE]> =
            Map::HashMap(self.map("EXACT")?).try_into().context("EXACT")?;
        let address: Address = to.ip().into();
        let head = workload.0.to_ne_bytes().into_iter().chain(to.port().to_be_bytes());
        let key = head.chain([Protocol::TCP.0, 0]).chain(address.0);
        let rule = slot.to_ne_bytes().into_iter().chain(generation).chain(far);
        exact.insert(filled(key), filled(rule), 0).context("writing EXACT")
    }

    fn live_slots(&self, but: Option<u32>) -> Result<usize> {
        let grants: Array<_, [u8; SLOT]> =
            Map::Array(self.map("GRANTS")?).try_into().context("GRANTS")?;
        let mut live = 0;
        for slot in (0..capacity::GRANTS).filter(|slot| Some(*slot) != but) {
            let bytes = grants.get(&slot, 0).context("reading GRANTS")?;
            if bytes.iter().take(DEADLINE).any(|byte| *byte != 0) {
                live += 1;
            }
        }
        Ok(live)
    }

    fn map(&self, name: &str) -> Result<MapData> {
        let pin = self.pin(name);
        MapData::from_pin(&pin).with_context(|| format!("opening {}", pin.display()))
    }
}

/// The bytes, and zeroes after them.
fn filled<const N: usize>(bytes: impl IntoIterator<Item = u8>) -> [u8; N] {
    let mut all = [0; N];
    all.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    all
}
