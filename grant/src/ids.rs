//! Every identifier of the wire formats as its own type, so that no function takes two bare strings.
//!
//! All are ASCII, bounded in length and compared byte for byte: no case folding, no trimming, no
//! Unicode (look-alike and invisible characters cannot occur). A value that does not fit is refused
//! with [`InvalidId`], never altered.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier of the wanted kind. Holds no part of the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: expected {expected}")]
pub struct InvalidId {
    /// What was wanted, for example `grant id`.
    pub kind: &'static str,
    /// What would be right.
    pub expected: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            #[doc = concat!("A ", $kind, ": ", $expected, ".\n\n# Errors\n[`InvalidId`] for anything else.")]
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(InvalidId { kind: $kind, expected: $expected })
                }
            }

            /// The text exactly as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:?})", stringify!($name), self.0)
            }
        }
    };
}

text_id!(
    /// `jti` of a grant or revocation. Safe in a URL path, a file name and a log line.
    GrantId, "grant id", "1 to 64 characters of A-Z a-z 0-9 . _ ~ -",
    |t| bounded(t, 64, |b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)) && !t.starts_with('.')
);
text_id!(
    /// Name of a workload in the host's configuration. Safe as a file name.
    WorkloadName, "workload name", "1 to 64 characters of a-z 0-9 . _ -, beginning with a letter or digit",
    |t| bounded(t, 64, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && t.starts_with(|c: char| c.is_ascii_alphanumeric())
);
text_id!(
    /// Identity of this host: a SPIFFE ID (SPIFFE-ID specification, section 2), equal to the URI SAN
    /// of the host's certificate and to `aud` of its grants.
    HostId, "host id", "a SPIFFE ID such as spiffe://example.org/host/build-7", is_spiffe_id
);
text_id!(
    /// A URI SAN of a peer's certificate (RFC 5280, section 4.2.1.6).
    PeerUri, "peer URI", "an absolute URI of at most 2048 printable ASCII characters",
    |t| bounded(t, 2048, graphic) && t.split_once("://").is_some_and(|(scheme, rest)| {
        bounded(scheme, 16, |b| b.is_ascii_lowercase()) && !rest.is_empty()
    })
);
text_id!(
    /// `iss` of a grant or token: a URL compared as the full string (no trailing-slash tolerance).
    Issuer, "issuer", "an https URL (or http to loopback) of at most 512 printable ASCII characters, no query, no fragment",
    |t| bounded(t, 512, |b| graphic(b) && b != b'?' && b != b'#')
        && t.strip_prefix("https://").or_else(|| t.strip_prefix("http://"))
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
);
text_id!(
    /// `aud` that access tokens must carry.
    Audience, "audience", "1 to 512 printable ASCII characters", |t| bounded(t, 512, graphic)
);
text_id!(
    /// `kid` of a signing key.
    KeyId, "key id", "1 to 128 printable ASCII characters", |t| bounded(t, 128, graphic)
);
text_id!(
    /// `txn`: the control plane's request that led to a grant (RFC 8417, section 2.2).
    TxnId, "transaction id", "1 to 128 printable ASCII characters", |t| bounded(t, 128, graphic)
);
text_id!(
    /// The identity behind a grant: `uid` of the Okta token where present, else its `sub`.
    Subject, "subject", "1 to 256 printable ASCII characters", |t| bounded(t, 256, graphic)
);
text_id!(
    /// `cid`: the OAuth client that the token was issued to.
    ClientId, "client id", "1 to 256 printable ASCII characters", |t| bounded(t, 256, graphic)
);
text_id!(
    /// `act.sub`: the actor on whose side the subject is represented (RFC 8693, section 4.1).
    ActorId, "actor id", "1 to 256 printable ASCII characters", |t| bounded(t, 256, graphic)
);
text_id!(
    /// `act.sub_profile`: the kind of actor, for example `ai_agent`.
    ActorProfile, "actor profile", "1 to 64 printable ASCII characters", |t| bounded(t, 64, graphic)
);
text_id!(
    /// `approval.id`: the control plane's record of a human's approval.
    ApprovalId, "approval id", "1 to 128 printable ASCII characters", |t| bounded(t, 128, graphic)
);
text_id!(
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    BootId, "boot id", "a lower-case UUID with hyphens", is_uuid
);
text_id!(
    /// systemd's invocation id of the workload's unit.
    InvocationId, "invocation id", "32 lower-case hexadecimal digits",
    |t| t.len() == 32 && t.bytes().all(lower_hex)
);
text_id!(
    /// One OAuth scope (RFC 6749, section 3.3).
    Scope, "scope", "1 to 128 printable ASCII characters other than \" and \\",
    |t| bounded(t, 128, |b| graphic(b) && b != b'"' && b != b'\\')
);

/// A group name of the identity provider. The one identifier that may hold spaces and Unicode, because
/// groups are named by people; it is compared byte for byte. Control characters are refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(String);

impl Group {
    /// A group name: 1 to 256 bytes without control characters.
    ///
    /// # Errors
    /// [`InvalidId`] for anything else.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) {
            return Err(InvalidId {
                kind: "group",
                expected: "1 to 256 bytes without control characters",
            });
        }
        Ok(Self(text))
    }

    /// The text exactly as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Group {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Seconds since 1970-01-01T00:00:00Z, not counting leap seconds (`NumericDate`, RFC 7519, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The last second of the year 9999. Later instants on the wire are refused as absurd.
    pub const MAX: UnixTime = UnixTime(253_402_300_799);

    /// This instant plus `by`, whole seconds; saturates at the end of time, which callers treat as
    /// "never reached".
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_secs()))
    }

    /// Time from `earlier` to this instant; `None` if this one is the earlier.
    pub fn since(self, earlier: UnixTime) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_secs)
    }

    /// Seconds since the epoch.
    pub fn as_secs(self) -> u64 {
        self.0
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn bounded(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(allowed)
}

fn graphic(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

fn lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => lower_hex(byte),
        })
}

fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|r| r.split_once('/'))
    else {
        return false;
    };
    text.len() <= 2048
        && bounded(domain, 255, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)
        })
        && path.split('/').all(|segment| {
            bounded(segment, 255, |b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                && segment != "."
                && segment != ".."
        })
}
