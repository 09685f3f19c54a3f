//! Calls over real sockets, against services that answer byte for byte what a test says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod keep_alive;
mod requests;
mod tls;
mod urls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dtmd_engine::{Answer, BranchCall, BranchCaller as _};
use dtmd_protocol::{BranchId, Call, CallProtocol, Gid, Op, Outcome, Target, TransType};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{HttpCaller, OutboundOptions};

/// Long enough that a loaded machine does not reach it.
const PATIENT: Duration = Duration::from_secs(20);
/// For calls that are meant to end by it.
const SHORT: Duration = Duration::from_millis(400);

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// What a service does with a request.
enum Reply {
    /// Sends bytes and keeps the connection.
    Keep(Vec<u8>),
    /// Sends bytes and closes it.
    Close(Vec<u8>),
    /// Sends bytes and then nothing, for ever.
    Hang(Vec<u8>),
    /// Sends the first bytes once and the second again and again, until the other side closes.
    Flood(Vec<u8>, Vec<u8>),
}

fn keep(text: &str) -> Reply {
    Reply::Keep(text.as_bytes().to_vec())
}

/// Which request a reply is for: connection and request on it, both from 0.
#[derive(Clone, Copy)]
struct Turn {
    connection: usize,
    request: usize,
}

/// A service on a port of its own.
struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Service {
    async fn start(script: impl Fn(Turn) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (service.seen.clone(), service.connections.clone());
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, connection, script.clone(), seen.clone()));
            }
        });
        service
    }

    async fn always(text: &'static str) -> Self {
        Self::start(move |_| keep(text)).await
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    script: Arc<impl Fn(Turn) -> Reply>,
    seen: Arc<Mutex<Vec<String>>>,
) {
    for request in 0.. {
        let Some(text) = read_request(&mut stream).await else { return };
        seen.lock().unwrap().push(text);
        match script(Turn { connection, request }) {
            Reply::Keep(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Reply::Close(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Hang(bytes) => {
                let _ = stream.write_all(&bytes).await;
                // Ends when the other side closes.
                let _ = stream.read(&mut [0; 64]).await;
                return;
            }
            Reply::Flood(once, again) => {
                let _ = stream.write_all(&once).await;
                while stream.write_all(&again).await.is_ok() {
                    tokio::task::yield_now().await;
                }
                return;
            }
        }
    }
}

/// Reads one request, head and body, as text.
async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = head {
            let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn caller() -> HttpCaller {
    HttpCaller::new(OutboundOptions::default())
}

fn branch_call(url: impl AsRef<str>, data: &str) -> BranchCall {
    BranchCall {
        gid: Gid::new("g 1/ü").unwrap(),
        trans_type: TransType::Saga,
        call: Call {
            target: Target::Branch(0),
            branch_id: BranchId::new("01").unwrap(),
            op: Op::Action,
            url: Arc::from(url.as_ref()),
            data: Arc::from(data.as_bytes()),
            always_post: false,
            protocol: CallProtocol::Http,
            timeout: PATIENT,
            attempt: 1,
        },
        headers: Arc::default(),
    }
}

fn with_headers(mut call: BranchCall, headers: &[(&str, &str)]) -> BranchCall {
    let pairs = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    call.headers = Arc::new(pairs.collect::<BTreeMap<_, _>>());
    call
}

async fn call_url(caller: &HttpCaller, url: impl AsRef<str>) -> Answer {
    caller.call(&branch_call(url, "{}")).await
}

fn text_of(answer: &Answer) -> &str {
    match &answer.outcome {
        Outcome::Unknown(text) | Outcome::Failure(text) => text,
        other => other.as_str(),
    }
}
