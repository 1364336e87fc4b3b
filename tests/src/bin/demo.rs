//! The main job, shown on a terminal: an agent that may reach nothing is granted one connection for a
//! few seconds, and everything else stays shut, with grantd dead or alive.
//!
//! Every step is checked; the first that does not do what it says ends the demo with exit status 1.

#[path = "demo/story.rs"]
mod story;
#[path = "demo/timeline.rs"]
mod timeline;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use grantd_e2e::world::World;
use grantd_e2e::{cgroup, issuer::Shape, workdir};

use timeline::Timeline;

/// Shows the main job of grantd on this machine's kernel, in namespaces of its own.
///
/// Needs root. Exit status: 0 when every step did what it says, 1 otherwise, 130 when interrupted;
/// in each case what was made is removed.
#[derive(Parser)]
struct Options {
    /// Lifetime of the grant in seconds
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(5..=120))]
    seconds: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut timeline = Timeline::new();
    match show(&options, &mut timeline) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            timeline.note(&format!("\nThe demo stopped: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn show(options: &Options, timeline: &mut Timeline) -> Result<()> {
    timeline.heading("grantd: one connection, for a few seconds, for one agent");
    timeline.note(story::CAST);
    let mut world = World::assemble(Shape::okta()).context("preparing the demo")?;
    let name = world.workdir.name().to_owned();
    timeline.columns();
    let told = story::tell(&mut world, timeline, options.seconds);
    if told.is_err() {
        timeline.note(&format!("\n{}", world.report()));
    }
    drop(world);
    told?;
    timeline.step("demo", "takes everything down again", || nothing_left(&name))?;
    timeline.note("\nEvery step did what it says.");
    Ok(())
}

fn nothing_left(name: &str) -> Result<String> {
    let directory = std::env::temp_dir().join(name);
    ensure!(!cgroup::mount_point()?.join(name).exists(), "cgroup {name} is left");
    ensure!(workdir::mounts_below(&directory)?.is_empty(), "a mount below {name} is left");
    ensure!(!directory.exists(), "{} is left", directory.display());
    Ok("no process, cgroup, mount, pin or file is left".to_owned())
}
