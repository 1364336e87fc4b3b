//! Where things are, and how cargo is called for the host.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// What is built and linted for the host: everything but the kernel programs.
pub(crate) const HOST_PACKAGES: [&str; 3] = ["--workspace", "--exclude", "grantd-ebpf"];

/// The workspace that this xtask was started in.
pub(crate) fn root() -> PathBuf {
    // A target directory that several checkouts share may hold the xtask of another one: what cargo says at
    // run time goes first.
    let package = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_path_buf)
}

/// Cargo for the host, started at the root, with the lock file as it is.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    cargo.arg(subcommand).current_dir(root());
    if env::var_os("CI").is_some() {
        // Nothing is built a second time there.
        cargo.env("CARGO_INCREMENTAL", "0");
    }
    cargo
}

/// An executable that cargo built.
pub(crate) struct Executable {
    pub(crate) path: PathBuf,
    /// The package that it belongs to.
    pub(crate) package: String,
    /// The directory of that package: the working directory that a test may expect.
    pub(crate) directory: PathBuf,
    /// The name of the target: a binary's name, a library's, an integration test's.
    pub(crate) target: String,
    /// `lib`, `bin`, `test`, …
    pub(crate) kind: String,
    /// A test harness rather than the program itself.
    pub(crate) is_test: bool,
}

/// Runs a cargo command that builds and returns the executables which it made.
pub(crate) fn build(cargo: &mut Command) -> Result<Vec<Executable>> {
    let messages = command::output(cargo.arg("--message-format=json-render-diagnostics"))?;
    messages.lines().filter_map(|line| executable(line).transpose()).collect()
}

/// The executable that one of cargo's messages announces, if it does.
fn executable(message: &str) -> Result<Option<Executable>> {
    let message: Value =
        serde_json::from_str(message).with_context(|| format!("message of cargo: {message}"))?;
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let Some(path) = text("/executable") else { return Ok(None) };
    let manifest = Path::new(text("/manifest_path").context("cargo names no manifest")?);
    let directory = manifest.parent().context("a manifest has a directory")?.to_path_buf();
    Ok(Some(Executable {
        path: PathBuf::from(path),
        package: package_name(text("/package_id").unwrap_or_default()).to_owned(),
        directory,
        target: text("/target/name").unwrap_or_default().to_owned(),
        kind: text("/target/kind/0").unwrap_or_default().to_owned(),
        is_test: message.pointer("/profile/test").and_then(Value::as_bool).unwrap_or(false),
    }))
}

/// The name in a package id: `path+file:///a/agent#grantd@0.1.0`, or `path+file:///a/grantd#0.1.0` where
/// the directory has the package's name.
fn package_name(id: &str) -> &str {
    let (location, fragment) = id.split_once('#').unwrap_or((id, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => location.rsplit('/').next().unwrap_or(location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_of_both_forms_give_the_name() {
        assert_eq!(package_name("path+file:///work/agent#grantd@0.1.0"), "grantd");
        assert_eq!(package_name("path+file:///work/xtask#0.1.0"), "xtask");
    }

    #[test]
    fn a_test_executable_is_told_from_the_program() {
        let message = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/agent#grantd@0.1.0",
            "manifest_path":"/w/agent/Cargo.toml","target":{"kind":["lib"],"name":"grantd"},
            "profile":{"test":true},"executable":"/t/debug/deps/grantd-1"}"#;
        let made = executable(message).unwrap().unwrap();
        assert!(made.is_test);
        assert_eq!((made.package.as_str(), made.kind.as_str()), ("grantd", "lib"));
        assert_eq!(made.directory, Path::new("/w/agent"));
        assert!(executable(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
    }
}
