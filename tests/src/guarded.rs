//! What tests of the guard share: where it runs, attempts by the workload and by a bystander, services outside.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::audit::DENIED;
use crate::check::RECORD;
use crate::issuer::Shape;
use crate::probe::Attack;
use crate::workload::Workload;
use crate::world::{World, scenario_in};
use crate::{ctl, machine, programs};

/// Runs a test where the guard is in effect; where it is not, says so.
pub fn guarded(
    name: &str,
    prepare: impl FnOnce(&mut World) -> Result<()>,
    test: impl FnOnce(&mut World) -> Result<()>,
) {
    scenario_in(World::assemble(Shape::okta()), |world| {
        prepare(world)?;
        world.daemon.start()?;
        if in_effect(world)? {
            return test(world);
        }
        let log = fs::read_to_string(world.daemon.log_path()).context("the daemon's log")?;
        let missing = log.lines().find_map(|line| line.split_once("of the guard is missing: "));
        let why = missing.map_or("the daemon does not say why", |(_, why)| why);
        // The kernels that are emulated have it: there its absence is a defect.
        ensure!(!machine::is_emulated(), "the guard is not in effect: {why}");
        programs::not_run(name, &why.chars().take(200).collect::<String>())
    });
}

/// Whether the status says that the guard closes what it is for.
///
/// # Errors
/// When it cannot be asked.
pub fn in_effect(world: &World) -> Result<bool> {
    let status = ctl::ask(&world.daemon.socket(), &json!({"op": "status"}))?;
    let threats = [status.pointer("/threats"), status.pointer("/status/threats")];
    let threats = threats.into_iter().flatten().find_map(Value::as_array);
    let threats = threats.with_context(|| format!("a status without threats: {status}"))?;
    let state = |id: &str| threats.iter().find(|t| t["id"] == id).map(|t| t["state"].clone());
    Ok(["A2", "A4", "C5", "D1"].iter().all(|id| state(id) == Some(json!("closed"))))
}

/// A deployment as it is.
///
/// # Errors
/// Never.
pub fn nothing(_: &mut World) -> Result<()> {
    Ok(())
}

/// What the workload and a bystander get, both as root.
///
/// # Errors
/// When it cannot be tried.
pub fn both(world: &World, arguments: &[&str]) -> Result<(Vec<Attack>, Vec<Attack>)> {
    Ok((escape(&world.coding.as_root(), arguments)?, escape(&bystander(world), arguments)?))
}

/// Root outside the slice.
#[must_use]
pub fn bystander(world: &World) -> Workload {
    world.coding.as_root().moved_to(&world.cgroups.outside())
}

/// Tries these ways of the probe.
///
/// # Errors
/// When they cannot be tried.
pub fn escape(who: &Workload, arguments: &[&str]) -> Result<Vec<Attack>> {
    let mut all = vec!["escape"];
    all.extend(arguments);
    who.many(&all)
}

/// Whether a verdict refused it.
#[must_use]
pub fn refused(attack: &Attack) -> bool {
    let answer = &attack.answer;
    !attack.succeeded && (answer.starts_with("EPERM") || answer.starts_with("EACCES"))
}

/// Checks that a verdict refused each.
///
/// # Errors
/// When one was not refused, or nothing was tried.
pub fn all_refused(attacks: &[Attack]) -> Result<()> {
    ensure!(!attacks.is_empty(), "nothing was tried");
    for attack in attacks {
        ensure!(refused(attack), "{} should be refused: {attack:?}", attack.what);
    }
    Ok(())
}

/// Checks that no verdict refused one: it may fail for want of a kernel module.
///
/// # Errors
/// When one was refused, or nothing was tried.
pub fn none_refused(attacks: &[Attack]) -> Result<()> {
    ensure!(!attacks.is_empty(), "nothing was tried");
    for attack in attacks {
        ensure!(!refused(attack), "{} should not be refused: {attack:?}", attack.what);
    }
    Ok(())
}

/// Checks that each worked.
///
/// # Errors
/// When one did not, or nothing was tried.
pub fn all_allowed(attacks: &[Attack]) -> Result<()> {
    ensure!(!attacks.is_empty(), "nothing was tried");
    for attack in attacks {
        ensure!(attack.succeeded, "{} should work: {attack:?}", attack.what);
    }
    Ok(())
}

/// Waits for records of what was refused to the coding workload for this reason.
///
/// # Errors
/// When there are fewer than `least`.
pub fn recorded(world: &World, reason: &str, least: usize) -> Result<()> {
    let what = format!("what was refused as {reason}");
    world.spool.wait_for(&what, least, RECORD, |record| {
        record.kind() == DENIED && record.reason() == reason && record.workload() == "coding-agent"
    })?;
    Ok(())
}

/// Services outside, each at a path of the run's own directory.
#[derive(Debug)]
pub struct Services {
    directory: PathBuf,
    _docker: UnixListener,
    _log: UnixDatagram,
    _abstract: UnixListener,
    /// The name of an abstract one, without its leading zero.
    pub abstract_name: String,
}

impl Services {
    /// Listens at `docker.sock` (stream), `log.sock` (datagram) and at an abstract name.
    ///
    /// # Errors
    /// When one cannot be bound.
    pub fn start(world: &World) -> Result<Self> {
        use std::os::linux::net::SocketAddrExt as _;
        let directory = world.workdir.subdir("services", 0o755)?;
        let abstract_name = format!("{}-bus", world.workdir.name());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name)?;
        Ok(Self {
            _docker: UnixListener::bind(directory.join("docker.sock"))?,
            _log: UnixDatagram::bind(directory.join("log.sock"))?,
            // Abstract names belong to a network namespace.
            _abstract: world.host.enter(|| UnixListener::bind_addr(&address))??,
            directory,
            abstract_name,
        })
    }

    /// The path of what has this name.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}
