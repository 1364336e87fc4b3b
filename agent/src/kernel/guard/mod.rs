//! The guard object: what LSM hooks refuse to confined tasks beyond the cgroup hooks.
//!
//! Optional: a kernel that refuses it leaves the ways out that it closes open, and coverage says so. A hook
//! counts only when it was seen to take effect: a kernel may take a program and never run it, and may ask it
//! by the socket's cgroup instead of the task's. Where the form at the slice has no effect, the system-wide
//! one is tried. Pinned like the rest.

mod local;
mod probe;
mod prove;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use aya::maps::{HashMap, MapData, MapType};
use aya::programs::Program;
use aya::programs::links::FdLink;
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use grantd_common::{ABI_VERSION, Hook, LocalPeer, WorkloadId, capacity};

pub use local::Unresolved;
pub use probe::{run as run_probe, wait as wait_to_be_probed};
pub(super) use prove::{PLACE, Proof, prove};

use super::attach::{self, Link};
use super::btf::Types;
use super::error::Error;
use super::held::{Found, Kept, repair_pin};
use super::host::Cgroup;
use super::load::{self, Pins, check_shape_at};
use super::pod::Pod;
use super::sys;
use prove::Unseen;

/// The programs; empty where `cargo xtask build-ebpf` has not run.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard.o"));

/// The maps of its own that are pinned; the others are the enforce object's.
pub(super) const SHAPES: [(&str, MapType, usize, usize, u32); 2] = [
    ("LOCAL_PEERS", MapType::Hash, size_of::<LocalPeer>(), 4, capacity::LOCAL_PEERS),
    ("GUARD_RULES", MapType::Hash, 4, 4, capacity::WORKLOADS),
];

/// One hook: its name in the kernel, which is also that of its programs behind `guard_` and `host_`.
struct Spec {
    hook: Hook,
    lsm: &'static str,
    host: &'static str,
}

impl Spec {
    /// The name of its link in this form.
    const fn link(&self, form: Form) -> &'static str {
        match form {
            Form::Slice => self.hook.as_str(),
            Form::Host => self.host,
        }
    }
}

const fn spec(hook: Hook, lsm: &'static str, host: &'static str) -> Spec {
    Spec { hook, lsm, host }
}

/// In order of priority: a kernel has room for ten hooks of this kind on the whole host.
const HOOKS: [Spec; 10] = [
    spec(Hook::GuardSocketCreate, "socket_create", "host_socket_create"),
    spec(Hook::GuardSocketConnect, "socket_connect", "host_socket_connect"),
    spec(Hook::GuardSocketSendmsg, "socket_sendmsg", "host_socket_sendmsg"),
    spec(Hook::GuardSocketRecvmsg, "socket_recvmsg", "host_socket_recvmsg"),
    spec(Hook::GuardFileReceive, "file_receive", "host_file_receive"),
    spec(Hook::GuardUnixStreamConnect, "unix_stream_connect", "host_unix_stream_connect"),
    spec(Hook::GuardUnixMaySend, "unix_may_send", "host_unix_may_send"),
    spec(Hook::GuardPtraceAccessCheck, "ptrace_access_check", "host_ptrace_access_check"),
    spec(Hook::GuardBpf, "bpf", "host_bpf"),
    spec(Hook::GuardUsernsCreate, "userns_create", "host_userns_create"),
];

/// What complements `socket_sendmsg` where the kernel has `sendpage` (before 6.5): sendfile and splice into a
/// socket ask no hook of sockets there. Last, and only where it is needed: it is asked for every file.
const SPLICED: Spec = spec(Hook::GuardFilePermission, "file_permission", "host_file_permission");

/// Every hook, in order of priority.
fn specs() -> impl Iterator<Item = &'static Spec> {
    HOOKS.iter().chain([&SPLICED])
}

/// The links that may be pinned.
pub(super) fn links() -> impl Iterator<Item = &'static str> {
    specs().flat_map(|spec| [spec.hook.as_str(), spec.host])
}

/// The offsets that the programs need: global, structure, member.
const OFFSETS: [(&str, &str, &str); 16] = [
    ("SOCKET_SK", "socket", "sk"),
    ("SK_FAMILY", "sock_common", "skc_family"),
    ("SK_CGROUP", "sock", "sk_cgrp_data"),
    ("UNIX_PATH", "unix_sock", "path"),
    ("PATH_DENTRY", "path", "dentry"),
    ("DENTRY_INODE", "dentry", "d_inode"),
    ("INODE_NUMBER", "inode", "i_ino"),
    ("INODE_SB", "inode", "i_sb"),
    ("SB_DEVICE", "super_block", "s_dev"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_CGROUPS", "task_struct", "cgroups"),
    ("SET_CGROUP", "css_set", "dfl_cgrp"),
    ("CGROUP_LEVEL", "cgroup", "level"),
    ("CGROUP_KN", "cgroup", "kn"),
    ("CGROUP_ANCESTORS", "cgroup", "ancestors"),
    ("KN_ID", "kernfs_node", "id"),
];

/// How a hook of the guard is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// At the enforced slice.
    Slice,
    /// For every task of the host; it returns at once for those that are not confined.
    Host,
}

