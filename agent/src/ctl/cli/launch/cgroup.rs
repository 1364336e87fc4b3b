//! The workload's cgroup: that it is the one that grantd enforces on, and proof of having been born there.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
};

use nix::libc;

use super::LaunchError;
use crate::ctl::peer::v2_path;

/// Opens `directory`, whose inode number the daemon says is `id`.
pub(super) fn open(directory: &Path, id: u64) -> Result<File, LaunchError> {
    let refuse = |problem: String| LaunchError::Cgroup { cgroup: directory.to_owned(), problem };
    let unreadable = |e: io::Error| refuse(format!("cannot be read: {e}"));
    let opened = File::open(directory).map_err(unreadable)?;
    let found = opened.metadata().map_err(unreadable)?.ino();
    if found != id {
        return Err(refuse(format!(
            "has id {found} and grantd enforces on id {id}; was the slice recreated? `grantctl status` \
             tells what is enforced"
        )));
    }
    Ok(opened)
}

/// Why no process could be started in `directory`.
pub(super) fn not_started(directory: &Path, error: &io::Error) -> LaunchError {
    let problem = match (error.kind(), error.raw_os_error()) {
        (ErrorKind::ResourceBusy, _) => {
            "has children with controllers enabled, so no process may be in \
            it itself; let the workload's `cgroup` name one of them"
                .to_owned()
        }
        (ErrorKind::Unsupported, _) => {
            "is threaded or in an invalid state (cgroup.type), so processes cannot be started in it"
                .to_owned()
        }
        (ErrorKind::NotFound, _) | (_, Some(libc::ENODEV)) => "was removed just now".to_owned(),
        _ => format!("no process can be started in it by clone3: {error}"),
    };
    LaunchError::Cgroup { cgroup: directory.to_owned(), problem }
}

/// Shows that this process is in `directory`.
pub(super) fn check(directory: &Path) -> Result<(), LaunchError> {
    let refuse = |problem: String| LaunchError::Cgroup { cgroup: directory.to_owned(), problem };
    let own = fs::read_to_string("/proc/self/cgroup")
        .map_err(|e| refuse(format!("/proc/self/cgroup cannot be read: {e}")))?;
    if names(directory, &own) {
        Ok(())
    } else {
        Err(refuse(format!("the process was started elsewhere, in {}", own.trim())))
    }
}

/// Whether the v2 line of a `/proc/<pid>/cgroup` text names `directory`, wherever cgroup2 is mounted.
fn names(directory: &Path, text: &str) -> bool {
    v2_path(text).is_some_and(|path| {
        let relative = path.trim_start_matches('/');
        !relative.is_empty() && directory.ends_with(relative)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_elsewhere_is_noticed() {
        let directory = Path::new("/sys/fs/cgroup/agents.slice/w");
        assert!(names(directory, "0::/agents.slice/w\n"));
        for elsewhere in
            ["0::/\n", "0::/user.slice\n", "0::/agents.slice\n", "0::/../w2\n", "1:cpu:/w\n"]
        {
            assert!(!names(directory, elsewhere), "{elsewhere} was taken for {directory:?}");
        }
    }

    #[test]
    fn a_directory_with_another_id_is_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let id = fs::metadata(dir.path()).unwrap().ino();
        let error = open(dir.path(), id + 1).unwrap_err();
        assert!(error.to_string().contains("recreated"), "{error}");
        open(dir.path(), id).unwrap();
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error_that_names_it() {
        let error = open(Path::new("/nonexistent/agents.slice/w"), 1).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agents.slice/w"), "{error}");
        let gone = not_started(Path::new("/c"), &io::Error::from_raw_os_error(libc::ENODEV));
        assert!(gone.to_string().contains("/c: was removed"), "{gone}");
    }
}
