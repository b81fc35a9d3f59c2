//! The simulated network between the roles: the product's `Transport` and `Listening` over turmoil's sockets.
//!
//! Roles know each other by loopback addresses, as they would in a cluster on one machine: `127.0.0.1` is the catalogue,
//! `127.0.0.11` the first node. Each stands for one simulated machine. `reqwest` cannot be given another kind of socket, so
//! the client here is hyper's own, which `reqwest` is made of: it keeps connections alive in the same way. There is one for
//! each machine that is asked: a client that goes closes its connections in the order of a map that differs from run to
//! run, and the goodbyes take their delays from the seed in that order.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body as HttpBody;
use bytes::Bytes;
use futures::StreamExt as _;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tower_service::Service;
use turmoil::net::{TcpListener, TcpStream};
use vstack_api::transport::{Body, Request, Response, Transport, TransportError};
use vstack_server::Listening;

use crate::trace::Trace;

/// Every role listens here on its own machine.
pub(crate) const PORT: u16 = 9000;
/// As the product's client.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A simulated machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    Catalogue,
    Uploader(u8),
    Node(u8),
}

impl Machine {
    /// No two machines have the same.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Catalogue => 1,
            Self::Uploader(number) => 100 + number,
            Self::Node(number) => 10 + number,
        }
    }

    const fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(127, 0, 0, self.number())
    }

    fn at(host: &str) -> Option<Self> {
        let [127, 0, 0, last] = host.parse::<Ipv4Addr>().ok()?.octets() else {
            return None;
        };
        match last {
            1 => Some(Self::Catalogue),
            10..100 => Some(Self::Node(last - 10)),
            100.. => Some(Self::Uploader(last - 100)),
            _ => None,
        }
    }

    #[must_use]
    pub fn url(self) -> String {
        format!("http://{}:{PORT}", self.address())
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Catalogue => f.write_str("catalogue"),
            Self::Uploader(number) => write!(f, "uploader-{number}"),
            Self::Node(number) => write!(f, "node-{number}"),
        }
    }
}

/// A listener of the simulated network.
pub(crate) struct SimListener(TcpListener);

impl SimListener {
    pub(crate) async fn bind() -> io::Result<Self> {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await.map(Self)
    }
}

impl Listening for SimListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection to another machine.
pub(crate) struct SimConnection(TokioIo<TcpStream>);

impl Connection for SimConnection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for SimConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for SimConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Opens connections.
#[derive(Debug, Clone, Copy)]
struct Connector;

impl Service<Uri> for Connector {
    type Response = SimConnection;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<SimConnection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let machine = uri.host().and_then(Machine::at);
            let machine = machine.ok_or_else(|| io::Error::other(format!("no machine at {uri}")))?;
            let connecting = TcpStream::connect((machine.to_string(), PORT));
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(SimConnection(TokioIo::new(stream)))
        })
    }
}

/// The product's transport on one simulated machine. What it sends and gets is traced.
#[derive(Debug, Clone)]
pub(crate) struct SimTransport {
    clients: Arc<Mutex<BTreeMap<Machine, Client<Connector, HttpBody>>>>,
    from: Machine,
    trace: Trace,
}

impl SimTransport {
    pub(crate) fn new(from: Machine, trace: Trace) -> Arc<Self> {
        let clients = Arc::default();
        Arc::new(Self { clients, from, trace })
    }

    fn client(&self, to: Machine) -> Client<Connector, HttpBody> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || Client::builder(TokioExecutor::new()).build(Connector);
        clients.entry(to).or_insert_with(build).clone()
    }
}

#[async_trait]
impl Transport for SimTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let what = format!("{} {}", request.method, request.url);
        self.trace.note(|| format!("{} asks {what}", self.from));
        let answer = self.answer(request).await;
        self.trace.note(|| match &answer {
            Ok(answer) => format!("{} was told {} of {what}", self.from, answer.status),
            Err(error) => format!("{} was not answered: {error}", self.from),
        });
        answer
    }
}

impl SimTransport {
    async fn answer(&self, request: Request) -> Result<Response, TransportError> {
        let Request {
            method,
            url,
            headers,
            body,
        } = request;
        let unreachable = |reason: String| TransportError::Unreachable {
            url: url.clone(),
            reason,
        };
        let mut builder = http::Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let body = match body {
            Body::Empty => HttpBody::empty(),
            Body::Bytes(bytes) => HttpBody::from(bytes),
            Body::Stream { stream, .. } => HttpBody::from_stream(stream),
        };
        let request = builder
            .body(body)
            .map_err(|error| unreachable(error.to_string()))?;
        let to = request.uri().host().and_then(Machine::at);
        let to = to.ok_or_else(|| unreachable("no machine has this address".to_owned()))?;
        let answer = self.client(to).request(request).await;
        let answer = answer.map_err(|error| unreachable(innermost(&error)))?;
        let (parts, body) = answer.into_parts();
        let source = url.clone();
        let pieces = HttpBody::new(body).into_data_stream();
        let pieces = pieces.map(move |piece: Result<Bytes, axum::Error>| {
            piece.map_err(|error| TransportError::Interrupted {
                url: source.clone(),
                reason: innermost(&error),
            })
        });
        Ok(Response {
            url,
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: pieces.boxed(),
        })
    }
}

fn innermost(mut error: &dyn std::error::Error) -> String {
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_is_found_at_its_address() {
        for machine in [
            Machine::Catalogue,
            Machine::Uploader(2),
            Machine::Node(1),
            Machine::Node(7),
        ] {
            let uri: Uri = machine.url().parse().expect("an address");
            assert_eq!(uri.host().and_then(Machine::at), Some(machine));
        }
        assert_eq!(Machine::at("192.168.0.1"), None);
    }
}
