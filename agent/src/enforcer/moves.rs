//! What the watch tells of cgroups and tasks is acted upon at once, and not at the next look.

use std::path::PathBuf;

use grantd_audit::event::FindingKind;
use grantd_common::{Move, MoveKind, WorkloadId};
use tokio::io::unix::AsyncFd;

use super::Enforcer;
use crate::kernel::{MovesReader, watch};
use crate::text::chain;

/// Events that are taken before anything else gets its turn.
const BATCH: usize = 1024;

/// The ring of the watch, waited for.
pub(super) struct Moves {
    reader: MovesReader,
    ready: AsyncFd<std::os::fd::OwnedFd>,
}

impl Moves {
    /// Waits until something has happened; for ever where nothing tells of it.
    pub(super) async fn wait(moves: Option<&Self>) -> std::io::Result<()> {
        match moves {
            Some(moves) => {
                moves.ready.readable().await?.clear_ready();
                Ok(())
            }
            None => std::future::pending().await,
        }
    }
}

impl Enforcer {
    /// Opens the ring of the watch, where there is a watch.
    pub(super) fn open_moves(&self) -> Option<Moves> {
        use std::os::fd::AsFd as _;
        let reader = match self.kernel.moves() {
            Ok(reader) => reader?,
            Err(error) => {
                tracing::warn!("what the watch tells cannot be read: {}", chain(&error));
                return None;
            }
        };
        match watch(reader.as_fd()) {
            Ok(ready) => Some(Moves { reader, ready }),
            Err(error) => {
                tracing::warn!("what the watch tells cannot be waited for: {error}");
                None
            }
        }
    }

    /// Lets the kernel know the slice and every workload when their cgroups are made anew.
    pub(super) fn follow_cgroups(&mut self) {
        let all: Vec<(PathBuf, WorkloadId)> =
            self.workloads.values().map(|w| (w.path.clone(), w.id)).collect();
        if let Err(error) = self.kernel.follow(&all) {
            let detail = format!(
                "the kernel was not told where workloads' cgroups are made: {}. One that is made anew is \
                 known only once the daemon has looked, half a second later",
                chain(&error)
            );
            tracing::error!("{detail}");
            self.audit_finding(FindingKind::NotEnforcing, detail);
        }
    }

    /// Acts upon everything that was told since.
    pub(super) fn look_at_moves(&mut self, moves: &mut Moves) {
        loop {
            let taken = moves.reader.take(BATCH);
            let cgroups = taken.iter().any(|(_, kind)| match kind {
                MoveKind::Made | MoveKind::Removed => true,
                MoveKind::Entered | MoveKind::Left => false,
            });
            let lost = moves.reader.lost();
            if lost > 0 {
                tracing::warn!(
                    lost,
                    "events of the watch were lost; looking at everything instead"
                );
            }
            if cgroups || lost > 0 {
                self.look_at_cgroups();
            }
            if lost > 0 {
                self.look_at_tasks(false);
            }
            let entered: Vec<Move> = taken
                .iter()
                .filter(|(_, kind)| matches!(kind, MoveKind::Entered))
                .map(|(told, _)| *told)
                .collect();
            if !entered.is_empty() {
                self.entered(&entered);
            }
            for (told, _) in taken.iter().filter(|(_, kind)| matches!(kind, MoveKind::Left)) {
                self.left(told);
            }
            if taken.len() < BATCH {
                return;
            }
        }
    }
}
