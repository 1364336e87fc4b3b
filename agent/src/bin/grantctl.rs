//! `grantctl`: the operator's command line. Parses and exits; what it does is in [`grantd::ctl::cli`].

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use grantd::{
    config::Config,
    ctl::cli::{self, BoxError, EnforcementPaths, Host},
    doctor::{self, Finding},
    kernel,
};

/// The kernel side, for commands that work without the daemon.
struct ThisHost;

impl Host for ThisHost {
    fn pins_not_enforcing(&self, paths: &EnforcementPaths) -> Result<Vec<String>, BoxError> {
        let mount = kernel::cgroup2_mount()?;
        Ok(kernel::pins_not_enforcing(&kernel::Setup {
            bpffs: paths.bpffs.clone(),
            cgroup_root: paths.cgroup_root.clone().unwrap_or_else(|| mount.clone()),
            slice: mount.join(&paths.slice),
            guard: false,
        }))
    }

    fn doctor(&self, config: &Config) -> Result<Vec<Finding>, BoxError> {
        Ok(doctor::examine_this_host(config)?)
    }

    fn disarm(&self, bpffs: &Path) -> Result<Vec<PathBuf>, BoxError> {
        Ok(kernel::disarm(bpffs)?)
    }
}

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    ExitCode::from(cli::main(&argv, &ThisHost))
}
