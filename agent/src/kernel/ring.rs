//! Reading one ring buffer.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use grantd_common::event::counter;
use grantd_common::{Ring, capacity};

use super::error::Error;
use super::load::Pins;

/// The one reader of a ring. It owns the ring's wake flag and its parts of `SEEN` and `ASIDE`, the only map
/// entries that are not the enforcer's.
pub struct RingReader {
    ring: Ring,
    buffer: RingBuf<MapData>,
    wake: Array<MapData, u32>,
    seen: Array<MapData, u64>,
    aside: Array<MapData, [u64; 2]>,
    counters: PerCpuArray<MapData, u64>,
}

impl RingReader {
    pub(super) fn open(pins: &Pins, ring: Ring) -> Result<Self, Error> {
        let name = map_name(ring);
        let pinned = |name: &str| MapData::from_pin(pins.map(name));
        let open = || -> Result<Self, aya::maps::MapError> {
            Ok(Self {
                ring,
                buffer: RingBuf::try_from(Map::RingBuf(pinned(name)?))?,
                wake: Array::try_from(Map::Array(pinned("WAKE")?))?,
                seen: Array::try_from(Map::Array(pinned("SEEN")?))?,
                aside: Array::try_from(Map::Array(pinned("ASIDE")?))?,
                counters: PerCpuArray::try_from(Map::PerCpuArray(pinned("COUNTERS")?))?,
            })
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

    /// For each CPU, how many events it has put into this ring, lost ones included: the sequence number
    /// that its next event gets.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn produced(&self) -> io::Result<Vec<u64>> {
        let index = counter::SEQUENCE + self.ring as u32;
        Ok(self.counters.get(&index, 0).map_err(io::Error::other)?.iter().copied().collect())
    }

    /// For one CPU, the sequence number up to which (exclusive) every event is accounted for, as
    /// [`Self::set_seen`] left it: also by an earlier daemon.
    ///
    /// # Errors
    /// The map cannot be read, or there is no such CPU.
    pub fn seen(&self, cpu: u32) -> io::Result<u64> {
        self.seen.get(&self.index(cpu)?, 0).map_err(io::Error::other)
    }

    /// Remembers that every event of a CPU below this sequence number is accounted for.
    ///
    /// # Errors
    /// The map cannot be written, or there is no such CPU.
    pub fn set_seen(&mut self, cpu: u32, sequence: u64) -> io::Result<()> {
        let index = self.index(cpu)?;
        self.seen.set(index, sequence, 0).map_err(io::Error::other)
    }

    /// For one CPU, the sequence numbers of the newest events in a row that leave no record, as
    /// [`Self::set_aside`] left them: also by an earlier daemon.
    ///
    /// # Errors
    /// The map cannot be read, or there is no such CPU.
    pub fn aside(&self, cpu: u32) -> io::Result<Range<u64>> {
        let [first, next] = self.aside.get(&self.index(cpu)?, 0).map_err(io::Error::other)?;
        Ok(first..next)
    }

    /// Remembers that these events were taken, and that none of them leaves a record.
    ///
    /// # Errors
    /// The map cannot be written, or there is no such CPU.
    pub fn set_aside(&mut self, cpu: u32, run: &Range<u64>) -> io::Result<()> {
        let index = self.index(cpu)?;
        self.aside.set(index, [run.start, run.end], 0).map_err(io::Error::other)
    }

    fn index(&self, cpu: u32) -> io::Result<u32> {
        if cpu >= capacity::CPUS {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(self.ring as u32 * capacity::CPUS + cpu)
    }
}

impl AsFd for RingReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.buffer.as_fd()
    }
}

const fn map_name(ring: Ring) -> &'static str {
    match ring {
        Ring::Denials => "DENIALS",
        Ring::Flows => "FLOWS",
    }
}
