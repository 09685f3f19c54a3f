//! What answers come to.

use super::*;
use dtmd_wire::SubstringRule;

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn answer_to(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Answer {
    let service = Service::start(move |_| reply()).await;
    call_url(&caller(), service.url("/")).await
}

async fn short_answer_to(
    reply: impl Fn() -> Reply + Send + Sync + 'static,
) -> (Answer, SocketAddr) {
    let service = Service::start(move |_| reply()).await;
    let mut call = branch_call(service.url("/?secret=1"), "{}");
    call.call.timeout = SHORT;
    (caller().call(&call).await, service.address)
}

#[tokio::test]
async fn statuses_and_words() {
    let table = [
        ("200 OK", "{}", "success"),
        ("200 OK", "", "success"),
        ("200 OK", r#"{"dtm_result":"FAILURE"}"#, "failure"),
        ("200 OK", r#"{"dtm_result":"ONGOING"}"#, "ongoing"),
        ("409 Conflict", "no money", "failure"),
        ("425 Too Early", "", "ongoing"),
        ("409 Conflict", "ONGOING", "ongoing"),
        ("201 Created", "{}", "unknown"),
        ("404 Not Found", "nothing here", "unknown"),
        ("405 Method Not Allowed", "", "unknown"),
        ("500 Internal Server Error", "oops", "unknown"),
        ("503 Unavailable", "FAILURE", "failure"),
        ("501 Not Implemented", "", "unknown"),
        ("301 Moved Permanently", "FAILURE", "unknown"),
        ("302 Found", "", "unknown"),
        ("307 Temporary Redirect", "", "unknown"),
        ("308 Permanent Redirect", "", "unknown"),
    ];
    for (status, body, expected) in table {
        let text = http(status, body);
        let answer = answer_to(move || keep(&text)).await;
        assert_eq!(answer.outcome.as_str(), expected, "{status} {body}");
        assert!(!answer.unreachable, "{status} {body}");
    }
}

#[tokio::test]
async fn a_proxy_that_reaches_nobody_counts_for_the_breaker() {
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let text = http(status, "upstream");
        let answer = answer_to(move || keep(&text)).await;
        assert_eq!(answer.outcome.as_str(), "unknown", "{status}");
        assert!(answer.unreachable, "{status}");
    }
}

#[tokio::test]
async fn the_substring_rule_is_the_operators() {
    let service =
        Service::always("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"state\":\"FAILURE").await;
    let exact = OutboundOptions { substring_rule: SubstringRule::Exact, ..Default::default() };
    let answer = call_url(&HttpCaller::new(exact), service.url("")).await;
    assert_eq!(answer.outcome, Outcome::Success);
    assert_eq!(call_url(&caller(), service.url("")).await.outcome.as_str(), "failure");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Service::always(OK).await;
    let text = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url("/")
    );
    let answer = answer_to(move || keep(&text)).await;
    assert_eq!(text_of(&answer), "HTTP status 302: redirects are not followed, give the final URL");
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn bodies_however_framed() {
    let table = [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nFAI\r\n4\r\nLURE\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n7\r\nFAILURE\r\n0\r\nX: y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nFAILURE",
        "HTTP/1.0 200 OK\r\n\r\nFAILURE",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nFAILURE",
    ];
    for text in table {
        let answer = answer_to(move || Reply::Close(text.as_bytes().to_vec())).await;
        assert_eq!(answer.outcome, Outcome::Failure(Arc::from("FAILURE")), "{text}");
        assert!(!answer.unreachable);
    }
    let answer = answer_to(|| keep("HTTP/1.1 204 No Content\r\n\r\n")).await;
    assert_eq!(answer.outcome.as_str(), "unknown");
    assert!(!answer.unreachable);
}

#[tokio::test]
async fn an_oversized_answer_is_judged_by_what_was_read() {
    let options = OutboundOptions { response_max_bytes: 1000, ..Default::default() };
    let caller = HttpCaller::new(options);
    let long = "x".repeat(100_000);
    let late = format!("{long}FAILURE");
    let early = format!("FAILURE{long}");
    for (status, body, expected) in [
        ("200 OK", &late, "success"),
        ("200 OK", &early, "failure"),
        ("409 No", &long, "failure"),
        ("500 No", &long, "unknown"),
    ] {
        let text = http(status, body);
        let service = Service::start(move |_| keep(&text)).await;
        for _ in 0..2 {
            let answer = call_url(&caller, service.url("")).await;
            assert_eq!(answer.outcome.as_str(), expected, "{status}");
            assert!(!answer.unreachable);
        }
        // What was not read of one answer is never taken for the beginning of the next.
        assert_eq!(service.connections(), 2);
    }
}

#[tokio::test]
async fn an_answer_of_exactly_the_limit_is_whole() {
    let options = OutboundOptions { response_max_bytes: 1000, ..Default::default() };
    let caller = HttpCaller::new(options);
    let text = http("200 OK", &"x".repeat(1000));
    let service = Service::start(move |_| keep(&text)).await;
    for _ in 0..3 {
        assert_eq!(call_url(&caller, service.url("")).await.outcome, Outcome::Success);
    }
    assert_eq!(service.connections(), 1);
}

#[tokio::test]
async fn an_endless_answer_ends_at_the_limit() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = b"400\r\n".iter().copied().chain([b'x'; 1024]).chain(*b"\r\n").collect::<Vec<u8>>();
    let answer = answer_to(move || Reply::Flood(head.clone(), chunk.clone())).await;
    assert_eq!(answer, Answer { outcome: Outcome::Success, unreachable: false });
}

#[tokio::test]
async fn an_endless_head_is_no_answer() {
    let line = b"X-Filler: 0123456789012345678901234567890123456789\r\n".repeat(20);
    let answer =
        answer_to(move || Reply::Flood(b"HTTP/1.1 200 OK\r\n".to_vec(), line.clone())).await;
    assert_eq!(answer.outcome.as_str(), "unknown");
    assert!(answer.unreachable);
}

#[tokio::test]
async fn a_service_that_is_silent_or_slow() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nFAILURE";
    let table = [
        ("", "no answer"),
        ("HTTP/1.1 200 OK\r\nConte", "no answer"),
        (begun, "no complete answer"),
    ];
    let answers =
        table.map(|(sent, _)| short_answer_to(move || Reply::Hang(sent.as_bytes().to_vec())));
    let answers = futures_util::future::join_all(answers).await;
    for ((_, expected), (answer, address)) in table.iter().zip(answers) {
        assert_eq!(text_of(&answer), format!("{expected} within 400 ms from {address}"));
        assert!(answer.unreachable);
    }
}

