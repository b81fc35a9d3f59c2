//! What the typed clients share: sending JSON, reading answers, telling a problem from a broken network.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vstack_core::limits::MAX_MANIFEST_BYTES;

use crate::error::{ErrorCode, Problem};
use crate::transport::{Body, HttpTransport, Method, Request, Response, Transport, TransportError};
use crate::wire::BEHIND_HEADER;

/// A call that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// The role answered, and this is why it refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No complete answer came.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Something answered that is not the role that was expected there.
    #[error("{url} answered in a way that V-Stack does not understand: {reason}")]
    NotUnderstood { url: String, reason: String },
}

impl ApiError {
    /// The role's code, or [`ErrorCode::Unreachable`] where none came.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(problem) => problem.code,
            Self::Transport(TransportError::TimedOut { .. }) => ErrorCode::TimedOut,
            Self::Transport(_) | Self::NotUnderstood { .. } => ErrorCode::Unreachable,
        }
    }

    /// The problem to show or pass on.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Refused(problem) => *problem,
            other => Problem::new(other.code(), other.to_string()),
        }
    }
}

/// A role at an address. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Endpoint {
    base_url: String,
    transport: Arc<dyn Transport>,
    /// Its requests wait for those of viewers.
    behind: bool,
}

impl Endpoint {
    /// The role at `base_url` (`http://host:port`, a trailing slash is dropped), over HTTP.
    #[must_use]
    pub fn new(base_url: &str) -> Self {
        Self::with_transport(base_url, Arc::new(HttpTransport::new()))
    }

    /// The same over another transport, or over shared connections.
    #[must_use]
    pub fn with_transport(base_url: &str, transport: Arc<dyn Transport>) -> Self {
        Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            transport,
            behind: false,
        }
    }

    /// The same for work that viewers are not to notice: a node serves everybody else first.
    #[must_use]
    pub fn behind_viewers(self) -> Self {
        Self { behind: true, ..self }
    }

    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// A request to `path`, which starts with a slash.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request {
        let request = Request::new(method, format!("{}{path}", self.base_url));
        match self.behind {
            true => request.header(BEHIND_HEADER, "1"),
            false => request,
        }
    }

    /// Sends, and turns an error status into the problem it carries. Returns when the headers have arrived.
    ///
    /// # Errors
    /// No answer within `timeout`, or a refusal.
    pub async fn send(&self, request: Request, timeout: Duration) -> Result<Response, ApiError> {
        let url = request.url.clone();
        let answer = within(timeout, &url, self.transport.send(request)).await?;
        if answer.status < 400 {
            Ok(answer)
        } else {
            Err(refusal(answer, timeout).await)
        }
    }

    /// Sends and reads a JSON answer.
    ///
    /// # Errors
    /// As [`Endpoint::send`], or the answer is no such JSON.
    pub async fn json<T: DeserializeOwned>(
        &self,
        request: Request,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        let answer = self.send(request, timeout).await?;
        let url = answer.url.clone();
        let body = within(timeout, &url, answer.bytes(MAX_MANIFEST_BYTES)).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::NotUnderstood {
            url,
            reason: error.to_string(),
        })
    }

    /// POSTs a JSON body and reads a JSON answer.
    ///
    /// # Errors
    /// As [`Endpoint::json`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        self.json(with_json(self.request(Method::POST, path), body), timeout)
            .await
    }
}

/// `request` with `body` as JSON.
pub(crate) fn with_json(request: Request, body: &impl Serialize) -> Request {
    let json = serde_json::to_vec(body).expect("wire types have string keys and finite numbers");
    request
        .header("content-type", "application/json")
        .body(Body::Bytes(json.into()))
}

async fn within<T>(
    timeout: Duration,
    url: &str,
    work: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let timed_out = |_| TransportError::TimedOut {
        url: url.to_owned(),
        ms,
    };
    tokio::time::timeout(timeout, work).await.map_err(timed_out)?
}

async fn refusal(answer: Response, timeout: Duration) -> ApiError {
    const PROBLEM_LIMIT: u64 = 64 * 1024;
    let (url, status) = (answer.url.clone(), answer.status);
    let body = match within(timeout, &url, answer.bytes(PROBLEM_LIMIT)).await {
        Ok(body) => body,
        Err(error) => return error.into(),
    };
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => ApiError::Refused(Box::new(problem)),
        Err(_) => ApiError::NotUnderstood {
            url,
            reason: format!("status {status} without a problem body"),
        },
    }
}
