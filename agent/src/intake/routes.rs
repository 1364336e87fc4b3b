//! The four endpoints.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use grantd_grant::limits::MAX_PUSH_BYTES;
use grantd_grant::{Reason, Refusal};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::admission::MAX_ID_BYTES;
use super::body::{self, BodyError};
use super::{
    Admission, Asked, Counters, GrantOutcome, Peer, Problem, PushBody, PushKind, RevocationOutcome,
    ShowOutcome,
};

const GRANTS: &str = "/v1/grants";
const REVOCATIONS: &str = "/v1/revocations";

/// What every handler shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) admission: Arc<dyn Admission>,
    pub(super) counters: Arc<Counters>,
    /// One permit per request in hand; the permit lives as long as the decision, not the connection.
    pub(super) requests: Arc<Semaphore>,
    pub(super) body_limit: Duration,
}

/// The router. Every request must carry a [`Peer`] extension.
pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route(GRANTS, post(push_grant))
        .route("/v1/grants/{id}", get(show_grant))
        .route(REVOCATIONS, post(push_revocation))
        .route("/v1/host", get(host))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(shared.clone(), admit_peer))
        .with_state(shared)
}

/// Runs before everything else of every request, known route or not.
async fn admit_peer(State(shared): State<Shared>, request: Request, next: Next) -> Response<Body> {
    shared.counters.request();
    let path = request.uri().path().to_owned();
    let response = match request.extensions().get::<Peer>() {
        None => internal(&path).into_response(),
        Some(peer) => match shared.admission.check_peer(peer, asked(&request)) {
            Err(refusal) => Problem::refusal(&refusal, &path).into_response(),
            Ok(()) => next.run(request).await,
        },
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        shared.counters.problem();
    }
    response
}

fn asked(request: &Request) -> Asked {
    match request.uri().path() {
        GRANTS if request.method() == Method::POST => Asked::Push(PushKind::Grant),
        REVOCATIONS if request.method() == Method::POST => Asked::Push(PushKind::Revocation),
        _ => Asked::Other,
    }
}

async fn push_grant(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let turned_away = |problem| turned_away(&shared, &peer, PushKind::Grant, problem);
    let body = take_body(&shared, GRANTS, request).await.map_err(turned_away)?;
    let (admission, from) = (Arc::clone(&shared.admission), peer.clone());
    let decision = async move { admission.admit_grant(&from, body).await };
    let outcome = finish(&shared, GRANTS, decision).await.map_err(turned_away)?;
    match outcome {
        GrantOutcome::Applied(acknowledgement) => {
            let location = HeaderValue::from_str(&format!("{GRANTS}/{}", acknowledgement.id));
            let mut response = json(StatusCode::CREATED, &acknowledgement, GRANTS)?;
            if let Ok(location) = location {
                response.headers_mut().insert(axum::http::header::LOCATION, location);
            }
            Ok(response)
        }
        GrantOutcome::AlreadyInForce(acknowledgement) => {
            json(StatusCode::OK, &acknowledgement, GRANTS)
        }
        GrantOutcome::Refused(refusal) => Err(Problem::refusal(&refusal, GRANTS)),
    }
}

async fn push_revocation(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    /// The body of the `200`.
    #[derive(Serialize)]
    struct Ended {
        ended: u64,
    }

    let turned_away = |problem| turned_away(&shared, &peer, PushKind::Revocation, problem);
    let body = take_body(&shared, REVOCATIONS, request).await.map_err(turned_away)?;
    let (admission, from) = (Arc::clone(&shared.admission), peer.clone());
    let decision = async move { admission.admit_revocation(&from, body).await };
    let outcome = finish(&shared, REVOCATIONS, decision).await.map_err(turned_away)?;
    match outcome {
        RevocationOutcome::InForce { ended } => json(StatusCode::OK, &Ended { ended }, REVOCATIONS),
        RevocationOutcome::Refused(refusal) => Err(Problem::refusal(&refusal, REVOCATIONS)),
    }
}

