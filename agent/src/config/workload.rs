//! `[[workload]]`: which processes, for whom, how much.

use std::path::PathBuf;
use std::time::Duration;

use grantd_common::capacity;
use grantd_grant::ids::{ActorId, ClientId};
use grantd_grant::policy::{DEFAULT_MAX_TTL, GrantRate, SubjectPattern, WorkloadPolicy};
use grantd_grant::{Subject, WorkloadName};

use super::enforcement::{CgroupPath, EnforcementConfig, MAX_LEVELS_BELOW_SLICE};
use super::listen::{self, Listen};
use super::reader::{Section, Value};
use super::values::{absolute_path, bounded_duration, ttl};

/// Live grants of one workload where the file says nothing.
const DEFAULT_MAX_LIVE_GRANTS: u32 = 256;
/// Most that may be configured for it.
const HARD_MAX_LIVE_GRANTS: u64 = 65_536;
/// Most sockets that may be configured for one workload: each takes kernel memory that is charged to nobody.
const HARD_MAX_SOCKETS: u64 = 1_048_576;
/// Rate of grants where the file says nothing.
const DEFAULT_GRANT_RATE: GrantRate = GrantRate { grants: 60, per: Duration::from_secs(60) };
/// Most grants per period that may be configured.
const HARD_MAX_GRANT_RATE: u64 = 1_000_000;
/// Longest period of a rate.
const MAX_RATE_PERIOD: Duration = Duration::from_secs(24 * 3600);
/// A subject, as a person should write it.
const SUBJECT: &str = "{ cid = \"0oa…\" }, { uid = \"00u…\" } or { act = \"wlp…\" }";

/// Where a workload's processes are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// Its name: also the key of its part of the policy.
    pub name: WorkloadName,
    /// Its cgroup; the workload is this cgroup and everything below.
    pub cgroup: CgroupPath,
    /// How `grantctl run` starts its commands.
    pub launch: LaunchConfig,
    /// Who may connect to it, and where; empty means nobody.
    pub listen: Vec<Listen>,
    /// How many IP sockets it may hold at once.
    pub max_sockets: u64,
    /// Local sockets outside the workload that it may talk to, where the guard is in effect.
    pub unix_sockets: Vec<PathBuf>,
    /// Whether it may make user namespaces, where the guard is in effect.
    pub user_namespaces: bool,
    /// Whether its tasks may have rights by which they could undo what confines them.
    pub allow_privileged: bool,
}

/// How `grantctl run` starts a workload's commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchConfig {
    /// The user that they run as: a name or a number.
    pub user: Option<String>,
    /// Paths that they do not see, besides what is always hidden.
    pub hide: Vec<PathBuf>,
    /// Paths that they see although they lie below what is always hidden.
    pub unhide: Vec<PathBuf>,
}

/// Reads every `[[workload]]`. Order is that of the file, so that keys in messages match it.
pub(super) fn read(
    root: &mut Section<'_>,
    enforcement: Option<&EnforcementConfig>,
) -> Option<Vec<(WorkloadConfig, WorkloadPolicy)>> {
    let Some(value) = root.optional("workload") else { return Some(Vec::new()) };
    let mut taken = Taken::default();
    value.each("[[workload]] sections", |item| {
        item.table("a workload", |section| workload(section, enforcement, &mut taken))
    })
}

/// What earlier workloads of the file have taken.
#[derive(Default)]
struct Taken {
    names: Vec<WorkloadName>,
    cgroups: Vec<CgroupPath>,
}

fn workload(
    section: &mut Section<'_>,
    enforcement: Option<&EnforcementConfig>,
    taken: &mut Taken,
) -> Option<(WorkloadConfig, WorkloadPolicy)> {
    for key in ["unit", "container"] {
        section.refuse(
            key,
            "finding a workload this way arrives with a later release",
            "write cgroup = \"SLICE/NAME.service\"",
        );
    }
    let name = section
        .required("name", "a name, such as \"coding-agent\"")
        .and_then(|value| name(&value, taken));
    let cgroup = section
        .required(
            "cgroup",
            "its cgroup below the slice, such as \"agents.slice/coding-agent.service\"",
        )
        .and_then(|value| cgroup(&value, enforcement, taken));
    let subjects = section
        .required("subjects", &format!("whom its grants may be for: {SUBJECT}"))
        .and_then(|value| value.each(SUBJECT, |item| item.table(SUBJECT, subject)));
    let max_ttl = section.optional("max_ttl").map_or(Some(DEFAULT_MAX_TTL), |value| ttl(&value));
    let max_live_grants =
        section.optional("max_live_grants").map_or(Some(DEFAULT_MAX_LIVE_GRANTS), |value| {
            value.integer(1..=HARD_MAX_LIVE_GRANTS).and_then(|most| u32::try_from(most).ok())
        });
    let grant_rate =
        section.optional("grant_rate").map_or(Some(DEFAULT_GRANT_RATE), |value| rate(&value));
    let user = match section.optional("user") {
        Some(value) => user(&value).map(Some),
        None => Some(None),
    };
    let listen = section.optional("listen").map_or(Some(Vec::new()), |value| listen::read(&value));
    let max_sockets = section
        .optional("max_sockets")
        .map_or(Some(capacity::DEFAULT_MAX_SOCKETS), |value| value.integer(1..=HARD_MAX_SOCKETS));
    let allow_privileged =
        section.optional("allow_privileged").map_or(Some(false), |value| value.boolean());
    let hide = paths(section, "hide");
    let unhide = paths(section, "unhide");
    let unix_sockets = paths(section, "unix_sockets");
    let user_namespaces =
        section.optional("user_namespaces").map_or(Some(false), |value| value.boolean());
    let name = name?;
    let config = WorkloadConfig {
        name: name.clone(),
        cgroup: cgroup?,
        launch: LaunchConfig { user: user?, hide: hide?, unhide: unhide? },
        listen: listen?,
        max_sockets: max_sockets?,
        unix_sockets: unix_sockets?,
        user_namespaces: user_namespaces?,
        allow_privileged: allow_privileged?,
    };
    let policy = WorkloadPolicy {
        name,
        subjects: subjects?,
        max_ttl: max_ttl?,
        max_live_grants: max_live_grants?,
        grant_rate: grant_rate?,
    };
    Some((config, policy))
}

