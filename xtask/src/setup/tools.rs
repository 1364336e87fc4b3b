//! Tools that are built from crates, at pinned versions, into a directory that all checkouts share.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::say::say;
use crate::{command, workspace};

pub(super) const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", variant: "", duration: "some minutes" };
pub(super) const CARGO_FUZZ: Tool =
    Tool { name: "cargo-fuzz", version: "0.13.2", variant: "", duration: "a minute" };

/// A crate with one binary of the same name.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// Tells apart builds of one version; may be empty.
    pub(super) variant: &'static str,
    /// How long a build takes, for the person who waits.
    pub(super) duration: &'static str,
}

impl Tool {
    /// The tool if it was built before and still starts: the libraries that it needs may have gone.
    pub(super) fn find(&self) -> Option<PathBuf> {
        let binary = self.binary();
        let version = command::probe(Command::new(&binary).arg("--version"))?;
        version.contains(self.version).then_some(binary)
    }

    pub(super) fn find_or_install(&self) -> Result<PathBuf> {
        if let Some(binary) = self.find() {
            say!("    {}: {}", self.name, binary.display());
            return Ok(binary);
        }
        self.install(&[], &[])
    }

    /// Builds the tool; arguments and variables are added to those of `cargo install`.
    pub(super) fn install(
        &self,
        arguments: &[&str],
        variables: &[(&str, OsString)],
    ) -> Result<PathBuf> {
        let home = self.home();
        say!(
            "    building {} {} ({}) into {}",
            self.name,
            self.version,
            self.duration,
            home.display()
        );
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let mut cargo = workspace::cargo("install");
        without_toolchain_variables(&mut cargo);
        cargo.args([self.name, "--version", self.version, "--locked", "--quiet", "--force"]);
        cargo.args(arguments).arg("--root").arg(&home);
        cargo.envs(variables.iter().map(|(name, value)| (name, value)));
        // Outside the workspace its settings do not reach the tool.
        command::run(cargo.current_dir(&home))?;
        self.find()
            .with_context(|| format!("{} was built but does not start", self.binary().display()))
    }

    fn home(&self) -> PathBuf {
        directory().join(format!("{}-{}{}", self.name, self.version, self.variant))
    }

    fn binary(&self) -> PathBuf {
        self.home().join("bin").join(self.name)
    }
}

/// Where tools are kept: outside of the checkout, so that a fresh clone finds them again.
pub(super) fn directory() -> PathBuf {
    let named = |variable: &str| env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    named("GRANTD_TOOLS_DIR")
        .or_else(|| named("XDG_CACHE_HOME").map(|cache| cache.join("grantd-build")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/grantd-build")))
        .unwrap_or_else(|| workspace::root().join("target/tools"))
}

/// Clears what an outer cargo, or a person's shell, sets for another build than the one that is started.
/// Where cargo keeps and fetches its crates (CARGO_HOME, registries, network) is left alone.
pub(super) fn without_toolchain_variables(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_toolchain_variable) {
            command.env_remove(name);
        }
    }
}

fn is_toolchain_variable(name: &str) -> bool {
    // What describes xtask itself means nothing to another build, and stays so that an echo is short.
    const KEPT: [&str; 9] = [
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_CACHE_",
    ];
    const CLEARED: [&str; 6] =
        ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CLIPPY_"];
    let starts_with_one =
        |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    starts_with_one(&CLEARED) && !starts_with_one(&KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_toolchain_is_cleared_and_the_registry_settings_stay() {
        for cleared in [
            "CARGO",
            "CARGO_TARGET_DIR",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
        ] {
            assert!(is_toolchain_variable(cleared), "{cleared} would leak into the BPF build");
        }
        for kept in
            ["CARGO_HOME", "CARGO_REGISTRIES_X_INDEX", "RUSTUP_HOME", "PATH", "RUST_BACKTRACE"]
        {
            assert!(!is_toolchain_variable(kept), "{kept} is needed");
        }
    }
}
