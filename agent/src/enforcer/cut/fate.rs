//! Whether a connection has to go. Pure.

use grantd_common::{Endpoint, GrantSlot, Now, Reason, SocketState};

/// What becomes of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A live grant covers it, or it rests on none.
    Keep,
    /// Its grant is over, and no other covers it.
    Cut(Reason),
}

/// Judges a socket by the grant that it rests on, as the kernel programs do. `peer` is where it is
/// connected to, `slot` the grant's, `covered` tells whether a live grant of its workload covers an
/// endpoint.
pub(super) fn fate(
    state: &SocketState,
    peer: &Endpoint,
    slot: &GrantSlot,
    now: &Now,
    covered: impl Fn(&Endpoint) -> bool,
) -> Fate {
    let generation = state.grant.generation();
    let refusal = slot.refusal(generation, now);
    if *peer != state.destination && peer.protocol == grantd_common::Protocol::UDP {
        // A datagram socket that has sent elsewhere since: what it rests on says nothing of its peer.
        return match refusal {
            _ if covered(peer) => Fate::Keep,
            Some(reason) => Fate::Cut(reason),
            None => Fate::Cut(Reason::Ended),
        };
    }
    let Some(reason) = refusal else { return Fate::Keep };
    let replaced = slot.generation == generation && slot.successor != 0;
    // Ended without an heir is final: bytes that were held back must not leave under a later grant.
    let final_end = slot.generation != generation || (slot.deadline_boot_ns == 0 && !replaced);
    if !final_end && covered(&state.destination) {
        return Fate::Keep;
    }
    Fate::Cut(if replaced { Reason::Superseded } else { reason })
}

#[cfg(test)]
mod tests {
    use grantd_common::{Address, GrantRef, Port, Protocol, WorkloadId};

    use super::*;

    const NOW: Now = Now { boot_ns: 1000, tai_ns: 1000 };
    const LIVE: GrantSlot =
        GrantSlot { deadline_boot_ns: 2000, deadline_tai_ns: 2000, generation: 3, successor: 0 };
    const EXPIRED: GrantSlot = GrantSlot { deadline_boot_ns: 1000, ..LIVE };
    const ENDED: GrantSlot = GrantSlot { deadline_boot_ns: 0, ..LIVE };
    const REPLACED: GrantSlot = GrantSlot { successor: 9, ..ENDED };

    fn at(last: u8, protocol: Protocol) -> Endpoint {
        Endpoint::new(Address::from_v4([10, 0, 0, last]), Port::new(80), protocol)
    }

    fn socket(protocol: Protocol) -> SocketState {
        SocketState {
            workload: WorkloadId(16),
            name: 0,
            grant: GrantRef::new(4, 3),
            destination: at(1, protocol),
            flags: 0,
            allowed_boot_ns: 0,
            counters: [0; 4],
            netns: 0,
            cgroup: 0,
            pid: 0,
            uid: 0,
            comm: [0; 16],
            reserved: [0],
        }
    }

    fn judge(slot: &GrantSlot, protocol: Protocol, peer: u8, covered: &[u8]) -> Fate {
        let covered = |to: &Endpoint| covered.iter().any(|last| at(*last, protocol) == *to);
        fate(&socket(protocol), &at(peer, protocol), slot, &NOW, covered)
    }

    #[test]
    fn a_live_grants_connection_stays_and_an_ended_ones_goes_with_the_reason() {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            assert_eq!(judge(&LIVE, protocol, 1, &[]), Fate::Keep);
            assert_eq!(judge(&EXPIRED, protocol, 1, &[]), Fate::Cut(Reason::Expired));
            assert_eq!(judge(&ENDED, protocol, 1, &[]), Fate::Cut(Reason::Ended));
            assert_eq!(judge(&REPLACED, protocol, 1, &[]), Fate::Cut(Reason::Superseded));
        }
    }

    #[test]
    fn what_another_grant_covers_goes_on_unless_its_own_end_was_final() {
        assert_eq!(judge(&EXPIRED, Protocol::TCP, 1, &[1]), Fate::Keep);
        assert_eq!(judge(&REPLACED, Protocol::TCP, 1, &[1]), Fate::Keep);
        assert_eq!(judge(&REPLACED, Protocol::TCP, 1, &[2]), Fate::Cut(Reason::Superseded));
        let late = judge(&ENDED, Protocol::TCP, 1, &[1]);
        assert_eq!(late, Fate::Cut(Reason::Ended), "a later grant must not let its old bytes out");
        let reused = GrantSlot { generation: 4, ..LIVE };
        let cut = Fate::Cut(Reason::StaleGeneration);
        assert_eq!(judge(&reused, Protocol::TCP, 1, &[1]), cut, "another grant has its slot");
    }

    #[test]
    fn a_datagram_socket_that_sent_elsewhere_is_judged_by_its_peer() {
        assert_eq!(judge(&LIVE, Protocol::UDP, 2, &[1]), Fate::Cut(Reason::Ended));
        assert_eq!(judge(&ENDED, Protocol::UDP, 2, &[2]), Fate::Keep);
        assert_eq!(judge(&LIVE, Protocol::TCP, 2, &[1]), Fate::Keep, "TCP has one destination");
    }
}
