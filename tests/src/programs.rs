//! Where the programs under test are.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Directory of the built programs, set by `cargo xtask test` and `cargo xtask demo`.
const DIRECTORY: &str = "GRANTD_BIN_DIR";

/// The path of a program of this workspace: `grantd`, `grantctl` or `probe`.
///
/// # Errors
/// When it was not built; the message says how to build it.
pub fn find(name: &str) -> Result<PathBuf> {
    let mut candidates = Vec::new();
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        candidates.push(PathBuf::from(directory).join(name));
    }
    // A program of this package lies beside the running one, or one level up for a test.
    let own = std::env::current_exe().context("finding the running program")?;
    candidates.extend(own.ancestors().skip(1).take(2).map(|directory| directory.join(name)));
    for candidate in &candidates {
        if candidate.is_file() {
            return Ok(candidate.clone());
        }
    }
    bail!("there is no program {name}: run through `cargo xtask test` or `cargo xtask demo`")
}

/// Tells the person who runs the tests that this machine lacks something, so that `what` was not
/// tried. `cargo xtask test` lists it at the end.
///
/// # Errors
/// When it cannot be told.
pub fn not_run(what: &str, why: &str) -> Result<()> {
    let line = format!("{what}: {why}");
    match std::env::var_os("GRANTD_NOT_RUN") {
        Some(path) => {
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path)?;
            writeln!(file, "{line}").context("noting what was not run")
        }
        None => {
            crate::cleanup::complain(&format!("NOT RUN: {line}"));
            Ok(())
        }
    }
}
