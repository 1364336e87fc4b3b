//! Who is at the other end of the control socket, and what that caller may ask.

use std::{fs, os::fd::BorrowedFd};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt},
};

use super::protocol::Request;

/// The process that connected, as the kernel recorded it at `connect(2)` (`SO_PEERCRED`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id, seen from the daemon's pid namespace; 0 when it cannot be seen from there.
    pub pid: i32,
    /// Its control group, as `/proc/<pid>/cgroup` writes it (v2 line), or why that is not known.
    pub cgroup: Result<String, String>,
}

impl Caller {
    /// Asks the kernel who is at the other end of `socket`.
    ///
    /// # Errors
    /// The kernel's, when it gives no credentials.
    pub fn of(socket: BorrowedFd<'_>) -> Result<Self, nix::Error> {
        let cred = getsockopt(&socket, sockopt::PeerCredentials)?;
        let cgroup = peer_cgroup(socket, cred.pid());
        Ok(Self { uid: cred.uid(), gid: cred.gid(), pid: cred.pid(), cgroup })
    }
}

/// Why a caller may not ask this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller is confined itself.
    #[error(
        "callers inside the enforced slice may not use the control socket; run this outside of it"
    )]
    Confined,
    /// The caller's control group is not known, so it could be confined.
    #[error(
        "cannot tell the caller's control group ({0}); run this from the host's own namespaces"
    )]
    UnknownCgroup(String),
    /// A change by someone other than root.
    #[error("only root (uid 0) may do this, and the caller's uid is {0}; use sudo")]
    NotRoot(u32),
}

/// Decides whether `caller` may ask `request`, where `slice` is the enforced slice as
/// `/proc/<pid>/cgroup` writes it, such as `/agents.slice`.
///
/// # Errors
/// [`Denied`], to be shown to the caller.
pub fn authorise(caller: &Caller, request: &Request, slice: &str) -> Result<(), Denied> {
    authorise_place(caller, slice)?;
    if request.changes() && caller.uid != 0 {
        return Err(Denied::NotRoot(caller.uid));
    }
    Ok(())
}

/// Decides whether `caller` may use the control socket at all, by where it runs.
///
/// # Errors
/// [`Denied::Confined`] or [`Denied::UnknownCgroup`].
pub(super) fn authorise_place(caller: &Caller, slice: &str) -> Result<(), Denied> {
    match &caller.cgroup {
        Ok(cgroup) if cgroup_inside(slice, cgroup) => Err(Denied::Confined),
        Ok(_) => Ok(()),
        Err(why) => Err(Denied::UnknownCgroup(why.clone())),
    }
}

/// Whether `cgroup` is `slice` or below it. Both are paths as `/proc/<pid>/cgroup` writes them.
#[must_use]
pub fn cgroup_inside(slice: &str, cgroup: &str) -> bool {
    let mut inner = cgroup.split('/').filter(|part| !part.is_empty());
    slice.split('/').filter(|part| !part.is_empty()).all(|part| inner.next() == Some(part))
}

/// The v2 control group of `pid`, proven to be that of the process at the other end of `socket`
/// where the kernel offers `SO_PEERPIDFD` (6.5): a pid that was reused in between is noticed.
fn peer_cgroup(socket: BorrowedFd<'_>, pid: i32) -> Result<String, String> {
    if pid <= 0 {
        return Err("the caller is in a foreign pid namespace".to_owned());
    }
    let pidfd = getsockopt(&socket, sockopt::PeerPidfd).ok();
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    if let Some(pidfd) = &pidfd {
        let mut ready = [PollFd::new(std::os::fd::AsFd::as_fd(pidfd), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::ZERO) {
            Ok(0) => {}
            Ok(_) => return Err("the caller has exited".to_owned()),
            Err(e) => return Err(format!("poll on the caller's pidfd: {e}")),
        }
    }
    v2_path(&text).ok_or_else(|| format!("{path} has no cgroup v2 line"))
}

/// The path in the `0::` line of a `/proc/<pid>/cgroup` file.
pub(super) fn v2_path(text: &str) -> Option<String> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, cgroup: &str) -> Caller {
        Caller { uid, gid: uid, pid: 77, cgroup: Ok(cgroup.to_owned()) }
    }

    const READS: fn() -> Request = || Request::Status {};
    const CHANGES: fn() -> Request = || Request::Freeze {};

    #[test]
    fn root_outside_the_slice_may_do_everything() {
        let root = caller(0, "/user.slice/user-0.slice");
        assert_eq!(authorise(&root, &CHANGES(), "/agents.slice"), Ok(()));
        assert_eq!(authorise(&root, &READS(), "/agents.slice"), Ok(()));
    }

    #[test]
    fn an_ordinary_user_reads_but_changes_nothing() {
        let user = caller(1000, "/user.slice/user-1000.slice");
        assert_eq!(authorise(&user, &READS(), "/agents.slice"), Ok(()));
        let all = [
            Request::Revoke { selector: RevokeSelector::All },
            Request::Freeze {},
            Request::Thaw {},
            Request::Enrol { workload: "w".to_owned() },
            Request::Reload {},
        ];
        for request in all {
            assert_eq!(
                authorise(&user, &request, "/agents.slice"),
                Err(Denied::NotRoot(1000)),
                "an ordinary user could ask {request:?}"
            );
        }
    }

    use crate::ctl::protocol::RevokeSelector;

    #[test]
    fn a_confined_process_is_refused_even_as_root_and_even_to_read() {
        for cgroup in ["/agents.slice", "/agents.slice/coding-agent.service", "/agents.slice/a/b/c"]
        {
            let agent = caller(0, cgroup);
            assert_eq!(authorise(&agent, &READS(), "/agents.slice"), Err(Denied::Confined));
            assert_eq!(authorise(&agent, &CHANGES(), "/agents.slice"), Err(Denied::Confined));
        }
    }

    #[test]
    fn a_caller_whose_cgroup_cannot_be_told_is_refused() {
        let ghost = Caller { cgroup: Err("gone".to_owned()), ..caller(0, "") };
        assert!(matches!(
            authorise(&ghost, &READS(), "/agents.slice"),
            Err(Denied::UnknownCgroup(_))
        ));
    }

    #[test]
    fn a_name_that_only_begins_like_the_slice_is_outside() {
        assert!(!cgroup_inside("/agents.slice", "/agents.slice2/x"));
        assert!(!cgroup_inside("/agents.slice", "/system.slice/agents.slice"));
        assert!(!cgroup_inside("/agents.slice/sub", "/agents.slice"));
        assert!(cgroup_inside("/agents.slice/", "/agents.slice/x"));
    }

    #[test]
    fn the_whole_hierarchy_as_slice_confines_everybody() {
        assert!(cgroup_inside("/", "/user.slice"));
        assert!(cgroup_inside("", "/"));
    }

    #[test]
    fn the_v2_line_is_found_among_v1_lines() {
        let text = "12:pids:/a\n1:name=systemd:/b\n0::/agents.slice/x\n";
        assert_eq!(v2_path(text).as_deref(), Some("/agents.slice/x"));
        assert_eq!(v2_path("12:pids:/a\n"), None);
    }
}
