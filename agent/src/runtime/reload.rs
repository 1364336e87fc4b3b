//! Reading the config again: all of it, or nothing.

use std::sync::Arc;

use grantd_audit::event::{Event, Lifecycle, LifecycleKind};

use super::control::{Shared, code, to_ctl};
use super::start;
use crate::admission::Changing;
use crate::config::Config;
use crate::ctl::{CtlError, ErrorCode, Reloaded};
use crate::intake::TlsMaterial;
use crate::keys::ControlPlaneKeyFile;
use crate::text::chain;

impl Shared {
    /// Reads config, control-plane keys and TLS files again. Grants that they no longer cover end; a
    /// fault anywhere changes nothing.
    pub(super) async fn reload(&self) -> Result<Reloaded, CtlError> {
        let result = self.try_reload().await;
        let mut event = Lifecycle::new(LifecycleKind::Reload);
        event.success = result.is_ok();
        match &result {
            Ok(reloaded) => event.config_sha256.clone_from(&reloaded.config_sha256),
            Err(error) => {
                event.reason = code(error.code).into();
                event.detail.clone_from(&error.message);
            }
        }
        self.recorder.record(Event::Lifecycle(event), self.clock.now().unix_ms());
        result
    }

    async fn try_reload(&self) -> Result<Reloaded, CtlError> {
        let mut held = self.config.lock().await;
        let (current, current_keys) = &mut *held;
        let faulty = |e: &dyn std::error::Error| CtlError::new(ErrorCode::InvalidConfig, chain(e));
        let next = Config::load(&self.config_file).map_err(|e| faulty(&e))?;
        let keys = ControlPlaneKeyFile::open(&next.control_plane.keys).map_err(|e| faulty(&e))?;
        let tls = TlsMaterial::read(&next.control_plane.tls)
            .and_then(|m| m.server_config(next.host_id.as_str(), Arc::clone(&self.clock)))
            .map_err(|e| faulty(&e))?;
        let needs_restart = needs_restart(current, &next);
        if !needs_restart.is_empty() {
            let keys = needs_restart.join(", ");
            let what = format!("{keys} changed, which only a restart applies; nothing was changed");
            return Err(CtlError::new(ErrorCode::InvalidConfig, what));
        }
        let settings = start::settings(&next, &self.boot_id).map_err(|e| faulty(&e))?;
        // Also a key that was replaced under its old name.
        let replaced = current_keys.removed_in(&keys);
        // Nothing above changed anything, and below only the enforcer can refuse: `Terms` says why no
        // grant slips in between.
        let changing = Changing::begin(&self.terms);
        let reconfigured = self.enforcer.reconfigure(settings, keys.keys(), replaced).await;
        let ended = reconfigured.map_err(|r| to_ctl(&r))?;
        changing.replace(Arc::clone(&next.policy), keys.keys());
        self.tls.send_replace(tls);
        let reloaded =
            Reloaded { config_sha256: next.hash.to_string(), ended, needs_restart: Vec::new() };
        (*current, *current_keys) = (next, keys);
        Ok(reloaded)
    }
}

/// Keys of the config that are read at start alone.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let changed = [
        ("host_id", old.host_id != new.host_id),
        ("okta", old.okta != new.okta),
        ("control_plane.listen", old.control_plane.listen != new.control_plane.listen),
        ("enforcement", old.enforcement != new.enforcement),
        ("canary", old.canary_period != new.canary_period),
        ("guard", old.guard != new.guard),
        ("audit", old.audit != new.audit),
        ("paths", old.paths != new.paths),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key.to_owned()).collect()
}
