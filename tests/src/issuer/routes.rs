//! HTTP of the issuer.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Form, State as Extract};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::Shape;
use super::state::Shared;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const NO_STORE: [(HeaderName, &str); 1] = [(header::CACHE_CONTROL, "no-store")];

pub(super) fn router(shape: &Shape, shared: Shared) -> Router {
    let mut router = Router::new()
        .route(&format!("{}{}", shape.path, shape.keys_path), get(keys))
        .route(&format!("{}{}", shape.path, shape.token_path), post(token));
    for document in shape.well_known {
        router = router.route(&format!("{}/.well-known/{document}", shape.path), get(metadata));
    }
    router.with_state(shared)
}

async fn metadata(Extract(shared): Extract<Shared>) -> Response {
    wait(&shared).await;
    Json(shared.lock().metadata()).into_response()
}

async fn keys(Extract(shared): Extract<Shared>) -> Response {
    shared.lock().key_requests += 1;
    wait(&shared).await;
    let state = shared.lock();
    if state.fail_keys {
        return error(StatusCode::SERVICE_UNAVAILABLE, "server_error", "told to fail");
    }
    match state.jwks() {
        Ok(jwks) => ([(header::CACHE_CONTROL, "max-age=3600")], Json(jwks)).into_response(),
        Err(failure) => {
            error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", &failure.to_string())
        }
    }
}

async fn token(
    Extract(shared): Extract<Shared>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    wait(&shared).await;
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    if field("grant_type") != "client_credentials" {
        return error(StatusCode::BAD_REQUEST, "unsupported_grant_type", "client_credentials only");
    }
    if field("client_assertion_type") != JWT_BEARER {
        return error(StatusCode::UNAUTHORIZED, "invalid_client", "private_key_jwt only");
    }
    let issued = shared.lock().client_credentials(field("client_assertion"), field("scope"));
    match issued {
        Ok(issued) => {
            let body = json!({
                "token_type": "Bearer", "expires_in": 3600,
                "access_token": issued.token, "scope": issued.scope,
            });
            (NO_STORE, Json(body)).into_response()
        }
        Err(failure) => error(StatusCode::UNAUTHORIZED, "invalid_client", &format!("{failure:#}")),
    }
}

async fn wait(shared: &Shared) {
    let delay = shared.lock().delay;
    tokio::time::sleep(delay).await;
}

fn error(status: StatusCode, code: &str, description: &str) -> Response {
    let body: Value = json!({"error": code, "error_description": description});
    (status, NO_STORE, Json(body)).into_response()
}
