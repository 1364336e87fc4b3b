//! A file system of a few megabytes that a test can fill up.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cleanup::{self, Undo};

const FILLER: &str = "filler";
const BLOCK: usize = 4096;

/// A mounted tmpfs. Dropping it unmounts it.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
    _undo: Undo,
}

impl Tmpfs {
    /// Mounts one of so many mebibytes over a directory, which only root may enter then.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn over(path: &Path, mebibytes: u32) -> Result<Self> {
        let options = format!("size={mebibytes}m,mode=700");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("mounting a tmpfs at {}", path.display()))?;
        let doomed = path.to_owned();
        let undo = cleanup::register(format!("tmpfs {}", path.display()), move || {
            umount2(&doomed, MntFlags::MNT_DETACH)
                .with_context(|| format!("unmounting {}", doomed.display()))
        });
        Ok(Self { path: path.to_owned(), _undo: undo })
    }

    /// Takes every block that is left.
    ///
    /// # Errors
    /// When writing fails for another reason than lack of space.
    pub fn fill(&self) -> Result<()> {
        let path = self.path.join(FILLER);
        let mut file = File::options().create(true).append(true).open(&path)?;
        loop {
            match file.write(&[0x5a; BLOCK]) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => return Ok(()),
                Err(error) => {
                    return Err(error).with_context(|| format!("filling {}", path.display()));
                }
            }
        }
    }

    /// Gives back what [`Self::fill`] took.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free(&self) -> Result<()> {
        let path = self.path.join(FILLER);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }
}
