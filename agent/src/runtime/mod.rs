//! Wiring: brings the parts up in order, supervises them, and takes them down in order.
//!
//! Up: config, audit, ledger and kernel (which enforces from then on), keys, sockets, ready. Down: no
//! more pushes and calls, the enforcer ends, the rings are emptied, audit is on disk, exit. The kernel
//! keeps denying.

mod control;
mod error;
mod live;
mod parts;
mod reload;
mod start;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

pub use error::Error;

use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::kernel;
use crate::text::chain;

/// What `grantd run --check` found to be in order.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// One line for each thing that was looked at.
    pub lines: Vec<String>,
}

/// Checks the config and what the kernel side needs, and changes nothing.
///
/// # Errors
/// The first thing that would keep the daemon from starting.
pub fn check(config_file: &Path) -> Result<CheckReport, Error> {
    let config = Config::load(config_file)?;
    let mut lines =
        vec![format!("config {}: no faults, SHA-256 {}", config_file.display(), config.hash)];
    let keys = crate::keys::ControlPlaneKeyFile::open(&config.control_plane.keys)?;
    lines.push(format!("control-plane keys: {}", keys.keys().len()));
    let tls = crate::intake::TlsMaterial::read(&config.control_plane.tls)?;
    tls.server_config(config.host_id.as_str(), Arc::new(SystemClock))?;
    lines.push("TLS: certificate, key and client CA fit together".to_owned());
    let setup = start::setup(&config)?;
    kernel::check(&setup)?;
    lines.push(format!(
        "kernel: cgroup v2, slice {} and bpffs {} are there, and the kernel takes the programs",
        setup.slice.display(),
        setup.bpffs.display()
    ));
    if !SystemClock.synchronised() {
        lines.push("clock: the kernel holds it to be unsynchronised".to_owned());
    }
    Ok(CheckReport { lines })
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What kept it from starting, or the part that failed; what was enforced is enforced still.
pub async fn run(config_file: PathBuf) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(Error::signals)?;
    let mut live = start::start(config_file).await?;
    let mut proven = live.proven.clone();
    let mut ready = false;
    let failed = loop {
        tokio::select! {
            // Not before the kernel was seen to refuse what it should. A canary that ended is a part that failed.
            Ok(_) = proven.wait_for(|proven| *proven), if !ready => {
                ready = true;
                notify(&[sd_notify::NotifyState::Ready]);
                tracing::info!(
                    adopted = live.adopted,
                    grants = live.restored,
                    "enforcing; pushes are taken at {}",
                    live.listen
                );
            }
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            // Beside this loop: a reload waits for the enforcer, and a stop must not wait for a reload.
            _ = hangup.recv() => drop(tokio::spawn(reload(Arc::clone(&live.shared)))),
            error = live.parts.failed() => break Some(error),
        }
    };
    notify(&[sd_notify::NotifyState::Stopping]);
    live.stop(failed.as_ref().map(|e| chain(e))).await;
    failed.map_or(Ok(()), Err)
}

/// What SIGHUP asks for.
async fn reload(shared: Arc<control::Shared>) {
    notify(&[sd_notify::NotifyState::Reloading]);
    if let Err(error) = shared.reload().await {
        tracing::warn!("the config was not read again: {}", error.message);
    }
    notify(&[sd_notify::NotifyState::Ready]);
}

/// Tells the service manager, where there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
