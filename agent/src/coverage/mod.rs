//! Which of the known ways out this host closes just now: a function of what is attached and configured.
//!
//! The ways out have IDs, by which tests, `docs/known-issues.md`, `grantctl status`, `GET /v1/host` and the
//! lifecycle record name them. Pure: it is handed the facts, and looks at nothing itself.

mod threats;

#[cfg(test)]
mod tests;

/// What the table is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Hooks of the enforce object, each with whether it is attached where it belongs.
    pub hooks: Vec<(String, bool)>,
    /// Hooks of the guard that were seen to take effect; a program that loads and never runs is not here.
    pub guard: Vec<String>,
    /// The kernel itself tells of cgroups that are made, removed and left.
    pub watch: bool,
    /// Sockets of ended grants can be destroyed.
    pub cut: bool,
    /// What is attached, pinned and written is compared with what the daemon left, all the time.
    pub self_check: bool,
    /// A connection that nothing grants was just seen to be refused, and a granted one to pass.
    pub canary: bool,
    /// The config lets nobody in by UDP.
    pub no_udp_callers: bool,
}

impl Facts {
    /// The first of these hooks that is not attached.
    fn missing(&self, hooks: &[&'static str]) -> Option<&'static str> {
        hooks.iter().copied().find(|hook| !self.hooks.iter().any(|(h, on)| h == hook && *on))
    }

    fn guards(&self, hooks: &[&'static str]) -> bool {
        hooks.iter().all(|hook| self.guard.iter().any(|g| g == hook))
    }
}

/// How far a way out is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is not there, or what tries it is denied.
    Closed,
    /// It is closed for what is started as the documentation says, and open beside that.
    Partly,
    /// It is open.
    Open,
}

impl State {
    /// As it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Partly => "partly",
            Self::Open => "open",
        }
    }
}

/// One way out, as this host stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threat {
    /// Its ID, such as `A1`.
    pub id: &'static str,
    /// The way out.
    pub way: &'static str,
    /// How far it is closed.
    pub state: State,
    /// By what, or what is missing.
    pub reason: String,
    /// Where it is documented.
    pub doc: &'static str,
}

/// Every way out of the list, judged.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Threat> {
    threats::ALL
        .iter()
        .map(|row| {
            let (state, reason) = row.rule.judge(facts);
            let doc =
                if state == State::Closed { "docs/security.md" } else { "docs/known-issues.md" };
            Threat { id: row.id, way: row.way, state, reason, doc }
        })
        .collect()
}

/// How many are closed, partly closed and open.
#[must_use]
pub fn count(threats: &[Threat]) -> [usize; 3] {
    [State::Closed, State::Partly, State::Open]
        .map(|state| threats.iter().filter(|t| t.state == state).count())
}

/// A row of the list.
struct Row {
    id: &'static str,
    way: &'static str,
    rule: Rule,
}

/// What closes a way out.
enum Rule {
    /// These hooks of the enforce object.
    Hooks(&'static [&'static str]),
    /// These hooks, and this beside them; without the latter it is not wholly closed.
    And(&'static [&'static str], Extra, State, &'static str),
    /// Not these hooks at all, but this.
    Only(Extra, State, &'static str),
    /// Nothing about the host changes it.
    Always(State, &'static str),
    /// These hooks, as far as they can: something remains whatever the host has.
    AsFar(&'static [&'static str], State, &'static str),
}

/// What is not on every host.
enum Extra {
    /// These hooks of the guard.
    Guard(&'static [&'static str]),
    Watch,
    Cut,
    SelfCheck,
    Canary,
    NoUdpCallers,
}

impl Extra {
    fn holds(&self, facts: &Facts) -> bool {
        match self {
            Self::Guard(hooks) => facts.guards(hooks),
            Self::Watch => facts.watch,
            Self::Cut => facts.cut,
            Self::SelfCheck => facts.self_check,
            Self::Canary => facts.canary,
            Self::NoUdpCallers => facts.no_udp_callers,
        }
    }

    fn by(&self) -> String {
        match self {
            Self::Guard(hooks) => format!("by the guard: {}", hooks.join(", ")),
            Self::Watch => "the kernel tells of every cgroup that is made or left".to_owned(),
            Self::Cut => "by the packet checks, and sockets are destroyed".to_owned(),
            Self::SelfCheck => "found within seconds, told and repaired".to_owned(),
            Self::NoUdpCallers => "by egress, ingress; the config lets nobody in by UDP".to_owned(),
            Self::Canary => "tried every few seconds: a denial is denied, a grant works".to_owned(),
        }
    }
}

impl Rule {
    fn judge(&self, facts: &Facts) -> (State, String) {
        let closed_by = |hooks: &[&str]| format!("by {}", hooks.join(", "));
        let detached = |hook: &str| (State::Open, format!("the hook {hook} is not attached"));
        match self {
            Self::Hooks(hooks) => match facts.missing(hooks) {
                Some(hook) => detached(hook),
                None => (State::Closed, closed_by(hooks)),
            },
            Self::And(hooks, extra, without, why) => match facts.missing(hooks) {
                Some(hook) => detached(hook),
                None if extra.holds(facts) => (State::Closed, extra.by()),
                None => (*without, (*why).to_owned()),
            },
            Self::Only(extra, without, why) => {
                if extra.holds(facts) {
                    (State::Closed, extra.by())
                } else {
                    (*without, (*why).to_owned())
                }
            }
            Self::Always(state, why) => (*state, (*why).to_owned()),
            Self::AsFar(hooks, state, why) => match facts.missing(hooks) {
                Some(hook) => detached(hook),
                None => (*state, (*why).to_owned()),
            },
        }
    }
}
