//! The tasks that make up the daemon, by name.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio::time::timeout;

use super::error::Error;

/// The push listener.
pub(super) const LISTENER: &str = "the push listener";
/// The control socket.
pub(super) const CONTROL: &str = "the control socket";
/// The enforcer's thread.
pub(super) const ENFORCER: &str = "the enforcer";
/// The reader of the kernel's denials.
pub(super) const DENIALS: &str = "the denials ring";
/// The reader of the kernel's other events.
pub(super) const FLOWS: &str = "the flows ring";

/// How a part ended.
pub(super) type Ended = Result<(), String>;

/// Everything that runs.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<Ended>,
    running: HashMap<Id, &'static str>,
}

impl Parts {
    /// Starts a part.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Ended> + Send + 'static,
    ) {
        let task = self.tasks.spawn(part);
        self.running.insert(task.id(), name);
    }

    /// Waits until a part has ended, which none may do while the daemon runs.
    pub(super) async fn failed(&mut self) -> Error {
        let (part, ended) = self.next().await.unwrap_or(("the daemon", Ok(())));
        let problem = ended.err().unwrap_or_else(|| "without a reason".to_owned());
        Error::Ended { part, problem }
    }

    /// Waits until all parts of these names have ended, for `limit` at most; `false` if one has not.
    pub(super) async fn ended(&mut self, names: &[&str], limit: Duration) -> bool {
        let all = async {
            while self.running.values().any(|name| names.contains(name)) {
                match self.next().await {
                    Some((part, Err(problem))) => tracing::warn!("{part}: {problem}"),
                    Some((_, Ok(()))) => {}
                    None => return,
                }
            }
        };
        timeout(limit, all).await.is_ok()
    }

    /// Ends what still runs.
    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    async fn next(&mut self) -> Option<(&'static str, Ended)> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        Some((self.running.remove(&id).unwrap_or("a part of the daemon"), ended))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn the_way_down_waits_for_the_parts_that_it_names_and_for_no_other() {
        let mut parts = Parts::default();
        parts.spawn("key fetcher", pending());
        parts.spawn(ENFORCER, async {
            tokio::time::sleep(LIMIT / 2).await;
            Ok(())
        });
        assert!(parts.ended(&[ENFORCER], LIMIT).await, "its last records would be cut off");
        assert!(parts.ended(&[ENFORCER, LISTENER], LIMIT).await, "waits for what never ran");
        assert!(!parts.ended(&["key fetcher"], LIMIT).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panicked_has_ended_and_is_named() {
        let mut parts = Parts::default();
        parts.spawn(FLOWS, async { panic!("a defect") });
        let failed = parts.failed().await.to_string();
        assert!(failed.starts_with("the flows ring ended: "), "{failed}");
        parts.spawn(FLOWS, async { panic!("a defect") });
        assert!(parts.ended(&[FLOWS], LIMIT).await, "the way down waits for a dead part");
    }
}
