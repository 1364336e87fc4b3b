//! Reading the spool, also while it is written: `grantctl audit tail` and, later, the sinks.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::ocsf;
use crate::spool::{list_segments, segment_path};

/// Where to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest record that is kept.
    Oldest,
    /// The first record with this sequence number or a higher one.
    Sequence(u64),
    /// As many records before the end as this.
    Last(u64),
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its `metadata.sequence`.
    pub sequence: u64,
    /// Its JSON, without the newline.
    pub json: Vec<u8>,
}

/// The spool cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct ReadError {
    operation: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Reads records in order and follows the writer from segment to segment.
///
/// Every record comes once, in the order of its number: a number that is not above the last is skipped.
/// Lines that are not records are skipped and counted ([`Reader::damaged`]). A number that is missing
/// was lost, and a later Loss record says so.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The next record has this number at least.
    next: u64,
    open: Option<Segment>,
    damaged: u64,
    /// Records still to be passed over.
    pass: u64,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    reader: BufReader<File>,
    /// End of the last whole line that was read.
    position: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Reader {
    /// Opens the spool in `dir` for reading. It needs not exist yet.
    ///
    /// # Errors
    ///
    /// The directory or a segment cannot be read.
    pub fn open(dir: impl Into<PathBuf>, from: StartAt) -> Result<Self, ReadError> {
        let dir = dir.into();
        let mut reader = Reader { dir, next: 0, open: None, damaged: 0, pass: 0 };
        match from {
            StartAt::Oldest => {}
            StartAt::Sequence(sequence) => {
                reader.next = sequence;
                reader.start_at_segment_of(sequence)?;
            }
            StartAt::Last(count) => reader.start_before_end(count)?,
        }
        Ok(reader)
    }

    /// The next record, or none if there is none yet: ask again later to follow the writer.
    ///
    /// # Errors
    ///
    /// The directory or a segment cannot be read.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            let Some(segment) = self.open.as_mut() else {
                match self.following(None)? {
                    Some(first) => self.open_segment(first)?,
                    None => return Ok(None),
                }
                continue;
            };
            let (first, path) = (segment.first, segment_path(&self.dir, segment.first));
            match segment.read_line().map_err(fail("read", &path))? {
                Some(json) => {
                    if let Some(line) = self.accept(json) {
                        return Ok(Some(line));
                    }
                }
                None => {
                    let Some(following) = self.following(Some(first))? else { return Ok(None) };
                    // The writer may have finished this segment between the two looks.
                    let last = match self.open.as_mut() {
                        Some(segment) => segment.read_line().map_err(fail("read", &path))?,
                        None => None,
                    };
                    match last {
                        Some(json) => {
                            if let Some(line) = self.accept(json) {
                                return Ok(Some(line));
                            }
                        }
                        None => {
                            let torn = self.open.as_ref().is_some_and(|it| !it.partial.is_empty());
                            self.damaged += u64::from(torn);
                            self.open_segment(following)?;
                        }
                    }
                }
            }
        }
    }

    /// Lines that were not records.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    fn accept(&mut self, json: Vec<u8>) -> Option<Line> {
        if self.pass > 0 {
            self.pass -= 1;
            return None;
        }
        let Some(sequence) = ocsf::sequence_of(&json) else {
            self.damaged += 1;
            return None;
        };
        if sequence < self.next {
            return None;
        }
        self.next = sequence.saturating_add(1);
        Some(Line { sequence, json })
    }

    fn segments(&self) -> Result<Vec<u64>, ReadError> {
        match list_segments(&self.dir) {
            Ok(segments) => Ok(segments),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(fail("list", &self.dir)(error)),
        }
    }

    /// The segment after `first`, or the oldest.
    fn following(&self, first: Option<u64>) -> Result<Option<u64>, ReadError> {
        let segments = self.segments()?;
        Ok(segments.into_iter().find(|segment| first.is_none_or(|first| *segment > first)))
    }

    fn open_segment(&mut self, first: u64) -> Result<(), ReadError> {
        let path = segment_path(&self.dir, first);
        match open_file(&path) {
            Ok(file) => {
                let reader = BufReader::with_capacity(1 << 16, file);
                self.open = Some(Segment { first, reader, position: 0, partial: Vec::new() });
                Ok(())
            }
            // Removed to make room: go on with what is the oldest now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.open = None;
                match self.following(Some(first))? {
                    Some(following) => self.open_segment(following),
                    None => Ok(()),
                }
            }
            Err(error) => Err(fail("open", &path)(error)),
        }
    }

    fn start_at_segment_of(&mut self, sequence: u64) -> Result<(), ReadError> {
        let segments = self.segments()?;
        match segments.into_iter().rev().find(|first| *first <= sequence) {
            Some(first) => self.open_segment(first),
            None => Ok(()),
        }
    }

    fn start_before_end(&mut self, count: u64) -> Result<(), ReadError> {
        let mut found = 0;
        for first in self.segments()?.into_iter().rev() {
            let path = segment_path(&self.dir, first);
            let lines = match open_file(&path).and_then(count_lines) {
                Ok(lines) => lines,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(fail("read", &path)(error)),
            };
            found += lines;
            self.open_segment(first)?;
            if found >= count {
                break;
            }
        }
        self.pass = found.saturating_sub(count);
        Ok(())
    }
}

impl Segment {
    /// The next whole line without its newline.
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let read_to = self.position + self.partial.len() as u64;
        if self.reader.get_ref().metadata()?.len() < read_to {
            // The writer took back what it could not sync.
            self.partial.clear();
            self.position = self.last_whole_line()?;
        }
        self.reader.read_until(b'\n', &mut self.partial)?;
        if self.partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.partial);
        self.position += line.len() as u64;
        line.pop();
        Ok(Some(line))
    }

    /// Moves to where reading has to go on in a file that has become shorter. Records that were read
    /// already come again and are skipped by their number.
    fn last_whole_line(&mut self) -> io::Result<u64> {
        let length = self.reader.get_ref().metadata()?.len();
        let target = if length < self.position { 0 } else { self.position };
        self.reader.seek(SeekFrom::Start(target))
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW.bits() | OFlag::O_NONBLOCK.bits();
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn count_lines(file: File) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
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

fn fail(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    move |source| ReadError { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