async fn show_grant(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
    id: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let path = request.uri().path().to_owned();
    let unknown = || {
        Problem::http(StatusCode::NOT_FOUND, "not_found", "no such live grant on this host", &path)
    };
    let Ok(Path(id)) = id else { return Err(unknown()) };
    if id.len() > MAX_ID_BYTES {
        return Err(unknown());
    }
    let admission = Arc::clone(&shared.admission);
    match finish(&shared, &path, async move { admission.show_grant(&peer, &id).await }).await? {
        ShowOutcome::Found(grant) => json(StatusCode::OK, &grant, &path),
        ShowOutcome::NotFound => Err(unknown()),
        ShowOutcome::Refused(refusal) => Err(Problem::refusal(&refusal, &path)),
    }
}

async fn host(
    State(shared): State<Shared>,
    Extension(peer): Extension<Peer>,
) -> Result<Response<Body>, Problem> {
    let admission = Arc::clone(&shared.admission);
    let view = finish(&shared, "/v1/host", async move { admission.host(&peer).await }).await?;
    json(StatusCode::OK, &view, "/v1/host")
}

async fn not_found(request: Request) -> Problem {
    Problem::http(
        StatusCode::NOT_FOUND,
        "not_found",
        "no such resource: there are /v1/grants, /v1/grants/{id}, /v1/revocations and /v1/host",
        request.uri().path(),
    )
}

async fn method_not_allowed(request: Request) -> Problem {
    Problem::http(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this resource does not take this method: see the Allow header",
        request.uri().path(),
    )
}

/// No refusal goes without its record.
fn turned_away(shared: &Shared, peer: &Peer, push: PushKind, problem: Problem) -> Problem {
    shared.admission.turned_away(peer, push, &problem);
    problem
}

async fn take_body(
    shared: &Shared,
    path: &'static str,
    request: Request,
) -> Result<PushBody, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::http(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "Content-Type must be application/json, without Content-Encoding",
            path,
        ));
    }
    body::read(request.into_body(), shared.body_limit).await.map_err(|error| match error {
        BodyError::TooLarge => refused(
            Reason::PushTooLarge,
            format!("the body is larger than {MAX_PUSH_BYTES} bytes"),
            path,
        ),
        BodyError::TooSlow => Problem::http(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            format!("the body did not arrive within {:?}", shared.body_limit),
            path,
        ),
        BodyError::Broken => Problem::http(
            StatusCode::BAD_REQUEST,
            "body_broken",
            "the body ended early or was framed wrongly",
            path,
        ),
    })
}

/// One `Content-Type: application/json`, at most with `charset=utf-8`, and no coding.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next().and_then(|kind| kind.to_str().ok()), types.next())
    else {
        return false;
    };
    let (essence, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let parameters = parameters.trim();
    essence.trim().eq_ignore_ascii_case("application/json")
        && (parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8"))
        && !headers.contains_key(axum::http::header::CONTENT_ENCODING)
}

/// Runs a decision in a task of its own, so that it is finished whether or not the peer waits.
async fn finish<T: Send + 'static>(
    shared: &Shared,
    path: &str,
    decision: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    let Ok(permit) = Arc::clone(&shared.requests).try_acquire_owned() else {
        let detail = "this host has as many requests in hand as it takes: try again";
        return Err(refused(Reason::Busy, detail, path));
    };
    let task = tokio::spawn(async move {
        let outcome = decision.await;
        drop(permit);
        outcome
    });
    task.await.map_err(|_| internal(path))
}

fn refused(reason: Reason, detail: impl Into<String>, path: &str) -> Problem {
    Problem::refusal(&Refusal::new(reason, detail), path)
}

fn internal(path: &str) -> Problem {
    let detail =
        "the request could not be decided: ask for the grant to learn whether it is in force";
    refused(Reason::Internal, detail, path)
}

fn json<T: Serialize>(
    status: StatusCode,
    value: &T,
    path: &str,
) -> Result<Response<Body>, Problem> {
    let body = serde_json::to_vec(value).map_err(|_| internal(path))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
