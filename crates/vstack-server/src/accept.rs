//! Taking connections: a cap for each address, HTTP/1.1 on each, and an orderly end.
//!
//! When a role stops it takes no more connections, lets open requests end, and cuts what is left when told to.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;
use tracing::{debug, warn};
use vstack_api::ErrorCode;

use crate::connection::{Activity, BusyBody, ConnectionLimits, TimedStream};
use crate::http::refuse;
use crate::metrics::{ClosedLabels, HttpMetrics, Metrics};
use crate::unread::Unread;

/// A connection's buffer for what arrives, and the most of an answer that waits for the socket before the next piece
/// is made. hyper's own 400 KiB, a hundred times, would be more memory than the whole node may use.
const BUFFER_BYTES: usize = 64 * 1024;
/// Rest after the system had no descriptor left for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(200);

/// Where connections come from: the system's sockets, or those of a simulated network.
pub trait Listening: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next connection, and who opened it.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// # Errors
    /// The listener was closed.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listening for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, address) = Self::accept(self).await?;
        // Answers are written whole, so that waiting for more to send only delays their end.
        let _ = stream.set_nodelay(true);
        Ok((stream, address))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// What a server needs to serve a connection.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) app: Router,
    pub(crate) limits: ConnectionLimits,
    pub(crate) metrics: Metrics,
    /// No more requests; open ones may end.
    pub(crate) stop: CancellationToken,
    /// Everything ends now.
    pub(crate) cut: CancellationToken,
}

impl Server {
    /// Serves until stopped; returns when the last connection is closed.
    pub(crate) async fn run(self, listener: impl Listening) {
        let (tracker, guests) = (TaskTracker::new(), Guests::default());
        loop {
            let accepted = tokio::select! {
                // In this order, here and below: a simulation must always do the same.
                biased;
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => match guests.enter(address.ip(), self.limits.per_address) {
                    Some(guest) => {
                        tracker.spawn(self.clone().serve(stream, address, guest));
                    }
                    None => self.turn_away(),
                },
                Err(error) => {
                    warn!(%error, "cannot take a connection");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
        drop(listener);
        tracker.close();
        tracker.wait().await;
    }

    /// The connection is closed by being dropped.
    fn turn_away(&self) {
        let reason = ClosedLabels {
            reason: "address_cap",
        };
        self.metrics.http.closed.get_or_create(&reason).inc();
    }

    async fn serve<S>(self, stream: S, address: SocketAddr, _guest: Guest)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let _open = Open::new(&self.metrics.http);
        let activity = Activity::default();
        let timed = TimedStream::new(stream, self.limits, activity.clone(), self.metrics.http.clone());
        let app = self.app;
        let service = service_fn(move |request: Request<Incoming>| {
            let (busy, mut app) = (activity.enter(), app.clone());
            let ambiguous = activity.is_ambiguous();
            let (request, unread) = Unread::watch(request);
            async move {
                let mut response = if ambiguous {
                    refuse(ErrorCode::BadRequest, "Content-Length beside Transfer-Encoding").into_response()
                } else {
                    app.call(request).await?
                };
                if let Some(unread) = unread {
                    unread.announce_close(&mut response);
                }
                Ok::<_, Infallible>(response.map(|body| BusyBody { body, _busy: busy }))
            }
        });
        let connection = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(timed), service);
        tokio::pin!(connection);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                served = connection.as_mut() => {
                    if let Err(error) = served {
                        debug!(%address, %error, "connection ended");
                    }
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.cut.cancelled() => return,
            }
        }
    }
}

/// Counts a connection while it is open.
struct Open<'a>(&'a HttpMetrics);

impl<'a> Open<'a> {
    fn new(http: &'a HttpMetrics) -> Self {
        http.connections.inc();
        Self(http)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Connections of each address.
#[derive(Debug, Clone, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, Count>>>);

#[derive(Debug, Default)]
struct Count {
    open: u32,
    /// One line in the log until the address has gone.
    told: bool,
}

/// One connection of an address.
struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guests {
    fn enter(&self, address: IpAddr, cap: u32) -> Option<Guest> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if count.open >= cap {
            if !std::mem::replace(&mut count.told, true) {
                warn!(%address, cap, "too many connections from one address, turning further ones away");
            }
            return None;
        }
        count.open += 1;
        Some(Guest {
            guests: self.clone(),
            address,
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            count.open -= 1;
            if count.open == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_cap_and_gets_it_back() {
        let guests = Guests::default();
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = guests.enter(one, 2);
        let second = guests.enter(one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(guests.enter(one, 2).is_none());
        assert!(guests.enter(other, 2).is_some());
        drop(first);
        assert!(guests.enter(one, 2).is_some());
        drop(second);
        assert!(guests.0.lock().unwrap().is_empty());
    }
}
