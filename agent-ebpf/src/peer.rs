//! Whose socket is at the other end of a connection within this network namespace?

use core::ffi::c_void;

use aya_ebpf::bindings::{
    bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Tuple4,
    bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Tuple6,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use grantd_common::packet::{Peer, stands};
use grantd_common::{Address, Endpoint, Protocol, SocketState, WorkloadId};

use crate::storage::Storage;

/// `BPF_F_CURRENT_NETNS`: the namespace of the socket or packet that the program runs for.
const CURRENT_NETNS: u64 = (-1i32).cast_unsigned() as u64;
/// Looks the far end up, as if a packet from the near end arrived there. `ctx` is the program's context.
#[inline(never)]
pub(crate) fn find(
    ctx: *mut c_void,
    workload: WorkloadId,
    near: &Endpoint,
    far: &Endpoint,
) -> Peer {
    let sk = lookup(ctx, near, far);
    if sk.is_null() {
        return Peer::Other;
    }
    // SAFETY: a socket that the look-up holds for us; a field that the verifier lets us read.
    let state = unsafe { (&raw const (*sk).state).read_volatile() };
    let tcp = far.protocol.0 == Protocol::TCP.0;
    let same = match Storage::of(sk.cast()) {
        // Where a datagram socket lets others in beside it, the look-up finds one and the datagram another.
        Some(storage) => {
            storage.read().workload.0 == workload.0 && (tcp || !storage.has(SocketState::SHARED))
        }
        None => false,
    };
    // SAFETY: what the look-up gave, given back once and not used after.
    unsafe { bpf_sk_release(sk.cast()) };
    if !same {
        return Peer::Other;
    }
    // A port that takes calls, or datagrams, may be another's later.
    if tcp && stands(state) { Peer::Own } else { Peer::Open }
}

/// The size of a tuple tells the family, and the verifier wants to see it as a constant.
#[inline(always)]
fn lookup(ctx: *mut c_void, near: &Endpoint, far: &Endpoint) -> *mut bpf_sock {
    if far.address.is_v4() {
        let mut tuple = tuple4(near, far);
        ask(ctx, &raw mut tuple, SIZE4, far.protocol)
    } else {
        let mut tuple = tuple6(near, far);
        ask(ctx, &raw mut tuple, SIZE6, far.protocol)
    }
}

const SIZE4: u32 = grantd_common::size::<Tuple4>();
const SIZE6: u32 = grantd_common::size::<Tuple6>();

#[inline(always)]
fn ask<T>(ctx: *mut c_void, tuple: *mut T, size: u32, protocol: Protocol) -> *mut bpf_sock {
    let tuple = tuple.cast::<bpf_sock_tuple>();
    // SAFETY: a tuple on our stack of the stated size; the socket is checked and released by the caller.
    unsafe {
        if protocol.0 == Protocol::TCP.0 {
            bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NETNS, 0)
        }
    }
}

#[inline(always)]
fn tuple4(near: &Endpoint, far: &Endpoint) -> Tuple4 {
    let word = |a: &Address| u32::from_ne_bytes([a.0[12], a.0[13], a.0[14], a.0[15]]);
    Tuple4 {
        saddr: word(&near.address),
        daddr: word(&far.address),
        sport: u16::from_ne_bytes(near.port.0),
        dport: u16::from_ne_bytes(far.port.0),
    }
}

#[inline(always)]
fn tuple6(near: &Endpoint, far: &Endpoint) -> Tuple6 {
    let words = |a: &Address| {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = a.0;
        let word = u32::from_ne_bytes;
        [word([a, b, c, d]), word([e, f, g, h]), word([i, j, k, l]), word([m, n, o, p])]
    };
    Tuple6 {
        saddr: words(&near.address),
        daddr: words(&far.address),
        sport: u16::from_ne_bytes(near.port.0),
        dport: u16::from_ne_bytes(far.port.0),
    }
}
