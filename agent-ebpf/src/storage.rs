//! What the kernel remembers of one socket: the tag that it is born with, and where it was allowed to.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid, bpf_sk_storage_get,
};
use grantd_common::packet::{Direction, Tag};
use grantd_common::{Endpoint, GrantRef, Match, SocketState, WorkloadId};

use crate::emit::fetch_add;
use crate::maps::SOCKETS;

/// `BPF_SK_STORAGE_GET_F_CREATE`.
const CREATE: u64 = 1;

/// A socket's storage. The kernel frees it with the socket, and a program that runs for the socket
/// holds it.
#[derive(Clone, Copy)]
pub(crate) struct Storage(*mut SocketState);

impl Storage {
    /// The storage that a socket has.
    #[inline(always)]
    pub(crate) fn of(sk: *mut c_void) -> Option<Self> {
        Self::get(sk, 0)
    }

    /// The same, made where there is none.
    #[inline(always)]
    pub(crate) fn made(sk: *mut c_void) -> Option<Self> {
        Self::get(sk, CREATE)
    }

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

    /// The socket inherited the listener's tag: what the listener itself has done is not the child's.
    #[inline(always)]
    pub(crate) fn accepted(self, from: &Endpoint, boot_ns: u64, netns: u64) {
        // SAFETY: as above; the child is not yet visible to anyone else.
        unsafe {
            (*self.0).grant = GrantRef::INBOUND;
            (*self.0).destination = *from;
            (*self.0).name = 0;
            (*self.0).flags = SocketState::ACCEPTED | SocketState::CONNECTED | SocketState::OPEN;
            (*self.0).allowed_boot_ns = boot_ns;
            (*self.0).counters = [0; 4];
            (*self.0).netns = netns;
        }
    }

    /// Where the socket was allowed to. Address hooks run under the socket's lock, one at a time; packet
    /// hooks on other CPUs see the mark while destination and grant do not belong together.
    #[inline(always)]
    pub(crate) fn allow(self, to: &Endpoint, evidence: &Match, opened: &Opened) {
        self.unset(
            SocketState::DROP_REPORTED | SocketState::PEER_CONFIRMED | SocketState::CONNECTED,
        );
        // SAFETY: as above; the grant is one aligned word.
        unsafe {
            (&raw mut (*self.0).grant).write_volatile(GrantRef::IN_TRANSITION);
            (&raw mut (*self.0).destination).write_volatile(*to);
            (&raw mut (*self.0).grant).write_volatile(evidence.grant);
            (*self.0).name = evidence.name;
            (*self.0).allowed_boot_ns = opened.boot_ns;
            (*self.0).counters = [0; 4];
            (*self.0).netns = opened.netns;
            (*self.0).cgroup = bpf_get_current_cgroup_id();
            (*self.0).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
            (*self.0).uid = (bpf_get_current_uid_gid() & 0xffff_ffff) as u32;
            let comm = &raw mut (*self.0).comm;
            bpf_get_current_comm(comm.cast(), grantd_common::size::<[u8; 16]>());
        }
        let connected = if opened.connected { SocketState::CONNECTED } else { 0 };
        self.set(SocketState::OPEN | connected);
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
            let confirmed = (*self.0).flags & SocketState::PEER_CONFIRMED != 0;
            let workload = (*self.0).workload;
            // What the socket is doing now is not in here.
            Tag { workload, grant, destination, listening: false, standing: false, confirmed }
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
        let first = !self.has(SocketState::DROP_REPORTED);
        self.set(SocketState::DROP_REPORTED);
        first
    }

    /// Whether any of these flags is set.
    #[inline(always)]
    pub(crate) fn has(self, flags: u32) -> bool {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).flags).read_volatile() & flags != 0 }
    }

    /// Sets flags. Hooks of both kinds do, on several CPUs: none may undo the other's.
    #[inline(always)]
    pub(crate) fn set(self, flags: u32) {
        // SAFETY: one instruction on an aligned word of the storage, and its operand register.
        unsafe {
            let word = &raw mut (*self.0).flags;
            asm!("lock *(u32 *)({p} + 0) |= {f}", p = in(reg) word, f = in(wreg) flags);
        }
    }

    /// Clears flags, in the same way.
    #[inline(always)]
    pub(crate) fn unset(self, flags: u32) {
        // SAFETY: as above.
        unsafe {
            let word = &raw mut (*self.0).flags;
            asm!("lock *(u32 *)({p} + 0) &= {f}", p = in(reg) word, f = in(wreg) !flags);
        }
    }

    /// What the kernel itself has counted.
    #[inline(always)]
    pub(crate) fn set_counters(self, counters: [u64; 4]) {
        // SAFETY: as above.
        unsafe { (*self.0).counters = counters }
    }

    /// Counts one datagram.
    #[inline(always)]
    pub(crate) fn count(self, direction: Direction, bytes: u64) {
        // SAFETY: aligned words of the storage.
        unsafe {
            let counters = (&raw mut (*self.0).counters).cast::<u64>();
            let way = match direction {
                Direction::Egress => 0,
                Direction::Ingress => 1,
            };
            fetch_add(counters.add(way), bytes);
            fetch_add(counters.add(way + 2), 1);
        }
    }
}

/// What is remembered of the moment at which a socket was allowed somewhere.
pub(crate) struct Opened {
    pub(crate) boot_ns: u64,
    pub(crate) netns: u64,
    /// By `connect`, not by a datagram.
    pub(crate) connected: bool,
}
