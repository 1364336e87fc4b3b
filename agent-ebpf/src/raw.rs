//! All raw reads of program contexts, and the calls that take kernel pointers.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns, bpf_ktime_get_tai_ns,
};
use aya_ebpf::programs::{
    SkBuffContext, SockAddrContext, SockContext, SockOpsContext, SockoptContext,
};
use grantd_common::packet::{Direction, Packet};
use grantd_common::{Address, Endpoint, Now, Port, Protocol};

use crate::storage::Storage;

#[inline(always)]
pub(crate) fn now() -> Now {
    // SAFETY: helpers without arguments.
    unsafe { Now { boot_ns: bpf_ktime_get_boot_ns(), tai_ns: bpf_ktime_get_tai_ns() } }
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
    Storage::made(ctx.sock.cast())
}

/// The storage of a socket that is being closed.
#[inline(always)]
pub(crate) fn closed_storage(ctx: &SockContext) -> Option<Storage> {
    Storage::of(ctx.sock.cast())
}

#[inline(always)]
pub(crate) fn netns(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context of this program type is what the helper takes.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The socket's own side, as far as it is bound: a loopback address where it is not.
#[inline(always)]
pub(crate) fn near(ctx: &SockAddrContext, to: &Endpoint) -> Endpoint {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let port = if sk.is_null() {
        0
    } else {
        // SAFETY: a field of the socket that the verifier lets this program type read.
        unsafe { (&raw const (*sk).src_port).read_volatile() }
    };
    let port = Port::new(u16::try_from(port).unwrap_or(0));
    Endpoint::new(to.address.loopback_of_same_family(), port, to.protocol)
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
    Storage::of(sk.cast())
}

#[inline(always)]
pub(crate) fn packet_storage(ctx: &SkBuffContext) -> Option<Storage> {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    Storage::of(sk.cast())
}

/// Level and number of the option that is being set.
#[inline(always)]
pub(crate) fn option(ctx: &SockoptContext) -> (i32, i32) {
    // SAFETY: context fields that the verifier lets this program type read.
    unsafe {
        let s = ctx.sockopt;
        ((&raw const (*s).level).read_volatile(), (&raw const (*s).optname).read_volatile())
    }
}

/// Leaves the value to the kernel as it is. A program that says nothing would have values beyond a page
/// refused.
#[inline(always)]
pub(crate) fn keep_option_value(ctx: &SockoptContext) {
    // SAFETY: a context field that the verifier lets this program type write.
    unsafe { (&raw mut (*ctx.sockopt).optlen).write_volatile(0) }
}

#[inline(always)]
pub(crate) fn option_storage(ctx: &SockoptContext) -> Option<Storage> {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.sockopt).__bindgen_anon_1.sk };
    if sk.is_null() {
        return None;
    }
    Storage::of(sk.cast())
}

#[inline(always)]
pub(crate) fn operation_storage(ctx: &SockOpsContext) -> Option<Storage> {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    Storage::of(sk.cast())
}

#[inline(always)]
pub(crate) fn operation_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the context of this program type is what the helper takes.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

#[inline(always)]
pub(crate) fn operation_netns(ctx: &SockOpsContext) -> u64 {
    // SAFETY: as above.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// Bytes that the peer has acknowledged, bytes received, segments out and in.
#[inline(always)]
pub(crate) fn tcp_counters(ctx: &SockOpsContext) -> [u64; 4] {
    // SAFETY: context fields that the verifier lets this program type read.
    unsafe {
        let o = ctx.ops;
        [
            (&raw const (*o).bytes_acked).read_volatile(),
            (&raw const (*o).bytes_received).read_volatile(),
            u64::from((&raw const (*o).segs_out).read_volatile()),
            u64::from((&raw const (*o).segs_in).read_volatile()),
        ]
    }
}

/// The far end of a TCP connection.
#[inline(always)]
pub(crate) fn remote(ctx: &SockOpsContext) -> Endpoint {
    // SAFETY: context fields that the verifier lets this program type read, word by word.
    let (address, port) = unsafe {
        let o = ctx.ops;
        // Both are read before the choice: the verifier takes no pointer that may be either.
        let v4 = (&raw const (*o).remote_ip4).read_volatile();
        let v6 = words((&raw const (*o).remote_ip6).cast());
        let address = if (&raw const (*o).family).read_volatile() == AF_INET {
            Address::from_v4(v4.to_ne_bytes())
        } else {
            Address::from_v6(v6)
        };
        (address, (&raw const (*o).remote_port).read_volatile())
    };
    // A big-endian number of 16 bits in the second half of the word.
    let [_, _, high, low] = port.to_le_bytes();
    Endpoint::new(address, Port([high, low]), Protocol::TCP)
}

/// The local port of a TCP connection.
#[inline(always)]
pub(crate) fn local_port(ctx: &SockOpsContext) -> Port {
    // SAFETY: a context field that the verifier lets this program type read; in host order.
    let port = unsafe { (&raw const (*ctx.ops).local_port).read_volatile() };
    Port::new(u16::try_from(port).unwrap_or(0))
}

/// `AF_INET`.
const AF_INET: u32 = 2;

/// Sixteen octets from a context, word by word.
///
/// # Safety
/// Four words of a context that the verifier lets the program read.
#[inline(always)]
unsafe fn words(w: *const u32) -> [u8; 16] {
    let mut o = [0u8; 16];
    // SAFETY: as the caller promises.
    unsafe {
        let (a, b) = (w.read_volatile().to_ne_bytes(), w.add(1).read_volatile().to_ne_bytes());
        let (c, d) =
            (w.add(2).read_volatile().to_ne_bytes(), w.add(3).read_volatile().to_ne_bytes());
        o[0..4].copy_from_slice(&a);
        o[4..8].copy_from_slice(&b);
        o[8..12].copy_from_slice(&c);
        o[12..16].copy_from_slice(&d);
    }
    o
}

/// The state of the packet's socket (include/net/tcp_states.h), 0 where it has none.
#[inline(always)]
pub(crate) fn state(ctx: &SkBuffContext) -> u32 {
    // SAFETY: a context field; null-checked before use.
    let sk = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return 0;
    }
    // SAFETY: a field of the socket that the verifier lets this program type read.
    unsafe { (&raw const (*sk).state).read_volatile() }
}

