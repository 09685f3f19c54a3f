//! What SDKs send although it is not quite right (spec 02 §1.1), and the texts of §2.3.

use dtmd_tests::{Says, Server, Service, exchange, exchange_with, saga, with};
use serde_json::{Value, json};

use crate::turn;

/// Every row is a body that some SDK sends; all must be accepted.
#[tokio::test]
async fn bodies_of_sdks_are_accepted() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let rows = [
        (
            "unknown members (Java, PHP)",
            r#"{"gid":"G","trans_type":"tcc","subType":"x","dtm":"y","bin_payloads":["e30="],"phase2_url":"","barrier_id":1,"passthrough_headers":["a"]}"#,
        ),
        (
            "nulls (Python, C#)",
            r#"{"gid":"G","trans_type":"tcc","custom_data":null,"query_prepared":null,"protocol":null,"branch_headers":null,"steps":null,"payloads":null,"rollback_reason":null,"wait_result":null,"timeout_to_fail":null,"req_extra":null}"#,
        ),
        (
            "null in a step (C#, Java)",
            r#"{"gid":"G","trans_type":"saga","steps":[{"action":"","compensate":null}],"payloads":[""]}"#,
        ),
        ("a null step", r#"{"gid":"G","trans_type":"saga","steps":[null],"payloads":[null]}"#),
        (
            "a member twice, the last wins (Java)",
            r#"{"gid":"wrong","gid":"G","trans_type":"saga","trans_type":"tcc"}"#,
        ),
        ("other letter case", r#"{"GID":"G","Trans_Type":"tcc"}"#),
        (
            "pretty-printed (C#)",
            "\r\n{\r\n\t\"gid\" : \"G\" ,\r\n  \"trans_type\":\t\"tcc\"\r\n}\r\n",
        ),
        ("escapes", r#"{"g\u0069d":"\u0047","trans_type":"tc\u0063"}"#),
        ("no options at all", r#"{"gid":"G","trans_type":"xa"}"#),
        ("empty steps", r#"{"gid":"G","trans_type":"saga","steps":[],"payloads":[]}"#),
        (
            "more payloads than steps",
            r#"{"gid":"G","trans_type":"msg","steps":[{"action":""}],"payloads":["1","2"]}"#,
        ),
        (
            "a null inside headers",
            r#"{"gid":"G","trans_type":"tcc","branch_headers":{"x-a":null}}"#,
        ),
    ];
    for (n, (what, body)) in rows.into_iter().enumerate() {
        // Every transaction has a gid of its own; \u0047 is the letter G.
        let gid = format!("row-{n}");
        let body = body.replace("\"G\"", &format!("\"{gid}\"")).replace("\\u0047", &gid);
        for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"]
        {
            let headers = [("content-type", content_type)];
            let path = "/api/dtmsvr/prepare";
            let reply = exchange_with(server.address(), "POST", path, &headers, body.clone()).await;
            assert_eq!(reply.status, 200, "{what}: {}", reply.body);
            assert_eq!(reply.body, r#"{"dtm_result":"SUCCESS"}"#);
            assert_eq!(reply.header("content-type"), "application/json; charset=utf-8");
        }
        assert_eq!(server.status(&gid).await, "prepared", "{what}");
    }
}

#[tokio::test]
async fn registrations_of_old_sdks_are_accepted() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    server.post_ok("prepare", &json!({ "gid": "g", "trans_type": "tcc" })).await;
    for (branch_id, route, more) in [
        ("01", "registerBranch", json!({ "subType": null, "try": "http://s/t", "status": "x" })),
        ("02", "registerTccBranch", json!({ "confirm": null })),
        ("03", "registerXaBranch", json!({})),
    ] {
        let body = json!({
            "gid": "g", "trans_type": "tcc", "branch_id": branch_id, "data": "{}",
            "confirm": "http://127.0.0.1:1/c", "cancel": "http://127.0.0.1:1/x",
        });
        server.post_ok(route, &with(body, more)).await;
    }
    let rows = server.query("g").await["branches"].as_array().unwrap().len();
    assert_eq!(rows, 6);
}

/// Every row of the table of spec 02 §2.3 that can be had without a broken store.
#[tokio::test]
async fn texts_and_statuses_are_dtms() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/late", [Says::error()]);
    server
        .post_ok(
            "submit",
            &with(saga("done", &[service.step("a")]), json!({ "wait_result": true })),
        )
        .await;
    server.post_ok("prepare", &json!({ "gid": "xa", "trans_type": "xa" })).await;
    server.post_ok("prepare", &json!({ "gid": "tcc", "trans_type": "tcc" })).await;
    server.post_ok("prepare", &json!({ "gid": "ended", "trans_type": "tcc" })).await;
    server.post_ok("forceStop", &json!({ "gid": "ended" })).await;
    server.post_ok("submit", &saga("runs", &[service.step("late")])).await;
    let workflow =
        json!({ "gid": "w", "trans_type": "workflow", "req_extra": { "status": "succeed" } });
    let rows = [
        (
            "prepare",
            saga("done", &[service.step("a")]),
            409,
            "current status 'succeed', cannot prepare. FAILURE",
        ),
        (
            "submit",
            saga("done", &[service.step("a")]),
            409,
            "current status 'succeed', cannot sumbmit. FAILURE",
        ),
        (
            "abort",
            json!({ "gid": "done", "trans_type": "tcc" }),
            409,
            "trans type: 'saga' current status 'succeed', cannot abort. FAILURE",
        ),
        (
            "abort",
            json!({ "gid": "runs", "trans_type": "saga" }),
            409,
            "trans type: 'saga' current status 'submitted', cannot abort. FAILURE",
        ),
        (
            "forceStop",
            json!({ "gid": "done" }),
            409,
            "global transaction force stop error. status: succeed. error: FAILURE",
        ),
        (
            "abort",
            json!({ "gid": "none", "trans_type": "tcc" }),
            500,
            "no TransGlobal with gid: none found",
        ),
        ("forceStop", json!({ "gid": "none" }), 500, "no TransGlobal with gid: none found"),
        ("resetNextCronTime", json!({ "gid": "none" }), 500, "no TransGlobal with gid: none found"),
        (
            "registerBranch",
            json!({ "gid": "none", "trans_type": "tcc", "branch_id": "01" }),
            409,
            "no trans with gid: none status: prepared found FAILURE",
        ),
        (
            "registerBranch",
            json!({ "gid": "ended", "trans_type": "tcc", "branch_id": "01" }),
            409,
            "no trans with gid: ended status: prepared found FAILURE",
        ),
        (
            "registerBranch",
            json!({ "gid": "tcc", "trans_type": "sage" }),
            500,
            "unknow trans type: sage",
        ),
        ("submit", workflow, 500, "storage: NotFound"),
    ];
    for (route, body, status, text) in rows {
        let answer = server.post(route, &body).await;
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (status, Some(text)),
            "{route} {body}"
        );
        let word = if status == 409 { json!("FAILURE") } else { Value::Null };
        assert_eq!(answer.json()["dtm_result"], word, "{route} {body}");
    }
}

#[tokio::test]
async fn texts_of_parameters_are_dtms() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    for (path, text) in [
        ("query", "no gid specified"),
        ("query?gid=", "no gid specified"),
        ("subscribe?topic=&url=http://s", "empty topic"),
        ("subscribe?topic=t&url=", "empty url"),
        ("unsubscribe?topic=&url=http://s", "empty topic"),
        ("unsubscribe?topic=t&url=", "empty url"),
        ("unsubscribe?topic=t&url=http://s", "no such a topic"),
    ] {
        let answer = server.get(path).await;
        assert_eq!((answer.status, answer.json()["message"].as_str()), (500, Some(text)), "{path}");
    }
    for path in
        ["all?limit=x", "all?createTimeStart=x", "resetCronTime?timeout=x", "scanKV?limit=x"]
    {
        let answer = server.get(path).await;
        let text = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 500, "{path}: {text}");
        assert!(text.starts_with("convert to int error: "), "{path}: {text}");
    }
}

