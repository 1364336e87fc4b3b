//! The watch object: the slice and the workloads are known in the kernel before their first task runs,
//! with the daemon alive or dead, and tasks that enter or leave are told.
//!
//! Optional: a kernel that refuses it (no type information, tracing locked down) leaves the daemon's own
//! looks at the cgroups, and coverage says so. Pinned like the rest.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, MapType, RingBuf};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, Program};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use grantd_common::moves::path_key;
use grantd_common::{ABI_VERSION, Move, MoveKind, PathKey, WorkloadEntry, WorkloadId, capacity};

use super::attach::{self, HookCoverage};
use super::btf::Types;
use super::error::Error;
use super::held::{Found, Kept, repair_pin};
use super::load::{Pins, check_shape_at};
use super::pod::{self, Pod};
use super::sys;

/// The programs; empty where `cargo xtask build-ebpf` has not run.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watch.o"));

/// The maps of its own that are pinned; `WORKLOADS` is shared with the enforce object.
pub(super) const SHAPES: [(&str, MapType, usize, usize, u32); 4] = [
    ("PATHS", MapType::Hash, size_of::<PathKey>(), size_of::<WorkloadEntry>(), capacity::PATHS),
    ("MOVES", MapType::RingBuf, 0, 0, capacity::MOVES_BYTES),
    ("MOVES_LOST", MapType::Array, 4, 8, 1),
    ("TASKS", MapType::TaskStorage, 4, size_of::<WorkloadId>(), 0),
];

/// The tracepoints, which are also the names of the programs. What makes a cgroup known comes first.
pub(super) const TRACEPOINTS: [&str; 4] =
    ["cgroup_mkdir", "cgroup_rmdir", "cgroup_attach_task", "sched_process_fork"];

/// The offsets that the programs need: global, structure, member.
const OFFSETS: [(&str, &str, &str); 12] = [
    ("CGROUP_LEVEL", "cgroup", "level"),
    ("CGROUP_KN", "cgroup", "kn"),
    ("CGROUP_ROOT", "cgroup", "root"),
    ("CGROUP_ANCESTORS", "cgroup", "ancestors"),
    ("ROOT_HIERARCHY", "cgroup_root", "hierarchy_id"),
    ("KN_ID", "kernfs_node", "id"),
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_START", "task_struct", "start_boottime"),
    ("TASK_COMM", "task_struct", "comm"),
    ("TASK_CGROUPS", "task_struct", "cgroups"),
    ("SET_CGROUP", "css_set", "dfl_cgrp"),
];

/// What of the watch is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchState {
    /// Its programs, each with why it is not attached.
    pub hooks: Vec<HookCoverage>,
    /// Cgroups that are followed by the daemon's looks alone, because their path is too long.
    pub unwatched: Vec<PathBuf>,
}

impl WatchState {
    /// Whether a slice or workload that is made anew is known before its first task runs.
    #[must_use]
    pub fn knows_new_cgroups(&self) -> bool {
        self.has("cgroup_mkdir") && self.unwatched.is_empty()
    }

    /// Whether tasks that are moved into or out of the slice are seen when that happens.
    #[must_use]
    pub fn sees_moves(&self) -> bool {
        self.has("cgroup_attach_task") && self.has("sched_process_fork")
    }

    /// Whether both.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.knows_new_cgroups() && self.sees_moves()
    }

    fn has(&self, name: &str) -> bool {
        self.hooks.iter().any(|hook| hook.hook == name && hook.attached)
    }
}

