//! Reason codes and the one error of all checks.

use std::fmt;

use crate::destination::Destination;
use crate::ids::{ActorId, ClientId, GrantId, KeyId, Subject, TxnId, UnixTime, WorkloadName};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $check:literal, $status:literal;)*) => {
        /// Why something was refused: one code per cause, stable on the wire, in audit and in metrics.
        ///
        /// Codes are never reused for another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The code, in `snake_case`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }

            /// Number of the check in the design's order (1 to 17) that gives this reason; 0 for states
            /// of the host that refuse whatever the grant says.
            pub const fn check(self) -> u8 {
                match self { $(Reason::$name => $check,)* }
            }

            /// HTTP status of the answer to the pusher (RFC 9110, section 15).
            pub const fn http_status(self) -> u16 {
                match self { $(Reason::$name => $status,)* }
            }
        }
    };
}

reasons! {
    /// The peer's certificate has no URI SAN, more than one, or one that may not push.
    PeerNotAllowed = "peer_not_allowed", 1, 403;

    /// The body is larger than its limit.
    PushTooLarge = "push_too_large", 2, 413;
    /// The body is not the JSON object that it must be.
    PushMalformed = "push_malformed", 2, 400;
    /// Not a compact JWS: not three non-empty parts, or a part is not strict base64url.
    JwsMalformed = "jws_malformed", 2, 400;
    /// The JOSE header is not a JSON object of exactly `typ`, `alg` and `kid`.
    HeaderMalformed = "header_malformed", 3, 400;
    /// The JOSE header holds a parameter that could change how it is verified, or an unknown one.
    HeaderForbidden = "header_forbidden", 3, 400;
    /// `typ` is not the one of this kind of message.
    TypWrong = "typ_wrong", 4, 400;
    /// `kid` is not a pinned control-plane key.
    KeyUnknown = "key_unknown", 5, 401;
    /// The control-plane key is not valid yet.
    KeyNotYetValid = "key_not_yet_valid", 5, 401;
    /// The control-plane key is no longer valid.
    KeyExpired = "key_expired", 5, 401;
    /// `alg` is not the one algorithm of that key.
    AlgMismatch = "alg_mismatch", 5, 401;
    /// The signature does not verify.
    SignatureInvalid = "signature_invalid", 6, 401;
    /// The claims do not fit the strict structure.
    ClaimsMalformed = "claims_malformed", 7, 400;
    /// An endpoint is not well-formed: host, CIDR or ports.
    DestinationInvalid = "destination_invalid", 7, 400;
    /// An endpoint covers addresses that can never be granted: multicast, broadcast, unspecified,
    /// link-local, IPv4-mapped.
    DestinationForbidden = "destination_forbidden", 7, 400;
    /// `iss` is not the control plane of this host.
    IssuerMismatch = "issuer_mismatch", 8, 403;
    /// `aud` is not this host.
    AudienceMismatch = "audience_mismatch", 8, 403;
    /// `ver` is not a version that this host speaks.
    VersionUnsupported = "version_unsupported", 8, 400;
    /// `iat` is more than 30 s ahead.
    IssuedInFuture = "issued_in_future", 9, 403;
    /// `nbf` is more than 30 s ahead.
    NotYetValid = "not_yet_valid", 9, 403;
    /// `iat` is more than 5 minutes old.
    IssuedTooLongAgo = "issued_too_long_ago", 9, 403;
    /// `exp` is not after now.
    Expired = "expired", 9, 403;
    /// `exp` is not after `iat`.
    TtlInvalid = "ttl_invalid", 9, 403;
    /// The grant lives longer than its workload allows.
    TtlTooLong = "ttl_too_long", 9, 403;
    /// The same `jti` was seen with other content.
    JtiReused = "jti_reused", 10, 409;
    /// The grant was revoked.
    GrantRevoked = "grant_revoked", 10, 410;
    /// The grant was issued before the revocation floor of this host.
    BelowFloor = "below_floor", 10, 410;
    /// The grant was issued before its subject, client, actor, transaction or workload was revoked.
    SubjectRevoked = "subject_revoked", 10, 410;
    /// `okta.ath` is not the hash of the token beside the grant.
    TokenHashMismatch = "token_hash_mismatch", 11, 401;
    /// The Okta token is larger than 16 KiB.
    TokenTooLarge = "token_too_large", 12, 413;
    /// The Okta token is not a compact JWS (empty, part count, base64url, encrypted).
    TokenMalformed = "token_malformed", 12, 401;
    /// The Okta token's header is not a JSON object with `kid` and `alg`.
    TokenHeaderMalformed = "token_header_malformed", 12, 401;
    /// The Okta token's header holds more than `kid`, `alg` and `typ`.
    TokenHeaderForbidden = "token_header_forbidden", 12, 401;
    /// The Okta token's `typ` is that of another kind of token.
    TokenTypWrong = "token_typ_wrong", 12, 401;
    /// The Okta token's `alg` is not RS256.
    TokenAlgWrong = "token_alg_wrong", 12, 401;
    /// The Okta token was signed with a key that the issuer does not publish.
    TokenKeyUnknown = "token_key_unknown", 12, 401;
    /// The Okta token's signature does not verify.
    TokenSignatureInvalid = "token_signature_invalid", 12, 401;
    /// The Okta token's claims have wrong types or duplicates.
    TokenClaimsMalformed = "token_claims_malformed", 12, 401;
    /// The Okta token lacks a required claim.
    TokenClaimMissing = "token_claim_missing", 12, 401;
    /// The Okta token is an ID token, logout token or security event, not an access token.
    TokenKindWrong = "token_kind_wrong", 12, 401;
    /// The Okta token, or the grant's `okta.iss`, names another issuer.
    TokenIssuerMismatch = "token_issuer_mismatch", 12, 401;
    /// The Okta token is for another audience.
    TokenAudienceMismatch = "token_audience_mismatch", 12, 401;
    /// The Okta token has expired.
    TokenExpired = "token_expired", 12, 401;
    /// The Okta token's `nbf` is more than 30 s ahead.
    TokenNotYetValid = "token_not_yet_valid", 12, 401;
    /// The Okta token's `iat` is more than 30 s ahead.
    TokenIssuedInFuture = "token_issued_in_future", 12, 401;
    /// The Okta token lacks a scope that this host requires of every token.
    TokenScopeMissing = "token_scope_missing", 12, 403;
    /// `sub` is not the token's identity.
    SubjectMismatch = "subject_mismatch", 13, 403;
    /// `cid` is not the token's client.
    ClientMismatch = "client_mismatch", 13, 403;
    /// `act.sub` is not the token's actor.
    ActorMismatch = "actor_mismatch", 13, 403;
    /// The grant ends after the Okta token.
    OutlivesToken = "outlives_token", 14, 403;
    /// A destination covers what this host denies absolutely.
    DestinationDenied = "destination_denied", 15, 403;
    /// The subject may not have grants for this workload.
    SubjectNotAllowed = "subject_not_allowed", 15, 403;
    /// No ceiling entry covers a destination.
    DestinationOverCeiling = "destination_over_ceiling", 15, 403;
    /// No ceiling entry that covers a destination is for this workload.
    WorkloadOverCeiling = "workload_over_ceiling", 15, 403;
    /// The token lacks the scopes or groups of every ceiling entry that covers a destination.
    ScopeOverCeiling = "scope_over_ceiling", 15, 403;
    /// The grant lives longer than the ceiling entries that cover a destination allow.
    TtlOverCeiling = "ttl_over_ceiling", 15, 403;
    /// The ceiling demands an approval and the grant names none.
    ApprovalMissing = "approval_missing", 15, 403;
    /// The ceiling demands an approval and the one named is by the subject, client or actor itself.
    ApprovalBySubject = "approval_by_subject", 15, 403;
    /// The ceiling demands an approval and the one named lies in the future or after the grant's issue.
    ApprovalTimeInvalid = "approval_time_invalid", 15, 403;

    /// No such workload in this host's configuration.
    WorkloadUnknown = "workload_unknown", 16, 404;
    /// The workload is configured but does not exist on this host now.
    WorkloadAbsent = "workload_absent", 16, 409;
    /// Another than root can move the workload's processes out of what confines them.
    WorkloadDelegated = "workload_delegated", 16, 409;
    /// A task of the workload has rights by which it could undo what confines it.
    WorkloadPrivileged = "workload_privileged", 16, 409;
    /// `boot_id` is not this boot of this host.
    BootIdMismatch = "boot_id_mismatch", 16, 409;
    /// `invocation_id` is not the workload's.
    InvocationIdMismatch = "invocation_id_mismatch", 16, 409;
    /// The grant names hosts by name, which this build cannot enforce yet.
    NamesUnsupported = "names_unsupported", 16, 422;
    /// `replaces` names a grant that is not in force for the same workload.
    ReplacesUnknown = "replaces_unknown", 16, 409;
    /// The kernel maps have no room for the whole grant.
    Capacity = "capacity", 17, 507;
    /// The ledger could not be written.
    LedgerFailed = "ledger_failed", 17, 503;
    /// The kernel could not be programmed, or did not read back what was written.
    KernelFailed = "kernel_failed", 17, 503;

    /// The workload has as many live grants as it may have.
    Quota = "quota", 0, 429;
    /// Grants for this workload come faster than allowed.
    RateLimited = "rate_limited", 0, 429;
    /// The host's clock is not synchronised.
    ClockUnsynchronised = "clock_unsynchronised", 0, 503;
    /// The issuer's keys could not be fetched for longer than they may be used.
    KeysStale = "keys_stale", 0, 503;
    /// The revocation list is too old.
    RevocationListStale = "revocation_list_stale", 0, 503;
    /// A revocation or list is not newer than the last one that was applied.
    RevocationNotNewer = "revocation_not_newer", 0, 409;
    /// The host's root has frozen new grants.
    Frozen = "frozen", 0, 503;
    /// Audit records cannot be written, and the host's config requires them.
    AuditUnavailable = "audit_unavailable", 0, 503;
    /// Enforcement is not in effect, so that a grant could not be held to.
    NotEnforcing = "not_enforcing", 0, 503;
    /// Too many pushes at once.
    Busy = "busy", 0, 503;
    /// The daemon is stopping.
    Stopping = "stopping", 0, 503;
    /// A defect of this host; details are in its own log.
    Internal = "internal", 0, 500;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a refused message claimed to be, known only once its signature was verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `jti`.
    pub jti: Option<GrantId>,
    /// `txn`.
    pub txn: Option<TxnId>,
    /// `sub`.
    pub sub: Option<Subject>,
    /// `cid`.
    pub cid: Option<ClientId>,
    /// `act.sub`.
    pub act: Option<ActorId>,
    /// `workload`.
    pub workload: Option<WorkloadName>,
    /// `kid` of the control-plane key that signed.
    pub kid: Option<KeyId>,
    /// `exp`.
    pub exp: Option<UnixTime>,
    /// What it would have opened.
    pub destinations: Vec<Destination>,
}

/// A refusal: the first check that failed. Safe to log and to answer with: holds no token bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refusal {
    /// The code.
    pub reason: Reason,
    /// What was wrong and what would be right, for a person.
    pub detail: String,
    /// What the message claimed; `None` before its signature was verified.
    pub about: Option<Box<About>>,
}

impl Refusal {
    /// A refusal of a message that was not authenticated.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), about: None }
    }

    /// The same refusal, saying what the authenticated message claimed.
    #[must_use]
    pub fn about(mut self, about: About) -> Self {
        self.about = Some(Box::new(about));
        self
    }
}
