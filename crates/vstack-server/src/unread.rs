//! A request that is answered before its body was read is the last one of its connection, and the answer says so.
//!
//! hyper closes such a connection by itself, but only after the answer has left: a client that keeps connections would
//! send its next request into one that is about to be closed, and be told that it broke off.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};

/// Whether a body has been read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Unread(Arc<AtomicBool>);

impl Unread {
    /// The request, and what becomes known of its body; nothing where it has none.
    pub(crate) fn watch(request: Request<Incoming>) -> (Request<Body>, Option<Self>) {
        if request.body().is_end_stream() {
            return (request.map(Body::new), None);
        }
        let unread = Self(Arc::new(AtomicBool::new(true)));
        let watched = unread.clone();
        let request = request.map(|body| {
            Body::new(WatchedBody {
                body,
                unread: watched,
            })
        });
        (request, Some(unread))
    }

    /// Announces the close that follows a body that is still on its way.
    pub(crate) fn announce_close<B>(&self, response: &mut Response<B>) {
        if self.0.load(Ordering::Acquire) {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

struct WatchedBody {
    body: Incoming,
    unread: Unread,
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.unread.0.store(false, Ordering::Release);
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
