//! The guard object: what LSM hooks refuse to confined tasks, where the kernel has BPF LSM.
//!
//! Entry points only. Each hook comes in two forms: `lsm_cgroup`, attached at the enforced slice, and the
//! system-wide one for kernels on which the first looks at the socket's cgroup instead of the task's. Both
//! return at once for a task that is not confined. Decisions are `grantd-common`'s (`guard`).
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[path = "../emit.rs"]
#[expect(dead_code, reason = "shared with the enforce object, which uses all of it")]
mod emit;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
#[path = "../identity.rs"]
#[expect(dead_code, reason = "as above")]
mod identity;
#[cfg(target_arch = "bpf")]
mod local;
#[cfg(target_arch = "bpf")]
#[path = "../maps.rs"]
#[expect(dead_code, reason = "as above")]
mod maps;
#[cfg(target_arch = "bpf")]
mod raw;
#[cfg(target_arch = "bpf")]
#[path = "../storage.rs"]
#[expect(dead_code, reason = "as above")]
mod storage;

#[cfg(target_arch = "bpf")]
mod programs {
    use core::arch::asm;

    use aya_ebpf::macros::{lsm, lsm_cgroup};
    use aya_ebpf::programs::LsmContext;

    use crate::hooks;

    /// What an `lsm_cgroup` program returns. The verifier wants a known number: a real branch between two
    /// constants, which the compiler would else turn into arithmetic.
    #[inline(always)]
    fn of_cgroup(refused: bool) -> i32 {
        if refused {
            return constant_zero();
        }
        1
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the instruction says which number it is")]
    fn constant_zero() -> i32 {
        let zero: i64;
        // SAFETY: one instruction that sets its output register.
        unsafe { asm!("{0} = 0", out(reg) zero) };
        zero as i32
    }

    /// What a system-wide LSM program returns: 0, or the error of the system call (EPERM).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the instruction says which number it is")]
    fn of_host(refused: bool) -> i32 {
        if refused {
            let error: i64;
            // SAFETY: as above.
            unsafe { asm!("{0} = -1", out(reg) error) };
            return error as i32;
        }
        0
    }

    macro_rules! guard {
        ($( $hook:literal: $cgroup:ident, $host:ident = $decide:path; )*) => {
            $(
                #[lsm_cgroup(hook = $hook)]
                fn $cgroup(ctx: LsmContext) -> i32 {
                    of_cgroup($decide(&ctx))
                }

                #[lsm(hook = $hook)]
                fn $host(ctx: LsmContext) -> i32 {
                    of_host($decide(&ctx))
                }
            )*
        };
    }

    guard! {
        "socket_create": guard_socket_create, host_socket_create = hooks::socket_create;
        "socket_connect": guard_socket_connect, host_socket_connect = hooks::socket_connect;
        "socket_sendmsg": guard_socket_sendmsg, host_socket_sendmsg = hooks::socket_sendmsg;
        "socket_recvmsg": guard_socket_recvmsg, host_socket_recvmsg = hooks::socket_recvmsg;
        "file_receive": guard_file_receive, host_file_receive = hooks::file_receive;
        "unix_stream_connect": guard_unix_stream_connect, host_unix_stream_connect
            = hooks::unix_stream_connect;
        "unix_may_send": guard_unix_may_send, host_unix_may_send = hooks::unix_may_send;
        "ptrace_access_check": guard_ptrace_access_check, host_ptrace_access_check
            = hooks::ptrace_access_check;
        "bpf": guard_bpf, host_bpf = hooks::bpf;
        "userns_create": guard_userns_create, host_userns_create = hooks::userns_create;
        "file_permission": guard_file_permission, host_file_permission = hooks::file_permission;
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Off the BPF target there is nothing to run; the crate still has to compile, for clippy and docs.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
