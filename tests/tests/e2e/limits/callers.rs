//! HTTP callers that are slow, silent, greedy or in a hurry.

use std::time::{Duration, Instant};

use dtmd_tests::{PATIENCE, Server, exchange_with, raw_exchange, raw_open};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::{Line, memory};
use crate::turn;

/// Connections that say nothing; both ends of each need a file in the test's and server's tables.
const IDLE: usize = 2000;
/// Requests in one piece.
const PIPELINED: usize = 100;
/// More than the sockets' buffers hold, in answers.
const UNREAD: usize = 150;

/// The answer to a saga that needs no call.
async fn is_served(line: &mut Line, gid: &str) {
    let body = json!({
        "gid": gid, "trans_type": "saga", "wait_result": true,
        "steps": [{ "action": "", "compensate": "" }], "payloads": [""],
    });
    let told = line.post("submit", &body).await;
    assert_eq!((told.status, told.body.as_str()), (200, r#"{"dtm_result":"SUCCESS"}"#));
}

/// Waits for the end of a connection and returns what came before it.
async fn ended(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // A reset ends it as well.
    let _ = end.expect("the connection was never closed");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn one_byte_at_a_time_is_not_progress() {
    let _turn = turn::shared().await;
    let env = [("HEADER_TIMEOUT", "1"), ("BODY_TIMEOUT", "1")];
    let server = Server::start_with(&[], &env).await;
    let mut line = Line::open(server.address()).await;
    let head = "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: x\r\n";
    let body = format!("{head}content-length: 100000\r\n\r\n{{");
    let mut slow = Vec::new();
    for _ in 0..50 {
        // A header that never ends, and a body that never ends: each byte is sent in time.
        slow.push((raw_open(server.address(), head.as_bytes()).await, &b"x"[..]));
        slow.push((raw_open(server.address(), body.as_bytes()).await, &b" "[..]));
    }
    let begun = Instant::now();
    let mut nth = 0;
    while !slow.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} are still fed byte by byte", slow.len());
        let mut open = Vec::new();
        for (mut stream, byte) in slow {
            if stream.write_all(byte).await.is_ok() {
                open.push((stream, byte));
            }
        }
        slow = open;
        is_served(&mut line, &format!("healthy-{nth}")).await;
        nth += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let _turn = turn::shared().await;
    let server = Server::start_with(&[], &[("WRITE_TIMEOUT", "1")]).await;
    let mut line = Line::open(server.address()).await;
    let big = json!({ "gid": "big", "trans_type": "tcc", "custom_data": "x".repeat(100_000) });
    server.post_ok("prepare", &big).await;
    let request = "GET /api/dtmsvr/query?gid=big HTTP/1.1\r\nhost: x\r\n\r\n".repeat(UNREAD);
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(server.address().parse().unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        greedy.push(stream);
    }
    let begun = Instant::now();
    let mut nth = 0;
    while !greedy.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} are open without reading", greedy.len());
        let mut open = Vec::new();
        for mut stream in greedy {
            // The server has closed it with requests unread: writing to it fails.
            if stream.write_all(b"G").await.is_ok() {
                open.push(stream);
            }
        }
        greedy = open;
        is_served(&mut line, &format!("healthy-{nth}")).await;
        nth += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, most) = memory(&server);
    // One answer at a time is made, not all that were asked for.
    assert!(most < 200 * 1024, "{most} KiB for answers that nobody reads");
}

#[tokio::test]
async fn thousands_of_silent_connections_are_closed_in_time_and_keep_nobody_out() {
    let _turn = turn::shared().await;
    let server = Server::start_with(&[], &[("IDLE_TIMEOUT", "2")]).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(raw_open(server.address(), b"").await);
    }
    for nth in 0..10 {
        server.assert_serves(&format!("healthy-{nth}")).await;
    }
    for stream in idle {
        assert_eq!(ended(stream).await, "", "nobody asked for anything");
    }
    let (_, most) = memory(&server);
    assert!(most < 300 * 1024, "{most} KiB for {IDLE} silent connections");
    server.assert_serves("after").await;
}

#[tokio::test]
async fn connections_past_the_limit_are_told_so() {
    let _turn = turn::shared().await;
    let env = [("CONNECTIONS_MAX", "50"), ("NETWORK_THREADS", "1")];
    let server = Server::start_with(&[], &env).await;
    let mut line = Line::open(server.address()).await;
    is_served(&mut line, "before").await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(raw_open(server.address(), b"").await);
    }
    let refused = raw_exchange(server.address(), b"", PATIENCE).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("too many connections"), "{refused}");
    is_served(&mut line, "beside").await;
    drop(idle);
    dtmd_tests::until("room for new connections", async || {
        let stream = raw_open(server.address(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 12];
        let mut stream = stream;
        stream.read_exact(&mut answer).await.ok()?;
        (&answer == b"HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn giant_heads_are_refused() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let mut line = Line::open(server.address()).await;
    let long = "y".repeat(17 * 1024);
    let within = "y".repeat(8 * 1024);
    let ok = exchange_with(server.address(), "GET", "/healthz", &[("x-long", &within)], "").await;
    assert_eq!(ok.status, 200, "half of the limit is no offence");
    let many: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let heads = [
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n"),
        format!("GET /healthz?{long} HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
    ];
    for (nth, head) in heads.iter().enumerate() {
        let answer = raw_exchange(server.address(), head.as_bytes(), PATIENCE).await;
        let answer = answer.expect("the connection was never closed");
        // A close while more is on its way may overtake the answer as a reset.
        let is_refused = ["", "HTTP/1.1 431", "HTTP/1.1 414"]
            .iter()
            .any(|told| if told.is_empty() { answer.is_empty() } else { answer.starts_with(told) });
        assert!(is_refused, "{answer}");
        is_served(&mut line, &format!("healthy-{nth}")).await;
    }
}

#[tokio::test]
async fn requests_in_one_piece_are_answered_each_in_its_turn() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let mut piece = String::new();
    for nth in 0..PIPELINED {
        let body = json!({ "gid": format!("p{nth}"), "trans_type": "tcc" }).to_string();
        let head = "POST /api/dtmsvr/prepare HTTP/1.1\r\nhost: x\r\n";
        piece += &format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    }
    piece += "GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = raw_exchange(server.address(), piece.as_bytes(), PATIENCE).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), PIPELINED);
    let last = answers.rfind("HTTP/1.1 ").unwrap();
    assert!(answers[last..].starts_with("HTTP/1.1 404"), "not in their order");
    let list = server.get("all?limit=1000").await.json();
    assert_eq!(list["transactions"].as_array().unwrap().len(), PIPELINED);
}