/// One hook of the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardHook {
    /// Its name, as records have it.
    pub hook: &'static str,
    /// How it is attached; `None`: it is not.
    pub form: Option<Form>,
    /// Whether it was seen to refuse.
    pub in_effect: bool,
    /// Why it is not attached or not in effect; else where it is.
    pub detail: String,
}

/// What of the guard is in effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardState {
    /// The config asks for it.
    pub wanted: bool,
    /// Its hooks, in order of priority; none where the config does not ask for it.
    pub hooks: Vec<GuardHook>,
}

impl GuardState {
    /// Names of the hooks that were seen to take effect.
    ///
    /// That of sending is among them only with what complements it on this kernel.
    pub fn in_effect(&self) -> impl Iterator<Item = &'static str> + '_ {
        let spliced = |hook: &GuardHook| hook.hook == SPLICED.hook.as_str() && !hook.in_effect;
        let half = self.hooks.iter().any(spliced);
        let sends = Hook::GuardSocketSendmsg.as_str();
        let counts = move |hook: &&GuardHook| hook.in_effect && !(half && hook.hook == sends);
        self.hooks.iter().filter(counts).map(|hook| hook.hook)
    }

    /// What is missing, each with why; empty where all of it is in effect. A hook whose effect cannot be
    /// tried on this host is not missing where another of its form was seen to take effect.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let works = |form| self.hooks.iter().any(|hook| hook.in_effect && hook.form == form);
        let missing = self
            .hooks
            .iter()
            .filter(|hook| !(hook.in_effect || hook.form.is_some() && works(hook.form)));
        missing.map(|hook| format!("{}: {}", hook.hook, hook.detail)).collect()
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The guard, as far as the kernel takes it.
pub(super) struct Guard {
    loaded: Option<Loaded>,
    state: GuardState,
}

struct Loaded {
    object: Ebpf,
    btf: Btf,
    peers: HashMap<MapData, Pod<LocalPeer>, u32>,
    rules: HashMap<MapData, u32, u32>,
    /// Whether this kernel splices into sockets past `socket_sendmsg`.
    splices: bool,
    /// What is attached, by the name of its link.
    links: BTreeMap<&'static str, Kept>,
}

impl Guard {
    /// One that the config does not ask for: what an earlier daemon left of it goes.
    pub(super) fn off(pins: &Pins) -> Result<Self, Error> {
        for name in links() {
            unpin(&pins.link(name))?;
        }
        Ok(Self { loaded: None, state: GuardState::default() })
    }

    /// Loads the object; nothing is attached yet. Never fails: what is missing is in [`Self::state`].
    pub(super) fn load(pins: &Pins, slice_level: u32) -> Self {
        let (loaded, problem) = match open(pins, slice_level) {
            Ok(loaded) => (Some(loaded), "not attached yet".to_owned()),
            Err(error) => (None, crate::text::chain(&*error)),
        };
        let hook = |spec: &Spec| GuardHook {
            hook: spec.hook.as_str(),
            form: None,
            in_effect: false,
            detail: problem.clone(),
        };
        let splices = loaded.as_ref().is_some_and(|loaded| loaded.splices);
        let hooks = specs().take(HOOKS.len() + usize::from(splices)).map(hook).collect();
        Self { loaded, state: GuardState { wanted: true, hooks } }
    }

    /// Attaches hook after hook to the slice: the new program beside an earlier daemon's, which then goes.
    /// One for which the slice has no room is attached for the whole host; so is one that was before, this
    /// or another ABI's: beside it the form at the slice would seem to take effect.
    pub(super) fn attach(&mut self, pins: &Pins, slice: &Cgroup) {
        let Some(loaded) = &mut self.loaded else { return };
        for (spec, hook) in specs().zip(&mut self.state.hooks) {
            hook.in_effect = false;
            hook.detail = "attached, and not seen to take effect yet".to_owned();
            let was_host = pins.existing_link(spec.host).exists();
            let (first, second) = match was_host {
                true => (Form::Host, Form::Slice),
                false => (Form::Slice, Form::Host),
            };
            hook.form = match loaded.attach(spec, first, pins, slice) {
                Ok(()) => Some(first),
                Err(error) => match loaded.attach(spec, second, pins, slice) {
                    Ok(()) => Some(second),
                    Err(_) => {
                        hook.detail = crate::text::chain(&*error);
                        None
                    }
                },
            };
        }
    }