#[tokio::test]
async fn topic_errors_are_dtms() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let change = async |path: &str| {
        let answer = server.get(path).await;
        (answer.status, answer.json()["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(change("subscribe?topic=t&url=http://s/a&remark=first").await.0, 200);
    assert_eq!(change("subscribe?topic=t&url=http://s/a").await, (500, "this url exists".into()));
    assert_eq!(change("unsubscribe?topic=t&url=http://s/b").await, (500, "no such an url ".into()));
    let kv = server.get("queryKV?cat=topics&key=t").await.json()["kv"][0].take();
    assert_eq!((&kv["cat"], &kv["k"], &kv["version"]), (&json!("topics"), &json!("t"), &json!(1)));
    assert_eq!(kv["v"], r#"[{"url":"http://s/a","remark":"first"}]"#);
    assert_eq!(change("unsubscribe?topic=t&url=http://s/a").await.0, 200);
    assert_eq!(
        change("unsubscribe?topic=t&url=http://s/a").await,
        (500, "this topic is empty".into())
    );
    let reply = exchange(server.address(), "DELETE", "/api/dtmsvr/topic/none", "").await;
    assert_eq!((reply.status, reply.json()["message"].as_str()), (500, Some("storage: NotFound")));
}

#[tokio::test]
async fn unknown_paths_and_slashes_are_as_in_dtms_router() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    for (method, path) in [
        ("GET", "/api/dtmsvr/submit"),
        ("PUT", "/api/dtmsvr/submit"),
        ("POST", "/api/dtmsvr/query"),
        ("GET", "/api/dtmsvr/nothing"),
        ("GET", "/nothing"),
    ] {
        let reply = exchange(server.address(), method, path, "").await;
        assert_eq!(
            (reply.status, reply.body.as_str()),
            (404, "404 page not found"),
            "{method} {path}"
        );
        assert!(reply.header("content-type").starts_with("text/plain"), "{method} {path}");
    }
    let reply = exchange(server.address(), "GET", "/api/dtmsvr/query/?gid=g", "").await;
    assert_eq!((reply.status, reply.header("location")), (301, "/api/dtmsvr/query?gid=g"));
    let reply = exchange(server.address(), "POST", "/api/dtmsvr/submit/", "{}").await;
    assert_eq!((reply.status, reply.header("location")), (307, "/api/dtmsvr/submit"));
    for method in ["GET", "POST", "DELETE"] {
        let reply = exchange(server.address(), method, "/api/ping", "").await;
        assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"msg":"pong"}"#));
    }
}
