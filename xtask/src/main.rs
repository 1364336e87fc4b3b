//! The build door of grantd: `cargo xtask COMMAND`. One file per command.
//!
//! Every command that needs something set up sets it up itself, and echoes an external command that fails.

mod bench;
mod build_ebpf;
mod check;
mod command;
mod demo;
mod layering;
mod privilege;
mod say;
mod setup;
mod test;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::say::say;

/// Builds, tests and checks grantd.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::SetupArgs),
    BuildEbpf(build_ebpf::BuildEbpfArgs),
    Test(test::TestArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Check(check::CheckArgs),
    Layering(layering::LayeringArgs),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Layering(args) => layering::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
