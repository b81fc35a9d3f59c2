//! What every role's HTTP shell shares: problem bodies, strict JSON, the host allow-list, request ids, access, counting.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, MatchedPath, OptionalFromRequest, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::{Frame, SizeHint};
use serde::de::DeserializeOwned;
use tracing::{Instrument as _, debug, info_span, warn};
use uuid::Uuid;
use vstack_api::wire::REQUEST_ID_HEADER;
use vstack_api::{ApiError, ErrorCode, Problem};
use vstack_core::limits::MAX_JSON_BYTES;

use crate::metrics::{self, Answering, HttpMetrics, Metrics};

/// A handler's refusal. Converts from anything that knows its code.
#[derive(Debug)]
pub struct Refusal(pub Problem);

/// What handlers return.
pub type Answer<T> = Result<T, Refusal>;

/// A refusal with this occurrence's own sentence.
pub fn refuse(code: ErrorCode, detail: impl Into<String>) -> Refusal {
    Refusal(Problem::new(code, detail))
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error.into_problem())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(ms) = self.0.retry_after_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response.extensions_mut().insert(self.0);
        response
    }
}

/// A JSON body: at most 1 MiB, the right content type, nothing behind it. Errors name the field.
#[derive(Debug)]
pub struct StrictJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for StrictJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(refuse(
                ErrorCode::UnsupportedMediaType,
                "send the body as it is, without Content-Encoding",
            ));
        }
        let is_json = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(is_json_type);
        if !is_json {
            return Err(refuse(
                ErrorCode::UnsupportedMediaType,
                "send the body as application/json",
            ));
        }
        let body =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => refuse(
                        ErrorCode::TooLarge,
                        format!("a JSON body has at most {MAX_JSON_BYTES} bytes"),
                    ),
                    _ => refuse(ErrorCode::BadRequest, "the body broke off"),
                })?;
        parse_json(&body).map(Self)
    }
}

fn is_json_type(value: &HeaderValue) -> bool {
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for StrictJson<T> {
    type Rejection = Refusal;

    /// A request that announces no body has none.
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Refusal> {
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH);
        let has_body = length.is_some_and(|length| length != "0")
            || headers.contains_key(header::TRANSFER_ENCODING)
            || headers.contains_key(header::CONTENT_TYPE);
        if has_body {
            <Self as FromRequest<S>>::from_request(request, state)
                .await
                .map(Some)
        } else {
            Ok(None)
        }
    }
}

/// Objects and arrays within each other. Nothing that a role takes comes near it.
const MAX_JSON_DEPTH: usize = 64;

/// Parses a JSON body: 400 with the position when it is no JSON, 422 with the field and the reason when a value does
/// not fit. A field that is there twice is no JSON: readers disagree about which one counts.
///
/// # Errors
/// As said.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Answer<T> {
    if is_too_deep(body) {
        let detail = format!("the body has more than {MAX_JSON_DEPTH} levels");
        return Err(refuse(ErrorCode::BadRequest, detail));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| json_refusal(&error.path().to_string(), error.inner()))?;
    reader.end().map_err(|error| json_refusal(".", &error))?;
    Ok(value)
}

fn json_refusal(field: &str, error: &serde_json::Error) -> Refusal {
    let reason = error.to_string();
    let is_number = reason.starts_with("number out of range");
    let is_value = error.classify() == serde_json::error::Category::Data || is_number;
    if !is_value {
        refuse(ErrorCode::BadRequest, format!("the body is no JSON: {reason}"))
    } else if reason.starts_with("duplicate field") {
        refuse(ErrorCode::BadRequest, reason)
    } else if field == "." {
        refuse(ErrorCode::InvalidField, reason)
    } else {
        refuse(ErrorCode::InvalidField, format!("{field}: {reason}"))
    }
}

/// Counts brackets outside of strings, before any parser looks at them.
fn is_too_deep(body: &[u8]) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_JSON_DEPTH {
            return true;
        }
    }
    false
}

/// Who calls. In open mode, which needs every listener on loopback, everybody is `Anyone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Anyone,
}

/// What a route lets its caller do; one answer for all routes of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Operate,
}

/// The one place that says yes or no. In open mode it says yes; tokens and signed addresses come in through here.
///
/// # Errors
/// The caller may not do this.
pub fn authorize(access: Access, caller: Caller) -> Answer<()> {
    match (access, caller) {
        (Access::Read | Access::Write | Access::Operate, Caller::Anyone) => Ok(()),
    }
}

/// Wraps a role's routes: host allow-list, one access check, request ids, a log line for each failed request, and
/// `GET /metrics` with everything that is counted. Bodies are limited to [`MAX_JSON_BYTES`]; a route that streams lifts
/// that for itself.
pub(crate) fn shell(app: Router, metrics: &Metrics) -> Router {
    let counted = metrics.clone();
    app.route("/metrics", get(move || expose(counted)))
        .fallback(|| async { refuse(ErrorCode::NotFound, "no such address") })
        .method_not_allowed_fallback(|| async { refuse(ErrorCode::MethodNotAllowed, "no such method here") })
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(middleware::from_fn(guard))
        .layer(middleware::from_fn(identify))
        .layer(middleware::from_fn_with_state(metrics.http.clone(), count))
}

