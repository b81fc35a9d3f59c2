//! What a role counts, in one place, and `GET /metrics` in Prometheus' text format.
//!
//! Every role has one [`Metrics`]. The HTTP shell counts requests, answers and connections into it; a role adds what is
//! its own with [`Metrics::register`]. Names end in their unit; labels are small closed sets (a method, a route's
//! pattern, a status), never an id.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::Method;
use prometheus_client::encoding::{EncodeLabelSet, prometheus_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one role counts. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub(crate) http: HttpMetrics,
}

/// What the HTTP shell counts.
#[derive(Debug, Clone)]
pub(crate) struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<RouteLabels, Histogram, fn() -> Histogram>,
    sent_bytes: Family<RouteLabels, Counter>,
    pub(crate) connections: Gauge,
    pub(crate) closed: Family<ClosedLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: Arc<str>,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: Arc<str>,
}

/// Why the server closed a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ClosedLabels {
    pub(crate) reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("vstack");
        let http = HttpMetrics {
            requests: Family::default(),
            seconds: Family::new_with_constructor(latencies),
            sent_bytes: Family::default(),
            connections: Gauge::default(),
            closed: Family::default(),
        };
        registry.register("http_requests", "Requests answered", http.requests.clone());
        registry.register(
            "http_request_seconds",
            "From a request's head to the last byte of its answer",
            http.seconds.clone(),
        );
        registry.register(
            "http_sent_bytes",
            "Bytes of answers' bodies",
            http.sent_bytes.clone(),
        );
        registry.register("http_connections", "Open connections", http.connections.clone());
        registry.register(
            "http_connections_closed",
            "Connections that the server closed, by reason",
            http.closed.clone(),
        );
        Self {
            registry: Arc::new(Mutex::new(registry)),
            http,
        }
    }

    /// Lets a role add what it counts. Names get the prefix `vstack_`; counters get `_total` behind them.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything, as Prometheus reads it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string does not fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }
}

/// 0.25 ms to 8 s, each twice the one before: a hot read and a stalled one are ten buckets apart.
pub fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
}

/// A request that is being answered; counted when this is dropped, which is when its last byte was handed over.
#[derive(Debug)]
pub(crate) struct Answering {
    http: HttpMetrics,
    labels: RequestLabels,
    started: Instant,
    pub(crate) sent_bytes: u64,
}

impl HttpMetrics {
    /// `route` is the pattern that matched, not the path.
    pub(crate) fn answering(
        &self,
        (method, route): (&Method, Arc<str>),
        status: u16,
        started: Instant,
    ) -> Answering {
        let labels = RequestLabels {
            method: known(method),
            route,
            status,
        };
        Answering {
            http: self.clone(),
            labels,
            started,
            sent_bytes: 0,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let route = RouteLabels {
            method: self.labels.method,
            route: Arc::clone(&self.labels.route),
        };
        self.http.requests.get_or_create(&self.labels).inc();
        self.http
            .seconds
            .get_or_create(&route)
            .observe(self.started.elapsed().as_secs_f64());
        self.http.sent_bytes.get_or_create(&route).inc_by(self.sent_bytes);
    }
}

/// Methods are text that a caller makes up; a label is one of a few.
fn known(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 7] = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::PUT, "PUT"),
        (Method::POST, "POST"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
    ];
    let found = KNOWN.iter().find(|(known, _)| known == method);
    found.map_or("other", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status_and_bytes_have_their_unit() {
        let metrics = Metrics::new();
        for status in [200, 200, 404] {
            let route: Arc<str> = "/chunk/{*rest}".into();
            let mut answering = metrics
                .http
                .answering((&Method::GET, route), status, Instant::now());
            answering.sent_bytes = 7;
        }
        let made_up = Method::from_bytes(b"BREW").unwrap();
        drop(
            metrics
                .http
                .answering((&made_up, "none".into()), 405, Instant::now()),
        );
        let text = metrics.text();
        for line in [
            "vstack_http_requests_total{method=\"GET\",route=\"/chunk/{*rest}\",status=\"200\"} 2",
            "vstack_http_requests_total{method=\"GET\",route=\"/chunk/{*rest}\",status=\"404\"} 1",
            "vstack_http_requests_total{method=\"other\",route=\"none\",status=\"405\"} 1",
            "vstack_http_sent_bytes_total{method=\"GET\",route=\"/chunk/{*rest}\"} 21",
            "vstack_http_request_seconds_count{method=\"GET\",route=\"/chunk/{*rest}\"} 3",
            "vstack_http_connections 0",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
