//! `cargo xtask demo`: the main job, shown on a terminal.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::build_ebpf::{self, BuildEbpfArgs};
use crate::privilege::Privilege;
use crate::say::step;
use crate::test::environment;
use crate::workspace::{self, Executable};
use crate::{command, setup};

/// Shows the main job on this machine's kernel: denied, granted, allowed, expired, refused, recorded.
///
/// Builds what it needs, then runs as root: it makes a cgroup, network namespaces and pins of its own, and
/// removes them when it ends or is interrupted.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Passed on to the demo; see `cargo xtask demo -- --help`
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: &DemoArgs) -> Result<()> {
    setup::test_programs()?;
    build_ebpf::run(&BuildEbpfArgs {})?;
    step!("grantd, grantctl and the demo");
    let mut demo = program("demo", &[], "run the demo")?;
    // Signals go to the demo, which cleans up, and its exit status is ours.
    match command::become_command(demo.args(&args.arguments))? {}
}

/// Builds all programs with a profile's arguments to cargo, and returns the command that starts the one of
/// that name in tests/src/bin as root.
pub(crate) fn program(name: &str, profile: &[&str], purpose: &str) -> Result<Command> {
    let mut cargo = workspace::cargo("build");
    cargo.args(workspace::HOST_PACKAGES).args(["--locked", "--bins"]).args(profile);
    let built = workspace::build(&mut cargo)?;
    let Some(program) =
        built.iter().find(|made| made.target == name && made.package == "grantd-e2e")
    else {
        bail!("there is no program {name} in the package grantd-e2e (tests/src/bin/{name}.rs)");
    };
    let variables = environment(&program_directory(&built)?);
    Ok(Privilege::acquire(purpose)?.command(&program.path, &variables))
}

/// The directory that `grantd` and `grantctl` were built into.
pub(crate) fn program_directory(built: &[Executable]) -> Result<PathBuf> {
    let daemon =
        built.iter().find(|made| made.target == "grantd" && made.kind == "bin" && !made.is_test);
    let directory = daemon.and_then(|daemon| daemon.path.parent());
    Ok(directory.context("cargo built no grantd")?.to_path_buf())
}
