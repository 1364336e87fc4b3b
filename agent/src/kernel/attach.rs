//! The programs and where they are attached.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, CgroupSockopt,
    Iter, Program, ProgramError, SockOps,
};
use aya::{Btf, Ebpf};

use super::error::Error;
use super::held::Info;
use super::host::{Cgroup, open_cgroup};
use super::load::Pins;
use super::sys;

/// Where a hook belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the cgroup root: it judges by the current task, whatever socket it holds.
    Root,
    /// At the enforced slice: bystanders pay nothing for each packet.
    Slice,
}

/// One program and its place. Its name is also the name of its link's pin.
pub(super) struct HookSpec {
    pub(super) name: &'static str,
    place: Place,
    /// Of `enum bpf_attach_type`.
    pub(super) attach_type: u32,
}

impl HookSpec {
    pub(super) const fn at_root(&self) -> bool {
        matches!(self.place, Place::Root)
    }
}

/// In the order in which they are attached: what refuses comes before what tags.
pub(super) const HOOKS: [HookSpec; 10] = [
    HookSpec { name: "egress", place: Place::Slice, attach_type: 1 },
    HookSpec { name: "ingress", place: Place::Slice, attach_type: 0 },
    HookSpec { name: "setsockopt", place: Place::Slice, attach_type: 22 },
    HookSpec { name: "sock_ops", place: Place::Slice, attach_type: 3 },
    HookSpec { name: "sock_release", place: Place::Slice, attach_type: 34 },
    HookSpec { name: "connect4", place: Place::Root, attach_type: 10 },
    HookSpec { name: "connect6", place: Place::Root, attach_type: 11 },
    HookSpec { name: "sendmsg4", place: Place::Root, attach_type: 14 },
    HookSpec { name: "sendmsg6", place: Place::Root, attach_type: 15 },
    HookSpec { name: "sock_create", place: Place::Root, attach_type: 2 },
];

/// Whether one hook is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCoverage {
    /// The hook's name.
    pub hook: &'static str,
    /// Whether its link is pinned and attached where it belongs.
    pub attached: bool,
    /// The cgroup it belongs to, or what is wrong.
    pub detail: String,
}

/// The iterator that lists datagram sockets.
const DATAGRAMS: &str = "datagrams";

/// The loaded programs.
pub(super) struct Programs {
    object: Ebpf,
}

impl Programs {
    pub(super) fn load(mut object: Ebpf) -> Result<Self, Error> {
        for hook in &HOOKS {
            let program = object
                .program_mut(hook.name)
                .ok_or(Error::ObjectAbi { expected: grantd_common::ABI_VERSION })?;
            let mut program = CgroupProgram::of(program)
                .ok_or(Error::ObjectAbi { expected: grantd_common::ABI_VERSION })?;
            let loaded = program.load();
            loaded.map_err(|e| Error::loading(format!("load the {} program", hook.name), e))?;
        }
        let failed = |e| Error::loading(format!("load the {DATAGRAMS} program"), e);
        let btf = Btf::from_sys_fs().map_err(|e| failed(e.into()))?;
        let program = object.program_mut(DATAGRAMS).map(<&mut Iter>::try_from);
        let abi = Error::ObjectAbi { expected: grantd_common::ABI_VERSION };
        let Some(Ok(iterator)) = program else { return Err(abi) };
        iterator.load("bpf_sk_storage_map", &btf).map_err(failed)?;
        Ok(Self { object })
    }