/// On the blocking pool: a role may have to ask its disk.
async fn expose(metrics: Metrics) -> Answer<Response> {
    let text = tokio::task::spawn_blocking(move || metrics.text()).await;
    let text = text.map_err(|panic| refuse(ErrorCode::Internal, format!("counting failed: {panic}")))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Counts a request when the last byte of its answer was handed over.
async fn count(State(http): State<HttpMetrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>();
    let route: Arc<str> = matched.map_or("none", MatchedPath::as_str).into();
    let response = next.run(request).await;
    let answering = http.answering((&method, route), response.status().as_u16(), started);
    response.map(|body| Body::new(CountedBody { body, answering }))
}

/// A body whose bytes are counted when they are taken.
#[derive(Debug)]
struct CountedBody {
    body: Body,
    answering: Answering,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.answering.sent_bytes += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn guard(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if !host.is_none_or(is_local_host) {
        return refuse(
            ErrorCode::MisdirectedHost,
            "this cluster answers on loopback only",
        )
        .into_response();
    }
    let access = match *request.method() {
        axum::http::Method::GET | axum::http::Method::HEAD => Access::Read,
        _ => Access::Write,
    };
    match authorize(access, Caller::Anyone) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// A name that can only mean this machine: what a page from elsewhere, rebound to 127.0.0.1, does not send.
fn is_local_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(is_loopback)
}

const fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback(),
    }
}

/// Whether every listener is on loopback, which open access needs.
#[must_use]
pub fn may_be_open(listener: IpAddr) -> bool {
    is_loopback(listener) && listener != IpAddr::V4(Ipv4Addr::UNSPECIFIED)
}

async fn identify(request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(REQUEST_ID_HEADER)
        .and_then(|id| id.to_str().ok());
    let id = given
        .filter(|id| is_plain_id(id))
        .map_or_else(|| Uuid::new_v4().simple().to_string(), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = info_span!("request", id = %id, %method, path = %path);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(mut problem) = response.extensions_mut().remove::<Problem>() {
        span.in_scope(|| note_problem(&problem));
        problem.request_id.clone_from(&id);
        let headers = std::mem::take(response.headers_mut());
        response = Refusal(problem).into_response();
        for (name, value) in &headers {
            if name != header::CONTENT_LENGTH {
                response.headers_mut().insert(name, value.clone());
            }
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID_HEADER, value);
    }
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Ours to mend: a warning. The caller's: worth a line only when looking for it.
fn note_problem(problem: &Problem) {
    if problem.status >= 500 {
        warn!(code = %problem.code, detail = %problem.detail, "request failed");
    } else {
        debug!(code = %problem.code, detail = %problem.detail, "request refused");
    }
}

/// A caller's request id is passed on when it cannot break a log line.
fn is_plain_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass_the_host_check() {
        for host in ["127.0.0.1:80", "localhost", "LOCALHOST:1", "[::1]:9", "127.9.9.9"] {
            assert!(is_local_host(host), "{host} was refused");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "192.168.0.1",
            "[::2]",
            "",
        ] {
            assert!(!is_local_host(host), "{host} was let in");
        }
    }

    #[test]
    fn json_errors_tell_bad_text_from_a_bad_field() {
        let code =
            |body: &[u8]| parse_json::<vstack_api::wire::CreateVideo>(body).map_err(|refusal| refusal.0.code);
        assert_eq!(code(b"{\"title\":\"a\",").unwrap_err(), ErrorCode::BadRequest);
        assert_eq!(code(b"{\"title\":\"a\"} x").unwrap_err(), ErrorCode::BadRequest);
        assert_eq!(code(b"{\"title\":1}").unwrap_err(), ErrorCode::InvalidField);
        assert_eq!(
            code(b"{\"title\":\"a\",\"tittle\":1}").unwrap_err(),
            ErrorCode::InvalidField
        );
        assert_eq!(
            code(b"{\"title\":\"a\",\"title\":\"b\"}").unwrap_err(),
            ErrorCode::BadRequest
        );
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        for body in [
            r#"{"title":"a","duration_sec":1e999}"#,
            r#"{"title":"a","duration_sec":"1"}"#,
        ] {
            let refusal = parse_json::<vstack_api::wire::CreateVideo>(body.as_bytes())
                .unwrap_err()
                .0;
            assert_eq!(refusal.code, ErrorCode::InvalidField, "{body}");
            assert!(refusal.detail.starts_with("duration_sec: "), "{}", refusal.detail);
        }
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(nested(MAX_JSON_DEPTH).as_bytes()));
        assert!(is_too_deep(nested(MAX_JSON_DEPTH + 1).as_bytes()));
        let text = format!(r#"{{"a":"{}\""}}"#, "[".repeat(1_000));
        assert!(!is_too_deep(text.as_bytes()));
        assert!(!is_too_deep("[1],".repeat(1_000).as_bytes()));
    }
}
