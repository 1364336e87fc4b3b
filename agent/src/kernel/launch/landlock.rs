//! Landlock: a domain of the command's own, from which outsiders cannot be traced (nor their
//! `/proc/<pid>/root` entered, past the hidden paths), and, where the kernel has scopes, neither
//! signalled nor reached by abstract unix sockets.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;
/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: u32 = 1;
/// `LANDLOCK_ACCESS_FS_MAKE_BLOCK`: takes a capability anyway, so that denying it takes nothing.
const MAKE_BLOCK: u64 = 1 << 11;
/// `LANDLOCK_ACCESS_FS_REFER`: linking and renaming between directories, from version 2 on.
const REFER: u64 = 1 << 13;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`, from version 6 on.
const SCOPES: u64 = 3;
/// The version that has scopes (Linux 6.12).
const HAS_SCOPES: i64 = 6;
/// The version that has `REFER` (Linux 5.19).
const HAS_REFER: i64 = 2;

/// What Landlock holds the command to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// No outsider can be traced, signalled, or reached by an abstract unix socket.
    Scoped,
    /// No outsider can be traced; the kernel's Landlock has no scopes.
    TraceOnly,
    /// The kernel has no Landlock, or it is not in its list of security modules.
    None,
}

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct Ruleset {
    access_fs: u64,
    access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Puts this thread and all that it starts into a domain of their own. Takes no-new-privileges.
///
/// # Errors
/// The kernel has Landlock and refuses a domain.
pub fn isolate() -> io::Result<Isolation> {
    let version = match version() {
        Ok(version) => version,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => {
            return Ok(Isolation::None);
        }
        Err(e) => return Err(e),
    };
    let (access_fs, scoped) = match version {
        HAS_SCOPES.. => (0, SCOPES),
        HAS_REFER.. => (REFER, 0),
        _ => (MAKE_BLOCK, 0),
    };
    let attribute = Ruleset { access_fs, access_net: 0, scoped };
    // Earlier versions know a shorter attribute, and take a longer one only if the rest is zero.
    let ruleset = create(&attribute)?;
    if access_fs == REFER {
        // A domain that handles files denies this unless it is allowed, and `mv` is no way out.
        allow_everywhere(&ruleset, REFER)?;
    }
    // SAFETY: takes a live descriptor and a number.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(if scoped == SCOPES { Isolation::Scoped } else { Isolation::TraceOnly })
}

fn version() -> io::Result<i64> {
    let nothing = std::ptr::null::<Ruleset>();
    // SAFETY: with this flag the call takes no attribute and answers a number.
    done(unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, ASK_VERSION) })
}

fn create(attribute: &Ruleset) -> io::Result<OwnedFd> {
    let attribute = std::ptr::from_ref(attribute);
    // SAFETY: the attribute is live and of the stated size; the kernel only reads it.
    let fd = done(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attribute, size_of::<Ruleset>(), 0_u32)
    })?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: a fresh descriptor that the kernel just gave to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn allow_everywhere(ruleset: &OwnedFd, allowed_access: u64) -> io::Result<()> {
    let root = File::open("/")?;
    let rule = PathBeneath { allowed_access, parent_fd: root.as_raw_fd() };
    // SAFETY: the rule is live and of the layout that its type has; the kernel only reads it.
    done(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    })
    .map(drop)
}

fn done(result: libc::c_long) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