/// The state of a socket that is being closed.
#[inline(always)]
pub(crate) fn closed_state(ctx: &SockContext) -> u32 {
    // SAFETY: a context field that the verifier lets this program type read.
    unsafe { (&raw const (*ctx.sock).state).read_volatile() }
}

/// The destination that the task gave, by the family of the hook and not by what it wrote.
/// `None` for a protocol number that is not a byte.
#[inline(always)]
pub(crate) fn destination(ctx: &SockAddrContext, v6: bool) -> Option<Endpoint> {
    // SAFETY: context fields that the verifier lets this program type read, word by word.
    let (address, port, protocol) = unsafe {
        let s = ctx.sock_addr;
        let address = if v6 {
            Address::from_v6(words((&raw const (*s).user_ip6).cast()))
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

const TCP_SYN: u8 = 2;
const TCP_RST: u8 = 4;
const TCP_ACK: u8 = 16;
/// Hop-by-hop options, the first of IPv6's extension headers.
const HOP_BY_HOP: u8 = 0;

/// Reads the headers; `false` when they cannot be read. In a function of its own, for the sake of the 512
/// bytes of stack.
#[inline(never)]
pub(crate) fn packet(ctx: &SkBuffContext, direction: Direction, packet: &mut Packet) -> bool {
    let Ok(first) = ctx.load::<u8>(0) else { return false };
    let read = match first >> 4 {
        4 => packet4(ctx, direction, packet),
        6 => packet6(ctx, direction, packet),
        _ => None,
    };
    read.is_some()
}

#[inline(always)]
fn packet4(ctx: &SkBuffContext, direction: Direction, packet: &mut Packet) -> Option<()> {
    let h: [u8; 20] = ctx.load(0).ok()?;
    let source = Address::from_v4([h[12], h[13], h[14], h[15]]);
    let target = Address::from_v4([h[16], h[17], h[18], h[19]]);
    set_ends(packet, source, target, Protocol(h[9]), direction);
    let header = usize::from(h[0] & 15) * 4;
    if header != 20 {
        packet.options = true;
        return Some(());
    }
    // A fragment that is not the first has no ports to judge by.
    if h[6] & 0x1f != 0 || h[7] != 0 {
        return None;
    }
    transport(ctx, 20, direction, packet)
}

#[inline(always)]
fn packet6(ctx: &SkBuffContext, direction: Direction, packet: &mut Packet) -> Option<()> {
    let next: u8 = ctx.load(6).ok()?;
    let source = Address::from_v6(ctx.load(8).ok()?);
    let target = Address::from_v6(ctx.load(24).ok()?);
    let jumbo = next == HOP_BY_HOP && jumbo_tcp(ctx);
    let (protocol, at) = if jumbo { (Protocol::TCP, 48) } else { (Protocol(next), 40) };
    set_ends(packet, source, target, protocol, direction);
    transport(ctx, at, direction, packet)
}

/// The header that the kernel itself puts before a TCP segment of more than 64 KiB (BIG TCP):
/// exactly one jumbo payload option (RFC 2675), and TCP next.
#[inline(always)]
fn jumbo_tcp(ctx: &SkBuffContext) -> bool {
    const JUMBO: u8 = 0xc2;
    let Ok(h) = ctx.load::<[u8; 4]>(40) else { return false };
    h[0] == Protocol::TCP.0 && h[1] == 0 && h[2] == JUMBO && h[3] == 4 && ctx.len() > 65_535
}

/// Both ends of a packet, the ports not read yet.
#[inline(always)]
fn set_ends(
    packet: &mut Packet,
    source: Address,
    target: Address,
    protocol: Protocol,
    direction: Direction,
) {
    let (far, near) = match direction {
        Direction::Egress => (target, source),
        Direction::Ingress => (source, target),
    };
    packet.far = Endpoint::new(far, Port([0, 0]), protocol);
    packet.near = Endpoint::new(near, Port([0, 0]), protocol);
}

#[inline(always)]
fn transport(
    ctx: &SkBuffContext,
    at: usize,
    direction: Direction,
    packet: &mut Packet,
) -> Option<()> {
    let protocol = packet.far.protocol.0;
    if protocol != Protocol::TCP.0 && protocol != Protocol::UDP.0 {
        packet.options = true;
        return Some(());
    }
    let p: [u8; 4] = ctx.load(at).ok()?;
    let (source, target) = (Port([p[0], p[1]]), Port([p[2], p[3]]));
    (packet.far.port, packet.near.port) = match direction {
        Direction::Egress => (target, source),
        Direction::Ingress => (source, target),
    };
    if protocol == Protocol::TCP.0 {
        let t: [u8; 2] = ctx.load(at + 12).ok()?;
        let whole = at + usize::from(t[0] >> 4) * 4;
        packet.reset = t[1] & TCP_RST != 0 && ctx.len() as usize == whole;
        packet.answer = t[1] & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK;
    }
    Some(())
}
