//! Reading one ring buffer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Array, Map, MapData, RingBuf};
use grantd_common::Ring;

use super::error::Error;
use super::load::Pins;

/// The one reader of a ring. It owns the ring's wake flag, the only map entry that is not the
/// enforcer's.
pub struct RingReader {
    ring: Ring,
    buffer: RingBuf<MapData>,
    wake: Array<MapData, u32>,
}

impl RingReader {
    pub(super) fn open(pins: &Pins, ring: Ring) -> Result<Self, Error> {
        let name = map_name(ring);
        let open = || -> Result<Self, aya::maps::MapError> {
            let buffer = RingBuf::try_from(Map::RingBuf(MapData::from_pin(pins.map(name))?))?;
            let wake = Array::try_from(Map::Array(MapData::from_pin(pins.map("WAKE"))?))?;
            Ok(Self { ring, buffer, wake })
        };
        open().map_err(|source| Error::Ring { ring: name, source })
    }

    /// Which ring this is.
    #[must_use]
    pub const fn ring(&self) -> Ring {
        self.ring
    }

    /// Hands each waiting event's bytes to `take`, at most `limit`. Returns how many there were.
    pub fn drain(&mut self, limit: usize, mut take: impl FnMut(&[u8])) -> usize {
        let mut n = 0;
        while n < limit {
            let Some(item) = self.buffer.next() else { break };
            take(&item);
            n += 1;
        }
        n
    }

    /// Asks to be woken by the next event. Drain once more afterwards: an event may have come just
    /// before.
    ///
    /// # Errors
    /// The flag cannot be written.
    pub fn arm(&mut self) -> io::Result<()> {
        self.wake.set(self.ring as u32, 1, 0).map_err(io::Error::other)
    }
}

impl AsFd for RingReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.buffer.as_fd()
    }
}

impl AsRawFd for RingReader {
    fn as_raw_fd(&self) -> RawFd {
        self.buffer.as_raw_fd()
    }
}

const fn map_name(ring: Ring) -> &'static str {
    match ring {
        Ring::Denials => "DENIALS",
        Ring::Flows => "FLOWS",
    }
}
