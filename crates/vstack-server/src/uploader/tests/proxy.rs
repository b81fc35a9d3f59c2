//! A bad network in front of one role: it loses, doubles and delays chosen requests, and remembers all of them.
//!
//! Real sockets on both sides. What is lost is lost as on a real network: the connection breaks off.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never arrives.
    Lose,
    /// It arrives, and its answer is lost.
    LoseAnswer,
    /// It arrives twice; the second answer comes back.
    Double,
    /// It is kept until [`Proxy::deliver_late`]; its sender hears nothing.
    Delay,
}

/// A request that arrived here.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    pub(super) body: Bytes,
    headers: HeaderMap,
}

#[derive(Debug)]
struct Rule {
    method: Method,
    part: String,
    fault: Fault,
    times: usize,
}

#[derive(Debug, Default)]
struct Shared {
    upstream: OnceLock<String>,
    http: reqwest::Client,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    late: Mutex<Vec<Seen>>,
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) url: String,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics while it holds this")
}

impl Proxy {
    /// A proxy whose other end is named later by [`Proxy::lead_to`].
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let shared = Arc::new(Shared::default());
        let app = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped
                .run_until_cancelled(async { axum::serve(listener, app).await })
                .await
        });
        Self {
            url,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    pub(super) fn lead_to(&self, url: &str) {
        self.shared
            .upstream
            .set(url.to_owned())
            .expect("it is named once");
    }

    /// The next `times` requests of this method whose path and query contain `part` suffer `fault`.
    pub(super) fn disturb(&self, method: Method, part: &str, fault: Fault, times: usize) {
        let part = part.to_owned();
        locked(&self.shared.rules).push(Rule {
            method,
            part,
            fault,
            times,
        });
    }

    pub(super) fn heal(&self) {
        locked(&self.shared.rules).clear();
    }

    /// Requests of this method whose path and query contain `part`, in the order in which they came.
    pub(super) fn seen(&self, method: Method, part: &str) -> Vec<Seen> {
        let seen = locked(&self.shared.seen);
        seen.iter()
            .filter(|seen| seen.method == method && seen.target.contains(part))
            .filter(|seen| !is_catalogue_object(&seen.target))
            .cloned()
            .collect()
    }

    /// Sends what was delayed; answers with what became of each.
    pub(super) async fn deliver_late(&self) -> Vec<StatusCode> {
        let late = std::mem::take(&mut *locked(&self.shared.late));
        let mut statuses = Vec::new();
        for request in late {
            let answer = self.shared.send(request).await.expect("the role answers");
            statuses.push(answer.status());
        }
        statuses
    }
}

impl Shared {
    fn fault_of(&self, method: &Method, target: &str) -> Option<Fault> {
        if is_catalogue_object(target) {
            return None;
        }
        let mut rules = locked(&self.rules);
        let rule = rules
            .iter_mut()
            .find(|rule| rule.times > 0 && rule.method == *method && target.contains(&rule.part))?;
        rule.times -= 1;
        Some(rule.fault)
    }

    async fn send(&self, request: Seen) -> reqwest::Result<reqwest::Response> {
        let upstream = self.upstream.get().expect("the proxy leads somewhere");
        let url = format!("{upstream}{}", request.target);
        let mut headers = request.headers;
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let builder = self.http.request(request.method, url).headers(headers);
        builder.body(request.body).send().await
    }
}

/// The metadata role stores the catalogue through the same proxies, whenever it likes: neither disturbed nor counted.
fn is_catalogue_object(target: &str) -> bool {
    target.contains("-catalogue-")
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return lost();
    };
    let target = parts
        .uri
        .path_and_query()
        .map(ToString::to_string)
        .unwrap_or_default();
    let fault = shared.fault_of(&parts.method, &target);
    let request = Seen {
        method: parts.method,
        target,
        body,
        headers: parts.headers,
    };
    locked(&shared.seen).push(request.clone());
    match fault {
        Some(Fault::Lose) => return lost(),
        Some(Fault::Delay) => {
            locked(&shared.late).push(request);
            return lost();
        }
        Some(Fault::Double) => drop(shared.send(request.clone()).await),
        Some(Fault::LoseAnswer) => {
            drop(shared.send(request).await);
            return lost();
        }
        None => {}
    }
    match shared.send(request).await {
        Ok(answer) => passed_on(answer),
        Err(_) => lost(),
    }
}

fn passed_on(answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// An answer that breaks off before its body: the nearest thing to a connection that is gone.
fn lost() -> Response {
    let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost by the proxy"))]);
    Response::new(Body::from_stream(broken))
}
