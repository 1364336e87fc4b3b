//! Everything that touches the kernel: probe, load, attach, pin, adopt, apply, read back, rings.
//!
//! The one place in userspace with `unsafe`. It is reached by plain data only ([`Op`], [`Contents`],
//! [`HookCoverage`]), so that it can become a process of its own. It relies on one writer: the
//! enforcer. Pins lie under `<bpffs>/grantd/abi-<N>/`; dropping [`Kernel`] leaves them, and with
//! them every denial and every deadline, in place.

mod attach;
mod btf;
mod diag;
mod error;
mod guard;
mod held;
mod host;
pub mod launch;
mod load;
mod maps;
mod migrate;
mod op;
mod place;
mod pod;
mod ring;
mod self_check;
mod sys;
mod watch;

use std::path::{Path, PathBuf};

pub use attach::HookCoverage;
pub use diag::{Destroyed, Diag, DiagSocket, Namespace, NamespaceId, Which, tasks_below};
pub use error::Error;
pub use guard::{Form, GuardHook, GuardState, Unresolved, run_probe, wait_to_be_probed};
pub use host::{Cgroup, cgroup_of, cgroup2_mount, invocation_id};
pub use load::disarm;
pub use maps::Contents;
pub use op::{Callers, Op, Prefix};
pub use place::Place;
pub use ring::RingReader;
pub use self_check::Tampered;
pub use sys::{clock_synchronised, watch};
pub use watch::{MovesReader, WatchState};

use grantd_common::{Ring, WorkloadEntry, WorkloadId};

/// What the loader needs to know about this host.
#[derive(Clone, Debug)]
pub struct Setup {
    /// A mounted bpffs.
    pub bpffs: PathBuf,
    /// The cgroup at which the address hooks are attached: the cgroup root, or a parent that tests made.
    pub cgroup_root: PathBuf,
    /// The enforced slice's directory, somewhere below `cgroup_root`.
    pub slice: PathBuf,
    /// Whether the guard is wanted.
    pub guard: bool,
}

/// Tries whether this kernel takes the programs, and changes nothing: nothing is attached or pinned.
///
/// # Errors
/// As [`Kernel::start`].
pub fn check(setup: &Setup) -> Result<(), Error> {
    host::require_bpffs(&setup.bpffs)?;
    host::open_cgroup(&setup.cgroup_root)?;
    host::open_cgroup(&setup.slice)?;
    load::try_load(host::level_of(&setup.slice)?)
}

/// Why the pins do not enforce by themselves; empty when every hook's link is pinned and attached where
/// it belongs. Needs no daemon.
#[must_use]
pub fn pins_not_enforcing(setup: &Setup) -> Vec<String> {
    let slice = match host::open_cgroup(&setup.slice) {
        Ok(slice) => slice,
        Err(error) => return vec![error.to_string()],
    };
    let coverage = attach::coverage(&load::Pins::open(&setup.bpffs), &setup.cgroup_root, &slice);
    coverage
        .into_iter()
        .filter(|c| !c.attached)
        .map(|c| format!("{}: {}", c.hook, c.detail))
        .collect()
}

/// The loaded and attached kernel programs, and their maps.
pub struct Kernel {
    setup: Setup,
    programs: attach::Programs,
    maps: maps::Maps,
    guard: guard::Guard,
    watch: watch::Watch,
    held: held::Held,
    slice: Cgroup,
    adopted: bool,
    /// Another ABI's programs are attached still.
    to_take_over: bool,
}

impl Kernel {
    /// Loads the programs, or adopts what an earlier daemon left pinned, and attaches every hook; where that
    /// daemon was of another ABI only [`Self::take_over`] does. Nothing is opened: a fresh start has no rule,
    /// an adopted one keeps its own.
    ///
    /// # Errors
    /// A missing kernel feature, mount or cgroup, with what to do about it; pins of another shape.
    pub fn start(setup: &Setup) -> Result<Self, Error> {
        host::require_bpffs(&setup.bpffs)?;
        let slice = host::open_cgroup(&setup.slice)?;
        let level = host::level_of(&setup.slice)?;
        let pins = load::Pins::prepare(&setup.bpffs)?;
        let adopted = pins.any_link()?;
        let loaded = load::load(&pins, level)?;
        let mut maps = loaded.maps;
        // Deny first: the slice is known before any hook could take its tasks for bystanders. One whose
        // hooks are all there goes on as it is: agents make sockets while a daemon restarts.
        let covered = attach::slice_is_covered(&pins, &slice);
        if covered && !pins.others.is_empty() {
            // Our own map of cgroups is new.
            maps.apply(&[Op::slice_attached(slice.id)])?;
        } else if !covered {
            maps.apply(&[Op::slice(slice.id)])?;
        }
        let (programs, to_take_over) = (loaded.programs, !pins.others.is_empty());
        let watch = watch::Watch::start(&pins, level);
        let guard = match setup.guard {
            true => guard::Guard::load(&pins, level),
            false => guard::Guard::off(&pins)?,
        };
        let held = held::Held::of_maps(&pins)?;
        let mut kernel = Self {
            setup: setup.clone(),
            programs,
            maps,
            guard,
            watch,
            held,
            slice,
            adopted,
            to_take_over,
        };
        if !to_take_over {
            kernel.attach(&pins)?;
        }
        Ok(kernel)
    }

