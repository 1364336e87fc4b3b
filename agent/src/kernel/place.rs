//! A cgroup of the daemon's own below the slice, for a process that tries what enforcement does.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::error::Error;
use super::host::{self, Cgroup};

/// How long a process that a killed daemon left there may take to end.
const PATIENCE: u32 = 50;
const STEP: Duration = Duration::from_millis(2);

/// See the module. Removed with this.
#[derive(Debug)]
pub struct Place(Cgroup);

impl Place {
    /// Makes it, in the place of one that a killed daemon left.
    ///
    /// # Errors
    /// It cannot be made, or what is in it does not end.
    pub fn make(slice: &Path, name: &str) -> Result<Self, Error> {
        let path = slice.join(name);
        remove(&path);
        fs::create_dir(&path).map_err(|e| Error::Cgroup {
            path: path.clone(),
            problem: format!("cannot be made: {e}"),
        })?;
        host::open_cgroup(&path).map(Self)
    }

    /// The cgroup's id.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.0.id
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove(&self.0.path);
        if self.0.path.exists() {
            tracing::warn!("the cgroup {} stays", self.0.path.display());
        }
    }
}

/// Removes the cgroup; ends what is left in it. Only the daemon's own processes are ever there: nobody but
/// root can move one in.
fn remove(path: &Path) {
    for _ in 0..PATIENCE {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                // Linux 5.14. It takes effect when the processes next run.
                drop(fs::write(path.join("cgroup.kill"), "1"));
                std::thread::sleep(STEP);
            }
            Ok(()) | Err(_) => return,
        }
    }
}
