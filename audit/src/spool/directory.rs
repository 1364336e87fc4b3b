//! The spool's directory: private to one user, written by one process, and what lies in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::{Corrected, SpoolError};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK_NAME: &str = "lock";
const SUFFIX: &str = ".jsonl";
/// Digits of the largest `u64`, so that names sort as their numbers do.
const DIGITS: usize = 20;

/// An open spool directory, locked for as long as it lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: File,
    _lock: File,
}

impl Directory {
    /// Opens or creates the directory and locks it. Modes that are too wide are narrowed and reported;
    /// somebody else's directory is refused.
    pub(super) fn open(path: &Path, corrected: &mut Vec<Corrected>) -> Result<Self, SpoolError> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(SpoolError::io("create", path)(error)),
        }
        let handle = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits() | OFlag::O_DIRECTORY.bits())
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(code) if is_wrong_type(code) => {
                    SpoolError::NotA { path: path.to_owned(), expected: "a directory" }
                }
                _ => SpoolError::io("open", path)(error),
            })?;
        make_private(&handle, path, DIRECTORY_MODE, corrected)?;
        let lock_path = path.join(LOCK_NAME);
        let lock = open_file(&lock_path, OpenOptions::new().write(true).create(true))?;
        make_private(&lock, &lock_path, FILE_MODE, corrected)?;
        match lock.try_lock() {
            Ok(()) => Ok(Directory { path: path.to_owned(), handle, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(SpoolError::io("lock", &lock_path)(error)),
        }
    }

    /// Makes names in the directory survive a crash.
    pub(super) fn sync(&self) -> Result<(), SpoolError> {
        self.handle.sync_all().map_err(SpoolError::io("sync", &self.path))
    }

    /// The path of the segment whose first record has this sequence number.
    pub(super) fn segment(&self, first: u64) -> PathBuf {
        segment_path(&self.path, first)
    }

    /// Opens an existing segment for appending.
    pub(super) fn open_segment(
        &self,
        first: u64,
        corrected: &mut Vec<Corrected>,
    ) -> Result<File, SpoolError> {
        let path = self.segment(first);
        let file = open_file(&path, OpenOptions::new().read(true).append(true))?;
        make_private(&file, &path, FILE_MODE, corrected)?;
        Ok(file)
    }

    /// Creates a segment. One of that name that is there already holds nothing that was ever
    /// acknowledged (an earlier try failed), and is emptied.
    pub(super) fn create_segment(&self, first: u64) -> Result<File, SpoolError> {
        let path = self.segment(first);
        let file = open_file(&path, OpenOptions::new().append(true).create(true))?;
        make_private(&file, &path, FILE_MODE, &mut Vec::new())?;
        file.set_len(0).map_err(SpoolError::io("empty", &path))?;
        self.sync()?;
        Ok(file)
    }

    /// First sequence numbers of the segments, in order.
    pub(super) fn segments(&self) -> Result<Vec<u64>, SpoolError> {
        list_segments(&self.path).map_err(SpoolError::io("list", &self.path))
    }
}

/// The path of a segment in `dir`.
pub(crate) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:0DIGITS$}{SUFFIX}"))
}

/// First sequence numbers of the segments in `dir`, in order. Other files are left alone.
pub(crate) fn list_segments(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(first) = entry?.file_name().to_str().and_then(parse_segment_name) {
            found.push(first);
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn parse_segment_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn open_file(path: &Path, options: &mut OpenOptions) -> Result<File, SpoolError> {
    let flags = OFlag::O_NOFOLLOW.bits() | OFlag::O_NONBLOCK.bits();
    let opened = options.mode(FILE_MODE).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if is_wrong_type(code) => not_a_file(path),
        _ => SpoolError::io("open", path)(error),
    })?;
    let is_file = file.metadata().map_err(SpoolError::io("examine", path))?.is_file();
    if is_file { Ok(file) } else { Err(not_a_file(path)) }
}

fn not_a_file(path: &Path) -> SpoolError {
    SpoolError::NotA { path: path.to_owned(), expected: "a regular file" }
}

fn is_wrong_type(code: i32) -> bool {
    use nix::errno::Errno;
    [Errno::ELOOP, Errno::ENOTDIR, Errno::EISDIR, Errno::ENXIO].contains(&Errno::from_raw(code))
}

fn make_private(
    file: &File,
    path: &Path,
    mode: u32,
    corrected: &mut Vec<Corrected>,
) -> Result<(), SpoolError> {
    let metadata = file.metadata().map_err(SpoolError::io("examine", path))?;
    let expected = nix::unistd::geteuid().as_raw();
    if metadata.uid() != expected {
        return Err(SpoolError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            expected,
        });
    }
    let found = metadata.mode() & 0o7777;
    if found != mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode))
            .map_err(SpoolError::io("set the mode of", path))?;
        corrected.push(Corrected { path: path.to_owned(), found, mode });
    }
    Ok(())
}
