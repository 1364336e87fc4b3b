//! Lists sockets with what is stored about them, but for connected TCP ones: sock_diag(7) shows that of TCP
//! sockets only. One without a destination is of either protocol.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write};
use grantd_common::{Protocol, SocketState};

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub(crate) struct Element {
    meta: *const Meta,
    map: u64,
    socket: *mut c_void,
    state: *mut SocketState,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    output: *mut c_void,
}

/// Writes the socket's cookie and its state: what userspace reads from the iterator.
#[inline(always)]
pub(crate) fn datagram(element: *const Element) -> i32 {
    // SAFETY: the context of an iterator over socket storages has these fields; the kernel hands none for
    // socket and state when it has come to the end. The state is read while the socket is held.
    unsafe {
        let (meta, socket) = ((*element).meta, (&raw const (*element).socket).read_volatile());
        let state = (&raw const (*element).state).read_volatile();
        if socket.is_null() || state.is_null() {
            return 0;
        }
        if (*state).destination.protocol.0 == Protocol::TCP.0 {
            return 0;
        }
        let cookie = bpf_get_socket_cookie(socket);
        let output = (*meta).output.cast();
        bpf_seq_write(output, (&raw const cookie).cast(), grantd_common::size::<u64>());
        bpf_seq_write(output, state.cast(), grantd_common::size::<SocketState>());
    }
    0
}