    /// The iterator that lists datagram sockets.
    pub(super) fn datagrams(&self) -> Result<BorrowedFd<'_>, Error> {
        let program = self.object.program(DATAGRAMS).map(<&Iter>::try_from);
        let fd = program.and_then(Result::ok).and_then(|program| program.fd().ok());
        let abi = Error::ObjectAbi { expected: grantd_common::ABI_VERSION };
        fd.map(|fd| fd.as_fd()).ok_or(abi)
    }

    /// Attaches every hook where it belongs. A pinned link that is there already gets the new program
    /// in one step; one that is attached elsewhere (the slice was made anew) is replaced, new first.
    pub(super) fn attach(&mut self, pins: &Pins, root: &Path, slice: &Cgroup) -> Result<(), Error> {
        HOOKS.iter().try_for_each(|hook| self.attach_hook(pins, root, slice, hook.name))
    }

    /// Attaches one hook, as [`Self::attach`] does.
    pub(super) fn attach_hook(
        &mut self,
        pins: &Pins,
        root: &Path,
        slice: &Cgroup,
        name: &'static str,
    ) -> Result<(), Error> {
        let missing = || Error::ObjectAbi { expected: grantd_common::ABI_VERSION };
        let hook = HOOKS.iter().find(|hook| hook.name == name).ok_or_else(missing)?;
        let mut program =
            self.object.program_mut(name).and_then(CgroupProgram::of).ok_or_else(missing)?;
        match hook.place {
            Place::Root => attach_one(pins, name, &mut program, &open_cgroup(root)?),
            Place::Slice => attach_one(pins, name, &mut program, slice),
        }
    }

    /// The kernel's id of a loaded program.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        let program = self.object.program(name)?;
        program.fd().ok().and_then(|fd| Info::of(fd.as_fd()).program)
    }
}

fn attach_one(
    pins: &Pins,
    name: &'static str,
    program: &mut CgroupProgram<'_>,
    cgroup: &Cgroup,
) -> Result<(), Error> {
    let fail = |source: Box<dyn std::error::Error + Send + Sync>| Error::Attach {
        hook: name,
        cgroup: cgroup.path.clone(),
        source,
    };
    let (pin, existing) = (pins.link(name), pins.existing_link(name));
    if attached_cgroup(&existing) == Some(cgroup.id) {
        let link = sys::open_pin(&existing).map_err(|e| fail(e.into()))?;
        let fd = program.fd().map_err(|e| fail(e.into()))?;
        sys::update_link(link.as_fd(), fd).map_err(|e| fail(e.into()))?;
        if existing != pin {
            // Another ABI's: the link goes on under our pin, and never without one.
            sys::pin(link.as_fd(), &pin).map_err(|e| fail(e.into()))?;
        }
        return Ok(());
    }
    let link = program.attach(cgroup).map_err(fail)?;
    replace_pin(link, &pin)
}

