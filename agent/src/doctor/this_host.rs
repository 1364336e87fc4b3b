//! The subject that is this host.

use std::path::Path;

use nix::unistd::{Group, User, geteuid, getgrouplist};

use super::{Account, Finding, Subject, WorkloadSubject, examine};
use crate::config::Config;
use crate::kernel::{self, Setup};
use crate::text::chain;

/// Looks at this host, as this config has it.
///
/// # Errors
/// There is no cgroup v2.
pub fn examine_this_host(config: &Config) -> Result<Vec<Finding>, kernel::Error> {
    let mount = kernel::cgroup2_mount()?;
    let setup = Setup {
        bpffs: config.enforcement.bpffs.clone(),
        cgroup_root: config.enforcement.cgroup_root.clone().unwrap_or_else(|| mount.clone()),
        slice: mount.join(config.enforcement.slice.as_path()),
        guard: false,
    };
    let root = geteuid().is_root();
    let workloads = config.workloads.iter().map(|workload| WorkloadSubject {
        name: workload.name.to_string(),
        cgroup: mount.join(workload.cgroup.as_path()),
        user: workload.launch.user.clone(),
        account: workload.launch.user.as_deref().and_then(account),
    });
    let subject = Subject {
        workloads: workloads.collect(),
        programs: if root { kernel::check(&setup).map_err(|e| chain(&e)) } else { Ok(()) },
        clock_synchronised: kernel::clock_synchronised(),
        root,
        cgroup_mount: mount,
        slice: setup.slice,
        bpffs: setup.bpffs,
    };
    Ok(examine(Path::new("/"), &subject))
}

/// By name or by number, as the config may write it.
fn account(user: &str) -> Option<Account> {
    let by_name = User::from_name(user).ok().flatten();
    let by_number = || {
        let uid = user.parse().ok()?;
        User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten()
    };
    let found = by_name.or_else(by_number)?;
    let name = std::ffi::CString::new(found.name.clone()).ok()?;
    let gids = getgrouplist(&name, found.gid).unwrap_or_else(|_| vec![found.gid]);
    let groups = gids.iter().filter_map(|gid| Group::from_gid(*gid).ok().flatten());
    Some(Account {
        name: found.name,
        uid: found.uid.as_raw(),
        groups: groups.map(|group| group.name).collect(),
        gids: gids.iter().map(|gid| gid.as_raw()).collect(),
    })
}
