//! Two-phase messages: delivery, query-prepared both ways, delay, topics.

use std::time::{Duration, Instant};

use dtmd_tests::{Says, Server, Service, branch_statuses, with};
use serde_json::{Value, json};

use crate::turn;

fn msg(gid: &str, targets: &[String], query_prepared: &str) -> Value {
    let steps: Vec<Value> = targets.iter().map(|action| json!({ "action": action })).collect();
    let payloads: Vec<&str> = targets.iter().map(|_| "{\"amount\":30}").collect();
    json!({
        "gid": gid, "trans_type": "msg", "steps": steps, "payloads": payloads,
        "query_prepared": query_prepared,
    })
}

#[tokio::test]
async fn a_message_is_delivered_in_order_until_it_is_taken() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    // E3: a refusal is repeated, a submitted message never fails.
    service.script("/a", [Says::failure(), Says::error(), Says::success()]);
    let body = msg("g", &[service.at("/a"), service.at("/b")], &service.at("/query"));
    let body = with(body, json!({ "retry_interval_ms": 20 }));
    server.post_ok("prepare", &body).await;
    assert_eq!(server.status("g").await, "prepared");
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g", "succeed").await;
    assert_eq!(branch_statuses(&query), ["succeed", "succeed"]);
    assert_eq!(service.paths(), ["/a", "/a", "/a", "/b"]);
    assert_eq!(service.calls("/b")[0].query, "branch_id=02&gid=g&op=action&trans_type=msg");
}

#[tokio::test]
async fn query_prepared_decides_what_was_not_submitted() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/q-no", [Says::failure()]);
    service.script("/q-yes", [Says::error(), Says::ongoing(), Says::success()]);
    for (gid, query, end) in [("no", "/q-no", "failed"), ("yes", "/q-yes", "succeed")] {
        let body = msg(gid, &[service.at(&format!("/{gid}"))], &service.at(query));
        let body = with(body, json!({ "timeout_to_fail_ms": 100, "retry_interval_ms": 30 }));
        server.post_ok("prepare", &body).await;
        server.wait_status(gid, end).await;
    }
    assert!(service.calls("/no").is_empty());
    assert_eq!(service.calls("/yes").len(), 1);
    let asked = service.calls("/q-yes");
    assert_eq!(asked.len(), 3);
    let (call, body) = (&asked[0], asked[0].body.as_str());
    assert_eq!((call.method.as_str(), body), ("GET", ""));
    assert_eq!(call.query, "branch_id=00&gid=yes&op=msg&trans_type=msg");
}

#[tokio::test]
async fn an_aborted_message_is_never_delivered() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let body = msg("g", &[service.at("/a")], &service.at("/query"));
    server.post_ok("prepare", &body).await;
    server.post_ok("abort", &json!({ "gid": "g", "trans_type": "msg" })).await;
    assert_eq!(server.status("g").await, "failed");
    let submit = server.post("submit", &body).await;
    assert_eq!(submit.status, 409);
    assert_eq!(submit.json()["message"], "current status 'failed', cannot sumbmit. FAILURE");
    assert!(service.paths().is_empty());
}

#[tokio::test]
async fn a_delayed_message_waits_also_over_a_restart() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    let begun = Instant::now();
    let body = msg("g", &[service.at("/a")], &service.at("/query"));
    let body = with(body, json!({ "custom_data": "{\"delay\":2}" }));
    server.post_ok("submit", &body).await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    assert_eq!(server.status("g").await, "submitted");
    server.wait_status("g", "succeed").await;
    assert!(begun.elapsed() >= Duration::from_millis(1900), "it was delivered too early");
    assert_eq!(service.calls("/a").len(), 1);
}

#[tokio::test]
async fn a_topic_fans_out_to_its_subscribers_of_the_moment() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let subscribe = |path: &str| format!("subscribe?topic=paid&url={}", service.at(path));
    let unknown = server.post("submit", &msg("no", &["topic://paid".to_owned()], "")).await;
    assert_eq!(unknown.status, 500);
    let text = unknown.json()["message"].as_str().unwrap().to_owned();
    assert!(text.starts_with("topic not found"), "{text}");
    assert_eq!(server.query("no").await["transaction"], Value::Null);

    assert_eq!(server.get(&subscribe("/a")).await.status, 200);
    server.post_ok("submit", &msg("one", &["topic://paid".to_owned()], "")).await;
    let query = server.wait_status("one", "succeed").await;
    assert_eq!(query["branches"][0]["branch_id"], "01", "E9: one subscriber keeps the plain id");

    assert_eq!(server.get(&subscribe("/b")).await.status, 200);
    let targets = ["topic://paid".to_owned(), service.at("/c")];
    let body = with(msg("two", &targets, ""), json!({ "concurrent": true }));
    server.post_ok("submit", &body).await;
    let query = server.wait_status("two", "succeed").await;
    let branches = query["branches"].as_array().unwrap();
    let ids: Vec<_> = branches.iter().map(|row| row["branch_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["01-01", "01-02", "02"]);
    let counts = service.counts();
    assert_eq!((counts["/a"], counts["/b"], counts["/c"]), (2, 1, 1));
}

#[tokio::test]
async fn a_message_is_delivered_over_a_kill() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::error(), Says::success()]);
    let body = msg("g", &[service.at("/a"), service.at("/b")], "");
    server.post_ok("submit", &with(body, json!({ "retry_interval_ms": 200 }))).await;
    service.wait_calls("/a", 1).await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    server.wait_status("g", "succeed").await;
    assert_eq!(service.counts()["/b"], 1);
}
