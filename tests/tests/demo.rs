//! The demo itself: it says what happens, checks it, and cleans up however it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use grantd_e2e::clock::wait_until;
use grantd_e2e::workdir::{self, PREFIX};
use grantd_e2e::{cgroup, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SECONDS: &str = "5";

fn demo() -> Result<Command> {
    let mut demo = Command::new(programs::find("demo")?);
    demo.args(["--seconds", SECONDS]).stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(demo)
}

/// What a run of the process `pid` made and has not removed.
fn left_by(pid: u32) -> Result<Vec<String>> {
    let prefix = format!("{PREFIX}{pid}-");
    let mut left = Vec::new();
    for directory in [cgroup::mount_point()?, std::env::temp_dir()] {
        for entry in std::fs::read_dir(directory)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    let mounts = workdir::mounts_below(&std::env::temp_dir())?;
    left.extend(
        mounts
            .iter()
            .map(|mount| mount.display().to_string())
            .filter(|path| path.contains(&prefix)),
    );
    Ok(left)
}

#[test]
fn the_demo_does_what_it_says_twice_in_a_row() -> Result<()> {
    for round in 1..=2 {
        let child = demo()?.spawn().context("starting the demo")?;
        let pid = child.id();
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "round {round}: {}\n{text}", output.status);
        for expected in [
            "EPERM",
            "in force",
            "signature_invalid",
            "destination_over_ceiling",
            "Every step did what it says",
        ] {
            ensure!(text.contains(expected), "round {round} does not show {expected}:\n{text}");
        }
        ensure!(!text.contains('\x1b'), "colour where there is no terminal");
        ensure!(left_by(pid)?.is_empty(), "round {round} leaves {:?}", left_by(pid)?);
    }
    Ok(())
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() -> Result<()> {
    for (signal, at) in [(Signal::SIGINT, "holds a connection"), (Signal::SIGTERM, "kills grantd")]
    {
        let mut child = demo()?.spawn().context("starting the demo")?;
        let pid = child.id();
        wait_for_line(&mut child, at)?;
        ensure!(
            !left_by(pid)?.is_empty(),
            "nothing was made yet, so this test would prove nothing"
        );
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        let status = child.wait()?;
        assert_eq!(status.code(), Some(128 + signal as i32), "exit status after {signal}");
        wait_until("nothing to be left", Duration::from_secs(5), || {
            Ok(left_by(pid)?.is_empty().then_some(()))
        })?;
    }
    Ok(())
}

fn wait_for_line(child: &mut Child, text: &str) -> Result<()> {
    let stdout = child.stdout.as_mut().context("the demo's output")?;
    for line in BufReader::new(stdout).lines() {
        if line?.contains(text) {
            return Ok(());
        }
    }
    anyhow::bail!("the demo ended before “{text}”")
}