/// The watch, as far as the kernel takes it.
pub(super) struct Watch {
    paths: Option<HashMap<MapData, PathKey, Pod<WorkloadEntry>>>,
    /// Its links: nothing but the last reference detaches one of this kind.
    links: Vec<(&'static str, Kept)>,
    /// Why programs are not attached, by tracepoint; one reason for all is under no name.
    problems: Vec<(&'static str, String)>,
    unwatched: Vec<PathBuf>,
}

impl Watch {
    /// Loads and attaches what the kernel takes. Never fails: what is missing is in [`Self::state`].
    pub(super) fn start(pins: &Pins, slice_level: u32) -> Self {
        let mut watch =
            Self { paths: None, links: Vec::new(), problems: Vec::new(), unwatched: Vec::new() };
        if let Err(error) = watch.load(pins, slice_level) {
            let problem = crate::text::chain(&*error);
            tracing::warn!("cgroups are not watched, only looked at each half second: {problem}");
            watch.problems = TRACEPOINTS.map(|name| (name, problem.clone())).into();
        }
        watch
    }

    fn load(&mut self, pins: &Pins, slice_level: u32) -> Result<(), Failure> {
        for shape in &SHAPES {
            check_shape_at(&pins.map(shape.0), shape)?;
        }
        let (types, btf) = (Types::of_kernel()?, Btf::from_sys_fs()?);
        let mut object = open(pins, slice_level, &types, &btf)?;
        let paths = object.take_map("PATHS").ok_or("the watch object has no map PATHS")?;
        for name in TRACEPOINTS {
            match attach_one(&mut object, name, &btf, pins) {
                Ok(link) => self.links.push((name, link)),
                Err(error) => {
                    let problem = crate::text::chain(&*error);
                    tracing::warn!("{name} is not watched: {problem}");
                    self.problems.push((name, problem));
                }
            }
        }
        self.paths = Some(HashMap::try_from(paths)?);
        Ok(())
    }

    /// From now on, cgroups that are made at these paths (from the root of the hierarchy) become these
    /// entries, and no others.
    ///
    /// # Errors
    /// A map operation.
    pub(super) fn follow(&mut self, wanted: &[(PathBuf, WorkloadEntry)]) -> Result<(), Error> {
        let Some(paths) = &mut self.paths else { return Ok(()) };
        let failed = |operation| move |source| Error::Map { operation, map: "PATHS", source };
        let mut keys = std::collections::HashMap::new();
        self.unwatched.clear();
        for (path, entry) in wanted {
            match key_of(path) {
                Some(key) => drop(keys.insert(key, *entry)),
                None => self.unwatched.push(path.clone()),
            }
        }
        let there: Result<Vec<PathKey>, MapError> = paths.keys().collect();
        for key in there.map_err(failed("read"))? {
            if !keys.contains_key(&key) {
                paths.remove(&key).map_err(failed("remove an entry of"))?;
            }
        }
        for (key, entry) in keys {
            paths.insert(key, Pod(entry), 0).map_err(failed("write"))?;
        }
        Ok(())
    }

    /// Puts back pins that are not as they were left.
    pub(super) fn repair_pins(&self, pins: &Pins) -> Vec<Found> {
        let links = self.links.iter();
        links.filter_map(|(name, link)| repair_pin(pins, name, link.as_fd())).collect()
    }

    /// What is in effect now, looked up in the pins.
    pub(super) fn state(&self, pins: &Pins) -> WatchState {
        let hook = |name: &'static str| {
            // An earlier daemon's alone would not follow what this one writes.
            let ours = self.links.iter().any(|(of, _)| *of == name);
            let attached = ours && sys::open_pin(&pins.link(name)).is_ok();
            let problem = self.problems.iter().find(|(of, _)| *of == name);
            let detail = match problem {
                Some((_, problem)) => problem.clone(),
                None if attached => "the whole host".to_owned(),
                None => "its link is not pinned".to_owned(),
            };
            HookCoverage { hook: name, attached, detail }
        };
        WatchState { hooks: TRACEPOINTS.map(hook).into(), unwatched: self.unwatched.clone() }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn key_of(path: &Path) -> Option<PathKey> {
    use std::os::unix::ffi::OsStrExt as _;
    path_key(path.as_os_str().as_bytes())
}

fn open(pins: &Pins, slice_level: u32, types: &Types, btf: &Btf) -> Result<Ebpf, Failure> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject.into());
    }
    let abi_symbol = format!("GRANTD_ABI_{ABI_VERSION}");
    let mut offsets = Vec::with_capacity(OFFSETS.len());
    for (global, structure, member) in OFFSETS {
        let offset = types
            .offset(structure, member)
            .ok_or_else(|| format!("this kernel's struct {structure} has no {member}"))?;
        offsets.push((global, offset));
    }
    let mut loader = EbpfLoader::new();
    // aya has no handle for storage of tasks; only the programs use it.
    loader.btf(Some(btf)).allow_unsupported_maps();
    loader.override_global("SLICE_LEVEL", &slice_level, true);
    loader.override_global(&abi_symbol, &ABI_VERSION, true);
    for (global, offset) in &offsets {
        loader.override_global(global, offset, true);
    }
    loader.map_pin_path("WORKLOADS", pins.map("WORKLOADS"));
    for (name, ..) in &SHAPES {
        loader.map_pin_path(name, pins.map(name));
    }
    Ok(loader.load(OBJECT)?)
}

/// A link of this kind cannot be given another program: the new one is attached beside the old one, then
/// takes its pin. Between the two an event may be told twice.
fn attach_one(
    object: &mut Ebpf,
    name: &'static str,
    btf: &Btf,
    pins: &Pins,
) -> Result<Kept, Failure> {
    let Some(Program::BtfTracePoint(program)) = object.program_mut(name) else {
        return Err(Error::ObjectAbi { expected: ABI_VERSION }.into());
    };
    let program: &mut BtfTracePoint = program;
    program.load(name, btf)?;
    let id = program.attach()?;
    let link = FdLink::from(program.take_link(id)?);
    attach::replace_pin(attach::Link::Aya(link), &pins.link(name))?;
    Ok(Kept::of_pin(&pins.link(name))?)
}

/// The one reader of `MOVES`.
pub struct MovesReader {
    buffer: RingBuf<MapData>,
    lost: Array<MapData, u64>,
    known_lost: u64,
}

impl MovesReader {
    pub(super) fn open(pins: &Pins) -> Result<Self, Error> {
        let pinned = |name: &str| MapData::from_pin(pins.map(name));
        let open = || -> Result<Self, MapError> {
            let lost: Array<MapData, u64> = Array::try_from(Map::Array(pinned("MOVES_LOST")?))?;
            let known_lost = lost.get(&0, 0)?;
            Ok(Self {
                buffer: RingBuf::try_from(Map::RingBuf(pinned("MOVES")?))?,
                lost,
                known_lost,
            })
        };
        open().map_err(|source| Error::Ring { ring: "MOVES", source })
    }

    /// What has happened, at most `limit`, in order. What is none of this version is left out: the
    /// daemon's looks find it.
    pub fn take(&mut self, limit: usize) -> Vec<(Move, MoveKind)> {
        let mut taken = Vec::new();
        for _ in 0..limit {
            let Some(item) = self.buffer.next() else { break };
            let read = pod::read::<Move>(&item);
            taken.extend(read.and_then(|m| Some((m, MoveKind::from_u32(m.kind)?))));
        }
        taken
    }

    /// How many events were lost since it was last asked.
    pub fn lost(&mut self) -> u64 {
        let Ok(lost) = self.lost.get(&0, 0) else { return 0 };
        let more = lost.wrapping_sub(self.known_lost);
        self.known_lost = lost;
        more
    }
}

impl AsFd for MovesReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.buffer.as_fd()
    }
}
