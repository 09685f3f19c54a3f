//! The poison set (reliability.md T19): requests that are malformed, absurd or hostile. Each gets
//! its documented answer, leaves no row, and the server goes on (I15).

use dtmd_tests::{Server, exchange, raw_exchange};
use serde_json::{Value, json};

use crate::turn;

/// The gid that no request may leave behind.
const GID: &str = "poison";

/// Route, body, status.
type Case = (&'static str, Vec<u8>, u16);

fn saga_with(members: &Value) -> Vec<u8> {
    let mut body = json!({
        "gid": GID, "trans_type": "saga", "payloads": ["{}", "{}"],
        "steps": [{ "action": "http://127.0.0.1:1/a", "compensate": "" },
                  { "action": "http://127.0.0.1:1/b", "compensate": "" }],
    });
    for (name, value) in members.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn msg_with(members: &Value) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&saga_with(members)).unwrap();
    body["trans_type"] = json!("msg");
    body.to_string().into_bytes()
}

/// Bodies that are not a request at all.
fn not_json() -> Vec<Case> {
    let bodies: [&[u8]; 16] = [
        b"",
        b"{",
        b"[]",
        b"\"gid\"",
        b"1e999",
        b"nul",
        b"{\"gid\":\"poison\"",
        b"{\"gid\":\"poison\",}",
        b"{\"gid\":\"poison\"} trailing",
        b"{'gid':'poison'}",
        b"{\"gid\":\"\xff\xfe\"}",
        b"{\"gid\":\"\\ud800\"}",
        b"\x00\x01\x02\x03",
        b"gid=poison&trans_type=saga",
        b"<xml/>",
        b"\xef\xbb\xbf{\"gid\":\"poison\"}",
    ];
    let mut cases: Vec<Case> = bodies.map(|body| ("submit", body.to_vec(), 500)).into();
    let deep = [b"{\"gid\":".to_vec(), vec![b'['; 100_000]].concat();
    cases.push(("submit", deep, 500));
    cases.push(("prepare", b"{".to_vec(), 500));
    cases.push(("abort", b"{".to_vec(), 500));
    cases.push(("forceStop", b"[1]".to_vec(), 500));
    cases.push(("prepareWorkflow", b"{".to_vec(), 500));
    cases.push(("resetNextCronTime", b"{".to_vec(), 500));
    cases.push(("registerBranch", b"{".to_vec(), 400));
    cases.push(("registerBranch", b"[]".to_vec(), 400));
    cases.push(("registerBranch", b"null".to_vec(), 400));
    cases
}

/// Members of the wrong type.
fn wrong_types() -> Vec<Case> {
    let members = [
        json!({ "gid": 1 }),
        json!({ "gid": ["poison"] }),
        json!({ "trans_type": {} }),
        json!({ "steps": "x" }),
        json!({ "steps": [1] }),
        json!({ "steps": [{ "action": 1 }] }),
        json!({ "payloads": [1] }),
        json!({ "payloads": {} }),
        json!({ "custom_data": {} }),
        json!({ "wait_result": "true" }),
        json!({ "concurrent": 1 }),
        json!({ "timeout_to_fail": "35" }),
        json!({ "branch_headers": { "a": 1 } }),
        json!({ "branch_headers": [] }),
        json!({ "req_extra": "x" }),
    ];
    let mut cases: Vec<Case> =
        members.iter().map(|members| ("submit", saga_with(members), 500)).collect();
    let flat = json!({ "gid": GID, "trans_type": "tcc", "branch_id": 1 });
    cases.push(("registerBranch", flat.to_string().into_bytes(), 400));
    cases
}

