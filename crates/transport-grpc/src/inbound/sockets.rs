//! Connections in, a bounded number.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dtmd_transport::socket::{Listener, Socket};
use futures_util::stream::{Stream, unfold};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;
use tracing::{debug, warn};

/// How long to wait after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An accepted connection; counts until it is dropped.
pub(super) struct Accepted<S> {
    socket: S,
    /// Until the first byte: whoever only connects must not hold a place for long.
    hello: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

struct Acceptor<L> {
    listener: L,
    permits: Arc<Semaphore>,
    hello_deadline: Duration,
    is_full: bool,
    is_failing: bool,
}

/// Returns the connections of a listener, at most so many at a time. Those past it are closed at
/// once: their clients try another server, or wait and try again.
pub(super) fn incoming<L: Listener>(
    listener: L,
    connections_max: usize,
    hello_deadline: Duration,
) -> impl Stream<Item = io::Result<Accepted<L::Socket>>> {
    let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
    let acceptor =
        Acceptor { listener, permits, hello_deadline, is_full: false, is_failing: false };
    unfold(acceptor, |mut acceptor| async move {
        let accepted = acceptor.next().await;
        Some((Ok(accepted), acceptor))
    })
}

impl<L: Listener> Acceptor<L> {
    async fn next(&mut self) -> Accepted<L::Socket> {
        loop {
            match self.listener.accept().await {
                Ok(socket) => {
                    self.is_failing = false;
                    if let Some(accepted) = self.admit(socket) {
                        return accepted;
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if !self.is_failing {
                        warn!(%error, "cannot accept connections; raise the limit of open files");
                    }
                    self.is_failing = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&mut self, socket: L::Socket) -> Option<Accepted<L::Socket>> {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            if !self.is_full {
                warn!("the limit of gRPC connections is reached; new ones are closed");
            }
            self.is_full = true;
            return None;
        };
        self.is_full = false;
        if let Err(error) = socket.set_nodelay() {
            debug!(%error, "a connection was gone when it was accepted");
            return None;
        }
        let hello = Some(Box::pin(sleep(self.hello_deadline)));
        Some(Accepted { socket, hello, _permit: permit })
    }
}

/// Returns whether an accept failed because of its client alone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl<S> Connected for Accepted<S> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<S: Socket> AsyncRead for Accepted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            self.hello = None;
        } else if let Some(hello) = &mut self.hello
            && hello.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: Socket> AsyncWrite for Accepted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
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
