//! Reading a request's body: bounded in size and time, wiped after use.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use grantd_grant::limits::MAX_PUSH_BYTES;
use zeroize::Zeroizing;

/// The bytes of a pushed body. They hold an access token: wiped on drop, never printed.
pub struct PushBody(Zeroizing<Vec<u8>>);

impl PushBody {
    /// Takes bytes that were received.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl Deref for PushBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PushBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushBody({} bytes)", self.0.len())
    }
}

/// Why a body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    TooLarge,
    TooSlow,
    Broken,
}

/// Reads the whole body within `limit`.
pub(super) async fn read(body: Body, limit: Duration) -> Result<PushBody, BodyError> {
    let announced = body.size_hint().lower();
    if usize::try_from(announced).map_or(true, |bytes| bytes > MAX_PUSH_BYTES) {
        return Err(BodyError::TooLarge);
    }
    tokio::time::timeout(limit, collect(body)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(mut body: Body) -> Result<PushBody, BodyError> {
    // Full capacity at once: a vector that grows leaves copies of a token behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PUSH_BYTES));
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > MAX_PUSH_BYTES - bytes.len() {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(PushBody(bytes))
}
