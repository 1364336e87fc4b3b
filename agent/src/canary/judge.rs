//! What a round shows: pure.

/// How one attempt to connect came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It stood, and what was sent came back.
    Passed,
    /// The kernel refused it, as it refuses agents.
    Refused,
    /// It stood, and what was sent did not come back.
    Stood(String),
    /// Anything else.
    Failed(String),
}

/// Which records of the round arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// That of the denial.
    pub denial: bool,
    /// That of the granted connection, naming its grant.
    pub connection: bool,
}

impl Seen {
    fn missing(self) -> Vec<&'static str> {
        let denial = (!self.denial).then_some("a denial left no record");
        let connection = (!self.connection).then_some("a granted connection left no record");
        denial.into_iter().chain(connection).collect()
    }
}

/// What a round shows about enforcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What is not granted was refused, what is granted went through, and both records arrived.
    Passed,
    /// Something that nothing grants went through: while this stands no new grant is taken.
    LetThrough(String),
    /// Both attempts came out as they should, and not all of their records arrived.
    Unrecorded(Seen),
    /// Something else is not as it should be, or it could not be tried.
    Failed(String),
}

impl Outcome {
    /// What is wrong, if anything is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Passed => None,
            Self::Unrecorded(seen) => Some(seen.missing().join("; ")),
            Self::LetThrough(what) | Self::Failed(what) => Some(what.clone()),
        }
    }
}

/// Judges a round by its two attempts, the one that has to be denied first, and its records.
#[must_use]
pub fn judge([denied, granted]: &[Attempt; 2], seen: Seen) -> Outcome {
    if (denied, granted) == (&Attempt::Refused, &Attempt::Passed) {
        return if seen.missing().is_empty() { Outcome::Passed } else { Outcome::Unrecorded(seen) };
    }
    let mut wrong = Vec::new();
    match denied {
        Attempt::Passed | Attempt::Stood(_) => {
            wrong.push("a connection that nothing grants went through".to_owned());
        }
        Attempt::Failed(how) => {
            wrong.push(format!("a connection that nothing grants was not refused but {how}"));
        }
        Attempt::Refused => {}
    }
    match granted {
        Attempt::Refused => wrong.push("a granted connection was refused".to_owned()),
        Attempt::Stood(how) => wrong.push(format!("a granted connection carried nothing: {how}")),
        Attempt::Failed(how) => {
            wrong.push(format!("a granted connection did not go through but {how}"));
        }
        Attempt::Passed => {}
    }
    let what = wrong.join("; ");
    match denied {
        // A handshake reached who listens there, whatever came of what was sent.
        Attempt::Passed | Attempt::Stood(_) => Outcome::LetThrough(what),
        Attempt::Refused | Attempt::Failed(_) => Outcome::Failed(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Seen = Seen { denial: true, connection: true };

    #[test]
    fn only_a_refusal_and_a_connection_with_both_records_is_a_pass() {
        let attempts = || {
            let how = || "timed out".to_owned();
            let failed = [Attempt::Stood(how()), Attempt::Failed(how())];
            [Attempt::Passed, Attempt::Refused].into_iter().chain(failed)
        };
        for denied in attempts() {
            for granted in attempts() {
                for (denial, connection) in
                    [(true, true), (true, false), (false, true), (false, false)]
                {
                    let right = denied == Attempt::Refused
                        && granted == Attempt::Passed
                        && denial
                        && connection;
                    let outcome =
                        judge(&[denied.clone(), granted.clone()], Seen { denial, connection });
                    assert_eq!(outcome == Outcome::Passed, right, "{denied:?} {granted:?}");
                    assert_eq!(
                        matches!(outcome, Outcome::LetThrough(_)),
                        matches!(denied, Attempt::Passed | Attempt::Stood(_)),
                        "{outcome:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let both = judge(&[Attempt::Passed, Attempt::Refused], ALL);
        let problem = both.problem().unwrap();
        assert!(problem.contains("nothing grants went through"), "{problem}");
        assert!(problem.contains("a granted connection was refused"), "{problem}");
        let silent = judge(&[Attempt::Refused, Attempt::Passed], Seen::default());
        let problem = silent.problem().unwrap();
        assert!(problem.contains("a denial left no record"), "{problem}");
        assert!(problem.contains("a granted connection left no record"), "{problem}");
    }
}