    /// Puts our programs in the place of another ABI's, once the maps hold what the old ones held; nothing
    /// where there are none. Called when the maps were brought together with the ledger.
    ///
    /// # Errors
    /// A hook that does not attach: the old programs stay where they are.
    pub fn take_over(&mut self) -> Result<(), Error> {
        if self.to_take_over {
            let pins = load::Pins::open(&self.setup.bpffs);
            self.attach(&pins)?;
            pins.others.remove()?;
            self.to_take_over = false;
        }
        Ok(())
    }

    fn attach(&mut self, pins: &load::Pins) -> Result<(), Error> {
        self.programs.attach(pins, &self.setup.cgroup_root, &self.slice)?;
        self.hold(pins)?;
        self.maps.apply(&[Op::slice_attached(self.slice.id)])?;
        self.guard.attach(pins, &self.slice);
        self.prove_guard();
        Ok(())
    }

    /// Tries whether the guard refuses what it should, with processes of its own, and returns what of it is
    /// in effect. Takes some tens of milliseconds.
    pub fn prove_guard(&mut self) -> &GuardState {
        // The second time for hooks that were attached in another form after the first.
        for _ in 0..2 {
            if !self.guard.is_attached() || !self.prove_once() {
                break;
            }
        }
        self.guard.state()
    }

    fn prove_once(&mut self) -> bool {
        let pins = load::Pins::open(&self.setup.bpffs);
        let proof = Place::make(&self.slice.path, guard::PLACE).and_then(|place| {
            // As a workload that nothing is recorded of.
            let entry = WorkloadEntry { workload: WorkloadId::CANARY, flags: 0 };
            self.maps.apply(&[Op::PutWorkload { cgroup: place.id(), entry }])?;
            let proof = guard::prove(&place);
            self.maps.apply(&[Op::DeleteWorkload { cgroup: place.id() }])?;
            Ok(proof)
        });
        let proof = proof.unwrap_or_else(|error| guard::Proof::untried(&error));
        self.guard.seen(&pins, &self.slice, &proof)
    }

    /// What of the guard is in effect, as of the last proof.
    #[must_use]
    pub const fn guard_state(&self) -> &GuardState {
        self.guard.state()
    }

