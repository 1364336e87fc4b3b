//! An admission that does what the body says, and remembers what it was asked.

use std::sync::Mutex;
use std::time::Duration;

use grantd_grant::{PeerUris, Reason, Refusal};
use serde_json::json;
use tokio::sync::Semaphore;

use super::ALLOWED;
use crate::intake::{
    Acknowledgement, Admission, Answer, Asked, GrantOutcome, HostView, Peer, Problem, PushBody,
    PushKind, RevocationOutcome, ShowOutcome,
};

#[derive(Debug)]
pub(in crate::intake) struct FakeAdmission {
    /// Bodies, and what else was asked.
    pub(in crate::intake) asked: Mutex<Vec<String>>,
    /// Decisions that came to their end.
    pub(in crate::intake) finished: Semaphore,
    /// A body `wait` is decided only when this has a permit.
    pub(in crate::intake) gate: Semaphore,
}

impl Default for FakeAdmission {
    fn default() -> Self {
        let none = || Semaphore::new(0);
        Self { asked: Mutex::new(Vec::new()), finished: none(), gate: none() }
    }
}

impl FakeAdmission {
    pub(in crate::intake) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("lock"))
    }

    fn note(&self, what: impl Into<String>) {
        self.asked.lock().expect("lock").push(what.into());
    }

    async fn decide(&self, body: &str) -> GrantOutcome {
        let acknowledgement = Acknowledgement {
            id: "g-1".to_owned(),
            deadline_unix_ms: 1_814_400_900_000,
            coverage: json!({ "connect": "enforced" }),
        };
        match body {
            "wait" => {
                self.gate.acquire().await.expect("open").forget();
                GrantOutcome::Applied(acknowledgement)
            }
            "slow" => {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                GrantOutcome::Applied(acknowledgement)
            }
            "again" => GrantOutcome::AlreadyInForce(acknowledgement),
            "panic" => panic!("a defect"),
            body => match Reason::ALL.iter().find(|reason| reason.as_str() == body) {
                Some(reason) => GrantOutcome::Refused(Refusal::new(*reason, "because")),
                None => GrantOutcome::Applied(acknowledgement),
            },
        }
    }
}

impl Admission for FakeAdmission {
    fn check_peer(&self, peer: &Peer, asked: Asked) -> Result<(), Refusal> {
        if peer.uris == PeerUris::new([ALLOWED.to_owned()]) {
            return Ok(());
        }
        self.note(format!("refused {asked:?}"));
        Err(Refusal::new(Reason::PeerNotAllowed, "not on the list"))
    }

    fn turned_away(&self, _: &Peer, push: PushKind, problem: &Problem) {
        self.note(format!("turned away {push:?}: {}", problem.reason()));
    }

    fn admit_grant<'a>(&'a self, _: &'a Peer, body: PushBody) -> Answer<'a, GrantOutcome> {
        Box::pin(async move {
            let body = String::from_utf8_lossy(&body).into_owned();
            self.note(format!("grant of {} bytes", body.len()));
            let outcome = self.decide(&body).await;
            self.finished.add_permits(1);
            outcome
        })
    }

    fn admit_revocation<'a>(
        &'a self,
        _: &'a Peer,
        body: PushBody,
    ) -> Answer<'a, RevocationOutcome> {
        Box::pin(async move {
            self.note(format!("revocation of {} bytes", body.len()));
            if &*body == b"old" {
                let refusal = Refusal::new(Reason::RevocationNotNewer, "seq 3 is not above 7");
                return RevocationOutcome::Refused(refusal);
            }
            RevocationOutcome::InForce { ended: 3 }
        })
    }

    fn show_grant<'a>(&'a self, _: &'a Peer, id: &'a str) -> Answer<'a, ShowOutcome> {
        Box::pin(async move {
            self.note(format!("show {id}"));
            match id {
                "g-1" => ShowOutcome::Found(json!({ "id": "g-1" })),
                "broken" => ShowOutcome::Refused(Refusal::new(Reason::KernelFailed, "no map")),
                _ => ShowOutcome::NotFound,
            }
        })
    }

    fn host<'a>(&'a self, _: &'a Peer) -> Answer<'a, HostView> {
        Box::pin(async move {
            self.note("host");
            HostView {
                host_id: super::HOST.to_owned(),
                boot_id: "b".to_owned(),
                version: "0.1.0".to_owned(),
                workloads: vec!["coding-agent".to_owned()],
                coverage: json!({}),
            }
        })
    }
}
