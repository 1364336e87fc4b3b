//! `cargo xtask test`: all tests, the end-to-end ones as root on this machine's kernel.

mod fuzz;
mod kernels;
pub(crate) mod report;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use self::kernels::{Kernels, WORDS};
use self::report::{Group, Ignored, Report};
use crate::build_ebpf::{self, BuildEbpfArgs};
use crate::command;
use crate::demo;
use crate::privilege::Privilege;
use crate::say::{self, step};
use crate::setup;
use crate::workspace::{self, Executable};

/// The package of the end-to-end tests.
const END_TO_END: &str = "grantd-e2e";
/// End-to-end tests that run at the same time: each has its own daemon, cgroup and network namespaces, and
/// waits more than it computes.
const END_TO_END_THREADS: &str = "2";
/// How the reason of an ignored test begins that only takes too long for every run.
const LONG: &str = "long:";

/// Runs the tests: unit tests and documentation examples as who you are, then the end-to-end tests as root.
///
/// Ends by printing what ran, what did not and why, and one line `N passed, N failed`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Also runs what takes longer: tests marked `#[ignore = "long: …"]`, fuzzing, the benchmarks
    #[arg(long)]
    all: bool,
    /// Where the end-to-end tests run: on this machine's kernel (`host`), on another one in a virtual machine, or
    /// on each (`all`). Can be given several times; a machine's kernel runs end-to-end tests only
    #[arg(long, value_name = "KERNEL", value_parser = WORDS)]
    kernel: Vec<String>,
    /// Boots no other kernel: a run of everything otherwise tries the known ways out on Linux 6.12 too
    #[arg(long, conflicts_with = "kernel")]
    no_vm: bool,
    /// Only tests whose name, or whose program's name, contains this
    filter: Option<String>,
}

pub(crate) fn run(args: &TestArgs) -> Result<()> {
    setup::test_programs()?;
    build_ebpf::run(&BuildEbpfArgs {})?;
    let kernels = Kernels::of(args);
    // Asked for before the long build, so that nobody comes back to a prompt.
    let privilege =
        kernels.host.then(|| Privilege::acquire("run the end-to-end tests")).transpose()?;
    step!("grantd, grantctl and the tests");
    let programs = Programs::build()?;

    let mut report = Report::default();
    if let Some(privilege) = privilege {
        run_unit_tests(&programs, args, &mut report)?;
        run_end_to_end(&programs, args, privilege, &mut report)?;
    }
    kernels.run_machines(&programs.directory, &programs.end_to_end, args, &mut report)?;
    finish(args, &kernels, &mut report)?;
    report.print();
    match report.total().failed {
        0 => Ok(()),
        failed => bail!("{failed} failed"),
    }
}

/// What belongs to a whole run beside the tests, and what its result must not hide.
fn finish(args: &TestArgs, kernels: &Kernels, report: &mut Report) -> Result<()> {
    if args.all && args.filter.is_none() {
        fuzz::run(report)?;
        run_benchmarks(report);
    } else if args.filter.is_none() && kernels.host {
        report.not_run(
            "fuzz targets, benchmarks",
            "they take longer; `cargo xtask test --all` runs them",
        );
    }
    if let Some(filter) = args.filter.as_ref().filter(|_| report.total().ran() == 0) {
        report.fault(format!("no test that can run here has {filter} in its name"));
    }
    Ok(())
}

/// What the tests, the demo and the benchmarks are told: where the programs are, and nothing of this shell's
/// but the path.
pub(crate) fn environment(programs: &Path) -> Vec<(&'static str, OsString)> {
    let mut variables = vec![("GRANTD_BIN_DIR", programs.as_os_str().to_owned())];
    let passed_on = ["CI", "NO_COLOR", "PROPTEST_CASES", "RUST_BACKTRACE", "RUST_LOG", "TERM"];
    for name in passed_on {
        variables.extend(env::var_os(name).map(|value| (name, value)));
    }
    variables
}

/// The executables that a run of tests needs.
struct Programs {
    /// Where grantd and grantctl are.
    directory: PathBuf,
    unit: Vec<Executable>,
    end_to_end: Vec<Executable>,
}

impl Programs {
    /// Builds as who we are; only running needs root. Programs and tests are built together: apart, what only
    /// tests ask of a dependency would have it built twice.
    fn build() -> Result<Self> {
        let mut cargo = workspace::cargo("build");
        let built = cargo.args(workspace::HOST_PACKAGES).args(["--locked", "--all-targets"]);
        let built = workspace::build(built)?;
        let directory = demo::program_directory(&built)?;
        let tests = built.into_iter().filter(|made| made.is_test);
        let (end_to_end, unit) = tests.partition(|made| made.package == END_TO_END);
        Ok(Self { directory, unit, end_to_end })
    }
}

