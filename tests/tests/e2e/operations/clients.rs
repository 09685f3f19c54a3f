//! Clients that are slow or never come to an end (reliability.md T21).

use std::time::Duration;

use dtmd_tests::{Server, raw_open};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::turn;

/// Reads until the server closes the connection.
async fn closed(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    // A reset ends it as well.
    let _ = end.expect("the connection was never closed");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn half_a_request_is_cut_off_while_others_are_served() {
    let _turn = turn::shared().await;
    let env = [("HEADER_TIMEOUT", "1"), ("BODY_TIMEOUT", "1"), ("IDLE_TIMEOUT", "1")];
    let server = Server::start_with(&[], &env).await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        for bytes in [
            "",
            "POST /api/dtmsvr/submit HT",
            "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"gid\":",
            "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        ] {
            slow.push(raw_open(server.address(), bytes.as_bytes()).await);
        }
    }
    for n in 0..20 {
        server.assert_serves(&format!("healthy-{n}")).await;
    }
    for stream in slow {
        let answer = closed(stream).await;
        assert!(!answer.contains("200 OK"), "half a request was answered: {answer}");
    }
    let list = server.get("all?limit=1000").await.json();
    assert_eq!(list["transactions"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(raw_open(server.address(), b"").await);
    }
    for n in 0..20 {
        server.assert_serves(&format!("g{n}")).await;
    }
    assert_eq!(idle.len(), 500);
}

#[tokio::test]
async fn a_caller_that_hangs_up_cancels_nothing() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let service = dtmd_tests::Service::start().await;
    service.script("/a", [dtmd_tests::Says::success().after(Duration::from_millis(500))]);
    let body = dtmd_tests::saga("g", &[service.step("a"), service.step("b")]);
    let body = dtmd_tests::with(body, json!({ "wait_result": true })).to_string();
    let head = format!(
        "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let stream = raw_open(server.address(), head.as_bytes()).await;
    service.wait_calls("/a", 1).await;
    drop(stream);
    server.wait_status("g", "succeed").await;
    assert_eq!(service.paths(), ["/a", "/b"]);
}
