//! Who may do what, and what leaks.

use std::time::Duration;

use dtmd_tests::{Says, Server, Service, cli, exchange, exchange_with, raw_open, saga, with};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::turn;

#[tokio::test]
async fn d17_it_does_not_listen_publicly_unless_told_twice() {
    let _turn = turn::shared().await;
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let args = ["serve", "--data", data, "--http-port", "0", "--listen", "0.0.0.0"];
    let refused = cli(&args).await;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    for word in ["0.0.0.0", "AllowAnonymous", "--allow-anonymous"] {
        assert!(refused.stderr.contains(word), "{word} is not named: {}", refused.stderr);
    }
    let public = ["--listen", "0.0.0.0", "--allow-anonymous"];
    Server::start_with(&public, &[]).await.assert_serves("g").await;
}

#[tokio::test]
async fn d17_pages_of_other_sites_are_kept_out() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let body = || saga("g", &[(String::new(), String::new())]).to_string();
    for (name, value) in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        for (method, path) in [
            ("POST", "/api/dtmsvr/submit"),
            ("GET", "/api/dtmsvr/subscribe?topic=t&url=http://evil.example"),
            ("GET", "/api/dtmsvr/resetCronTime"),
        ] {
            let headers = [(name, value)];
            let reply = exchange_with(server.address(), method, path, &headers, body()).await;
            assert_eq!(reply.status, 403, "{method} {path} with {name}: {}", reply.body);
        }
    }
    assert_eq!(server.status("g").await, "");
    assert_eq!(server.get("queryKV?cat=topics&key=t").await.json()["kv"], json!([]));
}

#[tokio::test]
async fn d18_metadata_addresses_are_not_called() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    for (n, url) in [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://100.100.100.200/",
        "http://0.0.0.0:80/",
    ]
    .into_iter()
    .enumerate()
    {
        let body = saga(&format!("g{n}"), &[(url.to_owned(), String::new())]);
        let answer = server.post("submit", &with(body, json!({ "wait_result": true }))).await;
        // Refused at once, or called never: in no case is there an outcome.
        assert!(matches!(answer.status, 400 | 425), "{url}: {} {}", answer.status, answer.body);
    }
}

#[tokio::test]
async fn d18_redirects_are_not_followed() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    for (gid, status) in [("r301", 301), ("r302", 302), ("r307", 307), ("r308", 308)] {
        service.script("/a", [Says::new(status, "").header("location", "/admin")]);
        let body = saga(gid, &[service.step("a")]);
        let answer = server.post("submit", &with(body, json!({ "wait_result": true }))).await;
        assert_eq!(answer.status, 425, "{}", answer.body);
    }
    assert!(service.calls("/admin").is_empty());
    assert_eq!(service.calls("/a").len(), 4);
}

#[tokio::test]
async fn d20_the_word_rule_is_dtms_and_can_be_switched_off() {
    let _turn = turn::shared().await;
    let service = Service::start().await;
    service.script("/orders", [Says::new(200, r#"{"orders":[{"state":"FAILURE"}]}"#)]);
    service.script("/created", [Says::new(201, "")]);
    service.script("/old", [Says::new(200, r#"{"dtm_result":"FAILURE"}"#)]);
    let dtm = Server::start().await;
    let exact = Server::start_with(&[], &[("SUBSTRING_RESULT", "false")]).await;
    for (server, path, status) in [
        (&dtm, "orders", 409),
        (&dtm, "created", 425),
        (&dtm, "old", 409),
        (&exact, "orders", 200),
        (&exact, "created", 200),
        (&exact, "old", 409),
    ] {
        let body = saga(path, &[service.step(path)]);
        let answer = server.post("submit", &with(body, json!({ "wait_result": true }))).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn d25_neither_secrets_nor_payloads_are_logged() {
    let _turn = turn::shared().await;
    let service = Service::start().await;
    service.script("/a", [Says::error(), Says::failure()]);
    let hook = service.at("/hook?token=hook-s3cret");
    let env = [("LOG_LEVEL", "debug"), ("ALERT_WEB_HOOK", &hook), ("STORE_PASSWORD", "db-s3cret")];
    let server = Server::start_with(&[], &env).await;
    let body = with(
        saga("gid-in-log", &[service.step("a")]),
        json!({
            "payloads": ["{\"card\":\"payload-s3cret\"}"], "retry_interval_ms": 20,
            "branch_headers": { "authorization": "Bearer header-s3cret" },
            "custom_data": "{\"note\":\"custom-s3cret\"}",
        }),
    );
    server.post_ok("submit", &body).await;
    server.wait_status("gid-in-log", "failed").await;
    let bad = server.post("submit", &with(body, json!({ "gid": "g2", "retry_limit": -1 }))).await;
    assert_eq!(bad.status, 400);
    let log = server.log();
    assert!(log.contains("gid-in-log"), "the log is the one that was meant");
    for secret in ["hook-s3cret", "db-s3cret", "payload-s3cret", "header-s3cret", "custom-s3cret"] {
        assert!(!log.contains(secret), "{secret} is in the log");
        assert!(!server.metrics().await.contains(secret), "{secret} is in the metrics");
    }
}

#[tokio::test]
async fn d48_bodies_have_a_limit_however_they_are_framed() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let big = vec![b' '; 2 * 1024 * 1024];
    let head = "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: x\r\n";
    let mut plain = raw_open(
        server.address(),
        format!("{head}content-length: {}\r\n\r\n", big.len()).as_bytes(),
    )
    .await;
    let mut chunked =
        raw_open(server.address(), format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())
            .await;
    for (stream, is_chunked) in [(&mut plain, false), (&mut chunked, true)] {
        for part in big.chunks(64 * 1024) {
            let sent = async {
                if is_chunked {
                    stream.write_all(format!("{:x}\r\n", part.len()).as_bytes()).await?;
                }
                stream.write_all(part).await?;
                if is_chunked { stream.write_all(b"\r\n").await } else { Ok(()) }
            };
            // The server answers and closes as soon as it has had enough.
            if sent.await.is_err() {
                break;
            }
        }
        // What is left of a body that is too large is read and dropped, so that a client that sends
        // first and reads then gets its answer.
        if is_chunked {
            let _ = stream.write_all(b"0\r\n\r\n").await;
        }
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut answer)).await;
        let read = read.expect("neither an answer nor an end").unwrap_or(0);
        assert!(read == 0 || &answer == b"HTTP/1.1 413", "{}", String::from_utf8_lossy(&answer));
    }
    let reply =
        exchange(server.address(), "POST", "/api/dtmsvr/submit", vec![b' '; 1_100_000]).await;
    assert_eq!(reply.status, 413, "{}", reply.body);
    server.assert_serves("g").await;
}

#[tokio::test]
async fn d23_errors_are_texts_for_callers() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    for (operation, body, text) in [
        ("abort", json!({ "gid": "no-such" }), "no TransGlobal with gid: no-such found"),
        ("forceStop", json!({ "gid": "no-such" }), "no TransGlobal with gid: no-such found"),
        ("submit", json!({ "gid": "g", "trans_type": "sage" }), "'sage' is not one of"),
        (
            "submit",
            json!({ "gid": "g", "trans_type": "saga", "steps": [{}] }),
            "1 steps but only 0",
        ),
        ("submit", json!({ "gid": "g", "trans_type": "saga", "custom_data": "{" }), "custom_data"),
    ] {
        let answer = server.post(operation, &body).await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(text), "{operation} {body}: {message}");
        for leak in ["panic", "src/", ".rs", "runtime error", "unwrap"] {
            assert!(!message.contains(leak), "{operation} {body}: {message}");
        }
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
