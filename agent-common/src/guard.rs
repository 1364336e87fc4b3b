//! What the guard decides: which families, whose sockets, which local peers and processes a confined
//! task may use.
//!
//! The current task is confined in every one of these questions; [`WorkloadId::NONE`] as the other side
//! means something outside the enforced slice.

use crate::reason::Reason;
use crate::tables::WorkloadId;

/// `AF_UNIX`.
pub const AF_UNIX: u32 = 1;
/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;
/// `AF_NETLINK`.
pub const AF_NETLINK: u32 = 16;

/// `NETLINK_ROUTE`: what every resolver library asks for the host's addresses.
const NETLINK_ROUTE: u32 = 0;
/// `NETLINK_SOCK_DIAG`: lists sockets.
const NETLINK_SOCK_DIAG: u32 = 4;
/// `NETLINK_KOBJECT_UEVENT`: listens for devices; browsers do.
const NETLINK_KOBJECT_UEVENT: u32 = 15;

/// Key of `LOCAL_PEERS`: a local socket outside that the config opens to a workload, by the inode that it
/// is bound to. A path would be whatever the agent's mounts make of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPeer {
    /// Whose peer.
    pub workload: WorkloadId,
    /// The device of the file system, as the kernel numbers it (`major << 20 | minor`).
    pub device: u32,
    /// The inode.
    pub inode: u64,
}

/// Bits of a value of `GUARD_RULES`.
pub mod rule {
    /// The workload may make user namespaces.
    pub const USER_NAMESPACES: u32 = 1;
}

/// Whether a socket of this family may be made. IPv4 and IPv6 are judged further by `sock_create`; local
/// ones by whom they talk to.
#[inline(always)]
#[must_use]
pub const fn family(family: u32, protocol: u32) -> Option<Reason> {
    match family {
        AF_UNIX | AF_INET | AF_INET6 => None,
        AF_NETLINK => match protocol {
            NETLINK_ROUTE | NETLINK_SOCK_DIAG | NETLINK_KOBJECT_UEVENT => None,
            _ => Some(Reason::Family),
        },
        _ => Some(Reason::Family),
    }
}

/// Whether a task may use a socket that it holds: connect it, send or receive by it. `tag` is the socket's
/// birth tag, [`WorkloadId::NONE`] without one.
#[inline(always)]
#[must_use]
pub const fn socket(task: WorkloadId, family: u32, tag: WorkloadId) -> Option<Reason> {
    match family {
        AF_INET | AF_INET6 => {
            if tag.0 == task.0 {
                None
            } else {
                Some(Reason::ForeignSocket)
            }
        }
        // Whom a local one may talk to is asked when it connects, or for each datagram.
        AF_UNIX | AF_NETLINK => None,
        _ => Some(Reason::Family),
    }
}

/// Whether a task may take a socket that another hands to it: only one of its own workload. `born` is where
/// the socket was made.
#[inline(always)]
#[must_use]
pub const fn received(
    task: WorkloadId,
    family: u32,
    tag: WorkloadId,
    born: WorkloadId,
) -> Option<Reason> {
    let own = match family {
        AF_INET | AF_INET6 => tag.0 == task.0,
        AF_UNIX | AF_NETLINK => born.0 == task.0,
        _ => false,
    };
    if own { None } else { Some(Reason::ForeignDescriptor) }
}

/// Whether a task may talk to a local socket that was made in `peer`.
#[inline(always)]
#[must_use]
pub const fn local(task: WorkloadId, peer: WorkloadId, listed: bool) -> Option<Reason> {
    if peer.0 == task.0 || listed { None } else { Some(Reason::LocalSocket) }
}

/// Whether a task may look into a process of `target`.
#[inline(always)]
#[must_use]
pub const fn inspect(task: WorkloadId, target: WorkloadId) -> Option<Reason> {
    if target.0 == task.0 { None } else { Some(Reason::Ptrace) }
}

/// Whether a task whose workload has these rules may make a user namespace.
#[inline(always)]
#[must_use]
pub const fn user_namespace(rules: u32) -> Option<Reason> {
    if rules & rule::USER_NAMESPACES != 0 { None } else { Some(Reason::UserNamespace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: WorkloadId = WorkloadId(16);
    const OTHER: WorkloadId = WorkloadId(17);
    const OUTSIDE: WorkloadId = WorkloadId::NONE;

    #[test]
    fn of_all_families_only_ip_local_and_a_little_netlink_may_be_made() {
        let allowed: Vec<u32> = (0..256).filter(|f| family(*f, 0).is_none()).collect();
        assert_eq!(allowed, [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK]);
        let netlink: Vec<u32> = (0..64).filter(|p| family(AF_NETLINK, *p).is_none()).collect();
        assert_eq!(netlink, [NETLINK_ROUTE, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT]);
        // A socket's own protocol number says nothing about the family.
        assert_eq!(family(u32::MAX, 0), Some(Reason::Family));
    }

    #[test]
    fn an_ip_socket_made_elsewhere_can_neither_be_used_nor_be_handed_in() {
        for kind in [AF_INET, AF_INET6] {
            assert_eq!(socket(OWN, kind, OWN), None);
            assert_eq!(received(OWN, kind, OWN, OWN), None);
            for tag in [OUTSIDE, OTHER, WorkloadId::UNKNOWN] {
                assert_eq!(socket(OWN, kind, tag), Some(Reason::ForeignSocket));
                // Wherever it was made: without a tag its packets meet no hook.
                assert_eq!(received(OWN, kind, tag, OWN), Some(Reason::ForeignDescriptor));
            }
        }
    }

    #[test]
    fn a_socket_of_a_family_that_could_not_be_made_cannot_be_used_either() {
        for kind in [17, 38, 40, 44] {
            assert_eq!(socket(OWN, kind, OUTSIDE), Some(Reason::Family));
            assert_eq!(received(OWN, kind, OUTSIDE, OWN), Some(Reason::ForeignDescriptor));
        }
    }

    #[test]
    fn local_sockets_and_processes_of_others_are_out_of_reach_unless_listed() {
        assert_eq!(local(OWN, OWN, false), None);
        assert_eq!(local(OWN, OUTSIDE, true), None);
        assert_eq!(received(OWN, AF_UNIX, OUTSIDE, OWN), None);
        assert_eq!(inspect(OWN, OWN), None);
        for other in [OUTSIDE, OTHER, WorkloadId::UNKNOWN] {
            assert_eq!(local(OWN, other, false), Some(Reason::LocalSocket));
            assert_eq!(received(OWN, AF_UNIX, OUTSIDE, other), Some(Reason::ForeignDescriptor));
            assert_eq!(inspect(OWN, other), Some(Reason::Ptrace));
        }
    }

    #[test]
    fn user_namespaces_need_the_rule() {
        assert_eq!(user_namespace(0), Some(Reason::UserNamespace));
        assert_eq!(user_namespace(rule::USER_NAMESPACES), None);
    }
}
