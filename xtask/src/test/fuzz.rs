//! A short run of every fuzz target, for `cargo xtask test --all`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::report::Report;
use crate::say::step;
use crate::{command, setup, workspace};

/// How long each target is fuzzed, in seconds.
const SECONDS: u32 = 60;

pub(super) fn run(report: &mut Report) -> Result<()> {
    let directory = workspace::root().join("fuzz");
    let targets = targets(&directory.join("fuzz_targets"))?;
    if targets.is_empty() {
        report.not_run("fuzz targets", "there are none yet");
        return Ok(());
    }
    let Some(cargo_fuzz) = setup::cargo_fuzz()? else {
        report.not_run(
            "fuzz targets",
            "they need rustup's nightly: `rustup toolchain install nightly`",
        );
        return Ok(());
    };
    for target in targets {
        step!("fuzzing {target} for {SECONDS} seconds");
        let mut fuzz = Command::new(&cargo_fuzz);
        fuzz.current_dir(&directory).env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO");
        fuzz.arg("run").arg(&target).arg("--");
        fuzz.args([format!("-max_total_time={SECONDS}"), "-verbosity=0".to_owned()]);
        if let Err(error) = command::run(&mut fuzz) {
            report.fault(format!("fuzz target {target}: {error:#}"));
        }
    }
    Ok(())
}

/// The names of the fuzz targets, in order.
fn targets(directory: &Path) -> Result<Vec<String>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut targets = Vec::new();
    for entry in
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    Ok(targets)
}