fn name(value: &Value<'_>, taken: &mut Taken) -> Option<WorkloadName> {
    let name = value.parse("a workload name", WorkloadName::new)?;
    if taken.names.contains(&name) {
        value.fault("is the name of an earlier workload", "give each workload its own name");
        return None;
    }
    taken.names.push(name.clone());
    Some(name)
}

fn cgroup(
    value: &Value<'_>,
    enforcement: Option<&EnforcementConfig>,
    taken: &mut Taken,
) -> Option<CgroupPath> {
    let cgroup = value
        .parse("a cgroup path such as \"agents.slice/coding-agent.service\"", CgroupPath::new)?;
    // Each process belongs to one workload: a subtree inside another's would belong to two.
    let overlap = taken.cgroups.iter().find(|other| {
        cgroup.levels_below(other).is_some() || other.levels_below(&cgroup).is_some()
    });
    if let Some(other) = overlap {
        value.fault(
            format!("is, contains or lies in the cgroup of an earlier workload ({other})"),
            "give each workload a subtree of its own",
        );
        return None;
    }
    taken.cgroups.push(cgroup.clone());
    let slice = &enforcement?.slice;
    if cgroup.is_the_daemons(slice) {
        value.fault(
            "is a name that grantd keeps for cgroups of its own",
            "choose one that does not begin with \"grantd-\"",
        );
        return None;
    }
    match cgroup.levels_below(slice) {
        Some(1..=MAX_LEVELS_BELOW_SLICE) => Some(cgroup),
        Some(0) => {
            value.fault("is the slice itself", format!("name a cgroup below \"{slice}\""));
            None
        }
        Some(_) => {
            value.fault(
                format!("is more than {MAX_LEVELS_BELOW_SLICE} levels below the slice"),
                format!("name a cgroup 1 to {MAX_LEVELS_BELOW_SLICE} levels below \"{slice}\""),
            );
            None
        }
        None => {
            value.fault("is not below the slice", format!("begin with \"{slice}/\""));
            None
        }
    }
}

fn subject(section: &mut Section<'_>) -> Option<SubjectPattern> {
    let client = section.optional("cid");
    let user = section.optional("uid");
    let actor = section.optional("act");
    match (client, user, actor) {
        (Some(value), None, None) => {
            value.parse("a client id", ClientId::new).map(SubjectPattern::Client)
        }
        (None, Some(value), None) => {
            value.parse("a user id", Subject::new).map(SubjectPattern::User)
        }
        (None, None, Some(value)) => {
            value.parse("an actor id", ActorId::new).map(SubjectPattern::Actor)
        }
        _ => {
            section.fault("names none or several of cid, uid and act", format!("write {SUBJECT}"));
            None
        }
    }
}

fn rate(value: &Value<'_>) -> Option<GrantRate> {
    value.table("{ grants = 60, per = \"1m\" }", |section| {
        let grants = section
            .required("grants", "how many grants")
            .and_then(|value| value.integer(1..=HARD_MAX_GRANT_RATE))
            .and_then(|grants| u32::try_from(grants).ok());
        let per = section
            .required("per", "the period, such as \"1m\"")
            .and_then(|value| bounded_duration(&value, MAX_RATE_PERIOD, "24h"));
        Some(GrantRate { grants: grants?, per: per? })
    })
}

fn paths(section: &mut Section<'_>, key: &'static str) -> Option<Vec<PathBuf>> {
    let Some(value) = section.optional(key) else { return Some(Vec::new()) };
    value.each("paths from the root, such as [\"/run/postgresql\"]", |item| {
        let path = absolute_path(item)?;
        if path.parent().is_none() {
            item.fault("is the root itself", "name what lies below it");
            return None;
        }
        Some(path)
    })
}

/// A user name as `useradd(8)` takes it, or a number.
fn user(value: &Value<'_>) -> Option<String> {
    value.parse("a user name or a uid", |text| {
        let valid = !text.is_empty()
            && text.len() <= 32
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if valid { Ok(text.to_owned()) } else { Err("is no user name") }
    })
}