#[tokio::test]
async fn answers_that_are_none() {
    let table: [(&[u8], &str); 5] = [
        (b"", "the connection was closed"),
        (b"HTTP/1.1 200 O", "the connection was closed"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nFAILURE", "the answer broke off"),
    ];
    for (bytes, expected) in table {
        let answer = answer_to(move || Reply::Close(bytes.to_vec())).await;
        assert_eq!(answer.outcome.as_str(), "unknown", "{answer:?}");
        assert!(text_of(&answer).contains(expected), "{answer:?}");
        assert!(answer.unreachable, "{answer:?}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let answer = call_url(&caller(), format!("http://{address}/x?secret=1")).await;
    assert_eq!(text_of(&answer), format!("connect to {address}: connection refused"));
    assert!(answer.unreachable);
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    let answer = call_url(&caller(), "http://no-such-host.invalid/x").await;
    assert_eq!(text_of(&answer), "resolve no-such-host.invalid: no such host");
    assert!(answer.unreachable);
}

#[tokio::test]
async fn jsonrpc_answers() {
    let table = [
        (r#"{"jsonrpc":"2.0","id":"1","result":{},"error":null}"#, "success"),
        (r#"{"result":{}}"#, "success"),
        (r#"{"error":{"code":-32901,"message":"no"}}"#, "failure"),
        (r#"{"error":{"code":-32902,"message":"later"}}"#, "ongoing"),
        (r#"{"error":{"code":-32603,"message":"hm"}}"#, "unknown"),
        ("<html>", "unknown"),
    ];
    for (body, expected) in table {
        let text = http("200 OK", body);
        let service = Service::start(move |_| keep(&text)).await;
        let mut call = branch_call(service.url("/?method=m"), "{}");
        call.call.protocol = CallProtocol::JsonRpc;
        let answer = caller().call(&call).await;
        assert_eq!(answer.outcome.as_str(), expected, "{body}");
        assert!(!answer.unreachable);
    }
}
