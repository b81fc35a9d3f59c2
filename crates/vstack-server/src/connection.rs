//! One connection and its patience: a request's head must be whole within 10 s of its first byte, a connection may do
//! nothing for 60 s, and a reader that takes nothing for 60 s is given up.
//!
//! The limits stand between the socket and HTTP: hyper's own header limit runs while a kept connection waits for its
//! next request, too, so that it cannot tell a slow head from an idle connection. While a request is being answered
//! nothing is limited here but the writing; the body of a PUT has its own limit where it is received.
//!
//! A request may be refused before its body has arrived. Closing then would reset the connection, and the reset can
//! overtake the refusal: the client would see a broken pipe and not why. So what still comes is read and thrown away
//! for a moment, until the client has closed its side.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::head::HeadScan;
use crate::metrics::{ClosedLabels, HttpMetrics};

/// How long a server waits for its clients, and how many connections one of them may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Without a request, or with a request's answer that the client does not take.
    pub idle: Duration,
    /// Between two pieces of a chunk's body.
    pub body: Duration,
    /// Open connections from one address. A hundred players behind one router use four each.
    pub per_address: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(30),
            per_address: 1024,
        }
    }
}

/// How long a client that is still sending may go on doing so after the last answer. Enough to read the answer.
const LINGER: Duration = Duration::from_secs(2);

/// What the two sides of a connection tell each other: the socket's and the requests'.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activity(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Requests that are being answered.
    open: AtomicU32,
    /// Requests that ever began.
    begun: AtomicU32,
    /// The head that arrived last gives its body two lengths.
    ambiguous: AtomicBool,
    /// The connection, where it found nothing to read during a request: its patience begins when that one ends.
    waiting: AtomicWaker,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Activity);

impl Activity {
    pub(crate) fn enter(&self) -> Busy {
        self.0.open.fetch_add(1, Ordering::AcqRel);
        self.0.begun.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    /// Whether the request that begins now must be refused because of its head.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.0.ambiguous.load(Ordering::Acquire)
    }

    fn is_idle(&self) -> bool {
        self.0.open.load(Ordering::Acquire) == 0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.0.waiting.wake();
    }
}

/// An answer's body that keeps its connection busy until it has ended.
#[derive(Debug)]
pub(crate) struct BusyBody {
    pub(crate) body: axum::body::Body,
    pub(crate) _busy: Busy,
}

impl Body for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An alarm that is set anew for every wait at no cost: it is moved only when it goes off too early.
#[derive(Debug, Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when `deadline` has passed.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// A socket with patience.
#[derive(Debug)]
pub(crate) struct TimedStream<S> {
    stream: S,
    limits: ConnectionLimits,
    activity: Activity,
    http: HttpMetrics,
    /// When the wait for the next request began; absent while one is being answered.
    idle_since: Option<Instant>,
    /// When the head that is arriving began.
    head_since: Option<Instant>,
    head: HeadScan,
    /// Requests that had begun when these were last set back.
    seen: u32,
    /// When the client stopped taking what is sent.
    stuck_since: Option<Instant>,
    /// Until when the closed connection's rest is thrown away.
    linger_until: Option<Instant>,
    /// The client has closed, or was waited for in vain: no one reads what is sent.
    ended: bool,
    reading: Alarm,
    writing: Alarm,
}

impl<S: AsyncRead + Unpin> TimedStream<S> {
    pub(crate) fn new(stream: S, limits: ConnectionLimits, activity: Activity, http: HttpMetrics) -> Self {
        Self {
            stream,
            limits,
            activity,
            http,
            idle_since: Some(Instant::now()),
            head_since: None,
            head: HeadScan::default(),
            seen: 0,
            stuck_since: None,
            linger_until: None,
            ended: false,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

    fn closed(&self, reason: &'static str) {
        self.http.closed.get_or_create(&ClosedLabels { reason }).inc();
    }

    /// Ready when the client has been waited for long enough. To be asked when a read found nothing.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        self.activity.0.waiting.register(cx.waker());
        if !self.activity.is_idle() {
            self.idle_since = None;
            return Poll::Pending;
        }
        let idle_since = *self.idle_since.get_or_insert_with(Instant::now);
        let (deadline, reason) = match self.head_since {
            Some(began) => (began + self.limits.head, "slow_head"),
            None => (idle_since + self.limits.idle, "idle"),
        };
        self.reading.poll(cx, deadline).map(|()| reason)
    }

    /// A request that has begun ends the head that brought it.
    fn forget_heads(&mut self) {
        let begun = self.activity.0.begun.load(Ordering::Acquire);
        if begun != self.seen {
            self.seen = begun;
            (self.idle_since, self.head_since) = (None, None);
            self.head = HeadScan::default();
        }
    }

    fn note_head(&mut self, bytes: &[u8]) {
        self.head_since.get_or_insert_with(Instant::now);
        self.head.take(bytes);
        if self.head.has_two_lengths() {
            self.activity.0.ambiguous.store(true, Ordering::Release);
        }
    }

    /// Throws away what arrives. Ready when the client has closed its side or has had its time.
    fn poll_leftovers(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let mut space = [0; 8 * 1024];
        while Instant::now() < deadline {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return self.reading.poll(cx, deadline),
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(())
    }

    /// What a write gave, unless the client has taken nothing for too long.
    fn judge_write<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck_since = None;
            return written;
        }
        let since = *self.stuck_since.get_or_insert_with(Instant::now);
        ready!(self.writing.poll(cx, since + self.limits.idle));
        self.closed("stuck_reader");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.forget_heads();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Pending => {
                let reason = ready!(this.poll_patience(cx));
                this.closed(reason);
                this.ended = true;
                // As if the client had closed: there is nothing to answer.
                Poll::Ready(Ok(()))
            }
            done => {
                if buffer.filled().len() == before {
                    this.ended = true;
                } else if this.activity.is_idle() {
                    this.note_head(&buffer.filled()[before..]);
                }
                done
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.judge_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Done when nothing more is read of the client either: hyper drops the socket then.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger_until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        if !this.ended {
            let deadline = *this.linger_until.get_or_insert_with(|| Instant::now() + LINGER);
            ready!(this.poll_leftovers(cx, deadline));
        }
        Poll::Ready(Ok(()))
    }
}
