//! The system-call filter: assembled from the tables of [`super::calls`] for one architecture.
//!
//! It looks at the architecture first. A 32-bit call (int 0x80, an i386 or ARM program) and an x32 call
//! have other numbers, so that they would dodge the rest: every one of them answers ENOSYS, as on a
//! kernel that is built without them.

use std::io;

use super::calls::{
    Answer, CLONE, DENIED, FAMILIES, IOCTL, Judged, NAMESPACES, NETLINK, NETLINK_ROUTE, NEWEST,
    PERSONALITIES, PERSONALITY, SOCKET, SOCKETPAIR, TERMINAL_INPUT, TIME_NAMESPACE, UNSHARE,
};

/// An architecture that a filter can be assembled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// The one that this program runs on.
    ///
    /// # Errors
    /// There are no tables for it.
    pub fn native() -> io::Result<Self> {
        if cfg!(target_arch = "x86_64") {
            Ok(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Ok(Self::Aarch64)
        } else {
            Err(io::Error::from(io::ErrorKind::Unsupported))
        }
    }

    /// `AUDIT_ARCH_X86_64`, `AUDIT_ARCH_AARCH64` of linux/audit.h.
    const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }
}

/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`; arguments are little-endian on both architectures.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// Instructions of classic BPF (linux/bpf_common.h).
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
/// Verdicts of linux/seccomp.h.
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
/// errno values that the filter answers, the same on both architectures.
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// An assembled filter.
#[derive(Debug)]
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// The filter for commands on `arch`.
    #[must_use]
    pub fn assemble(arch: Arch) -> Self {
        let mut code = Assembler::default();
        code.load(ARCHITECTURE);
        code.unless_equal(arch.audit(), ERRNO | ENOSYS);
        code.load(NUMBER);
        if arch == Arch::X86_64 {
            code.when(JUMP_ANY_BIT, X32, ERRNO | ENOSYS);
        }
        code.when(JUMP_GREATER, NEWEST, ERRNO | ENOSYS);
        for denied in DENIED {
            let answer = match denied.answer {
                Answer::NotPermitted => EPERM,
                Answer::NoSuchCall => ENOSYS,
            };
            if let Some(number) = denied.number(arch) {
                code.when(JUMP_EQUAL, number, ERRNO | answer);
            }
        }
        code.block(arch, SOCKET, |code| families(code, true));
        // A pair takes no protocol of netlink: it has no pairs.
        code.block(arch, SOCKETPAIR, |code| families(code, false));
        code.block(arch, CLONE, |code| {
            code.argument(0);
            code.when(JUMP_ANY_BIT, NAMESPACES, ERRNO | EPERM);
        });
        code.block(arch, UNSHARE, |code| {
            code.argument(0);
            code.when(JUMP_ANY_BIT, NAMESPACES | TIME_NAMESPACE, ERRNO | EPERM);
        });
        code.block(arch, IOCTL, |code| {
            code.argument(1);
            for command in TERMINAL_INPUT {
                code.when(JUMP_EQUAL, command, ERRNO | EPERM);
            }
        });
        code.block(arch, PERSONALITY, |code| {
            code.argument(0);
            for allowed in PERSONALITIES {
                code.when(JUMP_EQUAL, allowed, ALLOW);
            }
            code.verdict(ERRNO | EPERM);
        });
        code.verdict(ALLOW);
        Self(code.0)
    }

    /// Puts the filter on this thread and all that it starts, for good. Takes no-new-privileges.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn install(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: libc::c_ushort::try_from(self.0.len()).map_err(io::Error::other)?,
            // The kernel only reads the instructions.
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the program and its instructions are live and as long as stated; the kernel copies them.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn families(code: &mut Assembler, netlink: bool) {
    code.argument(0);
    for (_, family) in FAMILIES {
        code.when(JUMP_EQUAL, *family, ALLOW);
    }
    if netlink {
        code.unless_equal(NETLINK, ERRNO | EAFNOSUPPORT);
        code.argument(2);
        code.when(JUMP_EQUAL, NETLINK_ROUTE, ALLOW);
    }
    code.verdict(ERRNO | EAFNOSUPPORT);
}

#[derive(Default)]
struct Assembler(Vec<libc::sock_filter>);

impl Assembler {
    fn add(&mut self, code: u16, jt: u8, jf: u8, k: u32) {
        self.0.push(libc::sock_filter { code, jt, jf, k });
    }

    fn load(&mut self, offset: u32) {
        self.add(LOAD, 0, 0, offset);
    }

    /// Loads the lower half of an argument, which is all that the kernel takes of those that are judged:
    /// they are `int` or `unsigned int`, or flags of which none lies higher.
    fn argument(&mut self, index: u32) {
        self.load(ARGUMENTS + 8 * index);
    }

    fn verdict(&mut self, verdict: u32) {
        self.add(RETURN, 0, 0, verdict);
    }

    fn when(&mut self, jump: u16, value: u32, verdict: u32) {
        self.add(jump, 0, 1, value);
        self.verdict(verdict);
    }

    fn unless_equal(&mut self, value: u32, verdict: u32) {
        self.add(JUMP_EQUAL, 1, 0, value);
        self.verdict(verdict);
    }

    /// What follows is for one system call; at its end everything that was not denied is allowed.
    fn block(&mut self, arch: Arch, call: Judged, inside: impl FnOnce(&mut Self)) {
        let mut block = Self::default();
        inside(&mut block);
        block.verdict(ALLOW);
        // Blocks are a dozen instructions; one that grew past a jump would be skipped by no call at all.
        let length = u8::try_from(block.0.len()).unwrap_or(0);
        self.add(JUMP_EQUAL, 0, length, call.number(arch));
        self.0.append(&mut block.0);
    }
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
