//! The form in which the ledger keeps a verified grant.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::destination::{
    Cidr, Destination, DnsName, HostPattern, InvalidDestination, PortRange, Protocol,
};
use crate::grant::{Actor, Approval, GrantClaims, Seal};
use crate::ids::{
    ActorId, ActorProfile, ApprovalId, BootId, ClientId, GrantId, InvocationId, Issuer, KeyId,
    Subject, TxnId, UnixTime, WorkloadName,
};
use crate::verified::VerifiedGrant;

/// Version of [`StoredGrant`]; another one is refused by [`VerifiedGrant::restore`].
const VERSION: u32 = 1;

/// A verified grant at rest. Holds neither the token nor a signature. Only the ledger makes and reads
/// these: whoever can write its file can make grants, so it is root-owned, mode 0600.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredGrant {
    version: u32,
    id: GrantId,
    txn: TxnId,
    issued_at: UnixTime,
    not_before: UnixTime,
    expires: UnixTime,
    sub: Subject,
    cid: Option<ClientId>,
    act: Option<(ActorId, ActorProfile)>,
    okta_issuer: Issuer,
    okta_kid: KeyId,
    okta_ath: [u8; 32],
    workload: WorkloadName,
    boot_id: Option<BootId>,
    invocation_id: Option<InvocationId>,
    replaces: Option<GrantId>,
    approval: Option<(Subject, UnixTime, ApprovalId)>,
    kid: KeyId,
    jws_sha256: [u8; 32],
    destinations: Vec<StoredDestination>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDestination {
    host: StoredHost,
    ports: Vec<(u16, u16)>,
    protocol: StoredProtocol,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredHost {
    Address(IpAddr),
    Cidr(IpAddr, u8),
    Name(String),
    Wildcard(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredProtocol {
    Tcp,
    Udp,
}

/// Why a stored grant cannot be what was stored: the ledger is corrupt or of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStoredGrant {
    /// Another version of the format.
    #[error("stored grant has version {0}, expected {VERSION}")]
    Version(u32),
    /// A destination is not one.
    #[error("stored destination is invalid")]
    Destination(#[from] InvalidDestination),
    /// No destination at all, or an end that is not after the issue.
    #[error("stored grant has no destination or no lifetime")]
    Empty,
}

impl VerifiedGrant {
    /// The form for the ledger.
    pub fn to_stored(&self) -> StoredGrant {
        let GrantClaims {
            id,
            txn,
            issued_at,
            not_before,
            expires,
            sub,
            cid,
            act,
            okta_issuer,
            token_hash,
            workload,
            boot_id,
            invocation_id,
            replaces,
            approval,
            destinations,
        } = self.claims.clone();
        StoredGrant {
            version: VERSION,
            id,
            txn,
            issued_at,
            not_before,
            expires,
            sub,
            cid,
            act: act.map(|a| (a.sub, a.profile)),
            okta_issuer,
            okta_kid: self.token_kid.clone(),
            okta_ath: token_hash,
            workload,
            boot_id,
            invocation_id,
            replaces,
            approval: approval.map(|a| (a.by, a.at, a.id)),
            kid: self.seal.kid.clone(),
            jws_sha256: self.seal.jws_sha256,
            destinations: destinations.iter().map(StoredDestination::from).collect(),
        }
    }

    /// Reads back what [`VerifiedGrant::to_stored`] gave. For the ledger only.
    ///
    /// # Errors
    /// [`InvalidStoredGrant`]; the caller treats the ledger as corrupt.
    pub fn restore(stored: StoredGrant) -> Result<Self, InvalidStoredGrant> {
        let StoredGrant {
            version,
            id,
            txn,
            issued_at,
            not_before,
            expires,
            sub,
            cid,
            act,
            okta_issuer,
            okta_kid,
            okta_ath,
            workload,
            boot_id,
            invocation_id,
            replaces,
            approval,
            kid,
            jws_sha256,
            destinations,
        } = stored;
        if version != VERSION {
            return Err(InvalidStoredGrant::Version(version));
        }
        if destinations.is_empty() || expires <= issued_at {
            return Err(InvalidStoredGrant::Empty);
        }
        let destinations: Result<Vec<_>, _> =
            destinations.into_iter().map(Destination::try_from).collect();
        let claims = GrantClaims {
            id,
            txn,
            issued_at,
            not_before,
            expires,
            sub,
            cid,
            act: act.map(|(sub, profile)| Actor { sub, profile }),
            okta_issuer,
            token_hash: okta_ath,
            workload,
            boot_id,
            invocation_id,
            replaces,
            approval: approval.map(|(by, at, id)| Approval { by, at, id }),
            destinations: destinations?,
        };
        Ok(Self { claims, seal: Seal { kid, jws_sha256 }, token_kid: okta_kid })
    }
}

impl From<&Destination> for StoredDestination {
    fn from(destination: &Destination) -> Self {
        Self {
            host: match destination.host() {
                HostPattern::Address(address) => StoredHost::Address(*address),
                HostPattern::Cidr(cidr) => StoredHost::Cidr(cidr.network(), cidr.prefix_len()),
                HostPattern::Name(name) => StoredHost::Name(name.as_str().to_owned()),
                HostPattern::Wildcard(name) => StoredHost::Wildcard(name.as_str().to_owned()),
            },
            ports: destination.ports().iter().map(|p| (p.from(), p.to())).collect(),
            protocol: match destination.protocol() {
                Protocol::Tcp => StoredProtocol::Tcp,
                Protocol::Udp => StoredProtocol::Udp,
            },
        }
    }
}

impl TryFrom<StoredDestination> for Destination {
    type Error = InvalidDestination;

    fn try_from(stored: StoredDestination) -> Result<Self, InvalidDestination> {
        let StoredDestination { host, ports, protocol } = stored;
        let host = match host {
            StoredHost::Address(address) => HostPattern::Address(address),
            StoredHost::Cidr(network, prefix) => HostPattern::Cidr(Cidr::new(network, prefix)?),
            StoredHost::Name(name) => HostPattern::Name(DnsName::new(name)?),
            // Not checked against the Public Suffix List again: a newer list must not make the ledger of
            // an older release look corrupt.
            StoredHost::Wildcard(name) => HostPattern::Wildcard(DnsName::new(name)?),
        };
        host.check_grantable()?;
        let ports: Result<Vec<_>, _> =
            ports.into_iter().map(|(from, to)| PortRange::new(from, to)).collect();
        let protocol = match protocol {
            StoredProtocol::Tcp => Protocol::Tcp,
            StoredProtocol::Udp => Protocol::Udp,
        };
        Destination::new(host, ports?, protocol)
    }
}
