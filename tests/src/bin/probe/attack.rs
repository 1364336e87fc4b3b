//! What an agent's user might try against its own confinement. Each is expected to fail; the report
//! says what the system answered.

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use clap::Args;
use grantd_e2e::probe::Attack;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::{Pid, setuid};

/// Most map ids that are tried.
const MAP_IDS: u32 = 2_000;

/// What to attack.
#[derive(Args)]
pub(crate) struct Targets {
    /// The daemon.
    #[arg(long)]
    daemon_pid: i32,
    /// Its config file.
    #[arg(long)]
    config: PathBuf,
    /// Its pinned control-plane keys.
    #[arg(long)]
    keys: PathBuf,
    /// Its state: ledger and audit spool.
    #[arg(long)]
    state: PathBuf,
    /// Its control socket.
    #[arg(long)]
    socket: PathBuf,
    /// The BPF filesystem with its pins.
    #[arg(long)]
    bpffs: PathBuf,
    /// A pinned map.
    #[arg(long)]
    map: PathBuf,
    /// A cgroup outside the slice to move to.
    #[arg(long)]
    outside: PathBuf,
    /// Another workload's cgroup.
    #[arg(long)]
    other: PathBuf,
    /// The enforced slice.
    #[arg(long)]
    slice: PathBuf,
}

/// Tries everything and reports each.
pub(crate) fn all(targets: &Targets) -> Vec<Attack> {
    let mut attacks = vec![
        tried("become root", setuid(0.into())),
        tried("open a pinned map", MapData::from_pin(&targets.map)),
        tried("remove a pin", fs::remove_file(&targets.map)),
        tried("list the pins", fs::read_dir(targets.bpffs.join("grantd")).map(drop)),
        tried("open a map by its id", any_map()),
        tried("unmount the BPF filesystem", umount2(&targets.bpffs, MntFlags::MNT_DETACH)),
        tried("remount the BPF filesystem", remount(&targets.bpffs)),
        tried("rewrite the config", append(&targets.config)),
        tried("rewrite the pinned keys", append(&targets.keys)),
        tried("list ledger and spool", fs::read_dir(&targets.state).map(drop)),
        tried("ask the control socket", UnixStream::connect(&targets.socket).map(drop)),
        tried("move out of the slice", move_to(&targets.outside)),
        tried("move into another workload", move_to(&targets.other)),
        tried("make a cgroup of its own", fs::create_dir(targets.slice.join("mine"))),
        tried("kill the slice", fs::write(targets.slice.join("cgroup.kill"), "1")),
        tried("set the clock", set_clock()),
    ];
    for signal in [Signal::SIGSTOP, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGKILL] {
        let pid = Pid::from_raw(targets.daemon_pid);
        attacks.push(tried(&format!("send {signal} to the daemon"), kill(pid, signal)));
    }
    attacks
}

pub(crate) fn tried<T, E: Display>(what: &str, outcome: Result<T, E>) -> Attack {
    let (succeeded, answer) = match outcome {
        Ok(_) => (true, "done".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Attack { what: what.to_owned(), succeeded, answer }
}

fn any_map() -> Result<u32, String> {
    let mut answer = "no map at all".to_owned();
    for id in 1..MAP_IDS {
        match MapData::from_id(id) {
            Ok(_) => return Ok(id),
            Err(error) => answer = error.to_string(),
        }
    }
    Err(answer)
}

fn remount(path: &Path) -> nix::Result<()> {
    mount(None::<&str>, path, None::<&str>, MsFlags::MS_REMOUNT, Some("mode=0777"))
}

fn append(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path).map(drop)
}

fn move_to(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}

fn set_clock() -> nix::Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(946_684_800, 0))
}
