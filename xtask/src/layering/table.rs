//! The table of docs/architecture.md as data: which part must never name what.

/// One line of the table.
pub(super) struct Rule {
    /// Files and directories, below the root of the workspace, that the rule is for.
    pub(super) within: &'static [&'static str],
    /// Those among them that it is not for.
    pub(super) except: &'static [&'static str],
    /// Paths that are not to be named there, nor anything below them.
    pub(super) never: &'static [&'static str],
    /// What may be named there all the same.
    pub(super) but: &'static [&'static str],
    pub(super) because: &'static str,
}

/// Crates whose types would carry what a module may not know into others if they were re-exported.
pub(super) const NOT_REEXPORTED: &[&str] =
    &["aya", "axum", "hyper", "hyper_util", "jsonwebtoken", "reqwest", "tokio"];

/// Where the keyword `unsafe` may stand.
pub(super) const UNSAFE_WITHIN: &[&str] = &["agent-ebpf", "agent/src/kernel"];

/// The directories of the workspace that hold source.
pub(super) const SOURCES: &[&str] = &[
    "agent",
    "agent-common",
    "agent-ebpf",
    "audit",
    "control-plane",
    "fuzz",
    "grant",
    "tests",
    "xtask",
];

/// The crates that the product consists of, as against its tests and tools.
const PRODUCT: &[&str] = &[
    "agent/src",
    "agent-common/src",
    "agent-ebpf/src",
    "audit/src",
    "control-plane/src",
    "grant/src",
];

