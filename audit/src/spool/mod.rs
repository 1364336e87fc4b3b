//! The spool: numbered records in append-only segments, durable once [`Spool::commit`] returns.
//!
//! A segment is named by the sequence number of its first record and holds one JSON object a line.
//! Numbers go up by one from record to record; where some are missing, a Loss record says which.
//!
//! # Size
//!
//! Before a write would make the spool larger than `max_bytes`, the oldest segments go, and one Loss
//! record (source `retention`) says how many records and which numbers. The newest evidence stays and
//! recording never stops for want of room that the spool itself takes.
//!
//! # Failing disks
//!
//! A write or sync that fails takes back what it wrote of the batch, as far as the disk lets it; the batch
//! stays in memory and goes to a new segment at the next try. What was synced once is never written
//! again; what could not be taken back appears twice with the same number, and [`crate::Reader`] drops
//! the second.

mod directory;
mod error;
mod recover;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use directory::Directory;
pub(crate) use directory::{list_segments, segment_path};
pub use error::SpoolError;
pub use recover::{Corrected, Recovery, TornTail};

use crate::event::{Event, Loss, LossSource};
use crate::{Producer, ocsf};

/// Size at which a segment is followed by the next.
pub const DEFAULT_SEGMENT_BYTES: u64 = 16 << 20;
/// Size of all segments together: about half a million connection records with everything known.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;
/// The smallest segment that makes sense: the largest record fits many times.
const LEAST_SEGMENT_BYTES: u64 = 4096;

/// Where the spool is and how large it may become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The directory; its parent must exist.
    pub dir: PathBuf,
    /// A segment that reaches this many bytes is followed by the next.
    pub segment_bytes: u64,
    /// All segments together; at least twice `segment_bytes`.
    pub max_bytes: u64,
}

impl SpoolConfig {
    /// A spool of the default sizes in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        SpoolConfig {
            dir: dir.into(),
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

/// How the spool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct SpoolStatus {
    /// The number that the next record gets.
    pub next_sequence: u64,
    /// The last number that is on disk for good; 0 if none is.
    pub durable_sequence: u64,
    /// First number of the oldest segment; 0 if there is none.
    pub oldest_sequence: u64,
    /// Segments.
    pub segments: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// The size that they may reach.
    pub max_bytes: u64,
    /// Records that were removed to make room since the spool was opened.
    pub removed: u64,
}

#[derive(Clone, Copy, Debug)]
struct SegmentInfo {
    first: u64,
    bytes: u64,
}

/// The one writer of a spool directory.
#[derive(Debug)]
pub struct Spool {
    config: SpoolConfig,
    producer: Producer,
    directory: Directory,
    segments: VecDeque<SegmentInfo>,
    /// The newest segment, while it is known to end where `segments` says.
    current: Option<File>,
    pending: Vec<u8>,
    pending_first: u64,
    next_sequence: u64,
    durable_sequence: u64,
    removed: u64,
    /// What was removed and is not recorded yet.
    removal: Option<Loss>,
    newest_ms: u64,
}

impl Spool {
    /// Opens or creates the spool, repairs what a crash left, and says what it found.
    ///
    /// # Errors
    ///
    /// The directory is not a directory, belongs to somebody else, is in use, or cannot be read or written.
    pub fn open(config: SpoolConfig, producer: Producer) -> Result<(Self, Recovery), SpoolError> {
        let (segment_bytes, max_bytes) = (config.segment_bytes, config.max_bytes);
        if segment_bytes < LEAST_SEGMENT_BYTES || max_bytes / 2 < segment_bytes {
            let least = LEAST_SEGMENT_BYTES;
            return Err(SpoolError::Sizes { segment_bytes, max_bytes, least });
        }
        let mut recovery = Recovery::default();
        let directory = Directory::open(&config.dir, &mut recovery.corrected)?;
        let (segments, current, recovery) = recover::recover(&directory, recovery)?;
        let spool = Spool {
            config,
            producer,
            directory,
            segments: segments.into(),
            current,
            pending: Vec::new(),
            pending_first: recovery.next_sequence,
            next_sequence: recovery.next_sequence,
            durable_sequence: recovery.next_sequence - 1,
            removed: 0,
            removal: None,
            newest_ms: 0,
        };
        Ok((spool, recovery))
    }

    /// Encodes one event and numbers it. It is on disk after the next [`Spool::commit`] that succeeds.
    ///
    /// # Errors
    ///
    /// The event cannot be encoded; no number is used up.
    pub fn append(&mut self, event: &Event, time_ms: u64) -> Result<u64, SpoolError> {
        let sequence = self.next_sequence;
        if self.pending.is_empty() {
            self.pending_first = sequence;
        }
        let stamp = ocsf::Stamp::new(sequence, time_ms);
        let before = self.pending.len();
        if let Err(error) = ocsf::encode(event, &stamp, &self.producer, &mut self.pending) {
            self.pending.truncate(before);
            return Err(SpoolError::Encode(error));
        }
        self.next_sequence += 1;
        self.newest_ms = self.newest_ms.max(time_ms);
        Ok(sequence)
    }

