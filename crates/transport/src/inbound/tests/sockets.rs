//! The accept loop, with a handler of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dtmd_engine::EngineError;
use http::Response;
use http::request::Parts;
use http_body_util::Full;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::super::accept;
use super::super::api::without_body;
use super::super::bind::bind;
use super::super::connection::{BodyError, ConnectionLimits, Handler};
use super::super::options::InboundOptions;
use super::super::reply::Reply;
use super::{Client, FAR};

/// More than the sockets' buffers hold.
const BIG_BYTES: usize = 64 * 1024 * 1024;

#[derive(Default)]
struct TestHandler {
    started: Notify,
    go_on: Notify,
    memory_is_short: AtomicBool,
}

impl Handler for TestHandler {
    async fn handle(
        self: Arc<Self>,
        head: Parts,
        body: Result<Bytes, BodyError>,
    ) -> Response<Full<Bytes>> {
        let body = match body {
            Ok(body) => body,
            Err(error) => return without_body(error).into(),
        };
        match head.uri.path() {
            "/echo" => Reply::text(200, body).into(),
            "/wait" => {
                self.started.notify_one();
                self.go_on.notified().await;
                Reply::text(200, "waited").into()
            }
            "/big" => Reply::text(200, vec![b'x'; BIG_BYTES]).into(),
            "/panic" => panic!("as asked"),
            _ => Reply::not_found().into(),
        }
    }

    fn admit_body(&self, bytes: usize) -> Result<(), EngineError> {
        let is_short = self.memory_is_short.load(Ordering::Relaxed);
        if is_short && bytes > 64 * 1024 { Err(EngineError::Overloaded("memory")) } else { Ok(()) }
    }
}