pub(super) const RULES: &[Rule] = &[
    Rule {
        within: &["agent-common/src", "agent-ebpf/src"],
        except: &[],
        never: &["std", "alloc"],
        but: &[],
        because: "the kernel ABI and the kernel programs have neither a standard library nor a heap",
    },
    Rule {
        within: &["grant/src"],
        except: &[],
        never: &[
            "std::fs",
            "std::os",
            "std::process",
            "std::thread",
            "std::env",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::net::ToSocketAddrs",
            "std::time::Instant",
            "std::time::SystemTime",
            "std::io::stdin",
            "std::io::stdout",
            "std::io::stderr",
            "tokio",
            "nix",
            "libc",
            "aya",
            "axum",
            "hyper",
            "hyper_util",
            "reqwest",
            "rustls",
            "tracing",
            "grantd",
            "grantd_audit",
            "grantd_common",
        ],
        but: &[],
        because: "the core is pure: no input or output, no clock, nothing asynchronous, no other crate of ours",
    },
    Rule {
        within: &["audit/src"],
        except: &[],
        never: &["aya", "grantd", "grantd_common", "grantd_grant"],
        but: &[],
        because: "audit records are plain data: the crate knows no grants and no kernel",
    },
    Rule {
        within: &["agent/src"],
        except: &["agent/src/kernel"],
        never: &["aya", "aya_obj", "aya_log"],
        but: &[],
        because: "only kernel/ knows aya; others reach it by typed commands and replies",
    },
    Rule {
        within: &["agent/src/config"],
        except: &[],
        never: &["tokio"],
        but: &[],
        because: "config turns text into types and waits for nothing",
    },
    Rule {
        within: &["agent/src/intake"],
        except: &[],
        never: &["grantd_grant", "jsonwebtoken"],
        // What a refusal says, who pushes, and the unread pushes: no claim can be read from these.
        but: &[
            "grantd_grant::About",
            "grantd_grant::GrantId",
            "grantd_grant::PeerUris",
            "grantd_grant::Push",
            "grantd_grant::Pusher",
            "grantd_grant::Reason",
            "grantd_grant::Refusal",
            "grantd_grant::RevocationPush",
            "grantd_grant::limits",
        ],
        because: "intake turns bytes into unverified grants and knows no claims",
    },
    Rule {
        within: &["agent/src/keys"],
        except: &[],
        never: &[
            "grantd_grant::policy",
            "grantd_grant::HostPolicy",
            "grantd_grant::HostPolicyParts",
            "grantd_grant::VerifiedGrant",
        ],
        but: &[],
        because: "keys fetches and keeps keys; what they are good for is policy",
    },
    Rule {
        within: &["agent/src/ledger", "agent/src/events", "agent/src/kernel", "agent/src/enforcer"],
        except: &[],
        never: &["axum", "hyper", "hyper_util", "http", "reqwest", "tower_service"],
        but: &[],
        because: "what is durable, enforced or observed does not depend on how it was sent",
    },
    Rule {
        within: &["agent/src/admission"],
        except: &[],
        never: &["axum", "hyper", "hyper_util", "http", "tower_service"],
        but: &[],
        because: "admission decides; intake turns its outcome into HTTP",
    },
    Rule {
        within: &["agent/src/compile"],
        except: &[],
        never: &[
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::net::ToSocketAddrs",
            "std::os::unix::net",
            "tokio",
            "nix",
            "libc",
            "reqwest",
        ],
        but: &[],
        because: "compile is a function of grants and names: no sockets, no waiting",
    },
    Rule {
        within: &["agent/src/coverage"],
        except: &[],
        never: &["std::fs", "std::net", "tokio", "nix", "libc", "grantd"],
        but: &["grantd::coverage"],
        because: "coverage is a function of facts: it looks at nothing itself",
    },
    Rule {
        within: &["agent/src/kernel", "agent/src/resolver"],
        except: &[],
        never: &[
            "jsonwebtoken",
            "grantd_grant::ControlPlaneKeys",
            "grantd_grant::FreshGrant",
            "grantd_grant::OktaKeys",
            "grantd_grant::Push",
            "grantd_grant::RevocationPush",
            "grantd_grant::SignedGrant",
            "grantd_grant::keys",
            "grantd_grant::mint",
        ],
        but: &[],
        because: "no token, and no key that verifies one, comes this near to the kernel or the network",
    },
    Rule {
        within: &["agent/src/runtime"],
        except: &[],
        never: &["axum", "hyper", "jsonwebtoken", "toml", "x509_parser"],
        but: &[],
        because: "runtime wires and supervises; wire formats belong to the modules that speak them",
    },
    Rule {
        within: &["agent/src"],
        except: &[],
        never: &["grantd_grant::mint"],
        but: &[],
        because: "signing is for issuers: the daemon must not be able to make a grant",
    },
    // One way through: no module imports one that comes before it, or that wires it.
    Rule {
        within: &["agent/src/kernel"],
        except: &[],
        never: &[
            "grantd::admission",
            "grantd::ctl",
            "grantd::enforcer",
            "grantd::events",
            "grantd::intake",
            "grantd::keys",
            "grantd::ledger",
            "grantd::runtime",
        ],
        but: &[],
        because: "kernel/ is to become a process of its own, reached only by commands and replies",
    },
    Rule {
        within: &["agent/src/compile", "agent/src/config", "agent/src/keys", "agent/src/ledger"],
        except: &[],
        never: &[
            "grantd::admission",
            "grantd::ctl",
            "grantd::enforcer",
            "grantd::intake",
            "grantd::runtime",
        ],
        but: &[],
        because: "data goes one way; these are called and call nobody back",
    },
    Rule {
        within: &["agent/src/intake"],
        except: &[],
        never: &[
            "grantd::compile",
            "grantd::ctl",
            "grantd::enforcer",
            "grantd::kernel",
            "grantd::ledger",
            "grantd::runtime",
        ],
        but: &[],
        because: "intake reaches the rest only through admission",
    },
    Rule {
        within: &["agent/src/canary"],
        except: &[],
        never: &[
            "grantd::admission",
            "grantd::compile",
            "grantd::ctl",
            "grantd::intake",
            "grantd::keys",
            "grantd::ledger",
            "grantd::runtime",
        ],
        but: &[],
        because: "the canary asks the enforcer for its ground, and sees what an agent sees",
    },
    Rule {
        // It answers the control socket in that module's own types.
        within: &["agent/src/enforcer", "agent/src/events"],
        except: &[],
        never: &["grantd::intake", "grantd::runtime"],
        but: &[],
        because: "data goes one way; others send to the enforcer and read its status",
    },
    Rule {
        within: PRODUCT,
        except: &["agent/src/clock.rs"],
        never: &[
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "tokio::time::Instant::now",
            "nix::time::clock_gettime",
            "nix::time::ClockId::now",
            "libc::clock_gettime",
            "libc::gettimeofday",
            "libc::time",
            "uuid::Uuid::now_v7",
            "jsonwebtoken::get_current_timestamp",
        ],
        but: &[],
        because: "time is an argument; only agent/src/clock.rs reads clocks",
    },
    Rule {
        within: SOURCES,
        except: &[],
        never: &[
            "std::sync::mpsc::channel",
            "tokio::sync::mpsc::unbounded_channel",
            "tokio::sync::mpsc::UnboundedSender",
            "tokio::sync::mpsc::UnboundedReceiver",
        ],
        but: &[],
        because: "every channel is bounded and what does not fit is counted",
    },
];
