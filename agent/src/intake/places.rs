//! Places for TLS handshakes: anybody who reaches the port can take one, so there are few for each source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Limits;

/// The handshakes in hand, by source.
pub(super) struct HandshakePlaces {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// All are taken.
    Full,
    /// This source has as many as one source may have.
    SourceFull,
}

/// One place, given back when it is dropped.
pub(super) struct HandshakePlace {
    places: Arc<HandshakePlaces>,
    source: IpAddr,
}

impl HandshakePlaces {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place for a connection from `address`.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<HandshakePlace, NoPlace> {
        let source = source(address);
        let mut taken = self.taken();
        // Of two reasons, the source's own says more.
        let own = taken.by_source.get(&source).copied().unwrap_or(0);
        if own >= self.limits.max_handshakes_per_source {
            return Err(NoPlace::SourceFull);
        }
        if taken.all >= self.limits.max_handshakes {
            return Err(NoPlace::Full);
        }
        taken.all += 1;
        taken.by_source.insert(source, own + 1);
        Ok(HandshakePlace { places: Arc::clone(self), source })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Numbers alone: they are whole whoever panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_source.get(&self.source).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            taken.by_source.remove(&self.source);
        } else {
            taken.by_source.insert(self.source, left);
        }
    }
}

/// Who counts as one source: an IPv4 address, or the /64 that an IPv6 host can pick addresses from.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(max_handshakes: usize, max_handshakes_per_source: usize) -> Arc<HandshakePlaces> {
        HandshakePlaces::new(Limits {
            max_handshakes,
            max_handshakes_per_source,
            ..Limits::default()
        })
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_cannot_take_the_places_of_others_and_gives_its_own_back() {
        let places = places(3, 2);
        let first = places.take(at("10.0.0.1")).ok();
        let second = places.take(at("::ffff:10.0.0.1")).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(places.take(at("10.0.0.1")).err(), Some(NoPlace::SourceFull));
        let other = places.take(at("10.0.0.2"));
        assert!(other.is_ok(), "one address keeps all others out");
        assert_eq!(places.take(at("10.0.0.3")).err(), Some(NoPlace::Full));
        drop(first);
        assert!(places.take(at("10.0.0.3")).is_ok(), "a place was not given back");
        drop((second, other));
        assert!(places.taken().by_source.is_empty(), "sources are remembered for ever");
    }

    #[test]
    fn an_ipv6_host_with_a_whole_network_of_addresses_is_one_source() {
        let places = places(9, 1);
        let held = places.take(at("2001:db8::1"));
        assert!(held.is_ok());
        assert_eq!(places.take(at("2001:db8::2:3")).err(), Some(NoPlace::SourceFull));
        assert!(places.take(at("2001:db8:0:1::1")).is_ok());
    }
}
