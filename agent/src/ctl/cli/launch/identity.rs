//! Becoming the workload's user for good.

use std::{fs, path::Path, process::Command};

use nix::unistd::{Uid, User, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::LaunchError;

/// Variables that speak for the caller's service, session or login and are no business of the command.
const REMOVED: [&str; 28] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MANAGERPID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "CREDENTIALS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "XDG_SESSION_ID",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
];

/// Beginnings of further names to remove.
const REMOVED_PREFIXES: [&str; 3] = ["SUDO_", "DOCKER_", "LD_"];

/// The account called `user`, or with that number; never root's.
pub(super) fn account(user: &str) -> Result<User, LaunchError> {
    let by_name = User::from_name(user).map_err(LaunchError::os("look up the account"))?;
    let account = match (by_name, user.parse()) {
        (Some(account), _) => Some(account),
        (None, Ok(uid)) => {
            User::from_uid(Uid::from_raw(uid)).map_err(LaunchError::os("look up the account"))?
        }
        (None, Err(_)) => None,
    };
    let account = account.ok_or_else(|| LaunchError::UnknownUser { user: user.to_owned() })?;
    if account.uid.is_root() || account.gid.as_raw() == 0 {
        return Err(LaunchError::RootUser { user: user.to_owned() });
    }
    Ok(account)
}

/// Takes on the account's uid and gid and no other group: a supplementary group such as `docker` is a way
/// out.
pub(super) fn become_user(account: &User) -> Result<(), LaunchError> {
    let User { uid, gid, .. } = *account;
    setgroups(&[]).map_err(LaunchError::os("drop supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(LaunchError::os("change the group id"))?;
    setresuid(uid, uid, uid).map_err(LaunchError::os("change the user id"))
}

/// Looks whether nothing is left of what this process could do.
pub(super) fn verify(account: &User) -> Result<(), LaunchError> {
    let User { uid, gid, .. } = *account;
    let still = |what: String| Err(LaunchError::StillPrivileged { uid: uid.as_raw(), what });
    let users = getresuid().map_err(LaunchError::os("read the user ids"))?;
    if [users.real, users.effective, users.saved] != [uid; 3] {
        return still(format!("user ids {users:?}"));
    }
    let groups = getresgid().map_err(LaunchError::os("read the group ids"))?;
    if [groups.real, groups.effective, groups.saved] != [gid; 3] {
        return still(format!("group ids {groups:?}"));
    }
    let supplementary = getgroups().map_err(LaunchError::os("read the supplementary groups"))?;
    if supplementary.iter().any(|group| *group != gid) {
        return still(format!("supplementary groups {supplementary:?}"));
    }
    let status = fs::read_to_string("/proc/self/status")
        .map_err(LaunchError::os("read /proc/self/status"))?;
    match kept(&status) {
        Some(kept) => still(kept),
        None => Ok(()),
    }
}

/// The first line of proc(5)'s status that is not as it has to be, or not there: every set of
/// capabilities empty, no new privileges, a system-call filter.
fn kept(status: &str) -> Option<String> {
    let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    let capabilities = sets
        .into_iter()
        .find(|set| value(set).and_then(|value| u64::from_str_radix(value, 16).ok()) != Some(0));
    if let Some(set) = capabilities {
        return Some(format!("capabilities ({set} {})", value(set).unwrap_or("unknown")));
    }
    if value("NoNewPrivs:") != Some("1") {
        return Some("a way to new privileges (NoNewPrivs)".to_owned());
    }
    (value("Seccomp:") != Some("2")).then(|| "every system call (Seccomp)".to_owned())
}

/// Gives the command the account's own login variables and none of the caller's.
pub(super) fn clean_environment(command: &mut Command, account: &User) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_none_or(is_removed) {
            command.env_remove(&name);
        }
    }
    let shell =
        if account.shell.as_os_str().is_empty() { Path::new("/bin/sh") } else { &account.shell };
    command
        .env("USER", &account.name)
        .env("LOGNAME", &account.name)
        .env("HOME", &account.dir)
        .env("SHELL", shell);
}

fn is_removed(name: &str) -> bool {
    REMOVED.contains(&name) || REMOVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_never_runs_as_root_by_name_or_by_number() {
        for root in ["root", "0"] {
            assert!(matches!(account(root), Err(LaunchError::RootUser { .. })), "{root} was taken");
        }
    }

    #[test]
    fn an_ordinary_account_is_found_by_name_and_by_number() {
        let nobody = account("nobody").unwrap();
        assert_eq!(account(&nobody.uid.to_string()).unwrap().name, "nobody");
    }

    #[test]
    fn an_account_that_does_not_exist_is_an_error() {
        assert!(matches!(account("no-such-user-here"), Err(LaunchError::UnknownUser { .. })));
    }

    #[test]
    fn what_is_left_is_noticed_also_when_it_cannot_be_read() {
        let none = "CapInh:\t0\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0\n\
            CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(kept(none), None);
        for (from, to) in [
            ("CapEff:\t00", "CapEff:\t01"),
            ("CapBnd:\t0", "CapBnd:\tff"),
            ("CapInh:\t0", "CapInh:\t1"),
            ("CapAmb", "CapXyz"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            assert!(kept(&none.replace(from, to)).is_some(), "{to} was not noticed");
        }
    }

    #[test]
    fn the_callers_service_and_login_variables_do_not_reach_the_command() {
        for name in
            ["NOTIFY_SOCKET", "SSH_AUTH_SOCK", "SUDO_USER", "LD_PRELOAD", "CREDENTIALS_DIRECTORY"]
        {
            assert!(is_removed(name), "{name} would be passed on");
        }
        for name in ["PATH", "LANG", "TERM", "OKTA_TOKEN_FILE"] {
            assert!(!is_removed(name), "{name} would be missing");
        }
    }
}
