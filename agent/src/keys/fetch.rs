//! Fetching the issuer's key set: discovery, then the set, each bounded in size and time.

use std::path::PathBuf;
use std::time::Duration;

use grantd_grant::limits::MAX_JWKS_BYTES;
use grantd_grant::{InvalidJwks, OktaKeys};
use reqwest::header::{AGE, CACHE_CONTROL, HeaderMap};
use reqwest::{Certificate, Client, Proxy, Response, StatusCode};
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::config::{FileError, OktaConfig, read_trusted};

/// For one connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For one round: discovery and key set together.
pub(super) const ROUND_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file of certificate authorities, in bytes.
const MAX_CA_BYTES: u64 = 1024 * 1024;
/// Where an issuer's metadata is: OAuth 2.0 (RFC 8414) as Okta places it, then OpenID Connect Discovery.
const WELL_KNOWN: [&str; 2] =
    ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

/// Why keys could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// `okta.ca` cannot be read.
    #[error("okta.ca")]
    Ca(#[source] FileError),
    /// `okta.ca` holds no certificate: nobody would be believed.
    #[error("okta.ca: {} holds no PEM certificate", path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client cannot be made.
    #[error("okta: cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// No answer, or not from whom it should be.
    #[error("cannot fetch {url}")]
    Request {
        /// What was asked for.
        url: Url,
        /// What went wrong.
        source: reqwest::Error,
    },
    /// An answer other than `200`. Redirects are not followed: they would lead to another host.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: Url,
        /// The status.
        status: StatusCode,
    },
    /// An answer that is longer than any such document.
    #[error("{url} answered with more than {MAX_JWKS_BYTES} bytes")]
    TooLarge {
        /// What was asked for.
        url: Url,
    },
    /// No answer in time.
    #[error("no complete answer within {ROUND_TIMEOUT:?}")]
    TimedOut,
    /// The metadata is not JSON with `issuer` and `jwks_uri`.
    #[error("{url} is not authorization server metadata")]
    Metadata {
        /// What was asked for.
        url: Url,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The metadata is another issuer's.
    #[error("{url} is the metadata of \"{found}\", not of okta.issuer")]
    Issuer {
        /// What was asked for.
        url: Url,
        /// The issuer that it names.
        found: String,
    },
    /// The key set is said to be on another scheme, host or port than the issuer.
    #[error(
        "{url} names the key set {jwks_uri}, which is not on the issuer's own scheme, host and port"
    )]
    ForeignKeySet {
        /// What was asked for.
        url: Url,
        /// What it names.
        jwks_uri: String,
    },
    /// The issuer's URL has no path to append to.
    #[error("okta.issuer is not a URL that metadata can be looked up under")]
    IssuerUrl(#[source] url::ParseError),
    /// The key set is not one.
    #[error("{url}")]
    KeySet {
        /// What was asked for.
        url: Url,
        /// What is wrong.
        source: InvalidJwks,
    },
}

/// A key set and how long its issuer says it is good for.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) keys: OktaKeys,
    pub(super) max_age: Option<Duration>,
}

/// Fetches key sets of one issuer.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: Client,
    issuer: String,
    configured: Option<Url>,
    discovered: Option<Url>,
}

