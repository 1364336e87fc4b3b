//! `cargo xtask setup`: finds or installs what building and testing need beyond a Rust toolchain.

mod apt;
mod kernel;
mod toolchain;
mod tools;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::say::{say, step};

pub(crate) use kernel::{Kernel, Machine, kernel, machine};
pub(crate) use toolchain::{BpfToolchain, Linter};

/// Programs that the end-to-end tests and the demo start, and the Debian packages that have them.
const TEST_PROGRAMS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("runc", "runc"),
    // Everyday software, and what it talks to.
    ("curl", "curl"),
    ("git", "git"),
    ("ssh", "openssh-client"),
    // No package that starts a server of this machine's own.
    ("dropbear", "dropbear-bin"),
    ("node", "nodejs"),
    ("psql", "postgresql-client"),
    ("pg_ctlcluster", "postgresql"),
];

/// Finds or installs the BPF toolchain and what the tests start; what is there already is left alone.
///
/// Two ways to a BPF toolchain are known: Debian's packages, and rustup's nightly with rust-src. The one that
/// is there is used; otherwise the first that can be installed here is. Tools that are built from crates go to
/// ~/.cache/grantd-build, or to the directory that GRANTD_TOOLS_DIR names.
#[derive(Args)]
pub(crate) struct SetupArgs {
    /// Also installs what only `cargo xtask check` needs: clippy for the BPF target, cargo-deny
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &SetupArgs) -> Result<()> {
    let toolchain = bpf_toolchain()?;
    test_programs()?;
    if args.check {
        if let Linter::Missing(why) = toolchain.linter()? {
            say!("    no clippy for the BPF target: {why}");
        }
        cargo_deny()?;
    }
    say!("everything is set up");
    Ok(())
}

/// The BPF toolchain, installed first where it is missing.
pub(crate) fn bpf_toolchain() -> Result<BpfToolchain> {
    step!("BPF toolchain");
    let toolchain = BpfToolchain::find_or_install()?;
    say!("    compiler: {}", toolchain.compiler());
    say!("    linker:   {}", toolchain.linker().display());
    Ok(toolchain)
}

/// What the end-to-end tests and the demo start, installed first where it is missing.
pub(crate) fn test_programs() -> Result<()> {
    step!("programs that the tests start");
    let missing = TEST_PROGRAMS.iter().filter(|(program, _)| on_path(program).is_none());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        apt::install(&packages, "install what the tests start")?;
    }
    for (program, package) in TEST_PROGRAMS {
        match on_path(program) {
            Some(path) => say!("    {program}: {}", path.display()),
            None => anyhow::bail!("{program} is not on the path although {package} is installed"),
        }
    }
    Ok(())
}

/// The checker of dependencies (licences, bans, sources), built first where it is missing.
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    step!("cargo-deny");
    tools::CARGO_DENY.find_or_install()
}

/// The runner of the fuzz targets, built first where it is missing; None without a nightly compiler.
pub(crate) fn cargo_fuzz() -> Result<Option<PathBuf>> {
    if toolchain::nightly_sysroot().is_none() {
        return Ok(None);
    }
    step!("cargo-fuzz");
    tools::CARGO_FUZZ.find_or_install().map(Some)
}

/// Where a program is, also among those that only root has on the path.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_root_are_found_on_an_ordinary_path() {
        assert!(on_path("sh").is_some());
        assert!(on_path("no-such-program-anywhere").is_none());
    }
}