/// Values that cannot be accepted.
fn absurd_values() -> Vec<Case> {
    let orders = |orders: &str| json!({ "custom_data": format!("{{\"orders\":{orders},\"concurrent\":true}}") });
    let action =
        |url: &str| json!({ "steps": [{ "action": url, "compensate": "" }, { "action": "" }] });
    let members = [
        json!({ "gid": "" }),
        json!({ "gid": null }),
        json!({ "gid": "poi\nson" }),
        json!({ "gid": "poi\u{0}son" }),
        json!({ "gid": "x".repeat(129) }),
        json!({ "trans_type": "" }),
        json!({ "trans_type": "sage" }),
        json!({ "protocol": "smtp" }),
        json!({ "payloads": [] }),
        json!({ "payloads": ["{}"] }),
        json!({ "payloads": ["{}", "x".repeat(300 * 1024)] }),
        json!({ "retry_interval": -1 }),
        json!({ "retry_interval": 1.5 }),
        json!({ "retry_interval": u64::MAX }),
        json!({ "timeout_to_fail": i64::MIN }),
        json!({ "timeout_to_fail_ms": i64::MAX }),
        json!({ "request_timeout": 1e300 }),
        json!({ "retry_limit": -5 }),
        json!({ "retry_limit": 1e15 }),
        json!({ "custom_data": "not json" }),
        orders("{\"0\":[1],\"1\":[0]}"),
        orders("{\"0\":[0]}"),
        orders("{\"7\":[0]}"),
        orders("{\"1\":[7]}"),
        orders("{\"1\":[-1]}"),
        orders("{\"x\":[0]}"),
        orders("{\"99999999999999999999\":[0]}"),
        json!({ "branch_headers": { "host": "evil" } }),
        json!({ "branch_headers": { "content-length": "0" } }),
        json!({ "branch_headers": { "x": "a\r\nevil: 1" } }),
        json!({ "branch_headers": { "x y": "1" } }),
        json!({ "branch_headers": { "": "1" } }),
        json!({ "branch_headers": { "x": "y".repeat(9000) } }),
        action("ftp://127.0.0.1/a"),
        action("file:///etc/passwd"),
        action("topic://t"),
        action(&format!("http://127.0.0.1/{}", "x".repeat(2000))),
        json!({ "steps": vec![json!({ "action": "" }); 1001], "payloads": vec![""; 1001] }),
        json!({ "query_prepared": "gopher://127.0.0.1" }),
    ];
    let mut cases: Vec<Case> =
        members.iter().map(|members| ("submit", saga_with(members), 400)).collect();
    for custom in ["{\"delay\":-1}", "{\"delay\":\"x\"}", "{\"delay\":99999999999}", "[]"] {
        cases.push(("submit", msg_with(&json!({ "custom_data": custom })), 400));
    }
    cases.push(("submit", msg_with(&json!({ "steps": [{ "action": "topic://none" }] })), 500));
    for gid in ["it's", "a b", "a;b", "ü", &"x".repeat(56)] {
        let body = json!({ "gid": gid, "trans_type": "xa" }).to_string();
        cases.push(("prepare", body.into_bytes(), 400));
    }
    for members in [
        json!({}),
        json!({ "custom_data": "" }),
        json!({ "custom_data": "{" }),
        json!({ "custom_data": "{\"name\":\"w\",\"data\":\"no base64!\"}" }),
        json!({ "trans_type": "tcc" }),
    ] {
        let mut body = json!({ "gid": GID, "trans_type": "workflow" });
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        cases.push(("prepareWorkflow", body.to_string().into_bytes(), 400));
    }
    cases
}

#[tokio::test]
async fn the_poison_set_is_refused_and_leaves_nothing() {
    let _turn = turn::shared().await;
    let mut server = Server::start().await;
    let cases = [not_json(), wrong_types(), absurd_values()].concat();
    assert!(cases.len() >= 60, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (route, body, status) in cases {
        let path = format!("/api/dtmsvr/{route}");
        let reply = exchange(server.address(), "POST", &path, body.clone()).await;
        let shown: String = String::from_utf8_lossy(&body).chars().take(150).collect();
        let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
        if reply.status != status || message.is_empty() || message.len() > 4096 {
            wrong.push(format!(
                "{route} {shown}: {} instead of {status}: {}",
                reply.status, reply.body
            ));
        }
        let word =
            if status == 400 && reply.json()["dtm_result"] == "FAILURE" { "FAILURE" } else { "" };
        if !message.contains(word) {
            wrong.push(format!("{route} {shown}: dtm_result and message disagree: {}", reply.body));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    let all = server.get("all").await.json();
    assert_eq!(all["transactions"], json!([]), "a refused request left a row");
    server.assert_serves("neighbour").await;
    assert!(server.process.has_ended().unwrap().is_none());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn what_is_not_http_gets_an_answer_or_an_end() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let submit = "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: x\r\n";
    let requests: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GARBAGE\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        format!("{submit}content-length: -1\r\n\r\n{{}}").into_bytes(),
        format!("{submit}content-length: 5\r\ncontent-length: 6\r\n\r\n{{}}").into_bytes(),
        format!("{submit}content-length: 99999999999999999999\r\n\r\n").into_bytes(),
        format!("{submit}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        format!("{submit}transfer-encoding: gzip\r\n\r\n").into_bytes(),
        format!("{submit}x: {}\r\n\r\n", "y".repeat(64 * 1024)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(64 * 1024)).into_bytes(),
        format!("{submit}connection: close\r\ncontent-length: 2\r\n\r\n[]").into_bytes(),
    ];
    for request in requests {
        let shown: String = String::from_utf8_lossy(&request).chars().take(100).collect();
        let patience = std::time::Duration::from_secs(25);
        let Some(answer) = raw_exchange(server.address(), &request, patience).await else {
            panic!("neither an answer nor an end: {shown:?}")
        };
        let is_error =
            ["HTTP/1.1 4", "HTTP/1.1 5", "HTTP/1.0 4"].iter().any(|head| answer.starts_with(head));
        assert!(answer.is_empty() || is_error, "{shown:?}: {answer}");
    }
    server.assert_serves("neighbour").await;
    let list = server.get("all").await.json();
    assert_eq!(list["transactions"].as_array().unwrap().len(), 1);
}
