//! A business service whose answers a test writes down, and which remembers its calls.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::until;

/// One call as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query, as sent.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
    /// When it arrived.
    pub at: Instant,
}

impl Call {
    /// One of its query parameters, as sent; empty if it has none of this name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> &str {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// What the service says to a call.
#[derive(Debug, Clone)]
pub struct Says {
    status: u16,
    body: String,
    header: Option<(&'static str, String)>,
    after: Duration,
    drops: bool,
}

impl Says {
    /// An answer with a status and a body.
    #[must_use]
    pub fn new(status: u16, body: &str) -> Self {
        Self { status, body: body.to_owned(), header: None, after: Duration::ZERO, drops: false }
    }

    /// Done.
    #[must_use]
    pub fn success() -> Self {
        Self::new(200, r#"{"dtm_result":"SUCCESS"}"#)
    }

    /// Refused for good.
    #[must_use]
    pub fn failure() -> Self {
        Self::new(409, r#"{"dtm_result":"FAILURE","message":"no money. FAILURE"}"#)
    }

    /// Not done yet.
    #[must_use]
    pub fn ongoing() -> Self {
        Self::new(425, r#"{"dtm_result":"ONGOING"}"#)
    }

    /// Nobody knows.
    #[must_use]
    pub fn error() -> Self {
        Self::new(500, "out of order")
    }

    /// The connection ends without an answer.
    #[must_use]
    pub fn nothing() -> Self {
        Self { drops: true, ..Self::success() }
    }

    /// The same, later.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// The same with a header.
    #[must_use]
    pub fn header(self, name: &'static str, value: &str) -> Self {
        Self { header: Some((name, value.to_owned())), ..self }
    }
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    scripts: HashMap<String, VecDeque<Says>>,
}

/// A service on a free loopback port. A path without a script answers success.
#[derive(Debug)]
pub struct Service {
    /// Its base URL, without a slash at the end.
    pub url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { url, state, task }
    }

    /// The URL of a path.
    #[must_use]
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// A saga step: action and compensation at `/NAME` and `/NAME-undo`.
    #[must_use]
    pub fn step(&self, name: &str) -> (String, String) {
        (self.at(&format!("/{name}")), self.at(&format!("/{name}-undo")))
    }

    /// Writes down what a path says to its next calls; the last one is said ever after.
    pub fn script(&self, path: &str, says: impl IntoIterator<Item = Says>) {
        self.lock().scripts.insert(path.to_owned(), says.into_iter().collect());
    }

    /// The calls of a path so far.
    #[must_use]
    pub fn calls(&self, path: &str) -> Vec<Call> {
        self.lock().calls.iter().filter(|call| call.path == path).cloned().collect()
    }

    /// The paths called so far, in the order of arrival.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.lock().calls.iter().map(|call| call.path.clone()).collect()
    }

    /// How often each path was called.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for path in self.paths() {
            *counts.entry(path).or_insert(0) += 1;
        }
        counts
    }

    /// Waits until a path was called so often, and returns its calls.
    pub async fn wait_calls(&self, path: &str, count: usize) -> Vec<Call> {
        until(&format!("{count} calls of {path}"), async || {
            let calls = self.calls(path);
            (calls.len() >= count).then_some(calls)
        })
        .await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let handle = service_fn(move |request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move { answer(&state, request).await }
    });
    // A dropped answer ends the connection with an error.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), handle)
        .await;
}

async fn answer(
    state: &Mutex<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let at = Instant::now();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let call = Call {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        at,
    };
    let says = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let says = match state.scripts.get_mut(&call.path) {
            Some(script) if script.len() > 1 => script.pop_front(),
            Some(script) => script.front().cloned(),
            None => None,
        };
        state.calls.push(call);
        says.unwrap_or_else(Says::success)
    };
    tokio::time::sleep(says.after).await;
    if says.drops {
        return Err(std::io::Error::other("no answer"));
    }
    let mut response = Response::builder().status(says.status);
    if let Some((name, value)) = &says.header {
        response = response.header(*name, value);
    }
    Ok(response.body(Full::new(Bytes::from(says.body))).unwrap())
}

/// Starts a service that answers every request with these bytes, then with the second ones again
/// and again until the caller has gone; returns its URL. It lives as long as the runtime.
pub async fn raw_service(answer: Vec<u8>, endless: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, endless) = (answer.clone(), endless.clone());
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await?;
                stream.write_all(&answer).await?;
                while !endless.is_empty() {
                    stream.write_all(&endless).await?;
                }
                stream.shutdown().await
            });
        }
        Ok::<_, Infallible>(())
    });
    url
}
