//! The rules of the guard: which local sockets outside each workload may talk to, and what else it may.

use std::path::Path;

use grantd_common::WorkloadId;
use grantd_common::guard::rule;

use super::Enforcer;
use crate::text::chain;

impl Enforcer {
    /// Makes the guard go by the config, and by the sockets that lie at its paths now: one that was made
    /// anew is another.
    pub(super) fn follow_guard(&mut self) {
        let (mut sockets, mut rules) = (Vec::new(), Vec::new());
        for settings in &self.settings.workloads {
            let Some(workload) = self.workloads.get(&settings.name) else { continue };
            let paths = settings.unix_sockets.iter().map(|path| (workload.id, path.as_path()));
            sockets.extend::<Vec<(WorkloadId, &Path)>>(paths.collect());
            if settings.user_namespaces {
                rules.push((workload.id, rule::USER_NAMESPACES));
            }
        }
        match self.kernel.set_guard_rules(&sockets, &rules) {
            Ok(closed) => {
                // Said once: a service may be down for long.
                for socket in closed.iter().filter(|socket| !self.closed_sockets.contains(socket)) {
                    let (path, problem) = (socket.path.display(), &socket.problem);
                    tracing::warn!(
                        "the local socket {path} is not open to its workload: {problem}"
                    );
                }
                self.closed_sockets = closed;
            }
            Err(error) => tracing::error!("the rules of the guard: {}", chain(&error)),
        }
    }
}
