//! `cargo xtask check`: what can be said of the source without running it.
use anyhow::Result;
use clap::Args;
/// x
#[derive(Args)]
pub(crate) struct CheckArgs {}
pub(crate) fn run(_a: &CheckArgs) -> Result<()> { Ok(()) }