    /// Uses up `count` numbers for events that were lost, and returns the first and last of them. The
    /// caller appends the Loss that names them.
    pub fn skip(&mut self, count: u64) -> Option<(u64, u64)> {
        let last_offset = count.checked_sub(1)?;
        let first = self.next_sequence;
        self.next_sequence = first.saturating_add(count);
        Some((first, first.saturating_add(last_offset)))
    }

    /// Bytes that were appended and are not on disk.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Writes and syncs what was appended. After an error everything is still pending.
    ///
    /// # Errors
    ///
    /// The disk is full, read-only or failing.
    pub fn commit(&mut self) -> Result<(), SpoolError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.make_room()?;
        if let Err(error) = self.write_pending() {
            self.take_back();
            return Err(error);
        }
        self.pending.clear();
        self.durable_sequence = self.next_sequence - 1;
        Ok(())
    }

    /// How the spool stands now.
    #[must_use]
    pub fn status(&self) -> SpoolStatus {
        SpoolStatus {
            next_sequence: self.next_sequence,
            durable_sequence: self.durable_sequence,
            oldest_sequence: self.segments.front().map_or(0, |segment| segment.first),
            segments: self.segments.len(),
            bytes: self.bytes(),
            max_bytes: self.config.max_bytes,
            removed: self.removed,
        }
    }

    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Removes the oldest segments until what is pending fits, and appends the record of it.
    fn make_room(&mut self) -> Result<(), SpoolError> {
        let removed = self.remove_oldest();
        // Also when a later removal failed: what is gone has to be said.
        if let Some(loss) = self.removal.take() {
            self.append(&Event::Loss(loss), self.newest_ms)?;
        }
        removed
    }

    fn remove_oldest(&mut self) -> Result<(), SpoolError> {
        while self.segments.len() > 1
            && self.bytes() + self.pending.len() as u64 > self.config.max_bytes
        {
            let Some(oldest) = self.segments.front().copied() else { break };
            let next = self.segments.get(1).map_or(self.pending_first, |next| next.first);
            let path = self.directory.segment(oldest.first);
            let records = match count_lines(&path) {
                Ok(lines) => lines,
                // Somebody else removed it: every number that it may have held is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => next - oldest.first,
                Err(error) => return Err(SpoolError::io("read", &path)(error)),
            };
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(SpoolError::io("remove", &path)(error));
                }
                Ok(()) | Err(_) => {}
            }
            self.segments.pop_front();
            self.removed += records;
            let loss = self.removal.get_or_insert_with(|| Loss::new(LossSource::Retention, 0));
            loss.events += records;
            let first = loss.sequences.map_or(oldest.first, |(first, _)| first);
            loss.sequences = Some((first, next - 1));
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), SpoolError> {
        let full = self.segments.back().is_none_or(|segment| {
            segment.bytes > 0
                && segment.bytes + self.pending.len() as u64 > self.config.segment_bytes
        });
        let mut file = match self.current.take() {
            Some(file) if !full => file,
            _ => self.next_segment()?,
        };
        let path = self.directory.segment(self.segments.back().map_or(0, |segment| segment.first));
        // Kept also when writing fails: take_back needs it.
        let written = file.write_all(&self.pending).map_err(SpoolError::io("write to", &path));
        let synced = written.and_then(|()| file.sync_data().map_err(SpoolError::io("sync", &path)));
        self.current = Some(file);
        synced?;
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += self.pending.len() as u64;
        }
        Ok(())
    }

    fn next_segment(&mut self) -> Result<File, SpoolError> {
        let first = self.pending_first;
        let file = self.directory.create_segment(first)?;
        if self.segments.back().is_none_or(|segment| segment.first != first) {
            self.segments.push_back(SegmentInfo { first, bytes: 0 });
        }
        Ok(file)
    }

    /// Cuts the newest segment back to what was synced. After a failed sync the kernel may claim a later
    /// one to be good while pages are lost, so the segment is left and the batch goes to a new one.
    fn take_back(&mut self) {
        let Some(file) = self.current.take() else { return };
        let Some(segment) = self.segments.back().copied() else { return };
        // Best effort on a disk that has just failed; a reader drops what stays behind.
        drop(file.set_len(segment.bytes));
        if segment.bytes == 0 {
            drop(std::fs::remove_file(self.directory.segment(segment.first)));
            self.segments.pop_back();
        }
    }
}

fn count_lines(path: &std::path::Path) -> std::io::Result<u64> {
    use std::io::BufRead;
    let mut reader = std::io::BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut lines = 0;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(lines);
        }
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = chunk.len();
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests;
