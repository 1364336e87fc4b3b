//! `grantctl disarm`: lifts enforcement, and leaves a record of it.

use std::path::Path;

use grantd_audit::{
    DEFAULT_SEGMENT_BYTES, Event, Producer, Spool, SpoolConfig, SpoolError,
    event::{Lifecycle, LifecycleKind, Peer, Process},
};
use nix::unistd::{Uid, gethostname, getppid};
use serde_json::json;

use super::{
    Host,
    error::CliError,
    paths::Paths,
    ui::{Tone, Ui},
};
use crate::{
    clock::{Clock, SystemClock},
    ctl::Client,
};

/// Removes the pins, once there is a record that says so. Without a record nothing is lifted.
pub(super) fn disarm(
    paths: &Paths,
    yes: bool,
    json: bool,
    host: &dyn Host,
    ui: &mut Ui<'_>,
) -> Result<(), CliError> {
    if !Uid::effective().is_root() {
        return Err(CliError::NotRoot { operation: "disarm" });
    }
    if !yes {
        return Err(CliError::NotConfirmed);
    }
    if Client::connect(&paths.socket).is_ok() {
        return Err(CliError::StillRunning { socket: paths.socket.clone() });
    }
    record(paths)
        .map_err(|e| CliError::NotAudited { directory: paths.audit.clone(), source: e.into() })?;
    let bpffs = &paths.enforcement.bpffs;
    let removed =
        host.disarm(bpffs).map_err(|source| CliError::Disarm { bpffs: bpffs.clone(), source })?;
    if json {
        return ui.json(&json!({ "removed": removed }));
    }
    let head = ui.paint(Tone::Bad, "NOT ENFORCING");
    writeln!(ui.out, "{head}: removed {} pins", removed.len())?;
    Ok(())
}

/// Writes the record into the spool that the daemon has left.
fn record(paths: &Paths) -> Result<(), SpoolError> {
    let producer = Producer {
        product: "grantd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host_id: paths.host_id.clone(),
        hostname: gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        boot_id: boot_id(Path::new("/proc/sys/kernel/random/boot_id")),
    };
    let config = SpoolConfig {
        dir: paths.audit.clone(),
        segment_bytes: DEFAULT_SEGMENT_BYTES,
        // This one record removes no other: how much is kept is the daemon's to say.
        max_bytes: u64::MAX,
    };
    let (mut spool, recovery) = Spool::open(config, producer)?;
    let now_ms = SystemClock.now().unix_ms();
    let mut event = Lifecycle::new(LifecycleKind::Disarm);
    event.detail = "enforcement is lifted: programs and maps are being unpinned".to_owned();
    let process = Process {
        pid: getppid().as_raw().unsigned_abs(),
        uid: Some(Uid::current().as_raw()),
        ..Process::default()
    };
    event.peer = Some(Peer::Local { process: Box::new(process), socket: String::new() });
    for event in recovery.events().into_iter().chain([Event::Lifecycle(event)]) {
        spool.append(&event, now_ms)?;
    }
    spool.commit()
}

fn boot_id(path: &Path) -> String {
    std::fs::read_to_string(path).map(|id| id.trim().to_owned()).unwrap_or_default()
}
