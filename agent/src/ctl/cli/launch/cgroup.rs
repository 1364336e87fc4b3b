//! Entering the workload's cgroup, and proof of being there.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
    process,
};

use super::LaunchError;
use crate::ctl::peer::v2_path;

/// Moves this process into `directory`, whose inode number the daemon says is `id`.
pub(super) fn join(directory: &Path, id: u64) -> Result<(), LaunchError> {
    let refuse = |problem: String| LaunchError::Cgroup { cgroup: directory.to_owned(), problem };
    let metadata = fs::metadata(directory).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    if metadata.ino() != id {
        return Err(refuse(format!(
            "has id {} and grantd enforces on id {id}; was the slice recreated? `grantctl status` \
             tells what is enforced",
            metadata.ino()
        )));
    }
    fs::write(directory.join("cgroup.procs"), format!("{}\n", process::id()))
        .map_err(|e| refuse(join_problem(&e)))?;
    let own = fs::read_to_string("/proc/self/cgroup")
        .map_err(|e| refuse(format!("/proc/self/cgroup cannot be read: {e}")))?;
    if !names(directory, &own) {
        return Err(refuse(format!("joining had no effect, still in {}", own.trim())));
    }
    Ok(())
}

fn join_problem(error: &io::Error) -> String {
    if error.kind() == ErrorKind::ResourceBusy {
        return "has children with controllers enabled, so no process may be in it itself; let the \
                workload's `cgroup` name one of them"
            .to_owned();
    }
    if error.kind() == ErrorKind::Unsupported {
        return "is threaded or in an invalid state (cgroup.type), so processes cannot join it"
            .to_owned();
    }
    format!("cannot be joined: {error}")
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
    fn a_process_that_did_not_move_is_noticed() {
        let directory = Path::new("/sys/fs/cgroup/agents.slice/w");
        assert!(names(directory, "0::/agents.slice/w\n"));
        for elsewhere in
            ["0::/\n", "0::/user.slice\n", "0::/agents.slice\n", "0::/../w2\n", "1:cpu:/w\n"]
        {
            assert!(!names(directory, elsewhere), "{elsewhere} was taken for {directory:?}");
        }
    }

    #[test]
    fn a_directory_with_another_id_is_not_joined() {
        let dir = tempfile::tempdir().unwrap();
        let id = fs::metadata(dir.path()).unwrap().ino();
        let error = join(dir.path(), id + 1).unwrap_err();
        assert!(error.to_string().contains("recreated"), "{error}");
        assert!(!dir.path().join("cgroup.procs").exists(), "it wrote before it checked");
    }

    #[test]
    fn a_cgroup_that_is_gone_is_an_error_that_names_it() {
        let error = join(Path::new("/nonexistent/agents.slice/w"), 1).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/agents.slice/w"), "{error}");
    }
}
