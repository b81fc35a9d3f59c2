//! How requests travel: one trait, so that the roles' clients also run under a simulated network.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _};
pub use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// Time to open a connection (`10-contracts`, base policy): a machine that does not answer a SYN in 1 s is not near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A request that got no complete answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TransportError {
    #[error("cannot reach {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url} did not answer within {ms} ms")]
    TimedOut { url: String, ms: u64 },
    #[error("the answer of {url} broke off: {reason}")]
    Interrupted { url: String, reason: String },
    #[error("the answer of {url} is longer than {limit_bytes} bytes")]
    TooLong { url: String, limit_bytes: u64 },
}

/// Bytes to send or receive, piece by piece.
pub type ByteStream = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// What a request carries.
pub enum Body {
    Empty,
    Bytes(Bytes),
    /// A known or unknown number of bytes that are not in memory.
    Stream {
        stream: ByteStream,
        size_bytes: Option<u64>,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Stream { size_bytes, .. } => write!(f, "Stream({size_bytes:?})"),
        }
    }
}

#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

impl Request {
    #[must_use]
    pub fn new(method: Method, url: String) -> Self {
        Self {
            method,
            url,
            headers: Vec::new(),
            body: Body::Empty,
        }
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

/// An answer whose body is still to be read.
pub struct Response {
    pub url: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: BoxStream<'static, Result<Bytes, TransportError>>,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("url", &self.url)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Response {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// It broke off, or is longer than `limit_bytes`.
    pub async fn bytes(mut self, limit_bytes: u64) -> Result<Bytes, TransportError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.body.next().await {
            whole.extend_from_slice(&piece?);
            if whole.len() as u64 > limit_bytes {
                return Err(TransportError::TooLong {
                    url: self.url,
                    limit_bytes,
                });
            }
        }
        Ok(whole.freeze())
    }
}

/// Sends one request. An answer with an error status is still an answer.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// Returns when the answer's headers have arrived.
    async fn send(&self, request: Request) -> Result<Response, TransportError>;
}

/// The product's transport: HTTP/1.1 with kept-alive connections.
#[derive(Debug, Clone)]
pub struct HttpTransport(reqwest::Client);

impl HttpTransport {
    /// A transport with its own pool of connections.
    ///
    /// # Panics
    /// Never: without TLS there is nothing to initialise that could fail.
    #[must_use]
    pub fn new() -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client without TLS has nothing that can fail");
        Self(client)
    }
}

impl Default for HttpTransport {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let Request {
            method,
            url,
            headers,
            body,
        } = request;
        let mut builder = self.0.request(method, &url);
        for (name, value) in headers {
            let value = HeaderValue::from_str(&value).map_err(|error| unreachable_because(&url, &error))?;
            builder = builder.header(HeaderName::from_static(name), value);
        }
        builder = match body {
            Body::Empty => builder,
            Body::Bytes(bytes) => builder.body(bytes),
            Body::Stream { stream, size_bytes } => {
                let sized = size_bytes.map(|size| (reqwest::header::CONTENT_LENGTH, size.to_string()));
                builder
                    .headers(sized_headers(sized))
                    .body(reqwest::Body::wrap_stream(stream))
            }
        };
        let answer = builder
            .send()
            .await
            .map_err(|error| unreachable_because(&url, &error))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let source = url.clone();
        let interrupted = move |error| TransportError::Interrupted {
            url: source.clone(),
            reason: root_cause(&error),
        };
        let body = answer
            .bytes_stream()
            .map(move |piece| piece.map_err(&interrupted))
            .boxed();
        Ok(Response {
            url,
            status,
            headers,
            body,
        })
    }
}

fn sized_headers(sized: Option<(HeaderName, String)>) -> HeaderMap {
    sized
        .into_iter()
        .filter_map(|(name, text)| Some((name, HeaderValue::from_str(&text).ok()?)))
        .collect()
}

fn unreachable_because(url: &str, error: &dyn std::error::Error) -> TransportError {
    TransportError::Unreachable {
        url: url.to_owned(),
        reason: root_cause(error),
    }
}

/// The innermost cause: "Connection refused" says more than the layers around it.
fn root_cause(mut error: &dyn std::error::Error) -> String {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
