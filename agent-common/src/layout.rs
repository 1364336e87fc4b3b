//! Every type that crosses the boundary, each exactly once, with its layout pinned at compile time.

use crate::address::{Address, Endpoint, Port, Protocol};
use crate::event::Event;
use crate::guard::LocalPeer;
use crate::moves::Move;
use crate::tables::{
    ExactKey, ExactRule, GrantRef, GrantSlot, InboundKey, PortRange, PortSet, RangeKey, RangeRule,
    SocketState, WorkloadEntry, WorkloadId,
};

mod sealed {
    pub trait Sealed {}
}

/// Types whose every byte is a field: `repr(C)`, no padding the compiler put in, every bit pattern
/// valid. Only this module implements it, beside the assertions that make it true.
pub trait Abi: sealed::Sealed + Copy + 'static {}

macro_rules! abi {
    ($( $type:ty: $size:literal, align $align:literal $(, { $( $field:ident @ $offset:literal ),* $(,)? })?; )*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Abi for $type {}
            const _: () = assert!(size_of::<$type>() == $size);
            const _: () = assert!(align_of::<$type>() == $align);
            $( $( const _: () = assert!(core::mem::offset_of!($type, $field) == $offset); )* )?
        )*
    };
}

abi! {
    Address: 16, align 4;
    Port: 2, align 1;
    Protocol: 1, align 1;
    Endpoint: 20, align 4, { address @ 0, port @ 16, protocol @ 18, padding @ 19 };
    WorkloadId: 4, align 4;
    WorkloadEntry: 8, align 4, { workload @ 0, flags @ 4 };
    GrantRef: 8, align 8;
    GrantSlot: 24, align 8, { deadline_boot_ns @ 0, deadline_tai_ns @ 8, generation @ 16, successor @ 20 };
    ExactKey: 24, align 4, { workload @ 0, port @ 4, protocol @ 6, padding @ 7, address @ 8 };
    ExactRule: 24, align 8, { slot @ 0, generation @ 4, not_after_boot_ns @ 8, name @ 16, padding @ 20 };
    RangeKey: 24, align 4, { workload @ 0, protocol @ 4, padding @ 5, address @ 8 };
    InboundKey: 24, align 4, { workload @ 0, port @ 4, protocol @ 6, padding @ 7, address @ 8 };
    RangeRule: 4, align 4, { port_set @ 0 };
    PortRange: 12, align 4, { from @ 0, to @ 2, slot @ 4, generation @ 8 };
    PortSet: 200, align 4, { workload @ 0, protocol @ 4, padding @ 5, ranges @ 8 };
    SocketState: 128, align 8, {
        workload @ 0, name @ 4, grant @ 8, destination @ 16, flags @ 36,
        allowed_boot_ns @ 40, counters @ 48, netns @ 80, cgroup @ 88, pid @ 96, uid @ 100, comm @ 104,
        reserved @ 120,
    };
    Move: 64, align 8, {
        kind @ 0, pid @ 4, from @ 8, to @ 12, cgroup @ 16, boot_ns @ 24, start_boot_ns @ 32, by_pid @ 40,
        by_uid @ 44, comm @ 48,
    };
    LocalPeer: 16, align 8, { workload @ 0, device @ 4, inode @ 8 };
    Event: 208, align 8, {
        kind @ 0, hook @ 1, reason @ 2, padding @ 3, cpu @ 4, sequence @ 8, boot_ns @ 16, cookie @ 24,
        cgroup @ 32, pid @ 40, tid @ 44, uid @ 48, gid @ 52, workload @ 56, socket_workload @ 60,
        slot @ 64, generation @ 68, to @ 72, socket_type @ 92, allowed_to @ 96, name @ 116,
        comm @ 120, local_port @ 136, padding2 @ 138, detail @ 140, netns @ 144, opened_boot_ns @ 152,
        counters @ 160, reserved @ 192,
    };
}
