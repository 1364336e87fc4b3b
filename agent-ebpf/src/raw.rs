//! All raw reads of program contexts, and the calls that take kernel pointers.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_ktime_get_tai_ns, bpf_sk_storage_get,
};
use aya_ebpf::programs::{SkBuffContext, SockAddrContext, SockContext};
use core::arch::asm;
use core::ffi::c_void;
use core::ptr::null_mut;
use grantd_common::packet::{Direction, Packet, Tag};
use grantd_common::{
    Address, Endpoint, GrantRef, Match, Now, Port, Protocol, SocketState, WorkloadId,
};

use crate::maps::SOCKETS;

/// `BPF_SK_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

#[inline(always)]
pub(crate) fn now() -> Now {
    // SAFETY: helpers without arguments.
    unsafe { Now { boot_ns: bpf_ktime_get_boot_ns(), tai_ns: bpf_ktime_get_tai_ns() } }
}

/// A socket's storage. The kernel frees it with the socket, and a program that runs for the socket
/// holds it.
#[derive(Clone, Copy)]
pub(crate) struct Storage(*mut SocketState);

impl Storage {
    #[inline(always)]
    fn get(sk: *mut c_void, flags: u64) -> Option<Self> {
        // SAFETY: `sk` is a socket (or the context of sock_create), as the verifier checks at each
        // call site; the map is ours.
        let p = unsafe {
            bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk, null_mut(), flags)
        };
        if p.is_null() { None } else { Some(Self(p.cast())) }
    }

    /// The storage itself. Fields that hooks write while the socket is in use are read by [`Self::tag`].
    #[inline(always)]
    pub(crate) fn read(self) -> &'static SocketState {
        // SAFETY: non-null, lives as long as the program runs.
        unsafe { &*self.0 }
    }

    #[inline(always)]
    pub(crate) fn set_birth(self, workload: WorkloadId) {
        // SAFETY: as above; the socket is not yet visible to anyone else.
        unsafe { (*self.0).workload = workload }
    }

    /// Where the socket was allowed to. Address hooks run under the socket's lock, one at a time; packet
    /// hooks on other CPUs see the mark while destination and grant do not belong together.
    #[inline(always)]
    pub(crate) fn allow(self, to: &Endpoint, evidence: &Match, boot_ns: u64) {
        // SAFETY: as above; the grant is one aligned word.
        unsafe {
            (&raw mut (*self.0).grant).write_volatile(GrantRef::IN_TRANSITION);
            (&raw mut (*self.0).destination).write_volatile(*to);
            (&raw mut (*self.0).grant).write_volatile(evidence.grant);
            (*self.0).name = evidence.name;
            (*self.0).allowed_boot_ns = boot_ns;
            (*self.0).flags &= !SocketState::DROP_REPORTED;
        }
    }

    /// What packets are judged by: grant and destination of one moment, or the mark that there is none
    /// such now. Packet hooks run without the socket's lock.
    #[inline(always)]
    pub(crate) fn tag(self) -> Tag {
        // SAFETY: as above.
        unsafe {
            let before = (&raw const (*self.0).grant).read_volatile();
            let destination = (&raw const (*self.0).destination).read_volatile();
            let after = (&raw const (*self.0).grant).read_volatile();
            let grant = if before.0 == after.0 { before } else { GrantRef::IN_TRANSITION };
            Tag { workload: (*self.0).workload, grant, destination }
        }
    }

    /// Moves the socket to another grant if it still rests on `from`. Packet hooks run without the
    /// socket's lock, so a plain write could undo what an address hook has decided meanwhile.
    #[inline(always)]
    pub(crate) fn move_grant(self, from: GrantRef, to: GrantRef) {
        // SAFETY: one instruction on an aligned word of the storage, and its two operand registers;
        // the instruction exists since kernel 5.12.
        unsafe {
            let word = &raw mut (*self.0).grant;
            asm!(
                "r0 = cmpxchg_64({p} + 0, r0, {new})",
                p = in(reg) word,
                new = in(reg) to.0,
                inout("r0") from.0 => _,
            );
        }
    }

    /// Marks that a drop was reported; `true` for the first.
    #[inline(always)]
    pub(crate) fn first_drop(self) -> bool {
        // SAFETY: as above.
        unsafe {
            let first = (*self.0).flags & SocketState::DROP_REPORTED == 0;
            (*self.0).flags |= SocketState::DROP_REPORTED;
            first
        }
    }
}

