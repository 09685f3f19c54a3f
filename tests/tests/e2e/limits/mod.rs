//! Bounds, met from outside by a real process: slow and hostile callers (reliability.md T21), more
//! work than can be done (T20), more than fits into memory, and a start with much to do (T16). A
//! well-behaved caller beside them is answered all the time.

mod callers;
mod http2;
mod memory;
mod overload;
mod restart;

use bytes::Bytes;
use dtmd_tests::{PATIENCE, Server};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection of a well-behaved caller, kept from request to request.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    address: String,
}

/// What was answered on it.
struct Told {
    status: u16,
    retry_after: Option<String>,
    body: String,
}

impl Line {
    async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        // It ends with the sender.
        tokio::spawn(connection);
        Self { sender, address: address.to_owned() }
    }

    async fn post(&mut self, operation: &str, body: &Value) -> Told {
        let request = Request::post(format!("/api/dtmsvr/{operation}"))
            .header("host", &self.address)
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let exchange = async {
            self.sender.ready().await.unwrap();
            let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
            (head, body.collect().await.unwrap().to_bytes())
        };
        let exchange = tokio::time::timeout(PATIENCE, exchange).await;
        let (head, body) = exchange.unwrap_or_else(|_| panic!("no answer to {operation}"));
        let retry_after = head.headers.get("retry-after").and_then(|value| value.to_str().ok());
        Told {
            status: head.status.as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }
}

/// The server's memory in KiB: now, and at most so far.
fn memory(server: &Server) -> (u64, u64) {
    let id = server.process.id().expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
