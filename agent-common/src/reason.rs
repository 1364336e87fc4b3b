//! Why the kernel programs decided as they did. Discriminants are part of the ABI: explicit, never
//! reused; gaps are left for reasons of the same group.

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $value:literal, $code:literal; )*) => {
        /// One reason of a verdict.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( $(#[$doc])* $name = $value, )* }

        impl Reason {
            /// Every reason, in the order of the discriminants.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The code that audit records and the command line show.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $code, )* }
            }

            /// From the byte in an event; `None` for one that this version does not know.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value { $( $value => Some(Self::$name), )* _ => None }
            }
        }
    };
}

reasons! {
    /// A live grant covers the destination.
    Granted = 1, "granted";
    /// The other end is a socket of the same workload, over loopback.
    SameWorkload = 2, "same_workload";
    /// The host's config lets this workload be reached there.
    Listener = 3, "listener";
    // 4 to 9: further ways to be allowed.
    /// No grant of this workload names the destination.
    NoGrant = 10, "no_grant";
    /// A grant named it, and its deadline has passed.
    Expired = 11, "expired";
    /// A grant named it, and was ended before its deadline.
    Ended = 12, "ended";
    /// The rule or socket belongs to an earlier use of the slot.
    StaleGeneration = 13, "stale_generation";
    /// The grant was replaced, and no live grant covers this destination any more.
    Superseded = 14, "superseded";
    /// The name that gave this address has to be looked up again.
    NameExpired = 15, "name_expired";
    // 16 to 19: further ends of a grant.
    /// The socket was not made by this workload.
    ForeignSocket = 20, "foreign_socket";
    /// The task is below the enforced slice, but in no known workload.
    UnknownWorkload = 21, "unknown_workload";
    /// The kernel could not store the socket's tag.
    StorageFull = 22, "storage_full";
    /// The enforced slice was made anew and its hooks are not attached yet.
    SliceNotReady = 23, "slice_not_ready";
    /// The workload's cgroup was made anew and what its predecessor was granted has not ended yet.
    WorkloadPending = 24, "workload_pending";
    /// The workload holds as many sockets as it may.
    TooManySockets = 25, "max_sockets";
    // 26 to 29: further identity failures.
    /// Only TCP streams and UDP datagrams over IPv4 and IPv6 may be opened.
    SocketType = 30, "socket_type";
    /// A packet whose headers could not be read.
    Malformed = 31, "malformed";
    /// IPv4 options or IPv6 extension headers.
    HeaderOptions = 32, "header_options";
    /// The packet goes elsewhere than the socket was allowed to, and that is not granted.
    Rewritten = 33, "rewritten";
    /// A packet of a socket that was never allowed a destination.
    NoDestination = 34, "no_destination";
    /// A packet of a socket that carries no tag.
    Untagged = 35, "untagged";
    /// Something comes in that no connection of the workload asked for.
    Inbound = 36, "inbound";
    /// A socket option that could send packets elsewhere, or keep them for later.
    SocketOption = 37, "socket_option";
    /// A listening socket answers a call with SYN-ACK and sends nothing else.
    ListenerSends = 38, "listener_sends";
    // 39: a further packet or socket check.
    /// The guard: a socket of a family other than IPv4, IPv6, local and route netlink.
    Family = 40, "address_family";
    /// The guard: a local socket outside the workload that is not listed.
    LocalSocket = 41, "local_socket";
    /// The guard: a descriptor of a socket that was made elsewhere.
    ForeignDescriptor = 42, "foreign_descriptor";
    /// The guard: looking into a process outside the workload.
    Ptrace = 43, "ptrace";
    /// The guard: the bpf(2) system call.
    Bpf = 44, "bpf";
    /// The guard: making a user namespace.
    UserNamespace = 45, "user_namespace";
    // 46 and on: further checks of the guard.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_crossing_and_no_code_is_used_twice() {
        for (i, r) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_u8(*r as u8), Some(*r));
            for other in &Reason::ALL[i + 1..] {
                assert_ne!(r.as_str(), other.as_str());
            }
        }
        assert_eq!(Reason::from_u8(0), None);
        assert_eq!(Reason::from_u8(255), None);
    }
}
