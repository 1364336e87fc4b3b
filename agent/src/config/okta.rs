//! `[okta]`: whose access tokens count, and where their keys come from.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use grantd_grant::ids::{Audience, Issuer, Scope};
use grantd_grant::policy::{DEFAULT_REQUIRED_SCOPE, OktaPolicy};
use url::{Host, Url};

use super::reader::{Section, Value};
use super::values::{absolute_path, bounded_duration};

/// How long fetched keys stay usable while no fetch succeeds, where the file says nothing.
const DEFAULT_STALENESS: Duration = Duration::from_secs(24 * 3600);
/// Longest that may be configured for it.
const MAX_STALENESS: Duration = Duration::from_secs(7 * 24 * 3600);
/// Issuer, as a person should write it.
const ISSUER: &str = "the full https URL of a custom authorization server, such as \"https://acme.okta.com/oauth2/aus123\"";
/// Audience, as a person should write it.
const AUDIENCE: &str = "an audience of grantd's own, such as \"api://grantd\"";

/// Where the issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OktaConfig {
    /// `iss` of its tokens, and the base of discovery.
    pub issuer: Issuer,
    /// Where the JWKS is, on the issuer's own origin; found by discovery if absent.
    pub jwks_uri: Option<Url>,
    /// PEM file of the only authorities that may vouch for the issuer; the system's if absent.
    pub ca: Option<PathBuf>,
    /// Proxy for the fetches. Proxy variables of the environment are never heeded.
    pub proxy: Option<Url>,
    /// How long fetched keys stay usable while no fetch succeeds.
    pub staleness: Duration,
    /// Whether the issuer is plain http on loopback, for development only.
    pub development_http: bool,
}

/// Reads `[okta]`.
pub(super) fn read(okta: &mut Section<'_>) -> Option<(OktaConfig, OktaPolicy)> {
    let development_http = match okta.optional("development_http") {
        Some(value) => value.boolean(),
        None => Some(false),
    };
    // Unreadable is not the same as false: it must not add a second fault about the issuer.
    let origin = okta.required("issuer", ISSUER).and_then(|value| issuer(&value, development_http));
    let audience = okta.required("audience", AUDIENCE).and_then(|value| audience(&value));
    let required_scopes = match okta.optional("required_scopes") {
        Some(value) => scopes(&value),
        None => Scope::new(DEFAULT_REQUIRED_SCOPE).ok().map(|scope| BTreeSet::from([scope])),
    };
    let jwks_uri = read_optional(okta.optional("jwks_uri"), |value| {
        jwks_uri(value, origin.as_ref().map(|(_, url)| url))
    });
    let ca = read_optional(okta.optional("ca"), absolute_path);
    let proxy = read_optional(okta.optional("proxy"), proxy);
    let staleness = match okta.optional("staleness") {
        Some(value) => bounded_duration(&value, MAX_STALENESS, "7d"),
        None => Some(DEFAULT_STALENESS),
    };

    let (issuer, _) = origin?;
    let config = OktaConfig {
        issuer: issuer.clone(),
        jwks_uri: jwks_uri?,
        ca: ca?,
        proxy: proxy?,
        staleness: staleness?,
        development_http: development_http?,
    };
    let policy = OktaPolicy { issuer, audience: audience?, required_scopes: required_scopes? };
    Some((config, policy))
}

/// `Some(None)` where the key is absent, `None` where its value is at fault.
#[expect(clippy::option_option, reason = "absent, at fault and read are three outcomes")]
fn read_optional<'d, T>(
    value: Option<Value<'d>>,
    read: impl FnOnce(&Value<'d>) -> Option<T>,
) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(value) => read(&value).map(Some),
    }
}

fn issuer(value: &Value<'_>, development_http: Option<bool>) -> Option<(Issuer, Url)> {
    let issuer = value.parse(ISSUER, Issuer::new)?;
    let url = value.parse(ISSUER, Url::parse)?;
    if !url.username().is_empty() || url.password().is_some() {
        value.fault("holds a user name or password", format!("expected {ISSUER}"));
        return None;
    }
    // Every token's `iss` is compared with this text, so it must be the text that a URL is written as.
    let canonical = url.as_str().trim_end_matches('/');
    if issuer.as_str().trim_end_matches('/') != canonical {
        value.fault("is not a URL in its usual form", format!("write \"{canonical}\""));
        return None;
    }
    match (url.scheme(), development_http?) {
        ("https", false) => Some((issuer, url)),
        ("http", true) if is_loopback(&url) => Some((issuer, url)),
        (_, true) => {
            value.fault(
                "okta.development_http is for issuers on this machine only",
                "write http://127.0.0.1:PORT or http://[::1]:PORT, or remove development_http",
            );
            None
        }
        (_, false) => {
            value.fault("is not https", format!("expected {ISSUER}"));
            None
        }
    }
}

/// By literal address: a name such as `localhost` is somebody else's to resolve.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    }
}

fn audience(value: &Value<'_>) -> Option<Audience> {
    let audience = value.parse(AUDIENCE, Audience::new)?;
    if audience.as_str() == "api://default" {
        value.fault(
            "is the audience of every Okta custom authorization server, so that any app's token would pass",
            format!("expected {AUDIENCE}"),
        );
        return None;
    }
    Some(audience)
}

fn scopes(value: &Value<'_>) -> Option<BTreeSet<Scope>> {
    let expected = "OAuth scopes that every token must carry, such as [\"host.connect\"]";
    let scopes = value.each(expected, |scope| scope.parse("an OAuth scope", Scope::new))?;
    Some(scopes.into_iter().collect())
}

fn jwks_uri(value: &Value<'_>, issuer: Option<&Url>) -> Option<Url> {
    let expected = "a URL on the issuer's own scheme, host and port";
    let url = value.parse(expected, Url::parse)?;
    let issuer = issuer?;
    if url.origin() != issuer.origin() || !url.username().is_empty() || url.password().is_some() {
        let problem = format!("is not on {}", issuer.origin().ascii_serialization());
        value.fault(problem, format!("expected {expected}"));
        return None;
    }
    Some(url)
}

fn proxy(value: &Value<'_>) -> Option<Url> {
    let expected =
        "an http or https proxy without a password, such as \"http://proxy.example.org:3128\"";
    let url = value.parse(expected, Url::parse)?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none();
    if !plain {
        value.fault("is not such a proxy", format!("expected {expected}"));
        return None;
    }
    Some(url)
}
