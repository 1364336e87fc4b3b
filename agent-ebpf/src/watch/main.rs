//! The watch object: knows the slice's and the workloads' cgroups before their first task runs, and tells
//! which tasks enter or leave them.
//!
//! The programs see every cgroup and every process of the host, and return at once for what is not ours.
//! Reads of kernel structures are in [`raw`]; the offsets come from the loader.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod known;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod raw;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::btf_tracepoint;
    use aya_ebpf::programs::BtfTracePointContext;

    use crate::known;
    use crate::raw::{Cgroup, Task};

    /// Runs before the new directory can be seen, and so before anything is in it.
    #[btf_tracepoint(function = "cgroup_mkdir")]
    fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
        known::made(Cgroup(ctx.arg(0)), ctx.arg(1));
        0
    }

    #[btf_tracepoint(function = "cgroup_rmdir")]
    fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
        known::removed(Cgroup(ctx.arg(0)));
        0
    }

    #[btf_tracepoint(function = "cgroup_attach_task")]
    fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
        known::moved(Cgroup(ctx.arg(0)), Task(ctx.arg(2)));
        0
    }

    #[btf_tracepoint(function = "sched_process_fork")]
    fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
        known::born(Task(ctx.arg(1)));
        0
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
