//! The simulated network, as the transports' seams want it, and the services' small HTTP.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use dtmd_transport::socket::{Listener, Network, Socket, Stream};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::chance::{Chance, Fault};

/// Bytes after which a connection that is to be lost is, at most: about two exchanges.
const LOST_AFTER_MAX: u64 = 1200;

/// A connection that may be reset after some bytes, to either side.
pub(crate) struct SimStream {
    stream: TcpStream,
    left: Option<u64>,
}

impl SimStream {
    pub(crate) fn new(stream: TcpStream, chance: &Chance) -> Self {
        let lost = chance.hits(Fault::LostConnection);
        Self { stream, left: lost.then(|| chance.range(1, LOST_AFTER_MAX)) }
    }

    fn is_lost(&self) -> bool {
        self.left == Some(0)
    }

    fn passed(&mut self, bytes: usize) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes as u64);
        }
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_lost() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.passed(buf.filled().len() - before);
        poll
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_lost() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = poll {
            self.passed(count);
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Socket for SimStream {
    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_last(self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
    }
}

/// A host's listener.
pub(crate) struct SimListener {
    listener: TcpListener,
    chance: Arc<Chance>,
}

impl SimListener {
    pub(crate) async fn bind(port: u16, chance: Arc<Chance>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?, chance })
    }
}

impl Listener for SimListener {
    type Socket = SimStream;

    async fn accept(&mut self) -> io::Result<SimStream> {
        let (stream, _) = self.listener.accept().await?;
        Ok(SimStream::new(stream, &self.chance))
    }
}

/// The network that a server calls services over.
pub(crate) struct SimNetwork(pub(crate) Arc<Chance>);

impl Network for SimNetwork {
    fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let chance = self.0.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(SimStream::new(stream, &chance)) as Box<dyn Stream>)
        })
    }
}

/// Posts to a host; `None` if there was no answer.
pub(crate) async fn post(
    chance: &Chance,
    (host, port): (&str, u16),
    path: &str,
    body: String,
    limit: Duration,
) -> Option<(u16, String)> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let address = SocketAddr::new(turmoil::lookup(host), port);
    let exchange = async {
        let stream = SimStream::new(TcpStream::connect(address).await.ok()?, chance);
        let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.ok()?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await.ok()?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, String::from_utf8_lossy(&body).into_owned()))
        };
        let answer = answer.await;
        driver.abort();
        answer
    };
    tokio::time::timeout(limit, exchange).await.ok().flatten()
}

/// Serves with a function from (path and query) to (status, body), for ever.
pub(crate) async fn serve<F, A>(mut listener: SimListener, answer: F) -> turmoil::Result
where
    F: Fn(String) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = (u16, &'static str)> + Send + 'static,
{
    loop {
        let stream = listener.accept().await?;
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path_and_query().map(|path| path.as_str().to_owned());
            let answer = answer(path.unwrap_or_default());
            async move {
                let _ = request.into_body().collect().await;
                let (status, body) = answer.await;
                let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
}
