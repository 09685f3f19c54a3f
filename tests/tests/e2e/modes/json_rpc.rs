//! JSON-RPC, in and out (spec 02 §5).

use dtmd_tests::{Says, Server, Service, branch_statuses};
use serde_json::{Value, json};

use crate::turn;

async fn rpc(server: &Server, method: &str, params: Value) -> Value {
    let body = json!({ "jsonrpc": "2.0", "id": "7", "method": method, "params": params });
    let answer = server.client.http().post(&server.at("/api/json-rpc"), &body).await.unwrap();
    assert_eq!(answer.status, 200, "{method}: {}", answer.body);
    let answer = answer.json();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!("7")));
    assert!(answer.get("result").is_some() && answer.get("error").is_some(), "{answer}");
    answer
}

#[tokio::test]
async fn a_tcc_goes_through_by_json_rpc() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let gid = rpc(&server, "newGid", json!({})).await["result"]["gid"].as_str().unwrap().to_owned();
    let begin = json!({ "gid": gid, "trans_type": "tcc" });
    let branch = json!({
        "gid": gid, "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": service.at("/confirm"), "cancel": service.at("/cancel"),
    });
    for (method, params) in [("prepare", &begin), ("registerBranch", &branch), ("submit", &begin)] {
        let answer = rpc(&server, method, params.clone()).await;
        assert_eq!((&answer["result"], &answer["error"]), (&Value::Null, &Value::Null));
    }
    server.wait_status(&gid, "succeed").await;
    let answer = rpc(&server, "submit", begin).await;
    assert_eq!(answer["error"]["code"], -32901);
    assert!(answer["error"]["message"].as_str().unwrap().contains("FAILURE"), "{answer}");
}

#[tokio::test]
async fn errors_have_their_codes() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let url = server.at("/api/json-rpc");
    for (body, status, code) in [
        ("{", 400, -32700),
        (r#"{"jsonrpc":"2.0","id":["a"],"method":"newGid"}"#, 200, -32600),
        (r#"{"jsonrpc":"2.0","id":"","method":"newGid"}"#, 200, -32600),
        (r#"{"jsonrpc":"1.0","id":"a","method":"newGid"}"#, 200, -32600),
        (r#"{"jsonrpc":"2.0","id":"a","method":"drop"}"#, 200, -32601),
        (
            r#"{"jsonrpc":"2.0","id":"a","method":"abort","params":{"gid":"x","trans_type":"tcc"}}"#,
            200,
            -32603,
        ),
    ] {
        let answer =
            server.client.http().send(http::Method::POST, &url, body.into()).await.unwrap();
        assert_eq!(
            (answer.status, answer.json()["error"]["code"].as_i64()),
            (status, Some(code)),
            "{body}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn branches_are_called_by_json_rpc() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script(
        "/rpc",
        [
            Says::new(
                200,
                r#"{"jsonrpc":"2.0","id":"1","error":{"code":-32902,"message":"wait"}}"#,
            ),
            Says::new(
                200,
                r#"{"jsonrpc":"2.0","id":"1","error":{"code":-32603,"message":"boom"}}"#,
            ),
            Says::new(200, r#"{"jsonrpc":"2.0","id":"1","result":{},"error":null}"#),
        ],
    );
    let url = service.at("/rpc?method=In");
    let body = json!({
        "gid": "g-5", "trans_type": "msg", "protocol": "json-rpc", "retry_interval_ms": 20,
        "steps": [{ "action": url }], "payloads": ["{\"amount\":30}"],
    });
    server.post_ok("submit", &body).await;
    server.wait_status("g-5", "succeed").await;
    let calls = service.calls("/rpc");
    assert_eq!(calls.len(), 3);
    assert_eq!(calls[0].query, "method=In", "no parameters are added");
    let sent: Value = serde_json::from_str(&calls[0].body).unwrap();
    assert_eq!((&sent["jsonrpc"], &sent["method"]), (&json!("2.0"), &json!("In")));
    let params = json!({
        "amount": 30, "gid": "g-5", "trans_type": "msg", "branch_id": "01", "op": "action",
    });
    assert_eq!(sent["params"], params);
}

#[tokio::test]
async fn a_json_rpc_branch_that_refuses_rolls_back() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script(
        "/rpc",
        [
            Says::new(200, r#"{"jsonrpc":"2.0","id":"1","error":{"code":-32901,"message":"no"}}"#),
            Says::new(200, r#"{"jsonrpc":"2.0","id":"1","result":{}}"#),
        ],
    );
    let url = |method: &str| service.at(&format!("/rpc?method={method}"));
    let body = json!({
        "gid": "g", "trans_type": "saga", "protocol": "json-rpc", "payloads": ["{}"],
        "steps": [{ "action": url("Out"), "compensate": url("OutBack") }],
    });
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g", "failed").await;
    assert_eq!(branch_statuses(&query), ["succeed", "failed"]);
}