    /// Opens these local sockets outside to these workloads, and gives them these bits of
    /// `grantd_common::guard::rule`; others have none. Returns the sockets that are not there.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn set_guard_rules(
        &mut self,
        sockets: &[(WorkloadId, &Path)],
        rules: &[(WorkloadId, u32)],
    ) -> Result<Vec<Unresolved>, Error> {
        self.guard.follow(sockets, rules)
    }

    /// Keeps open what is pinned now.
    fn hold(&mut self, pins: &load::Pins) -> Result<(), Error> {
        self.held.hold_links(pins, attach::HOOKS.iter().map(|hook| hook.name))
    }

    /// Whether pins of an earlier daemon were adopted.
    #[must_use]
    pub const fn adopted(&self) -> bool {
        self.adopted
    }

    /// The enforced slice as it is attached now.
    #[must_use]
    pub const fn slice(&self) -> &Cgroup {
        &self.slice
    }

    /// Where the pins are.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        load::Pins::directory(&self.setup.bpffs)
    }

    /// Applies changes in order; stops at the first that the kernel refuses.
    ///
    /// # Errors
    /// Which change was refused, and why; a full map is [`Error::MapFull`].
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), Error> {
        self.maps.apply(ops)
    }

    /// Applies changes that end something: goes on past a failure, so that one entry that cannot be
    /// written keeps nothing else open.
    ///
    /// # Errors
    /// The first failure, after everything was tried.
    pub fn apply_all(&mut self, ops: &[Op]) -> Result<(), Error> {
        let mut first = Ok(());
        for op in ops {
            let result = self.maps.apply(std::slice::from_ref(op));
            first = first.and(result);
        }
        first
    }

    /// Reads back what `ops` should have left behind, later ones counting over earlier ones.
    ///
    /// # Errors
    /// [`Error::ReadBack`] naming the first entry that differs.
    pub fn read_back(&self, ops: &[Op]) -> Result<(), Error> {
        self.maps.read_back(ops)
    }

    /// Everything that the maps hold.
    ///
    /// # Errors
    /// A map that cannot be read.
    pub fn contents(&self) -> Result<Contents, Error> {
        self.maps.contents(&self.held)
    }

    /// One grant slot.
    ///
    /// # Errors
    /// The slot cannot be read.
    pub fn slot(&self, slot: u32) -> Result<grantd_common::GrantSlot, Error> {
        self.maps.slot(slot)
    }

    /// All counters, summed over the CPUs; indexes as in `grantd_common::event::counter`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<u64>, Error> {
        self.maps.counters()
    }

    /// A reader of one ring; each ring has one reader.
    ///
    /// # Errors
    /// The ring cannot be mapped.
    pub fn ring(&mut self, ring: Ring) -> Result<RingReader, Error> {
        RingReader::open(&load::Pins::open(&self.setup.bpffs), ring)
    }

    /// Lists and ends sockets, with what the programs stored about them.
    ///
    /// # Errors
    /// The pinned map cannot be opened or read.
    pub fn diag(&self) -> Result<Diag, Error> {
        Diag::open(&load::Pins::open(&self.setup.bpffs), self.programs.datagrams()?)
    }

    /// Which hooks are attached where they should be, read from the kernel now.
    #[must_use]
    pub fn coverage(&self) -> Vec<HookCoverage> {
        let pins = load::Pins::open(&self.setup.bpffs);
        attach::coverage(&pins, &self.setup.cgroup_root, &self.slice)
    }

    /// Tells the kernel at which directories the slice and the workloads are made, so that it knows each
    /// from its first instruction on, also while no daemon runs.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn follow(&mut self, workloads: &[(PathBuf, WorkloadId)]) -> Result<(), Error> {
        let slice = WorkloadEntry { workload: WorkloadId::UNKNOWN, flags: WorkloadEntry::SLICE };
        let pending = |workload| WorkloadEntry { workload, flags: WorkloadEntry::PENDING };
        let mut wanted = vec![(host::path_in_hierarchy(&self.setup.slice)?, slice)];
        for (path, workload) in workloads {
            wanted.push((host::path_in_hierarchy(path)?, pending(*workload)));
        }
        self.watch.follow(&wanted)
    }

    /// What of the watch over cgroups is in effect, read from the kernel now.
    #[must_use]
    pub fn watch_state(&self) -> WatchState {
        self.watch.state(&load::Pins::open(&self.setup.bpffs))
    }

    /// The reader of what the watch tells; `None` where there is no watch.
    ///
    /// # Errors
    /// The ring cannot be mapped.
    pub fn moves(&self) -> Result<Option<MovesReader>, Error> {
        if self.watch_state().hooks.iter().all(|hook| !hook.attached) {
            return Ok(None);
        }
        MovesReader::open(&load::Pins::open(&self.setup.bpffs)).map(Some)
    }

    /// Follows the slice: when it was removed and made anew, the new one is made known and the packet
    /// hooks are attached to it. Returns whether it changed.
    ///
    /// # Errors
    /// The slice does not exist, or a hook does not attach.
    pub fn renew_slice(&mut self) -> Result<bool, Error> {
        let now = host::open_cgroup(&self.setup.slice)?;
        if now.id == self.slice.id {
            return Ok(false);
        }
        self.maps.apply(&[Op::slice(now.id)])?;
        let pins = load::Pins::open(&self.setup.bpffs);
        self.programs.attach(&pins, &self.setup.cgroup_root, &now)?;
        self.hold(&pins)?;
        let old = Op::DeleteWorkload { cgroup: self.slice.id };
        self.maps.apply(&[Op::slice_attached(now.id), old])?;
        self.slice = now;
        self.guard.attach(&pins, &self.slice);
        self.prove_guard();
        Ok(true)
    }
}
