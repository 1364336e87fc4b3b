//! Socket options that a workload may not set.
//!
//! Numbers are those of the generic socket headers (linux/in.h, linux/in6.h, asm-generic/socket.h,
//! linux/udp.h, linux/tcp.h), which x86-64 and arm64 share.

/// `SOL_SOCKET`
const SOCKET: i32 = 1;
/// `IPPROTO_IP`
const IP: i32 = 0;
/// `IPPROTO_IPV6`
const IPV6: i32 = 41;
/// `IPPROTO_TCP`
const TCP: i32 = 6;
/// `IPPROTO_UDP`
const UDP: i32 = 17;

/// Whether this option lets other sockets in at the same address and port: `SO_REUSEADDR`, `SO_REUSEPORT`.
#[inline(always)]
#[must_use]
pub const fn shares(level: i32, option: i32) -> bool {
    level == SOCKET && matches!(option, 2 | 15)
}

/// Whether setting this option could send packets elsewhere (also by choosing among the sockets of a port), give them another source or mark, keep them
/// past a deadline, or have the kernel tell the link of an address that the process has chosen (joining a
/// group: no packet of the socket's own, and so no other hook sees it). What is left can do none of it.
#[inline(always)]
#[must_use]
pub const fn refused(level: i32, option: i32) -> bool {
    match level {
        // SO_DONTROUTE, SO_BINDTODEVICE, SO_MARK, SO_MAX_PACING_RATE, SO_ATTACH_REUSEPORT_CBPF,
        // SO_ATTACH_REUSEPORT_EBPF, SO_TXTIME, SO_BINDTOIFINDEX.
        SOCKET => matches!(option, 5 | 25 | 36 | 47 | 51 | 52 | 61 | 62),
        // IP_HDRINCL, IP_OPTIONS, IP_FREEBIND, IP_IPSEC_POLICY, IP_XFRM_POLICY, IP_TRANSPARENT,
        // IP_NODEFRAG; IP_ADD_MEMBERSHIP, IP_ADD_SOURCE_MEMBERSHIP, MCAST_JOIN_GROUP,
        // MCAST_JOIN_SOURCE_GROUP.
        IP => matches!(option, 3 | 4 | 15 | 16 | 17 | 19 | 22 | 35 | 39 | 42 | 46),
        // IPV6_2292HOPOPTS, _2292DSTOPTS, _2292RTHDR, _2292PKTOPTIONS, IPV6_IPSEC_POLICY,
        // IPV6_XFRM_POLICY, IPV6_HDRINCL, IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS,
        // IPV6_TRANSPARENT, IPV6_FREEBIND; IPV6_ADD_MEMBERSHIP, IPV6_JOIN_ANYCAST, MCAST_JOIN_GROUP,
        // MCAST_JOIN_SOURCE_GROUP.
        IPV6 => {
            matches!(option, 3..=6 | 20 | 27 | 34 | 35 | 36 | 42 | 46 | 54 | 55 | 57 | 59 | 75 | 78)
        }
        // TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW.
        TCP => matches!(option, 19 | 20 | 21 | 22 | 29),
        // UDP_ENCAP: what comes in is taken for another protocol's.
        UDP => option == 100,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_move_or_delay_packets_are_refused() {
        for (what, level, option) in [
            ("IP_OPTIONS", IP, 4),
            ("IP_TRANSPARENT", IP, 19),
            ("IPV6_RTHDR", IPV6, 57),
            ("IPV6_2292RTHDR", IPV6, 5),
            ("IPV6_DSTOPTS", IPV6, 59),
            ("IPV6_HOPOPTS", IPV6, 54),
            ("SO_MARK", SOCKET, 36),
            ("SO_BINDTODEVICE", SOCKET, 25),
            ("SO_TXTIME", SOCKET, 61),
            ("SO_MAX_PACING_RATE", SOCKET, 47),
            ("SO_ATTACH_REUSEPORT_CBPF", SOCKET, 51),
            ("SO_ATTACH_REUSEPORT_EBPF", SOCKET, 52),
            ("TCP_REPAIR", TCP, 19),
            ("UDP_ENCAP", UDP, 100),
            ("IP_ADD_MEMBERSHIP", IP, 35),
            ("IP_ADD_SOURCE_MEMBERSHIP", IP, 39),
            ("MCAST_JOIN_GROUP", IP, 42),
            ("IPV6_ADD_MEMBERSHIP", IPV6, 20),
            ("MCAST_JOIN_SOURCE_GROUP", IPV6, 46),
        ] {
            assert!(refused(level, option), "{what} could be set");
        }
    }

    #[test]
    fn options_that_ordinary_programs_set_are_left_alone() {
        for (what, level, option) in [
            ("SO_REUSEADDR", SOCKET, 2),
            // Java sets it on every datagram socket; no broadcast address can be granted by itself.
            ("SO_BROADCAST", SOCKET, 6),
            ("SO_KEEPALIVE", SOCKET, 9),
            ("SO_LINGER", SOCKET, 13),
            ("SO_REUSEPORT", SOCKET, 15),
            ("SO_RCVTIMEO", SOCKET, 20),
            ("IP_TOS", IP, 1),
            ("IP_TTL", IP, 2),
            ("IP_PKTINFO", IP, 8),
            ("IP_MTU_DISCOVER", IP, 10),
            ("IP_RECVERR", IP, 11),
            ("IPV6_V6ONLY", IPV6, 26),
            ("IPV6_TCLASS", IPV6, 67),
            ("IPV6_RECVPKTINFO", IPV6, 49),
            ("TCP_NODELAY", TCP, 1),
            ("TCP_KEEPIDLE", TCP, 4),
            ("TCP_CONGESTION", TCP, 13),
            ("TCP_FASTOPEN_CONNECT", TCP, 30),
            ("TCP_ULP", TCP, 31),
            ("UDP_SEGMENT", UDP, 103),
            ("UDP_GRO", UDP, 104),
        ] {
            assert!(!refused(level, option), "{what} would break ordinary programs");
        }
    }
}
