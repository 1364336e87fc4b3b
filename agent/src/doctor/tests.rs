//! Faults are planted below a directory of the test's own, and each has to be found and named with a remedy.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use tempfile::TempDir;

use super::*;

/// A host with nothing wrong, that tests spoil.
struct Planted {
    directory: TempDir,
    subject: Subject,
}

impl Planted {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mount = PathBuf::from("/sys/fs/cgroup");
        let cgroup = mount.join("agents.slice/coding-agent.service");
        let account = Account {
            name: "coding-agent".into(),
            uid: 4_000_001,
            gids: vec![4_000_001],
            groups: vec!["coding-agent".into()],
        };
        let planted = Self {
            directory,
            subject: Subject {
                slice: mount.join("agents.slice"),
                cgroup_mount: mount,
                bpffs: "/sys/fs/bpf".into(),
                workloads: vec![WorkloadSubject {
                    name: "coding-agent".into(),
                    cgroup,
                    user: Some("coding-agent".into()),
                    account: Some(account),
                }],
                programs: Ok(()),
                clock_synchronised: true,
                root: true,
            },
        };
        for (path, text) in [
            ("/sys/fs/cgroup/agents.slice/cgroup.procs", ""),
            ("/sys/fs/cgroup/agents.slice/coding-agent.service/cgroup.procs", ""),
            ("/sys/kernel/security/lsm", "capability,landlock,bpf\n"),
            ("/proc/sys/kernel/yama/ptrace_scope", "1\n"),
            ("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
            ("/proc/sys/user/max_user_namespaces", "0\n"),
            ("/proc/sys/net/ipv4/ping_group_range", "1\t0\n"),
            ("/etc/resolv.conf", "nameserver 10.0.0.2\n"),
            ("/proc/self/mountinfo", "40 31 0:37 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ] {
            planted.write(path, text, 0o644);
        }
        planted
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.directory.path().join(absolute.trim_start_matches('/'))
    }

    fn write(&self, absolute: &str, text: &str, mode: u32) {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    fn examine(&self) -> Vec<Finding> {
        examine(self.directory.path(), &self.subject)
    }

    /// The one finding of this check.
    fn finds(&self, check: &str) -> Finding {
        let found = self.examine();
        let of_check: Vec<_> = found.iter().filter(|finding| finding.check == check).collect();
        assert_eq!(of_check.len(), 1, "{check}: {found:#?}");
        of_check[0].clone()
    }

    fn account(&mut self) -> &mut Account {
        self.subject.workloads[0].account.as_mut().expect("an account")
    }
}

#[test]
fn a_good_host_has_no_finding() {
    // Ownership is compared with root's: as another user the planted files are that user's.
    let owned_by_root = nix::unistd::geteuid().is_root();
    let found = Planted::new().examine();
    let unexpected = found.iter().filter(|f| owned_by_root || f.check != "delegated_cgroup");
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&Finding>::new());
}

#[test]
fn a_cgroup_that_an_agent_may_write_to_is_a_fault_at_every_level() {
    for path in [
        "/sys/fs/cgroup/agents.slice/cgroup.procs",
        "/sys/fs/cgroup/agents.slice/coding-agent.service/cgroup.procs",
    ] {
        let host = Planted::new();
        fs::set_permissions(host.path(path), fs::Permissions::from_mode(0o666)).expect("a mode");
        let found = host.examine();
        let of_path =
            found.iter().find(|f| f.check == "delegated_cgroup" && f.found.contains(path));
        let finding = of_path.unwrap_or_else(|| panic!("{path} is writable: {found:#?}"));
        assert_eq!((finding.severity, finding.threats), (Severity::Fault, &["A6"][..]));
        assert!(finding.remedy.contains("chown root:root"), "{finding:?}");
        if nix::unistd::geteuid().is_root() {
            host.write(path, "", 0o644);
            chown(host.path(path), Some(4_000_001), None).expect("another owner");
            assert!(host.finds("delegated_cgroup").found.contains("4000001"));
        }
    }
}

#[test]
fn a_kernel_that_refuses_the_programs_is_a_fault_and_comes_first() {
    let mut host = Planted::new();
    host.subject.programs = Err("load the egress program: no such attach type".into());
    host.write("/proc/sys/kernel/yama/ptrace_scope", "0\n", 0o644);
    let found = host.examine();
    assert_eq!(found.first().map(|f| f.check), Some("programs"), "{found:#?}");
    assert!(found[0].found.contains("no such attach type") && found[0].remedy.contains("6.1"));
}

#[test]
fn an_account_that_is_root_by_another_name_is_named_with_the_group_to_leave() {
    let mut host = Planted::new();
    host.account().groups.push("docker".into());
    let finding = host.finds("group");
    assert!(finding.remedy.contains("gpasswd --delete coding-agent docker"), "{finding:?}");
    host.account().uid = 0;
    assert_eq!(host.finds("root_user").severity, Severity::Fault);
}

#[test]
fn a_socket_that_the_agent_may_use_is_found_and_one_that_it_may_not_is_not() {
    let mut host = Planted::new();
    host.write("/run/docker.sock", "", 0o660);
    assert!(host.examine().iter().all(|f| f.check != "socket"), "it may not write there");
    host.write("/run/docker.sock", "", 0o666);
    let finding = host.finds("socket");
    assert!(finding.found.contains("docker") && finding.remedy.contains("grantctl run"));
    host.write("/run/docker.sock", "", 0o660);
    let gid = fs::metadata(host.path("/run/docker.sock")).map(|m| {
        use std::os::unix::fs::MetadataExt as _;
        m.gid()
    });
    host.account().gids.push(gid.expect("a group"));
    assert!(host.finds("socket").found.contains("coding-agent"));
}

#[test]
fn what_starts_programs_outside_the_slice_is_found() {
    let host = Planted::new();
    host.write("/var/lib/systemd/linger/coding-agent", "", 0o644);
    assert!(host.finds("user_manager").remedy.contains("disable-linger coding-agent"));
    host.write("/var/spool/cron/crontabs/coding-agent", "", 0o600);
    assert!(host.finds("crontab").remedy.contains("cron.deny"));
}

#[test]
fn loose_kernel_settings_are_found_each_with_its_command() {
    let host = Planted::new();
    for (path, text, check, remedy) in [
        ("/proc/sys/kernel/yama/ptrace_scope", "0\n", "ptrace_scope", "yama.ptrace_scope=1"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "0\n", "unprivileged_bpf", "disabled=2"),
        (
            "/proc/sys/user/max_user_namespaces",
            "1000\n",
            "user_namespaces",
            "max_user_namespaces=0",
        ),
        ("/proc/sys/net/ipv4/ping_group_range", "0\t2147483647\n", "ping_sockets", "\"1 0\""),
        ("/etc/resolv.conf", "nameserver 127.0.0.53\n", "resolver", "/etc/hosts"),
        ("/sys/kernel/security/lsm", "capability,landlock\n", "bpf_lsm", "lsm="),
    ] {
        host.write(path, text, 0o644);
        let finding = host.finds(check);
        assert!(finding.remedy.contains(remedy), "{finding:?}");
        assert!(!finding.threats.is_empty(), "{finding:?}");
    }
}

#[test]
fn cgroup_v1_network_controllers_and_network_file_systems_are_seen_in_the_mounts() {
    let host = Planted::new();
    host.write(
        "/proc/self/mountinfo",
        "41 31 0:38 / /sys/fs/cgroup/net rw,relatime shared:9 - cgroup cgroup rw,net_cls,net_prio\n\
         52 31 0:40 / /home/shared rw shared:4 - nfs4 server:/home rw\n",
        0o644,
    );
    assert!(host.finds("cgroup_v1_network").found.contains("net_cls"));
    assert!(host.finds("network_file_system").found.contains("/home/shared"));
}

#[test]
fn pins_that_others_reach_and_a_free_running_clock_are_found() {
    let mut host = Planted::new();
    fs::create_dir_all(host.path("/sys/fs/bpf/grantd")).expect("a directory");
    let pins = host.path("/sys/fs/bpf/grantd");
    fs::set_permissions(&pins, fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(host.finds("pins").severity, Severity::Fault);
    host.subject.clock_synchronised = false;
    assert!(host.finds("clock").remedy.contains("chrony"));
}

#[test]
fn two_agents_of_one_account_and_unknown_accounts_are_found() {
    let mut host = Planted::new();
    let mut second = host.subject.workloads[0].clone();
    second.name = "research-agent".into();
    host.subject.workloads.push(second.clone());
    assert!(host.finds("shared_user").found.contains("research-agent"));
    second.account = None;
    host.subject.workloads = vec![second];
    assert!(host.finds("unknown_user").remedy.contains("useradd"));
}