/// Pins a new link. An old one of that name is unpinned only when the new one is attached.
pub(super) fn replace_pin(link: Link, pin: &Path) -> Result<(), Error> {
    let failed = |operation, source| Error::Pin { operation, path: pin.into(), source };
    // bpffs refuses names with a dot.
    let mut beside = pin.as_os_str().to_owned();
    beside.push("_new");
    let beside = PathBuf::from(beside);
    remove(&beside).map_err(|e| failed("remove", e))?;
    link.pin(&beside).map_err(|e| failed("pin", e))?;
    remove(pin).map_err(|e| failed("remove", e))?;
    fs::rename(&beside, pin).map_err(|e| failed("rename", e))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A new link. Dropped without a pin it is gone.
pub(super) enum Link {
    Aya(FdLink),
    Own(OwnedFd),
}

impl Link {
    fn pin(self, path: &Path) -> std::io::Result<()> {
        match self {
            Self::Aya(link) => link.pin(path).map(drop).map_err(std::io::Error::other),
            Self::Own(link) => sys::pin(link.as_fd(), path),
        }
    }
}

/// The kinds of programs that the enforce object holds.
enum CgroupProgram<'a> {
    Skb(&'a mut CgroupSkb),
    SockAddr(&'a mut CgroupSockAddr),
    Sock(&'a mut CgroupSock),
    Sockopt(&'a mut CgroupSockopt),
    SockOps(&'a mut SockOps),
}

impl<'a> CgroupProgram<'a> {
    fn of(program: &'a mut Program) -> Option<Self> {
        if let Program::CgroupSkb(p) = program {
            Some(Self::Skb(p))
        } else if let Program::CgroupSockAddr(p) = program {
            Some(Self::SockAddr(p))
        } else if let Program::CgroupSock(p) = program {
            Some(Self::Sock(p))
        } else if let Program::CgroupSockopt(p) = program {
            Some(Self::Sockopt(p))
        } else if let Program::SockOps(p) = program {
            Some(Self::SockOps(p))
        } else {
            None
        }
    }

    fn load(&mut self) -> Result<(), ProgramError> {
        match self {
            Self::Skb(p) => p.load(),
            Self::SockAddr(p) => p.load(),
            Self::Sock(p) => p.load(),
            Self::Sockopt(p) => p.load(),
            Self::SockOps(p) => p.load(),
        }
    }

    fn attach(
        &mut self,
        cgroup: &Cgroup,
    ) -> Result<Link, Box<dyn std::error::Error + Send + Sync>> {
        // A cgroup link always runs beside others' programs; `Single` is "no flags".
        let mode = CgroupAttachMode::Single;
        let directory = &cgroup.directory;
        let link: FdLink = match self {
            Self::Skb(p) => {
                let kind = p.expected_attach_type().unwrap_or(CgroupSkbAttachType::Egress);
                let id = p.attach(directory, kind, mode)?;
                p.take_link(id)?.try_into()?
            }
            Self::SockAddr(p) => {
                let id = p.attach(directory, mode)?;
                p.take_link(id)?.try_into()?
            }
            Self::Sock(p) => {
                let id = p.attach(directory, mode)?;
                p.take_link(id)?.try_into()?
            }
            Self::Sockopt(p) => {
                let program = p.fd()?.as_fd();
                return Ok(Link::Own(sys::link_setsockopt(program, directory.as_fd())?));
            }
            Self::SockOps(p) => {
                let id = p.attach(directory, mode)?;
                p.take_link(id)?.try_into()?
            }
        };
        Ok(Link::Aya(link))
    }

    fn fd(&self) -> Result<BorrowedFd<'_>, ProgramError> {
        let fd = match self {
            Self::Skb(p) => p.fd(),
            Self::SockAddr(p) => p.fd(),
            Self::Sock(p) => p.fd(),
            Self::Sockopt(p) => p.fd(),
            Self::SockOps(p) => p.fd(),
        };
        fd.map(|fd| fd.as_fd())
    }
}

/// The id of the cgroup that a pinned link is attached to; 0 once that cgroup is gone. `None` without
/// a link.
fn attached_cgroup(pin: &Path) -> Option<u64> {
    let link = sys::open_pin(pin).ok()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd())).ok()?;
    info.lines().find_map(|l| l.strip_prefix("cgroup_id:")).and_then(|id| id.trim().parse().ok())
}

/// Whether every hook that belongs to the slice is attached to this one.
pub(super) fn slice_is_covered(pins: &Pins, slice: &Cgroup) -> bool {
    let mut of_slice = HOOKS.iter().filter(|hook| hook.place == Place::Slice);
    of_slice.all(|hook| attached_cgroup(&pins.existing_link(hook.name)) == Some(slice.id))
}

pub(super) fn coverage(pins: &Pins, root: &Path, slice: &Cgroup) -> Vec<HookCoverage> {
    let root_id = open_cgroup(root).ok().map(|c| c.id);
    HOOKS
        .iter()
        .map(|hook| {
            let (path, wanted): (PathBuf, _) = match hook.place {
                Place::Root => (root.into(), root_id),
                Place::Slice => (slice.path.clone(), Some(slice.id)),
            };
            let found = attached_cgroup(&pins.existing_link(hook.name));
            let attached = found.is_some() && found == wanted;
            let detail = match found {
                _ if attached => path.display().to_string(),
                Some(_) => format!("attached to another cgroup than {}", path.display()),
                None => "its link is not pinned".into(),
            };
            HookCoverage { hook: hook.name, attached, detail }
        })
        .collect()
}
