//! One connection to a service: a request is written, its answer read, by the call itself.
//!
//! There is no task beside a connection and no channel to one: in the usual case a call is one write
//! and one read of its socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::answer::{Answered, NotHttp, Reader};
use super::connect::OpenPermit;
use crate::socket;

/// What is read at a time, at first; answers that fill it get more.
const INPUT_BYTES: usize = 2 << 10;
/// What is read at a time, at most.
const INPUT_MAX_BYTES: usize = 128 << 10;

/// An open connection.
pub(super) struct Connection {
    stream: Stream,
    input: Input,
    pub(super) opened_at: Instant,
    /// Since when it has not been used, while the pool has it.
    pub(super) idle_since: Instant,
    /// Where its socket is registered: a runtime that is not run tells nothing about it.
    pub(super) runtime: runtime::Id,
    // Counts it as open.
    _permit: OpenPermit,
}

/// What carries the bytes.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// In a simulation only.
    Simulated(Box<dyn socket::Stream>),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) why: FailedWhy,
    /// No byte of an answer has come.
    pub(super) nothing_read: bool,
    /// The answer's head was complete.
    pub(super) in_body: bool,
}

#[derive(Debug)]
pub(super) enum FailedWhy {
    /// The service has closed the connection.
    Closed,
    Io(io::Error),
    NotHttp(NotHttp),
}

impl Failed {
    /// Returns whether a kept connection failed as one does that the service had closed.
    pub(super) fn is_stale(&self) -> bool {
        self.nothing_read
            && match &self.why {
                FailedWhy::Closed => true,
                FailedWhy::NotHttp(_) => false,
                FailedWhy::Io(error) => matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                        | io::ErrorKind::NotConnected
                        | io::ErrorKind::UnexpectedEof
                ),
            }
    }
}

impl Connection {
    /// Returns a connection that has not been used yet. Called on the runtime it was opened on.
    pub(super) fn new(stream: Stream, permit: OpenPermit) -> Self {
        let now = Instant::now();
        Self {
            stream,
            input: Input { bytes: vec![0; INPUT_BYTES], start: 0, end: 0 },
            opened_at: now,
            idle_since: now,
            runtime: runtime::Handle::current().id(),
            _permit: permit,
        }
    }

    /// Takes note that nobody uses it from now on.
    pub(super) fn rest(&mut self) {
        self.idle_since = Instant::now();
        self.input.shrink();
    }

    /// Returns whether nothing has happened to it while nobody used it; has `cx` woken when
    /// something does. Costs no system call unless something has.
    pub(super) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        // Closed, broken, or a service that speaks unasked: of no use, whatever it is.
        self.stream.poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Sends a request and reads its answer. `on_head` is called when the answer's head is read.
    ///
    /// Reads while it writes: a service may answer before it has read all, and then stop reading.
    ///
    /// # Errors
    ///
    /// [`Failed`]; the connection is of no more use. So it is when the future is dropped.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        mut reader: Reader,
        mut on_head: impl FnMut(),
    ) -> Result<Answered, Failed> {
        let mut unsent = request;
        let (mut is_sent, mut unwritable) = (false, None);
        let mut nothing_read = true;
        let done = std::future::poll_fn(|cx| {
            if !is_sent && unwritable.is_none() {
                match self.stream.poll_send(cx, &mut unsent) {
                    Poll::Ready(Ok(())) => is_sent = true,
                    Poll::Ready(Err(error)) => unwritable = Some(error),
                    Poll::Pending => {}
                }
            }
            self.poll_answer(cx, &mut reader, &mut nothing_read, &mut on_head)
        });
        match done.await {
            Ok(()) => {
                let mut answer = reader.into_answer();
                // What is left of the request would be taken for the next one.
                answer.is_kept_alive &= is_sent;
                Ok(answer)
            }
            Err(why) => {
                // The first failure says more: a socket that is reset ends in silence.
                let why = match (why, unwritable) {
                    (FailedWhy::Closed, Some(error)) => FailedWhy::Io(error),
                    (why, _) => why,
                };
                Err(Failed { why, nothing_read, in_body: !reader.is_in_head() })
            }
        }
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Reader,
        nothing_read: &mut bool,
        on_head: &mut impl FnMut(),
    ) -> Poll<Result<(), FailedWhy>> {
        loop {
            let count = match ready!(self.input.poll_fill(&mut self.stream, cx)) {
                Ok(count) => count,
                Err(error) => return Poll::Ready(Err(FailedWhy::Io(error))),
            };
            if count == 0 {
                let ended = reader.end(self.input.unread());
                return Poll::Ready(
                    ended.map_err(|why| why.map_or(FailedWhy::Closed, FailedWhy::NotHttp)),
                );
            }
            *nothing_read = false;
            let was_in_head = reader.is_in_head();
            match reader.advance(self.input.unread()) {
                Ok(consumed) => self.input.consume(consumed),
                Err(why) => return Poll::Ready(Err(FailedWhy::NotHttp(why))),
            }
            if was_in_head && !reader.is_in_head() {
                on_head();
            }
            if reader.is_done() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Stream {
    /// Writes what is unsent; ready when all of it has left this process.
    fn poll_send(&mut self, cx: &mut Context<'_>, unsent: &mut &[u8]) -> Poll<io::Result<()>> {
        while !unsent.is_empty() {
            match ready!(self.poll_write(cx, unsent)?) {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *unsent = &unsent[count..],
            }
        }
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Simulated(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Simulated(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

/// What has been read and not consumed.
struct Input {
    /// All of it initialised; `start..end` is what was read.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads once; returns how many bytes came, 0 at the end.
    ///
    /// Its size is bounded by what a reader leaves unread: a head, or a line between chunks.
    fn poll_fill(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut buffer = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(stream.poll_read(cx, &mut buffer)?);
        let count = buffer.filled().len();
        self.end += count;
        if self.end == self.bytes.len() && self.bytes.len() < INPUT_MAX_BYTES {
            // There is more, probably.
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        Poll::Ready(Ok(count))
    }

    /// Gives back what a long answer has taken.
    fn shrink(&mut self) {
        if self.bytes.len() > INPUT_BYTES {
            self.bytes.truncate(INPUT_BYTES);
            self.bytes.shrink_to_fit();
        }
    }
}