    /// Takes in what was seen. Returns whether another proof is needed: a hook without effect was attached
    /// in its system-wide form.
    pub(super) fn seen(&mut self, pins: &Pins, slice: &Cgroup, proof: &Proof) -> bool {
        let Some(loaded) = &mut self.loaded else { return false };
        let mut again = false;
        for (spec, hook) in specs().zip(&mut self.state.hooks) {
            let Some(form) = hook.form else { continue };
            let seen = proof.of(spec.lsm);
            hook.in_effect = seen == Ok(());
            match (form, seen) {
                (_, Ok(())) => hook.detail = place(form, slice),
                // Nobody knows: better attached than not.
                (_, Err(Unseen::Untried(why))) => hook.detail.clone_from(why),
                (Form::Slice, Err(Unseen::Allowed)) => {
                    let attached = loaded.attach(spec, Form::Host, pins, slice);
                    again |= attached.is_ok();
                    hook.form = attached.is_ok().then_some(Form::Host);
                    if let Err(error) = attached {
                        let why = crate::text::chain(&*error);
                        hook.detail =
                            format!("without effect at the slice, and for the whole host: {why}");
                    }
                    loaded.forget(pins, spec.link(form));
                }
                (Form::Host, Err(Unseen::Allowed)) => {
                    hook.detail =
                        "the kernel takes the program and never runs it: boot with bpf in lsm="
                            .into();
                    hook.form = None;
                    loaded.forget(pins, spec.link(form));
                }
            }
        }
        again
    }

    pub(super) const fn state(&self) -> &GuardState {
        &self.state
    }

    /// Whether anything is attached whose effect could be seen.
    pub(super) fn is_attached(&self) -> bool {
        self.state.hooks.iter().any(|hook| hook.form.is_some())
    }

    /// Attaches again what was detached, for the whole host where the slice has no room any more, and puts back
    /// pins that are not as they were left. Returns what was found, and whether anything was detached: until
    /// the next proof that is not in effect.
    pub(super) fn repair(&mut self, pins: &Pins, slice: &Cgroup) -> (Vec<Found>, bool) {
        let (mut found, mut detached) = (Vec::new(), false);
        let Some(loaded) = &mut self.loaded else { return (found, detached) };
        for (spec, hook) in specs().zip(&mut self.state.hooks) {
            let Some(form) = hook.form else { continue };
            let name = spec.link(form);
            let Some(link) = loaded.links.get(name) else { continue };
            if !link.is_changed() {
                found.extend(repair_pin(pins, name, link.as_fd()));
                continue;
            }
            detached = true;
            hook.in_effect = false;
            let mut again = loaded.attach(spec, form, pins, slice);
            // Never for one that is system-wide: what would be forgotten is the new link itself.
            if form == Form::Slice
                && again.is_err()
                && loaded.attach(spec, Form::Host, pins, slice).is_ok()
            {
                hook.form = Some(Form::Host);
                loaded.forget(pins, name);
                again = Ok(());
            }
            let failed = |source| Error::Attach { hook: name, cgroup: slice.path.clone(), source };
            found.push((format!("the program {name} was detached"), again.map_err(failed)));
        }
        (found, detached)
    }

    /// Opens these local sockets and gives these rules, and no others.
    ///
    /// # Errors
    /// A map operation.
    pub(super) fn follow(
        &mut self,
        sockets: &[(WorkloadId, &Path)],
        rules: &[(WorkloadId, u32)],
    ) -> Result<Vec<Unresolved>, Error> {
        let Some(loaded) = &mut self.loaded else { return Ok(Vec::new()) };
        let (peers, unresolved) = local::resolve(sockets);
        let wanted = peers.into_iter().map(|peer| (Pod(peer), 1));
        exactly(&mut loaded.peers, wanted, |key| key.0, "LOCAL_PEERS")?;
        let wanted = rules.iter().map(|(workload, bits)| (workload.0, *bits));
        exactly(&mut loaded.rules, wanted, |key| *key, "GUARD_RULES")?;
        Ok(unresolved)
    }
}

/// Makes a map hold these entries and no others; what is to go, goes first.
fn exactly<K: aya::Pod, I: Ord + Copy>(
    map: &mut HashMap<MapData, K, u32>,
    wanted: impl Iterator<Item = (K, u32)>,
    id: impl Fn(&K) -> I,
    name: &'static str,
) -> Result<(), Error> {
    let failed = |operation| move |source| Error::Map { operation, map: name, source };
    let wanted: BTreeMap<I, (K, u32)> =
        wanted.map(|(key, value)| (id(&key), (key, value))).collect();
    let there: Result<Vec<(K, u32)>, _> = map.iter().collect();
    let there = there.map_err(failed("read"))?;
    for (key, _) in there.iter().filter(|(key, _)| !wanted.contains_key(&id(key))) {
        map.remove(key).map_err(failed("remove an entry of"))?;
    }
    for (key, value) in wanted.values() {
        let same = there.iter().any(|(old, is)| id(old) == id(key) && is == value);
        if !same {
            map.insert(key, value, 0).map_err(failed("write"))?;
        }
    }
    Ok(())
}

fn place(form: Form, slice: &Cgroup) -> String {
    match form {
        Form::Slice => slice.path.display().to_string(),
        Form::Host => "the whole host".to_owned(),
    }
}

impl Loaded {
    /// Attaches one hook, and keeps its link open.
    fn attach(
        &mut self,
        spec: &Spec,
        form: Form,
        pins: &Pins,
        slice: &Cgroup,
    ) -> Result<(), Failure> {
        match form {
            Form::Slice => self.attach_at_slice(spec, pins, slice)?,
            Form::Host => self.attach_to_host(spec, pins)?,
        }
        let name = spec.link(form);
        self.links.insert(name, Kept::of_pin(&pins.link(name))?);
        Ok(())
    }

