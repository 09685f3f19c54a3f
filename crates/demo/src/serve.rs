//! A minimal HTTP/1.1 server for the demo's banks.
//!
//! Every request is handled in a task of its own, so a caller that hangs up does not cancel work
//! that has begun: that is how late actions come about in real systems, and the barrier must
//! absorb them. The number of such tasks, of connections and the size of a body are bounded.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Largest request body a bank reads.
const BODY_SIZE_MAX_BYTES: usize = 64 * 1024;
/// Most requests a bank works on at one time; more are answered 503 at once.
const REQUESTS_MAX: usize = 1024;
/// Most connections a bank holds at one time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 1024;
/// How long a connection may take to send the head of its next request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A request as a handler sees it: the head and the whole body.
pub(crate) type WholeRequest = Request<Bytes>;

/// What a handler answers.
#[derive(Debug)]
pub(crate) enum Reply {
    /// An HTTP answer with a JSON body.
    Json(StatusCode, Value),
    /// No answer: the connection is closed, as if the service had crashed.
    Drop,
}

/// Answers requests of one service.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Handles one request; it runs to its end even if the caller hangs up.
    fn handle(&self, request: WholeRequest) -> impl Future<Output = Reply> + Send;
}

/// Why a connection is closed without an answer.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

/// Accepts connections until the future is dropped, which also drops the connections.
pub(crate) async fn serve<H: Handler>(listener: TcpListener, handler: Arc<H>) -> Infallible {
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
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
        let _ = stream.set_nodelay(true);
        let handler = Arc::clone(&handler);
        let requests = Arc::clone(&requests);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                answer(Arc::clone(&handler), Arc::clone(&requests), request)
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // Dropped connections and vanished callers are part of the demo.
            let _ = connection.await;
        });
    }
}

async fn answer<H: Handler>(
    handler: Arc<H>,
    requests: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Dropped> {
    let Ok(permit) = requests.try_acquire_owned() else {
        let text = format!("{REQUESTS_MAX} requests are being handled; try again later");
        return Ok(encode(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": text })));
    };
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_SIZE_MAX_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let text = format!("cannot read the body (at most {BODY_SIZE_MAX_BYTES} B): {error}");
            return Ok(encode(StatusCode::BAD_REQUEST, &json!({ "error": text })));
        }
    };
    let request = Request::from_parts(parts, body);
    let task = tokio::spawn(async move {
        let _permit = permit;
        handler.handle(request).await
    });
    match task.await {
        Ok(Reply::Json(status, value)) => Ok(encode(status, &value)),
        Ok(Reply::Drop) | Err(_) => Err(Dropped),
    }
}

fn encode(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// Reads the query string into pairs, percent-decoded; a later pair of the same name wins.
pub(crate) fn query_pairs(query: Option<&str>) -> std::collections::BTreeMap<String, String> {
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (percent_decode(name), percent_decode(value)))
        .collect()
}

/// Decodes `%XX` and `+`; what is not valid UTF-8 or not valid hex stays readable, never an error.
pub(crate) fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (hex, byte) {
            (Some(value), _) => {
                decoded.push(value);
                at += 2;
            }
            (None, b'+') => decoded.push(b' '),
            (None, other) => decoded.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::query_pairs;

    #[test]
    fn query_strings_are_decoded() {
        let pairs = query_pairs(Some("gid=a%2Fb&op=action&x=1+2&bad=%zz&flag&gid=last"));
        assert_eq!(pairs["gid"], "last");
        assert_eq!(pairs["op"], "action");
        assert_eq!(pairs["x"], "1 2");
        assert_eq!(pairs["bad"], "%zz");
        assert_eq!(pairs["flag"], "");
        assert_eq!(query_pairs(Some("u=http%3A%2F%2Fh%3A1"))["u"], "http://h:1");
        assert!(query_pairs(None).is_empty());
    }
}
