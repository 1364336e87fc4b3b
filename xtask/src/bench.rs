//! `cargo xtask bench`: the figures that we publish.

use anyhow::Result;
use clap::Args;

use crate::build_ebpf::{self, BuildEbpfArgs};
use crate::say::step;
use crate::{command, demo, setup};

/// Measures the figures that the documentation gives, with an optimised build, as root.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Passed on to the benchmark; see `cargo xtask bench -- --help`
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    setup::test_programs()?;
    build_ebpf::run(&BuildEbpfArgs {})?;
    step!("optimised build");
    let mut bench = demo::program("bench", &["--release"], "run the benchmarks")?;
    match command::become_command(bench.args(&args.arguments))? {}
}