/// Family, type and protocol of a socket that is being made.
#[derive(Clone, Copy)]
pub(crate) struct SocketKind {
    pub(crate) family: u32,
    pub(crate) kind: u32,
    pub(crate) protocol: u32,
}

#[inline(always)]
pub(crate) fn socket_kind(ctx: &SockContext) -> SocketKind {
    // SAFETY: context fields that the verifier lets this program type read.
    unsafe {
        let s = ctx.sock;
        SocketKind { family: (*s).family, kind: (*s).type_, protocol: (*s).protocol }
    }
}

#[inline(always)]
pub(crate) fn create_storage(ctx: &SockContext) -> Option<Storage> {
    Storage::get(ctx.sock.cast(), CREATE)
}

#[inline(always)]
pub(crate) fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context of this program type is what the helper takes.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
pub(crate) fn create_cookie(ctx: &SockContext) -> u64 {
    // SAFETY: as above.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
pub(crate) fn packet_cookie(ctx: &SkBuffContext) -> u64 {
    // SAFETY: as above.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
pub(crate) fn storage(ctx: &SockAddrContext) -> Option<Storage> {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return None;
    }
    Storage::get(sk.cast(), 0)
}

#[inline(always)]
pub(crate) fn packet_storage(ctx: &SkBuffContext) -> Option<Storage> {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    Storage::get(sk.cast(), 0)
}

/// The destination that the task gave, by the family of the hook and not by what it wrote.
/// `None` for a protocol number that is not a byte.
#[inline(always)]
pub(crate) fn destination(ctx: &SockAddrContext, v6: bool) -> Option<Endpoint> {
    // SAFETY: context fields that the verifier lets this program type read, word by word.
    let (address, port, protocol) = unsafe {
        let s = ctx.sock_addr;
        let address = if v6 {
            let w = (&raw const (*s).user_ip6).cast::<u32>();
            let mut o = [0u8; 16];
            let (a, b) = (w.read_volatile().to_ne_bytes(), w.add(1).read_volatile().to_ne_bytes());
            let (c, d) =
                (w.add(2).read_volatile().to_ne_bytes(), w.add(3).read_volatile().to_ne_bytes());
            o[0..4].copy_from_slice(&a);
            o[4..8].copy_from_slice(&b);
            o[8..12].copy_from_slice(&c);
            o[12..16].copy_from_slice(&d);
            Address::from_v6(o)
        } else {
            Address::from_v4((&raw const (*s).user_ip4).read_volatile().to_ne_bytes())
        };
        (
            address,
            (&raw const (*s).user_port).read_volatile(),
            (&raw const (*s).protocol).read_volatile(),
        )
    };
    let protocol = u8::try_from(protocol).ok()?;
    // A big-endian number of 16 bits in the first half of the word.
    let [high, low, ..] = port.to_le_bytes();
    Some(Endpoint::new(address, Port([high, low]), Protocol(protocol)))
}

/// Rewrites an unspecified destination to the loopback address that the kernel would take it for.
#[inline(always)]
pub(crate) fn rewrite_to_loopback(ctx: &SockAddrContext, v6: bool, v4_mapped: bool) {
    // SAFETY: context fields that the verifier lets this program type write, word by word.
    unsafe {
        let s = ctx.sock_addr;
        if !v6 {
            (&raw mut (*s).user_ip4).write_volatile(u32::from_ne_bytes([127, 0, 0, 1]));
        } else {
            let last = if v4_mapped { [127, 0, 0, 1] } else { [0, 0, 0, 1] };
            (&raw mut (*s).user_ip6).cast::<u32>().add(3).write_volatile(u32::from_ne_bytes(last));
        }
    }
}

const TCP_RST: u8 = 4;
/// Hop-by-hop options, the first of IPv6's extension headers.
const HOP_BY_HOP: u8 = 0;

/// What the headers say; `None` when they cannot be read.
#[inline(always)]
pub(crate) fn packet(ctx: &SkBuffContext, direction: Direction) -> Option<Packet> {
    let first: u8 = ctx.load(0).ok()?;
    match first >> 4 {
        4 => packet4(ctx, direction),
        6 => packet6(ctx, direction),
        _ => None,
    }
}

#[inline(always)]
fn packet4(ctx: &SkBuffContext, direction: Direction) -> Option<Packet> {
    let h: [u8; 20] = ctx.load(0).ok()?;
    let header = usize::from(h[0] & 15) * 4;
    if header != 20 {
        let far = Endpoint::new(
            Address::from_v4([h[16], h[17], h[18], h[19]]),
            Port([0, 0]),
            Protocol(h[9]),
        );
        return Some(Packet { far, options: true, reset: false });
    }
    // A fragment that is not the first has no ports to judge by.
    if h[6] & 0x1f != 0 || h[7] != 0 {
        return None;
    }
    let address = match direction {
        Direction::Egress => Address::from_v4([h[16], h[17], h[18], h[19]]),
        Direction::Ingress => Address::from_v4([h[12], h[13], h[14], h[15]]),
    };
    transport(ctx, 20, Protocol(h[9]), address, direction)
}

#[inline(always)]
fn packet6(ctx: &SkBuffContext, direction: Direction) -> Option<Packet> {
    let next: u8 = ctx.load(6).ok()?;
    let address: [u8; 16] = match direction {
        Direction::Egress => ctx.load(24).ok()?,
        Direction::Ingress => ctx.load(8).ok()?,
    };
    let address = Address::from_v6(address);
    if next == HOP_BY_HOP && jumbo_tcp(ctx) {
        return transport(ctx, 48, Protocol::TCP, address, direction);
    }
    transport(ctx, 40, Protocol(next), address, direction)
}

/// The header that the kernel itself puts before a TCP segment of more than 64 KiB (BIG TCP):
/// exactly one jumbo payload option (RFC 2675), and TCP next.
#[inline(always)]
fn jumbo_tcp(ctx: &SkBuffContext) -> bool {
    const JUMBO: u8 = 0xc2;
    let Ok(h) = ctx.load::<[u8; 4]>(40) else { return false };
    h[0] == Protocol::TCP.0 && h[1] == 0 && h[2] == JUMBO && h[3] == 4 && ctx.len() > 65_535
}

#[inline(always)]
fn transport(
    ctx: &SkBuffContext,
    at: usize,
    protocol: Protocol,
    address: Address,
    direction: Direction,
) -> Option<Packet> {
    if protocol.0 != Protocol::TCP.0 && protocol.0 != Protocol::UDP.0 {
        let far = Endpoint::new(address, Port([0, 0]), protocol);
        return Some(Packet { far, options: true, reset: false });
    }
    let ports: [u8; 4] = ctx.load(at).ok()?;
    let port = match direction {
        Direction::Egress => Port([ports[2], ports[3]]),
        Direction::Ingress => Port([ports[0], ports[1]]),
    };
    let mut reset = false;
    if protocol.0 == Protocol::TCP.0 {
        let t: [u8; 2] = ctx.load(at + 12).ok()?;
        let whole = at + usize::from(t[0] >> 4) * 4;
        reset = t[1] & TCP_RST != 0 && ctx.len() as usize == whole;
    }
    Some(Packet { far: Endpoint::new(address, port, protocol), options: false, reset })
}