/// What counts of an authorization server's metadata (RFC 8414, section 2).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    pub(super) fn new(okta: &OktaConfig) -> Result<Self, FetchError> {
        let mut client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .https_only(!okta.development_http)
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ROUND_TIMEOUT)
            // One fetch an hour: a connection kept open would be idle for nearly all of its life.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("grantd/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &okta.proxy {
            client = client.proxy(Proxy::all(proxy.as_str()).map_err(FetchError::Client)?);
        }
        if let Some(path) = &okta.ca {
            let pem = read_trusted(path, MAX_CA_BYTES).map_err(FetchError::Ca)?;
            let authorities = Certificate::from_pem_bundle(&pem).map_err(FetchError::Client)?;
            if authorities.is_empty() {
                return Err(FetchError::NoAuthority { path: path.clone() });
            }
            client = client.tls_certs_only(authorities);
        }
        Ok(Self {
            client: client.build().map_err(FetchError::Client)?,
            issuer: okta.issuer.as_str().to_owned(),
            configured: okta.jwks_uri.clone(),
            discovered: None,
        })
    }

    /// One round, within [`ROUND_TIMEOUT`]. Where the key set was found is remembered until a round
    /// fails.
    pub(super) async fn fetch(&mut self) -> Result<Fetched, FetchError> {
        let round = tokio::time::timeout(ROUND_TIMEOUT, self.round()).await;
        let fetched = round.unwrap_or(Err(FetchError::TimedOut));
        if fetched.is_err() {
            self.discovered = None;
        }
        fetched
    }

    async fn round(&mut self) -> Result<Fetched, FetchError> {
        let url = match (&self.configured, &self.discovered) {
            (Some(url), _) | (None, Some(url)) => url.clone(),
            (None, None) => {
                let url = self.discover().await?;
                self.discovered = Some(url.clone());
                url
            }
        };
        let response = self.get(&url).await?;
        let max_age = max_age(response.headers());
        let document = body(&url, expect_ok(&url, response)?).await?;
        let keys =
            OktaKeys::from_jwks(&document).map_err(|source| FetchError::KeySet { url, source })?;
        Ok(Fetched { keys, max_age })
    }

    async fn discover(&self) -> Result<Url, FetchError> {
        let [oauth, openid] = WELL_KNOWN.map(|suffix| self.metadata_url(suffix));
        let (mut url, fallback) = (oauth?, openid?);
        let mut response = self.get(&url).await?;
        if response.status() == StatusCode::NOT_FOUND {
            url = fallback;
            response = self.get(&url).await?;
        }
        let document = body(&url, expect_ok(&url, response)?).await?;
        self.key_set_url(url, &document)
    }

    fn metadata_url(&self, suffix: &str) -> Result<Url, FetchError> {
        let base = self.issuer.trim_end_matches('/');
        Url::parse(&format!("{base}{suffix}")).map_err(FetchError::IssuerUrl)
    }

    fn key_set_url(&self, url: Url, document: &[u8]) -> Result<Url, FetchError> {
        let metadata: Metadata = match serde_json::from_slice(document) {
            Ok(metadata) => metadata,
            Err(source) => return Err(FetchError::Metadata { url, source }),
        };
        if metadata.issuer != self.issuer {
            let found = metadata.issuer.chars().filter(|c| !c.is_control()).take(512).collect();
            return Err(FetchError::Issuer { url, found });
        }
        match Url::parse(&metadata.jwks_uri) {
            Ok(found) if found.origin() == url.origin() && found.username().is_empty() => Ok(found),
            Ok(_) | Err(_) => {
                let named = metadata.jwks_uri.chars().filter(|c| !c.is_control()).take(512);
                Err(FetchError::ForeignKeySet { url, jwks_uri: named.collect() })
            }
        }
    }

    async fn get(&self, url: &Url) -> Result<Response, FetchError> {
        let request = self.client.get(url.clone()).header("accept", "application/json");
        request.send().await.map_err(|source| failed(url, source))
    }
}

fn expect_ok(url: &Url, response: Response) -> Result<Response, FetchError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(FetchError::Status { url: url.clone(), status }),
    }
}

/// The body, cut off as soon as it is longer than it may be, whatever length was announced.
async fn body(url: &Url, mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|source| failed(url, source))? {
        if chunk.len() > MAX_JWKS_BYTES - document.len() {
            return Err(FetchError::TooLarge { url: url.clone() });
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

fn failed(url: &Url, source: reqwest::Error) -> FetchError {
    // The error would name the URL a second time.
    FetchError::Request { url: url.clone(), source: source.without_url() }
}

/// Freshness that remains (RFC 9111, section 4.2): `max-age` less `Age`. Zero where the answer may not be
/// stored; `None` where the issuer says nothing.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let control = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    let mut seconds = None;
    for directive in control.split(',').map(str::trim) {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
        {
            return Some(Duration::ZERO);
        }
        if let Some((name, value)) = directive.split_once('=')
            && name.eq_ignore_ascii_case("max-age")
        {
            seconds = value.trim_matches('"').parse::<u64>().ok();
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    seconds.map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}
