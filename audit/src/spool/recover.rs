//! Opening a spool that an earlier run left, however that run ended.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use super::directory::Directory;
use super::{SegmentInfo, SpoolError};
use crate::event::{Event, Finding, FindingKind, Loss, LossSource};
use crate::ocsf;

/// The torn end of a record that a crash cut short. It was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment that it was removed from.
    pub segment: PathBuf,
    /// How many bytes were removed.
    pub bytes: u64,
}

/// A mode that was wider or narrower than it must be, and was set right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// The directory or file.
    pub path: PathBuf,
    /// The mode that it had.
    pub found: u32,
    /// The mode that it has now.
    pub mode: u32,
}

/// In what state the spool was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The sequence number that the next record gets; 1 for a new spool.
    pub next_sequence: u64,
    /// Segments that were there.
    pub segments: usize,
    /// Their size in bytes.
    pub bytes: u64,
    /// The torn record that was removed, if there was one.
    pub torn: Option<TornTail>,
    /// Whole lines of the newest segment that are not records. They are left where they are.
    pub damaged_lines: u64,
    /// Modes that were set right.
    pub corrected: Vec<Corrected>,
}

impl Recovery {
    /// What has to be recorded about it: hand these to the recorder first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(torn) = &self.torn {
            let detail = "the last record was cut short by a crash and was removed; it was never acknowledged";
            let mut finding = Finding::new(FindingKind::SpoolRepaired, detail);
            finding.evidence = vec![
                ("segment".into(), torn.segment.display().to_string()),
                ("bytes".into(), torn.bytes.to_string()),
            ];
            events.push(Event::Finding(finding));
        }
        for corrected in &self.corrected {
            let detail = "a part of the audit spool had another mode than it was left with; find out who changed it";
            let mut finding = Finding::new(FindingKind::Tamper, detail);
            finding.evidence = vec![
                ("path".into(), corrected.path.display().to_string()),
                ("found".into(), format!("{:04o}", corrected.found)),
                ("mode".into(), format!("{:04o}", corrected.mode)),
            ];
            events.push(Event::Finding(finding));
        }
        if self.damaged_lines > 0 {
            events.push(Event::Loss(Loss::new(LossSource::Damage, self.damaged_lines)));
        }
        events
    }
}

/// Examines what is there, repairs the end of the newest segment, and finds the next number.
pub(super) fn recover(
    directory: &Directory,
    mut recovery: Recovery,
) -> Result<(Vec<SegmentInfo>, Option<File>, Recovery), SpoolError> {
    let mut segments = Vec::new();
    for first in directory.segments()? {
        let file = directory.open_segment(first, &mut recovery.corrected)?;
        let path = directory.segment(first);
        let bytes = file.metadata().map_err(SpoolError::io("examine", &path))?.len();
        segments.push(SegmentInfo { first, bytes });
    }
    let newest = match segments.last_mut() {
        Some(info) => Some(repair(directory, info, &mut recovery)?),
        None => None,
    };
    recovery.next_sequence = recovery.next_sequence.max(1);
    // A segment before an empty one may end with records of a batch that a failing disk did not let us
    // take back: their numbers are used up.
    if segments.last().is_some_and(|segment| segment.bytes == 0)
        && let Some(info) = segments.iter().rev().find(|segment| segment.bytes > 0)
    {
        let scan = scan_segment(directory, info.first)?;
        recovery.next_sequence = recovery.next_sequence.max(scan.next_sequence);
    }
    recovery.segments = segments.len();
    recovery.bytes = segments.iter().map(|segment| segment.bytes).sum();
    Ok((segments, newest, recovery))
}

/// Cuts a torn record off the newest segment and opens it for more.
fn repair(
    directory: &Directory,
    info: &mut SegmentInfo,
    recovery: &mut Recovery,
) -> Result<File, SpoolError> {
    let path = directory.segment(info.first);
    let scan = scan_segment(directory, info.first)?;
    let file = directory.open_segment(info.first, &mut recovery.corrected)?;
    if scan.whole_bytes < info.bytes {
        file.set_len(scan.whole_bytes).map_err(SpoolError::io("repair", &path))?;
        file.sync_all().map_err(SpoolError::io("sync", &path))?;
        let bytes = info.bytes - scan.whole_bytes;
        recovery.torn = Some(TornTail { segment: path, bytes });
        info.bytes = scan.whole_bytes;
    }
    recovery.damaged_lines = scan.damaged_lines;
    recovery.next_sequence = scan.next_sequence;
    Ok(file)
}

fn scan_segment(directory: &Directory, first: u64) -> Result<Scan, SpoolError> {
    let file = directory.open_segment(first, &mut Vec::new())?;
    let path = directory.segment(first);
    scan(BufReader::new(file), first).map_err(SpoolError::io("read", &path))
}

struct Scan {
    whole_bytes: u64,
    damaged_lines: u64,
    next_sequence: u64,
}

/// Reads a segment to its end. A damaged line may have had a number, so it uses one up.
fn scan(mut reader: impl BufRead, first: u64) -> std::io::Result<Scan> {
    let mut scan = Scan { whole_bytes: 0, damaged_lines: 0, next_sequence: first.max(1) };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(scan);
        }
        scan.whole_bytes += read as u64;
        match ocsf::sequence_of(&line) {
            Some(sequence) => {
                scan.next_sequence = scan.next_sequence.max(sequence.saturating_add(1));
            }
            None => {
                scan.damaged_lines += 1;
                scan.next_sequence = scan.next_sequence.saturating_add(1);
            }
        }
    }
}
