//! Debian packages.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::on_path;
use crate::command;
use crate::privilege::Privilege;
use crate::say::say;

/// Whether this system installs packages with apt-get.
pub(super) fn is_here() -> bool {
    on_path("apt-get").is_some()
}

/// Whether the repositories of this system offer each of these packages; refreshes the lists first.
pub(super) fn offers(packages: &[&str], purpose: &str) -> Result<bool> {
    update(purpose).with_context(|| by_hand(packages))?;
    Ok(packages.iter().all(|package| has_candidate(package)))
}

/// Installs packages, as root or by sudo; says so, and says what to type where that cannot be done.
pub(super) fn install(packages: &[&str], purpose: &str) -> Result<()> {
    if !packages.iter().all(|package| has_candidate(package)) {
        update(purpose).with_context(|| by_hand(packages))?;
    }
    say!("    installing {}", packages.join(" "));
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(packages);
    apt_get(&install, purpose).with_context(|| by_hand(packages))
}

/// Refreshes the lists of what the repositories offer.
pub(super) fn update(purpose: &str) -> Result<()> {
    say!("    refreshing the package lists");
    apt_get(&["update", "-qq"], purpose)
}

fn apt_get(arguments: &[&str], purpose: &str) -> Result<()> {
    if !is_here() {
        bail!("there is no apt-get here");
    }
    let variables = [("DEBIAN_FRONTEND", OsString::from("noninteractive"))];
    let mut apt = Privilege::acquire(purpose)?.command(Path::new("apt-get"), &variables);
    // Another installation that is under way is waited for.
    apt.args(["-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"]).args(arguments);
    // What it prints goes with our own progress, not among the results on standard output.
    apt.stdout(std::io::stderr());
    command::run(&mut apt)
}

fn has_candidate(package: &str) -> bool {
    let policy =
        command::probe(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]));
    policy.is_some_and(|policy| candidate(&policy).is_some())
}

/// The version that apt would install, in what `apt-cache policy` prints.
fn candidate(policy: &str) -> Option<&str> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then_some(version)
}

fn by_hand(packages: &[&str]) -> String {
    format!(
        "install these by hand, then run this again:\n    apt-get update && apt-get install -y \
         --no-install-recommends {}\n(or what your system calls them)",
        packages.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_known_but_not_offered_is_no_candidate() {
        assert_eq!(candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96\n"), Some("1.96"));
        assert_eq!(candidate("rustc-web:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }
}
