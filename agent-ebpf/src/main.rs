//! The enforce object: what the kernel runs for every socket and packet of a confined task.
//!
//! Entry points only. Address hooks and `sock_create` are attached at the cgroup root and return at
//! once for tasks and sockets that are not ours; packet hooks are attached at the enforced slice.
//! Decisions are `grantd-common`'s; raw context reads are in [`raw`].
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod emit;
#[cfg(target_arch = "bpf")]
mod ends;
#[cfg(target_arch = "bpf")]
mod identity;
#[cfg(target_arch = "bpf")]
mod list;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod peer;
#[cfg(target_arch = "bpf")]
mod raw;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod storage;
#[cfg(target_arch = "bpf")]
mod usage;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::macros::{
        cgroup_skb, cgroup_sock, cgroup_sock_addr, cgroup_sockopt, sock_ops as sock_ops_program,
    };
    use aya_ebpf::programs::{
        SkBuffContext, SockAddrContext, SockContext, SockOpsContext, SockoptContext,
    };
    use grantd_common::Hook;
    use grantd_common::packet::Direction;

    use crate::{ends, list, packet, socket};

    #[cgroup_sock(sock_create)]
    fn sock_create(ctx: SockContext) -> i32 {
        socket::create(&ctx)
    }

    #[cgroup_sock_addr(connect4)]
    fn connect4(ctx: SockAddrContext) -> i32 {
        socket::send::<false>(&ctx, Hook::Connect4)
    }

    #[cgroup_sock_addr(connect6)]
    fn connect6(ctx: SockAddrContext) -> i32 {
        socket::send::<true>(&ctx, Hook::Connect6)
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn sendmsg4(ctx: SockAddrContext) -> i32 {
        socket::send::<false>(&ctx, Hook::Sendmsg4)
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn sendmsg6(ctx: SockAddrContext) -> i32 {
        socket::send::<true>(&ctx, Hook::Sendmsg6)
    }

    #[cgroup_sockopt(setsockopt)]
    fn setsockopt(ctx: SockoptContext) -> i32 {
        socket::set_option(&ctx)
    }

    #[sock_ops_program]
    fn sock_ops(ctx: SockOpsContext) -> u32 {
        ends::operation(&ctx).cast_unsigned()
    }

    #[cgroup_sock(sock_release)]
    fn sock_release(ctx: SockContext) -> i32 {
        ends::released(&ctx)
    }

    #[cgroup_skb(egress)]
    fn egress(ctx: SkBuffContext) -> i32 {
        packet::check(&ctx, Direction::Egress)
    }

    #[cgroup_skb(ingress)]
    fn ingress(ctx: SkBuffContext) -> i32 {
        packet::check(&ctx, Direction::Ingress)
    }

    /// Not attached: run by whoever reads it.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "iter/bpf_sk_storage_map")]
    fn datagrams(element: *const list::Element) -> i32 {
        list::datagram(element)
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
