//! Files whose content decides what is allowed: read once, from one descriptor, after looking at who
//! else could have written them.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// What is known of an open file besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// Whether it is a regular file.
    pub regular: bool,
    /// Its owner.
    pub uid: u32,
    /// Its permission bits (the lower twelve bits of `st_mode`).
    pub mode: u32,
    /// The effective uid of this process.
    pub euid: u32,
}

/// What is wrong with a file's kind, owner or mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Untrusted {
    /// A directory, device, pipe or socket.
    #[error("is not a regular file; put the content into a regular file")]
    NotRegular,
    /// Somebody else can rewrite it.
    #[error("is owned by uid {uid}; run `chown {wanted}` on it")]
    Owner {
        /// Its owner.
        uid: u32,
        /// Who should own it.
        wanted: u32,
    },
    /// Somebody else can write it.
    #[error("is writable by group or others (mode {mode:04o}); run `chmod go-w` on it")]
    Writable {
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else can read a secret.
    #[error("is accessible to others (mode {mode:04o}); run `chmod o-rwx` on it")]
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
}

impl FileFacts {
    fn of(metadata: &Metadata) -> Self {
        Self {
            regular: metadata.is_file(),
            uid: metadata.uid(),
            mode: metadata.mode() & 0o7777,
            euid: nix::unistd::geteuid().as_raw(),
        }
    }

    /// All reasons not to believe the content. Root and the daemon's own user may own it.
    pub fn untrusted(&self) -> Vec<Untrusted> {
        if !self.regular {
            return vec![Untrusted::NotRegular];
        }
        let mut reasons = Vec::new();
        if self.uid != 0 && self.uid != self.euid {
            reasons.push(Untrusted::Owner { uid: self.uid, wanted: self.euid });
        }
        if self.mode & 0o022 != 0 {
            reasons.push(Untrusted::Writable { mode: self.mode });
        }
        reasons
    }

    /// As [`Self::untrusted`], and others must not be able to read it.
    pub fn untrusted_secret(&self) -> Vec<Untrusted> {
        let mut reasons = self.untrusted();
        if self.regular && self.mode & 0o007 != 0 {
            reasons.push(Untrusted::Exposed { mode: self.mode });
        }
        reasons
    }
}

/// Why a file was not taken.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// `open` or `read`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is larger than its kind ever is.
    #[error("{} is larger than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
    /// Its kind, owner or mode lets somebody else decide what it says.
    #[error("{} {reason}", path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: Untrusted,
    },
}

/// Reads a file that only root or the daemon's own user can write.
///
/// # Errors
/// [`FileError`]: unreadable, larger than `max` bytes, or not trustworthy.
pub fn read_trusted(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let (bytes, facts) = read_with_facts(path, max)?;
    accept(path, &facts.untrusted())?;
    Ok(bytes)
}

/// Reads a secret: as [`read_trusted`], and others must not be able to read the file. The bytes are
/// wiped when dropped.
///
/// # Errors
/// [`FileError`]: unreadable, larger than `max` bytes, not trustworthy or exposed.
pub fn read_secret(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (bytes, facts) = read_with_facts(path, max)?;
    let bytes = Zeroizing::new(bytes);
    accept(path, &facts.untrusted_secret())?;
    Ok(bytes)
}

/// Reads a file and what is known of it, both from one descriptor.
pub(super) fn read_with_facts(path: &Path, max: u64) -> Result<(Vec<u8>, FileFacts), FileError> {
    let file = open(path).map_err(|source| failed("open", path, source))?;
    let metadata = file.metadata().map_err(|source| failed("read", path, source))?;
    let facts = FileFacts::of(&metadata);
    if !facts.regular {
        return Ok((Vec::new(), facts));
    }
    // One byte more than allowed tells a file that is too large from one that just fits. Room for all
    // of it at once, because a vector that grows leaves copies of a secret behind.
    let room = usize::try_from(metadata.len().min(max).saturating_add(1)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(room);
    file.take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| failed("read", path, source))?;
    if u64::try_from(bytes.len()).map_or(true, |length| length > max) {
        return Err(FileError::TooLarge { path: path.to_owned(), max });
    }
    Ok((bytes, facts))
}

/// Without blocking: a pipe in the file's place must not hang the daemon.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn accept(path: &Path, reasons: &[Untrusted]) -> Result<(), FileError> {
    match reasons.first() {
        None => Ok(()),
        Some(reason) => Err(FileError::Untrusted { path: path.to_owned(), reason: *reason }),
    }
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> FileError {
    FileError::Io { operation, path: path.to_owned(), source }
}
