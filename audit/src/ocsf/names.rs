//! The numbers and names of OCSF 1.8.0 that records use.

/// One activity of one class, with all that follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) category: (u32, &'static str),
    pub(super) class: (u32, &'static str),
    pub(super) activity: (u32, &'static str),
    pub(super) type_name: &'static str,
}

impl Kind {
    pub(super) const fn type_uid(&self) -> u32 {
        self.class.0 * 100 + self.activity.0
    }
}

macro_rules! kinds {
    ($category:expr, $class:expr, $class_name:literal:
     $($name:ident = $activity:literal $activity_name:literal),+ $(,)?) => {
        $(pub(super) const $name: Kind = Kind {
            category: $category,
            class: ($class, $class_name),
            activity: ($activity, $activity_name),
            type_name: concat!($class_name, ": ", $activity_name),
        };)+
    };
}

kinds!((4, "Network Activity"), 4001, "Network Activity":
    NETWORK_OPEN = 1 "Open",
    NETWORK_CLOSE = 2 "Close",
    NETWORK_RESET = 3 "Reset",
    NETWORK_REFUSE = 5 "Refuse",
);
kinds!((3, "Identity & Access Management"), 3005, "User Access Management":
    ACCESS_ASSIGN = 1 "Assign Privileges",
    ACCESS_REVOKE = 2 "Revoke Privileges",
);
kinds!((6, "Application Activity"), 6003, "API Activity":
    API_CREATE = 1 "Create",
    API_READ = 2 "Read",
    API_UPDATE = 3 "Update",
    API_DELETE = 4 "Delete",
);
kinds!((6, "Application Activity"), 6002, "Application Lifecycle":
    LIFECYCLE_START = 3 "Start",
    LIFECYCLE_STOP = 4 "Stop",
    LIFECYCLE_DISABLE = 7 "Disable",
    LIFECYCLE_UPDATE = 8 "Update",
    LIFECYCLE_OTHER = 99 "Other",
);
kinds!((2, "Findings"), 2004, "Detection Finding":
    FINDING_CREATE = 1 "Create",
);

pub(super) type Id = (u32, &'static str);

pub(super) const INFORMATIONAL: Id = (1, "Informational");
pub(super) const LOW: Id = (2, "Low");
pub(super) const MEDIUM: Id = (3, "Medium");
pub(super) const HIGH: Id = (4, "High");
pub(super) const CRITICAL: Id = (5, "Critical");

pub(super) const SUCCESS: Id = (1, "Success");
pub(super) const FAILURE: Id = (2, "Failure");
/// The status of a finding, which has its own list.
pub(super) const NEW: Id = (1, "New");

pub(super) const ACTION_ALLOWED: Id = (1, "Allowed");
pub(super) const ACTION_DENIED: Id = (2, "Denied");
pub(super) const ALLOWED: Id = (1, "Allowed");
pub(super) const BLOCKED: Id = (2, "Blocked");
pub(super) const ACCESS_REVOKED: Id = (24, "Access Revoked");

pub(super) const INBOUND: Id = (1, "Inbound");
pub(super) const OUTBOUND: Id = (2, "Outbound");
pub(super) const LOCAL: Id = (4, "Local");
