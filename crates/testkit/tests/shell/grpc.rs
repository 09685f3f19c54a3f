//! gRPC by hand, over the simulated network: what applications ask and banks answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use turmoil::net::TcpStream;

use dtmd_transport::socket::Listener as _;

use crate::chance::Chance;
use crate::net::{SimListener, SimStream};

/// The statuses that mean something: OK, FAILED_PRECONDITION for ongoing, ABORTED for failure.
pub(crate) const OK: i32 = 0;
pub(crate) const ONGOING: i32 = 9;
pub(crate) const FAILURE: i32 = 10;
pub(crate) const UNAVAILABLE: i32 = 14;

/// Makes a unary call; `None` if there was no answer.
pub(crate) async fn ask(
    chance: &Chance,
    (host, port): (&str, u16),
    path: &str,
    message: &impl prost::Message,
    limit: Duration,
) -> Option<i32> {
    let mut body = Vec::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut body).unwrap();
    let request = Request::post(format!("http://{host}:{port}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let address = SocketAddr::new(turmoil::lookup(host), port);
    let exchange = async {
        let stream = SimStream::new(TcpStream::connect(address).await.ok()?, chance);
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let shaken = builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.ok()?;
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await.ok()?;
            let in_head = response.headers().get("grpc-status").cloned();
            let body = response.into_body().collect().await.ok()?;
            let in_trailers = || body.trailers()?.get("grpc-status").cloned();
            in_head.or_else(in_trailers)?.to_str().ok()?.parse().ok()
        };
        let answer = answer.await;
        driver.abort();
        answer
    };
    tokio::time::timeout(limit, exchange).await.ok().flatten()
}

/// Serves with a function from a call's metadata to its status, for ever.
pub(crate) async fn serve<F, A>(mut listener: SimListener, answer: F) -> turmoil::Result
where
    F: Fn(HeaderMap) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = i32> + Send + 'static,
{
    loop {
        let stream = listener.accept().await?;
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (head, body) = request.into_parts();
            let answer = answer(head.headers);
            async move {
                let _ = body.collect().await;
                let status = answer.await;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from(status));
                let message = Frame::data(Bytes::from_static(&[0; 5]));
                let frames = [Ok::<_, Infallible>(message), Ok(Frame::trailers(trailers))];
                let body = StreamBody::new(futures_util::stream::iter(frames));
                let response = Response::builder().header("content-type", "application/grpc");
                Ok::<_, Infallible>(response.body(body).unwrap())
            }
        });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let connection =
            builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
}
