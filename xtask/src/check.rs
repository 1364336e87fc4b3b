//! `cargo xtask check`: what can be said of the source without running it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::layering::{self, LayeringArgs};
use crate::say::{self, step};
use crate::setup::{self, Linter};
use crate::{build_ebpf, command, workspace};

/// Checks formatting, lints (warnings denied, for the host and for BPF), dependencies, layering, the fuzz
/// targets and every configuration that we ship. Runs everything, then says what failed and what did not run.
#[derive(Args)]
pub(crate) struct CheckArgs {}

/// One check; what it could not look at is noted.
type Check = fn(&mut Notes) -> Result<()>;

/// What was not checked, and why.
type Notes = Vec<String>;

const CHECKS: [(&str, Check); 8] = [
    ("formatting", formatting),
    ("layering", layering_check),
    ("lints for the host", host_lints),
    ("lints for the host, features apart", feature_lints),
    ("lints for BPF", bpf_lints),
    ("dependencies", dependencies),
    ("fuzz targets", fuzz_targets),
    ("configurations that we ship", shipped_configurations),
];

pub(crate) fn run(_args: &CheckArgs) -> Result<()> {
    let mut notes = Notes::new();
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        step!("{name}");
        if let Err(error) = check(&mut notes) {
            say::line(format_args!("error: {error:#}"));
            failed.push(name);
        }
    }
    for note in &notes {
        say::out(&format!("not checked: {note}"));
    }
    ensure!(failed.is_empty(), "these checks failed: {}", failed.join(", "));
    say::out(&format!("{} checks passed", CHECKS.len()));
    Ok(())
}

fn formatting(_notes: &mut Notes) -> Result<()> {
    command::run(workspace::cargo("fmt").args(["--all", "--check"]))
}

fn layering_check(_notes: &mut Notes) -> Result<()> {
    layering::run(&LayeringArgs {})
}

fn host_lints(_notes: &mut Notes) -> Result<()> {
    let mut clippy = workspace::cargo("clippy");
    clippy.args(workspace::HOST_PACKAGES).args([
        "--locked",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    command::run(&mut clippy)
}

/// Built together, crates see the features that others ask for; these are built as they ship.
fn feature_lints(_notes: &mut Notes) -> Result<()> {
    for package in ["grantd-common", "grantd-grant", "grantd-audit", "grantd"] {
        let mut clippy = workspace::cargo("clippy");
        clippy.args(["--locked", "--package", package, "--", "-D", "warnings"]);
        command::run(&mut clippy)?;
    }
    Ok(())
}

fn bpf_lints(notes: &mut Notes) -> Result<()> {
    let toolchain = setup::bpf_toolchain()?;
    let warnings_denied = ["--", "-D", "warnings"];
    match toolchain.linter()? {
        Linter::Clippy(clippy) => command::run(build_ebpf::prepared(clippy)?.args(warnings_denied)),
        Linter::Missing(why) => {
            notes.push(format!("clippy for BPF ({why}); the compiler's own warnings were"));
            command::run(build_ebpf::cargo(&toolchain, "rustc")?.args(warnings_denied))
        }
    }
}

/// Licences, bans and sources always; advisories where their database can be had.
fn dependencies(notes: &mut Notes) -> Result<()> {
    let cargo_deny = setup::cargo_deny()?;
    let deny = |arguments: &[&str]| {
        let mut deny = Command::new(&cargo_deny);
        deny.current_dir(workspace::root()).args(["--workspace", "--locked"]).args(arguments);
        deny
    };
    command::run(&mut deny(&["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    // Whether the database is reachable is one question, what it says another: only the first may be let off.
    let fetched = deny(&["fetch", "db"]).output().context("cannot start cargo-deny")?;
    if !fetched.status.success() {
        let why = String::from_utf8_lossy(&fetched.stderr);
        let why =
            why.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason was given");
        notes.push(format!("advisories: their database could not be fetched ({})", why.trim()));
        return Ok(());
    }
    command::run(&mut deny(&["check", "--disable-fetch", "advisories"]))
}

fn fuzz_targets(notes: &mut Notes) -> Result<()> {
    let manifest = workspace::root().join("fuzz/Cargo.toml");
    if !manifest.exists() {
        notes.push("fuzz targets: there are none yet".to_owned());
        return Ok(());
    }
    let mut check = workspace::cargo("check");
    check.arg("--locked").arg("--manifest-path").arg(&manifest);
    command::run(check.arg("--target-dir").arg(workspace::root().join("target/fuzz")))
}

/// Every `*.toml` in systemd/ and docs/ is a configuration that someone will copy.
fn shipped_configurations(_notes: &mut Notes) -> Result<()> {
    let mut build = workspace::cargo("build");
    let built =
        workspace::build(build.args(["--locked", "--package", "grantd", "--bin", "grantctl"]))?;
    let grantctl =
        built.iter().find(|made| made.target == "grantctl").context("cargo built no grantctl")?;
    let samples = samples()?;
    if samples.is_empty() {
        bail!("no sample configuration was found in systemd/ or docs/");
    }
    for sample in samples {
        let mut check = Command::new(&grantctl.path);
        command::run(check.args(["config", "check"]).arg(&sample))?;
    }
    Ok(())
}

fn samples() -> Result<Vec<PathBuf>> {
    let mut samples = Vec::new();
    for directory in ["systemd", "docs"] {
        let directory = workspace::root().join(directory);
        let entries =
            fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("reading {}", directory.display()))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                samples.push(path);
            }
        }
    }
    samples.sort();
    Ok(samples)
}
