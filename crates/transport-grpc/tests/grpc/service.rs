//! A service whose answers a test writes: gRPC by hand, so that it can say what no library does,
//! or HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Far longer than anything takes; only a test that fails waits for it.
pub const FAR: Duration = Duration::from_secs(20);

/// A call as the service got it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The path, with a query if there is one.
    pub path: String,
    /// POST or GET.
    pub method: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The message without its prefix; over HTTP the body.
    pub message: Bytes,
    /// Which connection it came by, from 0.
    pub connection: usize,
    /// Which call it is, from 0.
    pub nth: usize,
}

impl Heard {
    /// Returns a header's value; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Returns the last segment of the path.
    pub fn name(&self) -> &str {
        let path = self.path.split('?').next().unwrap();
        path.rsplit('/').next().unwrap()
    }
}

/// A status and its text.
pub type Said = (i32, String);
type Script = Arc<dyn Fn(Heard) -> BoxFuture<'static, Said> + Send + Sync>;
type Body = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = Infallible> + Send>>;

/// A running service.
#[derive(Clone)]
pub struct Service {
    /// Where it listens.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    connections: Arc<AtomicUsize>,
    leave: watch::Sender<u64>,
    script: Script,
    is_grpc: bool,
}

/// Says what `script` says, at once.
pub fn at_once(
    script: impl Fn(&Heard) -> (i32, &'static str) + Send + Sync + 'static,
) -> impl Fn(Heard) -> BoxFuture<'static, Said> + Send + Sync + 'static {
    move |heard| {
        let (number, text) = script(&heard);
        Box::pin(async move { (number, text.to_owned()) })
    }
}

impl Service {
    /// Starts a gRPC service on a free port.
    pub async fn grpc(
        script: impl Fn(Heard) -> BoxFuture<'static, Said> + Send + Sync + 'static,
    ) -> Self {
        Self::start("127.0.0.1:0", true, script).await
    }

    /// Starts an HTTP service on a free port; a number is its status.
    pub async fn http(
        script: impl Fn(Heard) -> BoxFuture<'static, Said> + Send + Sync + 'static,
    ) -> Self {
        Self::start("127.0.0.1:0", false, script).await
    }

    /// Starts a service on an address.
    pub async fn start(
        address: &str,
        is_grpc: bool,
        script: impl Fn(Heard) -> BoxFuture<'static, Said> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            connections: Arc::default(),
            leave: watch::Sender::new(0),
            script: Arc::new(script),
            is_grpc,
        };
        let serving = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        service
    }

    /// Returns the URL of a method without a scheme, as DTM's SDKs write it.
    pub fn method(&self, name: &str) -> String {
        format!("{}/test.Service/{name}", self.address)
    }

    /// Returns the URL of an HTTP path.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Returns what it has heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Returns the names of the methods that were called, in order.
    pub fn names(&self) -> Vec<String> {
        self.heard().iter().map(|heard| heard.name().to_owned()).collect()
    }

    /// Waits until it has heard so much.
    pub async fn has_heard(&self, count: usize) -> Vec<Heard> {
        let waiting = async {
            while self.heard.lock().unwrap().len() < count {
                sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(timeout(FAR, waiting).await.is_ok(), "heard only {:?}", self.names());
        self.heard()
    }

    /// Returns how many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Tells every open connection to go away.
    pub fn go_away(&self) {
        self.leave.send_modify(|turn| *turn += 1);
    }

    /// Serves one connection, which may have been wrapped in TLS.
    pub async fn serve<T>(self, stream: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = self.connections.fetch_add(1, Ordering::SeqCst);
        let mut leave = self.leave.subscribe();
        let is_grpc = self.is_grpc;
        let service = self;
        let answer = service_fn(move |request| {
            let service = service.clone();
            async move { Ok::<_, Infallible>(service.answer(connection, request).await) }
        });
        let io = TokioIo::new(stream);
        if !is_grpc {
            let _ = http1::Builder::new().serve_connection(io, answer).await;
            return;
        }
        let serving = http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer);
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            _ = serving.as_mut() => {}
            Ok(()) = leave.changed() => {
                serving.as_mut().graceful_shutdown();
                let _ = serving.await;
            }
        }
    }

    async fn answer(&self, connection: usize, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let mut message = body.collect().await.unwrap().to_bytes();
        if self.is_grpc {
            assert_eq!(message[0], 0, "not compressed");
            let length = u32::from_be_bytes(message[1..5].try_into().unwrap()) as usize;
            message = message.slice(5..);
            assert_eq!(message.len(), length);
        }
        let mut heard = Heard {
            path: head.uri.path_and_query().unwrap().to_string(),
            method: head.method.to_string(),
            headers: head.headers,
            message,
            connection,
            nth: 0,
        };
        {
            let mut all = self.heard.lock().unwrap();
            heard.nth = all.len();
            all.push(heard.clone());
        }
        let (number, text) = (self.script)(heard).await;
        if self.is_grpc { grpc_answer(number, &text) } else { http_answer(number, text) }
    }
}

fn http_answer(status: i32, text: String) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(text));
    let status = u16::try_from(status).unwrap();
    Response::builder().status(status).body(Box::pin(body) as Body).unwrap()
}

/// A success has a message and a trailer, everything else its status in the head, as services do.
fn grpc_answer(number: i32, text: &str) -> Response<Body> {
    let mut status = HeaderMap::new();
    status.insert("grpc-status", number.to_string().parse().unwrap());
    let encoded: String = text.bytes().map(encode).collect();
    status.insert("grpc-message", encoded.parse().unwrap());
    let response = Response::builder().header("content-type", "application/grpc");
    if number == 0 {
        let message = Bytes::from_static(&[0, 0, 0, 0, 3, b'a', b'b', b'c']);
        let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(status))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        return response.body(Box::pin(body) as Body).unwrap();
    }
    let mut response = response.body(Box::pin(http_body_util::Empty::new()) as Body).unwrap();
    response.headers_mut().extend(status);
    response
}

fn encode(byte: u8) -> String {
    match byte {
        b' '..=b'~' if byte != b'%' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    }
}
