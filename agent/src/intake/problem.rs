//! Errors as the peer sees them: RFC 9457 problem details.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use grantd_grant::Refusal;
use serde::Serialize;

/// Seconds after which a peer that was turned away for load may try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A problem of RFC 9457, with two members of our own: `reason` (the stable code, also the end of
/// `type`) and `check` (which check of the order of checks refused, absent when none was reached).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `urn:grantd:reason:<code>`.
    #[serde(rename = "type")]
    kind: String,
    /// The code in words; the same for every occurrence.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request and what would be right. Never token bytes.
    detail: Cow<'static, str>,
    /// The stable code.
    reason: &'static str,
    /// Number of the failing check, 1 to 17.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<u8>,
    /// The resource that was asked for.
    instance: String,
}

impl Problem {
    /// A problem of the exchange itself, before any check.
    pub(super) fn http(
        status: StatusCode,
        reason: &'static str,
        detail: impl Into<Cow<'static, str>>,
        instance: &str,
    ) -> Self {
        Self {
            kind: format!("urn:grantd:reason:{reason}"),
            title: title(reason),
            status: status.as_u16(),
            detail: detail.into(),
            reason,
            check: None,
            instance: instance.to_owned(),
        }
    }

    /// The problem that tells a refusal.
    #[must_use]
    pub fn refusal(refusal: &Refusal, instance: &str) -> Self {
        let reason = refusal.reason.as_str();
        Self {
            kind: format!("urn:grantd:reason:{reason}"),
            title: title(reason),
            status: refusal.reason.http_status(),
            detail: Cow::Owned(refusal.detail.clone()),
            reason,
            check: Some(refusal.reason.check()).filter(|check| *check != 0),
            instance: instance.to_owned(),
        }
    }

    /// The stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.reason
    }

    /// Number of the failing check; 0 where none was reached.
    #[must_use]
    pub fn check(&self) -> u8 {
        self.check.unwrap_or(0)
    }

    /// What is wrong, in words.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        // A refusal whose status is no error is a defect of ours, and must not look like consent.
        let status = StatusCode::from_u16(self.status)
            .ok()
            .filter(|status| status.is_client_error() || status.is_server_error())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, RETRY_SECONDS);
        }
        response
    }
}

fn title(reason: &str) -> String {
    let mut title = reason.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}