    /// Detaches a hook that has no effect.
    fn forget(&mut self, pins: &Pins, name: &'static str) {
        self.links.remove(name);
        if let Err(error) = unpin(&pins.link(name)) {
            tracing::warn!("{}", crate::text::chain(&error));
        }
    }

    fn attach_at_slice(&mut self, spec: &Spec, pins: &Pins, slice: &Cgroup) -> Result<(), Failure> {
        let name = spec.hook.as_str();
        let Some(Program::LsmCgroup(program)) = self.object.program_mut(name) else {
            return Err(Error::ObjectAbi { expected: ABI_VERSION }.into());
        };
        if program.fd().is_err() {
            program.load(spec.lsm, &self.btf)?;
        }
        let id = program.attach(&slice.directory)?;
        let link = FdLink::from(program.take_link(id)?);
        Ok(attach::replace_pin(Link::Aya(link), &pins.link(name))?)
    }

    fn attach_to_host(&mut self, spec: &Spec, pins: &Pins) -> Result<(), Failure> {
        let Some(Program::Lsm(program)) = self.object.program_mut(spec.host) else {
            return Err(Error::ObjectAbi { expected: ABI_VERSION }.into());
        };
        if program.fd().is_err() {
            program.load(spec.lsm, &self.btf)?;
        }
        let id = program.attach()?;
        let link = FdLink::from(program.take_link(id)?);
        Ok(attach::replace_pin(Link::Aya(link), &pins.link(spec.host))?)
    }
}

fn open(pins: &Pins, slice_level: u32) -> Result<Loaded, Failure> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject.into());
    }
    for shape in &SHAPES {
        check_shape_at(&pins.map(shape.0), shape)?;
    }
    let (types, btf) = (Types::of_kernel()?, Btf::from_sys_fs()?);
    let mut globals = Vec::with_capacity(OFFSETS.len() + 2);
    for (global, structure, member) in OFFSETS {
        let offset = types
            .offset(structure, member)
            .ok_or_else(|| format!("this kernel's struct {structure} has no {member}"))?;
        globals.push((global, offset));
    }
    // A kernel without it asks about its own sockets too.
    let kernels_own = types.bit("sock", "sk_kern_sock");
    globals.push(("SK_KERNEL_BYTE", kernels_own.map_or(0, |bit| bit / 8)));
    globals.push(("SK_KERNEL_MASK", kernels_own.map_or(0, |bit| 1 << (bit % 8))));

    let abi_symbol = format!("GRANTD_ABI_{ABI_VERSION}");
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    loader.override_global("SLICE_LEVEL", &slice_level, true);
    loader.override_global(&abi_symbol, &ABI_VERSION, true);
    for (global, value) in &globals {
        loader.override_global(global, value, true);
    }
    for (name, ..) in load::SHAPES.iter().chain(&SHAPES) {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut object = loader.load(OBJECT)?;
    let peers = object.take_map("LOCAL_PEERS").ok_or("the guard object has no LOCAL_PEERS")?;
    let rules = object.take_map("GUARD_RULES").ok_or("the guard object has no GUARD_RULES")?;
    let (peers, rules) = (HashMap::try_from(peers)?, HashMap::try_from(rules)?);
    let splices = types.offset("proto_ops", "sendpage").is_some();
    Ok(Loaded { object, btf, peers, rules, splices, links: BTreeMap::new() })
}

fn unpin(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Pin { operation: "remove", path: path.into(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The command of the bpf(2) system call that the probe tries: it opens a pin that is not there.
fn try_bpf() -> std::io::Result<()> {
    match sys::open_pin(Path::new("/nothing-is-pinned-here")) {
        // Not there, or no BPF file system: the call itself was let through.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