fn run_unit_tests(programs: &Programs, args: &TestArgs, report: &mut Report) -> Result<()> {
    step!("unit tests");
    let mut group = Group::new("unit tests");
    for program in &programs.unit {
        let mut test = Command::new(&program.path);
        test.current_dir(&program.directory).env("CARGO_MANIFEST_DIR", &program.directory);
        run_program(&mut group, report, &name(program), test.args(filter(program, args)))?;
    }
    run_long(&mut group, report, args, |ignored| {
        let program = programs.unit.iter().find(|program| name(program) == ignored)?;
        let mut test = Command::new(&program.path);
        test.current_dir(&program.directory).env("CARGO_MANIFEST_DIR", &program.directory);
        Some(test)
    })?;
    report.add(group);

    step!("documentation examples");
    let mut group = Group::new("documentation examples");
    let mut examples = workspace::cargo("test");
    examples.args(workspace::HOST_PACKAGES).args([
        "--locked",
        "--doc",
        "--quiet",
        "--no-fail-fast",
        "--",
    ]);
    examples.args(&args.filter);
    let status = command::lines(&mut examples, |line| {
        group.read("doc", line);
        say::out(line);
    })?;
    if !status.success() && group.counts.failed == 0 {
        report.fault(format!("documentation examples: {status}"));
    }
    report.add(group);
    Ok(())
}

fn run_end_to_end(
    programs: &Programs,
    args: &TestArgs,
    privilege: Privilege,
    report: &mut Report,
) -> Result<()> {
    step!("end-to-end tests, as root");
    // A test that finds that this machine lacks something adds a line `what: why` to this file.
    let notes = programs.directory.join("grantd-e2e-not-run");
    fs::write(&notes, "").with_context(|| format!("cannot write {}", notes.display()))?;
    let command_for = |program: &Executable| {
        let mut variables = environment(&programs.directory);
        variables.push(("GRANTD_NOT_RUN", notes.clone().into_os_string()));
        variables.push(("CARGO_MANIFEST_DIR", program.directory.clone().into_os_string()));
        let mut test = privilege.command(&program.path, &variables);
        test.current_dir(&program.directory);
        test
    };
    let mut group = Group::new("end-to-end tests");
    for program in &programs.end_to_end {
        let mut test = command_for(program);
        test.args(filter(program, args)).args(["--test-threads", END_TO_END_THREADS]);
        run_program(&mut group, report, &name(program), &mut test)?;
    }
    run_long(&mut group, report, args, |ignored| {
        let program = programs.end_to_end.iter().find(|program| name(program) == ignored)?;
        Some(command_for(program))
    })?;
    let notes =
        fs::read_to_string(&notes).with_context(|| format!("cannot read {}", notes.display()))?;
    for note in notes.lines() {
        let (what, why) = note.split_once(": ").unwrap_or((note, "no reason is given"));
        report.not_run(what, why);
    }
    if group.counts.ran() == 0 && args.filter.is_none() {
        report.fault("no end-to-end test ran: without one a run proves nothing about the kernel");
    }
    report.add(group);
    Ok(())
}

/// Runs what is marked as taking long, under --all; everything else that is marked is reported as not run.
fn run_long(
    group: &mut Group,
    report: &mut Report,
    args: &TestArgs,
    command_for: impl Fn(&str) -> Option<Command>,
) -> Result<()> {
    let mut long: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Ignored { program, test, reason } in std::mem::take(&mut group.ignored) {
        if args.all && reason.starts_with(LONG) {
            long.entry(program).or_default().push(test);
        } else {
            report.not_run(format!("{program}::{test}"), reason);
        }
    }
    for (program, tests) in long {
        let Some(mut command) = command_for(&program) else { continue };
        command.args(["--ignored", "--exact", "--test-threads", END_TO_END_THREADS]).args(tests);
        run_program(group, report, &program, &mut command)?;
    }
    Ok(())
}

/// Runs one test program, passes its output on and takes its results in.
fn run_program(
    group: &mut Group,
    report: &mut Report,
    name: &str,
    test: &mut Command,
) -> Result<()> {
    if std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        test.arg("--color=always");
    }
    say::out(&format!("\n     {name}"));
    let failed_before = group.counts.failed;
    let mut closed = false;
    let status = command::lines(test, |line| {
        closed |= group.read(name, line);
        say::out(line);
    })?;
    if !closed {
        report.fault(format!(
            "{name} ended without a result: {status} from\n    {}",
            command::shown(test)
        ));
    } else if !status.success() && group.counts.failed == failed_before {
        report.fault(format!("{name}: {status} from\n    {}", command::shown(test)));
    }
    Ok(())
}

/// The filter for the tests of a program; none where the program itself is named by it.
fn filter<'a>(program: &Executable, args: &'a TestArgs) -> Option<&'a str> {
    args.filter.as_deref().filter(|filter| !name(program).contains(filter))
}

/// A test program's name for a person: `grantd`, `grantd-e2e/deadline`.
fn name(program: &Executable) -> String {
    if program.target == program.package.replace('-', "_") && program.kind == "lib" {
        program.package.clone()
    } else {
        format!("{}/{}", program.package, program.target)
    }
}

fn run_benchmarks(report: &mut Report) {
    step!("benchmarks");
    if !workspace::root().join("tests/src/bin/bench.rs").exists() {
        report.not_run("benchmarks", "there are none yet");
        return;
    }
    let bench = demo::program("bench", &["--release"], "run the benchmarks");
    if let Err(error) = bench.and_then(|mut bench| command::run(&mut bench)) {
        report.fault(format!("benchmarks: {error:#}"));
    }
}
