//! One connection: HTTP/1.1 by hyper, under deadlines that cost next to nothing a request.
//!
//! No timer is set or reset while a connection works. It notes the phase it is in and when that
//! began, in atomics, by a clock that ticks coarsely; the listener looks at all its connections
//! at each tick and tells those that are overdue to end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dtmd_engine::EngineError;
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::{debug, error};

use super::reply::Reply;
use crate::socket::Socket;

/// Bytes read ahead of a body, and at a time of it.
const BUFFER_MAX_BYTES: usize = 64 * 1024;
/// How much of a body that is not wanted is read and dropped, in multiples of the limit, so that a
/// client that is still sending reads the answer instead of a reset.
const DISCARD_TIMES: usize = 4;

/// The bounds of a listener and of its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionLimits {
    pub(super) connections_max: usize,
    pub(super) body_max_bytes: usize,
    pub(super) head_max_bytes: usize,
    pub(super) head: Duration,
    pub(super) body: Duration,
    pub(super) idle: Duration,
    pub(super) write: Duration,
    pub(super) drain: Duration,
}

impl ConnectionLimits {
    /// Returns how often connections are looked at.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.head.min(self.body).min(self.idle).min(self.write);
        (shortest / 8).clamp(Duration::from_millis(2), Duration::from_secs(1))
    }
}

/// Why a request's body could not be had.
#[derive(Debug)]
pub(super) enum BodyError {
    TooLarge {
        max: usize,
    },
    /// There is no room for it.
    Refused(EngineError),
    Broken(hyper::Error),
}

/// What answers the requests of a listener.
pub(super) trait Handler: Send + Sync + 'static {
    /// Answers one request. Dropped when the client hangs up; a panic becomes a 500.
    fn handle(
        self: Arc<Self>,
        head: Parts,
        body: Result<Bytes, BodyError>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;

    /// Whether a body of which so many bytes have come may be read on.
    fn admit_body(&self, _bytes: usize) -> Result<(), EngineError> {
        Ok(())
    }
}

/// A clock in milliseconds that moves at each tick of its listener. Never 0.
#[derive(Debug)]
pub(super) struct CoarseClock(AtomicU64);

impl CoarseClock {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    /// Moves it on and returns the time.
    pub(super) fn advance(&self, by: Duration) -> u64 {
        let by = u64::try_from(by.as_millis()).unwrap_or(0);
        self.0.fetch_add(by, Ordering::Relaxed) + by
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// No request has begun.
    Idle,
    /// Some bytes of a request's head have arrived.
    Head,
    /// The head is complete, the body is not.
    Body,
    /// The request is being worked on; takes as long as it takes.
    Working,
}

/// What a connection has been told.
const GO_ON: u8 = 0;
const DRAIN: u8 = 1;
const END: u8 = 2;

/// What a listener sees of a connection.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Arc<CoarseClock>,
    phase: AtomicU8,
    since: AtomicU64,
    /// Since when the client has not taken what is written; 0 when it has.
    write_blocked_since: AtomicU64,
    told: AtomicU8,
    waker: AtomicWaker,
}

impl Watch {
    pub(super) fn new(clock: Arc<CoarseClock>) -> Self {
        let since = AtomicU64::new(clock.now());
        Self {
            clock,
            phase: AtomicU8::new(Phase::Idle as u8),
            since,
            write_blocked_since: AtomicU64::new(0),
            told: AtomicU8::new(GO_ON),
            waker: AtomicWaker::new(),
        }
    }

