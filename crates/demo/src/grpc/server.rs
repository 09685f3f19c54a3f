//! Answering calls.
//!
//! Every call is handled in a task of its own, so a caller that hangs up does not cancel work that
//! has begun. The number of such tasks, of connections and the size of a message are bounded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{encode_text, framed, read_body, status, unframed};

/// Most calls a service works on at one time; more are answered UNAVAILABLE at once.
const CALLS_MAX: usize = 4096;
/// Most connections a service holds at one time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 1024;
/// Most calls of one connection at one time; the client waits with more.
const STREAMS_MAX: u32 = 1024;

/// A call as a service sees it.
#[derive(Debug)]
pub struct GrpcCall {
    /// `/Service/Method`.
    pub path: String,
    /// Its metadata, HTTP/2's own headers among them.
    pub metadata: HeaderMap,
    /// The message as it came.
    pub message: Bytes,
}

/// What a service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcReply {
    /// OK, with a message.
    Message(Bytes),
    /// Any other status, with its text.
    Status(i32, String),
    /// No answer: the call is reset, as if the service had crashed.
    Drop,
}

/// Answers the calls of one service.
pub trait GrpcService: Send + Sync + 'static {
    /// Handles one call; it runs to its end even if the caller hangs up.
    fn call(&self, call: GrpcCall) -> impl Future<Output = GrpcReply> + Send;
}

/// Accepts connections until the future is dropped, which also drops the connections.
pub async fn serve<S: GrpcService>(listener: TcpListener, service: Arc<S>) -> Infallible {
    let calls = Arc::new(Semaphore::new(CALLS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: it passes, and a busy loop would not help.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        connections.spawn(serve_connection(stream, service.clone(), calls.clone()));
    }
}

async fn serve_connection<S: GrpcService>(
    stream: TcpStream,
    service: Arc<S>,
    calls: Arc<Semaphore>,
) {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(STREAMS_MAX);
    // Vanished callers are part of the demo.
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (service, calls) = (service.clone(), calls.clone());
        tokio::spawn(async move {
            let Ok(_permit) = calls.try_acquire() else {
                let text = format!("{CALLS_MAX} calls are being handled; try again later");
                return answer(respond, GrpcReply::Status(status::UNAVAILABLE, text));
            };
            let reply = handle(&*service, request).await;
            answer(respond, reply);
        });
    }
}

async fn handle<S: GrpcService>(service: &S, request: Request<RecvStream>) -> GrpcReply {
    let (head, mut body) = request.into_parts();
    let message = match read_body(&mut body).await {
        Ok(frame) => unframed(frame).map_err(str::to_owned),
        Err(text) => Err(text),
    };
    let message = match message {
        Ok(message) => message,
        Err(text) => return GrpcReply::Status(status::INVALID_ARGUMENT, text),
    };
    let path = head.uri.path().to_owned();
    service.call(GrpcCall { path, metadata: head.headers, message }).await
}

/// Sends an answer; whoever waits for it may have gone.
fn answer(mut respond: SendResponse<Bytes>, reply: GrpcReply) {
    const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
    let mut response = Response::new(());
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    match reply {
        GrpcReply::Message(message) => {
            let Ok(mut body) = respond.send_response(response, false) else { return };
            let _ = body.send_data(framed(&message), false);
            let mut trailers = HeaderMap::with_capacity(1);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let _ = body.send_trailers(trailers);
        }
        GrpcReply::Status(number, text) => {
            let headers = response.headers_mut();
            headers.insert("grpc-status", HeaderValue::from(number));
            if let Ok(text) = HeaderValue::try_from(encode_text(&text)) {
                headers.insert("grpc-message", text);
            }
            let _ = respond.send_response(response, true);
        }
        GrpcReply::Drop => respond.send_reset(h2::Reason::INTERNAL_ERROR),
    }
}