struct Server {
    address: SocketAddr,
    handler: Arc<TestHandler>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(change: impl FnOnce(&mut ConnectionLimits)) -> Self {
        let mut limits = InboundOptions::default().limits();
        change(&mut limits);
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let handler = Arc::new(TestHandler::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept::run(listener, handler.clone(), limits, stopped));
        Self { address, handler, stop, task }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    async fn stopped(self) {
        timeout(FAR, self.task).await.expect("the server stops").unwrap();
    }
}

const SOON: Duration = Duration::from_millis(40);

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    for body in ["one", "", "two"] {
        let answer = client.post("/echo", body).await;
        assert_eq!((answer.status, &*answer.body), (200, body));
    }
    let answer = client.get("/echo").await;
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert_eq!(client.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_in_order() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    let request =
        |body: &str| format!("POST /echo HTTP/1.1\r\nhost: d\r\ncontent-length: 1\r\n\r\n{body}");
    client.send(&(request("1") + &request("2") + &request("3"))).await;
    for body in ["1", "2", "3"] {
        assert_eq!(client.answer().await.body, body);
    }
}

#[tokio::test]
async fn a_request_in_many_pieces_is_whole() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    for piece in
        ["PO", "ST /echo HT", "TP/1.1\r\nhost: d\r\ntransfer-enc", "oding: chunked\r\n\r\n"]
    {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    for piece in ["3\r\nabc\r\n", "2\r\nde", "\r\n0\r\n", "\r\n"] {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.body, "abcde");
}

#[tokio::test]
async fn a_large_body_within_the_limit_is_whole() {
    let server = Server::start(|_| {});
    let body = "0123456789".repeat(100_000);
    assert_eq!(server.client().await.post("/echo", &body).await.body, body);
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let server = Server::start(|limits| {
        (limits.head, limits.body, limits.idle) = (SOON, SOON, SOON);
    });
    let sent = [
        "",
        "P",
        "POST /echo HTTP/1.1\r\nhost: d\r\n",
        "POST /echo HTTP/1.1\r\nhost: d\r\ncontent-length: 5\r\n\r\n",
        "POST /echo HTTP/1.1\r\nhost: d\r\ncontent-length: 5\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nhost: d\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ];
    for text in sent {
        let mut client = server.client().await;
        client.send(text).await;
        assert_eq!(client.closed().await, "", "{text:?}");
    }
    // One that was answered is cut off when it is idle, or slow with its next request.
    for text in ["", "GET /ec"] {
        let mut client = server.client().await;
        client.get("/echo").await;
        client.send(text).await;
        assert_eq!(client.closed().await, "", "{text:?}");
    }
}

/// The deadline is for the whole head: a byte now and then does not extend it.
#[tokio::test]
async fn a_trickle_of_header_bytes_is_cut_off() {
    let server = Server::start(|limits| limits.head = SOON);
    let mut client = server.client().await;
    client.send("GET /echo HTTP/1.1\r\nx: ").await;
    let trickle = async {
        loop {
            // An error is the end that is waited for.
            if tokio::io::AsyncWriteExt::write_all(&mut client.stream, b"x").await.is_err() {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(FAR, trickle).await.expect("the server closes");
}

#[tokio::test]
async fn a_request_that_takes_long_is_not_idle() {
    let server = Server::start(|limits| {
        (limits.head, limits.body, limits.idle, limits.write) = (SOON, SOON, SOON, SOON);
    });
    let mut client = server.client().await;
    client.send("POST /wait HTTP/1.1\r\nhost: d\r\ncontent-length: 1\r\n\r\nx").await;
    server.handler.started.notified().await;
    // Ten deadlines long; a connection that was wrongly cut off has no answer.
    sleep(SOON * 10).await;
    server.handler.go_on.notify_one();
    assert_eq!(client.answer().await.body, "waited");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Server::start(|limits| {
        limits.write = SOON;
        limits.connections_max = 1;
    });
    let mut slow = server.client().await;
    slow.send("GET /big HTTP/1.1\r\nhost: d\r\n\r\n").await;
    // There is room for one connection: another one is served when the slow one is gone.
    let served = async {
        loop {
            let mut client = server.client().await;
            client.send("GET /echo HTTP/1.1\r\nhost: d\r\nconnection: close\r\n\r\n").await;
            if client.closed().await.starts_with("HTTP/1.1 200") {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    // The slow one must have its place before the others come.
    assert!(slow.more().await);
    timeout(FAR, served).await.expect("the slow client is cut off");
    assert!(slow.closed().await.len() < BIG_BYTES);
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused() {
    let server = Server::start(|limits| limits.body_max_bytes = 1000);
    let expect = |answer: super::Answer| {
        assert_eq!(answer.status, 413);
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(text.contains("1000 bytes"), "{text}");
        assert_eq!(answer.header("connection"), "close");
    };
    expect(server.client().await.post("/echo", &"x".repeat(1001)).await);
    assert_eq!(server.client().await.post("/echo", &"x".repeat(1000)).await.status, 200);

    let mut chunked = server.client().await;
    chunked.send("POST /echo HTTP/1.1\r\nhost: d\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for _ in 0..3 {
        chunked.send(&format!("1f4\r\n{}\r\n", "x".repeat(500))).await;
    }
    chunked.send("0\r\n\r\n").await;
    expect(chunked.answer().await);

    // One that never ends is answered as well.
    let mut endless = server.client().await;
    endless.send("POST /echo HTTP/1.1\r\nhost: d\r\ncontent-length: 1000000000\r\n\r\n").await;
    endless.send(&"x".repeat(5000)).await;
    expect(endless.answer().await);
}

#[tokio::test]
async fn large_bodies_are_refused_while_memory_is_short() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    let (small, large) = ("x".repeat(64 * 1024), "x".repeat(500_000));
    for (is_short, expected) in [(true, 503), (false, 200)] {
        server.handler.memory_is_short.store(is_short, Ordering::Relaxed);
        let answer = client.post("/echo", &large).await;
        assert_eq!(answer.status, expected, "{}", answer.body);
        assert_eq!(client.post("/echo", &small).await.status, 200, "on the same connection");
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let server = Server::start(|_| {});
    let request = |headers: &str| format!("GET /echo HTTP/1.1\r\nhost: d\r\n{headers}\r\n");
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    for headers in [many, long] {
        let mut client = server.client().await;
        client.send(&request(&headers)).await;
        assert_eq!(client.answer().await.status, 431);
    }
    let some: String = (0..90).map(|n| format!("x-{n}: y\r\n")).collect();
    let mut client = server.client().await;
    client.send(&request(&some)).await;
    assert_eq!(client.answer().await.status, 200);
}

#[tokio::test]
async fn what_is_not_http_is_refused() {
    let server = Server::start(|_| {});
    for text in ["hello\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        let mut client = server.client().await;
        client.send(text).await;
        let answer = client.closed().await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{text:?}: {answer}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_and_the_connection_goes_on() {
    let server = Server::start(|_| {});
    let mut client = server.client().await;
    let answer = client.get("/panic").await;
    assert_eq!(answer.status, 500);
    assert!(answer.json()["message"].as_str().unwrap().contains("internal error"));
    assert_eq!(client.get("/echo").await.status, 200);
}

#[tokio::test]
async fn connections_past_the_limit_are_told_so() {
    let server = Server::start(|limits| limits.connections_max = 2);
    let mut first = server.client().await;
    let mut second = server.client().await;
    assert_eq!(first.get("/echo").await.status, 200);
    assert_eq!(second.get("/echo").await.status, 200);
    let refused = server.client().await.answer().await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.json()["message"].as_str().unwrap().contains("too many connections"));
    // A place that gets free is given away.
    drop(first);
    let served = async {
        while server.client().await.closed_or_served().await != 200 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(FAR, served).await.expect("the place of the first client is given away");
}

impl Client {
    /// Asks and hangs up; the status, or 0 if there was none.
    async fn closed_or_served(mut self) -> u16 {
        self.send("GET /echo HTTP/1.1\r\nhost: d\r\nconnection: close\r\n\r\n").await;
        let text = self.closed().await;
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_closes_the_rest() {
    let server = Server::start(|_| {});
    let silent = server.client().await;
    let mut idle = server.client().await;
    idle.get("/echo").await;
    let mut busy = server.client().await;
    busy.send("GET /wait HTTP/1.1\r\nhost: d\r\n\r\n").await;
    server.handler.started.notified().await;

    server.stop.send(true).unwrap();
    assert_eq!(idle.closed().await, "");
    assert_eq!(silent.closed().await, "");
    assert!(TcpStream::connect(server.address).await.is_err(), "nothing listens any more");
    assert!(!server.task.is_finished());

    server.handler.go_on.notify_one();
    assert_eq!(busy.answer().await.body, "waited");
    assert_eq!(busy.closed().await, "");
    server.stopped().await;
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_it_is_told_to() {
    let server = Server::start(|limits| limits.drain = SOON);
    let mut busy = server.client().await;
    busy.send("GET /wait HTTP/1.1\r\nhost: d\r\n\r\n").await;
    server.handler.started.notified().await;
    let Server { stop, task, .. } = server;
    // Who loses the sender cannot ask for anything else.
    drop(stop);
    timeout(FAR, task).await.expect("the server stops").unwrap();
    assert_eq!(busy.closed().await, "");
}

#[tokio::test]
async fn listeners_may_share_an_address_if_they_all_want_to() {
    let first = bind((Ipv4Addr::LOCALHOST, 0).into(), true).unwrap();
    let address = first.local_addr().unwrap();
    assert!(bind(address, true).is_ok());
    assert!(bind(address, false).is_err());
}