    fn enter(&self, phase: Phase) {
        self.since.store(self.clock.now(), Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    fn is_quiet(&self) -> bool {
        self.is_in(Phase::Idle) && self.write_blocked_since.load(Ordering::Relaxed) == 0
    }

    /// Returns which deadline has passed, if one has.
    pub(super) fn overdue(&self, now: u64, limits: &ConnectionLimits) -> Option<&'static str> {
        let past =
            |since: u64, limit: Duration| u128::from(now.saturating_sub(since)) > limit.as_millis();
        let blocked = self.write_blocked_since.load(Ordering::Relaxed);
        if blocked != 0 && past(blocked, limits.write) {
            return Some("write");
        }
        let since = self.since.load(Ordering::Relaxed);
        if self.is_in(Phase::Idle) && past(since, limits.idle) {
            Some("idle")
        } else if self.is_in(Phase::Head) && past(since, limits.head) {
            Some("head")
        } else if self.is_in(Phase::Body) && past(since, limits.body) {
            Some("body")
        } else {
            None
        }
    }

    /// Has the connection close now.
    pub(super) fn end(&self) {
        self.told.store(END, Ordering::Release);
        self.waker.wake();
    }

    /// Has the connection close after the request that it works on.
    pub(super) fn drain(&self) {
        let _ = self.told.compare_exchange(GO_ON, DRAIN, Ordering::Release, Ordering::Relaxed);
        self.waker.wake();
    }
}

/// Serves a connection to its end.
pub(super) async fn run<S: Socket, H: Handler>(
    socket: S,
    handler: Arc<H>,
    limits: ConnectionLimits,
    watch: Arc<Watch>,
) {
    let io = TokioIo::new(WatchedSocket { socket, watch: watch.clone() });
    let service = {
        let watch = watch.clone();
        service_fn(move |request| {
            let (handler, watch) = (handler.clone(), watch.clone());
            async move { Ok::<_, Infallible>(answer(request, handler, limits, &watch).await) }
        })
    };
    let connection = http1::Builder::new()
        // Answers are short: one piece costs the kernel less than two.
        .writev(false)
        .max_header_size(limits.head_max_bytes)
        .max_buf_size(BUFFER_MAX_BYTES.max(limits.head_max_bytes))
        // The watch does this, without a timer a request.
        .header_read_timeout(None)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut draining = false;
    let ended = poll_fn(|cx| {
        // Registered first, so that an order given meanwhile is not missed.
        watch.waker.register(cx.waker());
        match watch.told.load(Ordering::Acquire) {
            END => return Poll::Ready(Ok(())),
            DRAIN if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        match connection.as_mut().poll(cx) {
            // Hyper waits for the first request of a connection that never had one.
            Poll::Pending if draining && watch.is_quiet() => Poll::Ready(Ok(())),
            poll => poll,
        }
    });
    if let Err(error) = ended.await {
        // Hung up, or not HTTP: nothing that an operator can do about.
        debug!(%error, "a connection ended early");
    }
}

async fn answer<H: Handler>(
    request: Request<Incoming>,
    handler: Arc<H>,
    limits: ConnectionLimits,
    watch: &Watch,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = if body.is_end_stream() {
        Ok(Bytes::new())
    } else {
        watch.enter(Phase::Body);
        read_body(body, limits.body_max_bytes, |bytes| handler.admit_body(bytes)).await
    };
    watch.enter(Phase::Working);
    let response = AssertUnwindSafe(handler.handle(head, body)).catch_unwind().await;
    watch.enter(Phase::Idle);
    response.unwrap_or_else(|panic| {
        error!(panic = panic_text(&*panic), "a request's handler panicked; this is a bug");
        Reply::message(500, "internal error; the server's log has more").into()
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

/// Reads a body whole. One that arrived in one piece is not copied.
async fn read_body(
    mut body: Incoming,
    max: usize,
    admit: impl Fn(usize) -> Result<(), EngineError>,
) -> Result<Bytes, BodyError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut refused = (announced > max).then_some(BodyError::TooLarge { max });
    let mut whole = Bytes::new();
    let mut gathered = BytesMut::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > max {
            refused = Some(BodyError::TooLarge { max });
        } else if refused.is_none() {
            refused = admit(length).err().map(BodyError::Refused);
        }
        if refused.is_some() {
            (whole, gathered) = (Bytes::new(), BytesMut::new());
            if length > max.saturating_mul(DISCARD_TIMES) {
                break;
            }
        } else if whole.is_empty() && gathered.is_empty() {
            whole = data;
        } else {
            if gathered.is_empty() {
                gathered.reserve(announced.max(whole.len() + data.len()));
                gathered.extend_from_slice(&whole);
            }
            gathered.extend_from_slice(&data);
        }
    }
    match refused {
        Some(error) => Err(error),
        None if gathered.is_empty() => Ok(whole),
        None => Ok(gathered.freeze()),
    }
}

/// A socket that tells the watch what it sees.
struct WatchedSocket<S> {
    socket: S,
    watch: Arc<Watch>,
}

impl<S> WatchedSocket<S> {
    fn wrote<T>(&self, poll: Poll<T>) -> Poll<T> {
        let blocked = &self.watch.write_blocked_since;
        let was_blocked = blocked.load(Ordering::Relaxed) != 0;
        if poll.is_pending() && !was_blocked {
            blocked.store(self.watch.clock.now(), Ordering::Relaxed);
        } else if poll.is_ready() && was_blocked {
            blocked.store(0, Ordering::Relaxed);
        }
        poll
    }
}

impl<S: Socket> AsyncRead for WatchedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before && self.watch.is_in(Phase::Idle) {
            self.watch.enter(Phase::Head);
        }
        poll
    }
}

impl<S: Socket> AsyncWrite for WatchedSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
