//! HTTP with everything visible, and bytes that are not HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub body: String,
}

impl Reply {
    /// The body as JSON, null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A header's text; empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request without a Content-Type and returns the whole answer.
pub async fn exchange(address: &str, method: &str, path: &str, body: impl Into<Bytes>) -> Reply {
    exchange_with(address, method, path, &[], body).await
}

/// Sends a request with headers and returns the whole answer.
pub async fn exchange_with(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Reply {
    let mut request = Request::builder().method(method).uri(path).header("host", address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let driver = tokio::spawn(connection);
    let sent = tokio::time::timeout(PATIENCE, sender.send_request(request));
    let response = sent.await.unwrap_or_else(|_| panic!("no answer to {method} {path}")).unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    driver.abort();
    let body = String::from_utf8_lossy(&body).into_owned();
    Reply { status: head.status.as_u16(), headers: head.headers, body }
}

/// Opens a connection and sends bytes on it.
pub async fn raw_open(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Sends bytes and returns all that comes back until the server closes the connection; `None` if
/// it does not within `patience`.
pub async fn raw_exchange(address: &str, bytes: &[u8], patience: Duration) -> Option<String> {
    let mut stream = raw_open(address, bytes).await;
    let mut answer = Vec::new();
    // A reset ends the connection as well.
    tokio::time::timeout(patience, stream.read_to_end(&mut answer)).await.ok()?.ok();
    Some(String::from_utf8_lossy(&answer).into_owned())
}
