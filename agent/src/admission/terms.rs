//! What grants are decided with, as one: a reload replaces policy and keys together, or not at all.

use std::sync::Arc;

use grantd_grant::{ControlPlaneKeys, HostPolicy, Reason, Refusal};
use tokio::sync::watch;

/// What grants are decided with.
///
/// A grant is checked here and applied by the enforcer, and a reload can come in between. The protocol:
///
/// 1. The reload sets `changing`. From then on no check of a grant begins.
/// 2. The enforcer takes the new settings and moves its epoch, or refuses and changes nothing.
/// 3. The reload puts the new terms in place, or leaves the old, and clears `changing` in the same step.
///
/// Whoever checks a grant waits until nothing changes and reads terms and epoch before the next reload
/// can begin. So a grant goes either with the old terms and the old epoch, and the enforcer applies it
/// before the move (and looks at it then) or not at all; or with the new terms and the new epoch. None is
/// checked with new terms that were refused, and none with old terms passes for new. The epoch alone
/// would not do: it also moves when Okta withdraws a key, and is not a part of the terms.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Workloads, subjects, quotas, ceiling.
    pub policy: Arc<HostPolicy>,
    /// The control plane's pinned keys.
    pub keys: Arc<ControlPlaneKeys>,
    /// A reload is under way, and these may be replaced.
    pub changing: bool,
}

/// A reload under way: however it ends, grants are checked again afterwards.
pub struct Changing<'a>(&'a watch::Sender<Terms>);

impl<'a> Changing<'a> {
    /// Begins: from now on no check of a grant begins.
    #[must_use]
    pub fn begin(terms: &'a watch::Sender<Terms>) -> Self {
        terms.send_modify(|terms| terms.changing = true);
        Self(terms)
    }

    /// Puts new terms in place.
    pub fn replace(self, policy: Arc<HostPolicy>, keys: Arc<ControlPlaneKeys>) {
        self.0.send_modify(|terms| *terms = Terms { policy, keys, changing: false });
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|terms| terms.changing = false);
    }
}

/// What a grant is to be checked with, and the epoch that goes with it; waits for a reload under way.
pub(super) async fn settled(
    terms: &watch::Receiver<Terms>,
    epoch: impl FnOnce() -> u64 + Send,
) -> Result<(Terms, u64), Refusal> {
    let mut terms = terms.clone();
    let stopping = |_| Refusal::new(Reason::Stopping, "the daemon is stopping");
    let settled = terms.wait_for(|terms| !terms.changing).await.map_err(stopping)?;
    // While `settled` is held no reload can begin, so that none lies between the two.
    let epoch = epoch();
    Ok((settled.clone(), epoch))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::tests::{keys, policy};
    use super::*;

    fn channel() -> (watch::Sender<Terms>, watch::Receiver<Terms>) {
        watch::channel(Terms { policy: policy(), keys: keys(), changing: false })
    }

    #[tokio::test(start_paused = true)]
    async fn no_grant_is_checked_with_old_policy_once_the_enforcer_has_the_new() {
        let (sender, reader) = channel();
        let epoch = AtomicU64::new(0);
        let read = || epoch.load(Ordering::Acquire);
        let (before, _) = settled(&reader, read).await.expect("settled");
        let changing = Changing::begin(&sender);
        epoch.store(1, Ordering::Release);
        let early = timeout(Duration::from_secs(1), settled(&reader, read)).await;
        assert!(early.is_err(), "old terms would pass with the new epoch");
        let next = policy();
        changing.replace(Arc::clone(&next), keys());
        let (after, at) = settled(&reader, read).await.expect("settled");
        assert!(Arc::ptr_eq(&after.policy, &next) && !Arc::ptr_eq(&after.policy, &before.policy));
        assert_eq!(at, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_that_was_refused_leaves_the_old_policy_and_grants_go_on() {
        let (sender, reader) = channel();
        let (before, _) = settled(&reader, || 0).await.expect("settled");
        drop(Changing::begin(&sender));
        let (after, _) = settled(&reader, || 0).await.expect("every push would wait for ever");
        assert!(Arc::ptr_eq(&after.policy, &before.policy), "half of a refused reload is in force");
    }

    #[tokio::test]
    async fn whoever_waits_for_a_reload_is_told_when_the_daemon_stops() {
        let (sender, reader) = channel();
        sender.send_modify(|terms| terms.changing = true);
        drop(sender);
        let refused = settled(&reader, || 0).await.expect_err("nobody will ever settle it");
        assert_eq!(refused.reason, Reason::Stopping);
    }
}
