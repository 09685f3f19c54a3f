//! What is accepted, and what a repetition does.

use std::time::Duration;

use dtmd_tests::{Says, Server, Service, branch_statuses, saga, with};
use serde_json::{Value, json};

use crate::turn;

#[tokio::test]
async fn d01_a_repeated_submit_calls_nothing_again() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::success().after(Duration::from_millis(500))]);
    let body = saga("g", &[service.step("a"), service.step("b")]);
    for _ in 0..5 {
        server.post_ok("submit", &body).await;
    }
    server.wait_status("g", "succeed").await;
    assert_eq!(service.paths(), ["/a", "/b"]);
    let again = server.post("submit", &body).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.json()["message"], "current status 'succeed', cannot sumbmit. FAILURE");
}

#[tokio::test]
async fn d01_a_repeated_submit_of_a_tcc_confirms_what_was_registered() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/confirm", [Says::error(), Says::error(), Says::success()]);
    let begin = json!({ "gid": "g", "trans_type": "tcc", "retry_interval_ms": 100 });
    server.post_ok("prepare", &begin).await;
    let branch = json!({
        "gid": "g", "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": service.at("/confirm"), "cancel": service.at("/cancel"),
    });
    server.post_ok("registerBranch", &branch).await;
    server.post_ok("submit", &begin).await;
    server.post_ok("submit", &begin).await;
    assert_eq!(server.status("g").await, "submitted", "nothing was confirmed yet");
    let query = server.wait_status("g", "succeed").await;
    assert_eq!(branch_statuses(&query), ["prepared", "succeed"]);
    assert_eq!(service.calls("/confirm").len(), 3);
}

#[tokio::test]
async fn d01_a_taken_gid_with_other_content_is_refused() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::error()]);
    server.post_ok("submit", &saga("g", &[service.step("a")])).await;
    let other = server.post("submit", &saga("g", &[service.step("evil")])).await;
    assert_eq!(other.status, 409, "{}", other.body);
    assert!(service.calls("/evil").is_empty());
}

#[tokio::test]
async fn d22_not_finished_yet_is_425_and_rolled_back_is_409() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/later", [Says::error(), Says::success()]);
    service.script("/no", [Says::failure()]);
    let wait = json!({ "wait_result": true, "retry_interval_ms": 100 });
    for (gid, status, word) in [("later", 425, "ONGOING"), ("no", 409, "FAILURE")] {
        let body = with(saga(gid, &[service.step(gid)]), wait.clone());
        let answer = server.post("submit", &body).await;
        assert_eq!((answer.status, answer.json()["dtm_result"].as_str()), (status, Some(word)));
    }
    let delayed = json!({
        "gid": "delayed", "trans_type": "msg", "custom_data": "{\"delay\":3600}",
        "steps": [{ "action": service.at("/a") }], "payloads": ["{}"], "wait_result": true,
    });
    let answer = server.post("submit", &delayed).await;
    assert_eq!(answer.status, 425, "{}", answer.body);
    assert_eq!(server.status("delayed").await, "submitted");
}

#[tokio::test]
async fn d26_registering_again_is_success_and_registering_otherwise_is_refused() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    server.post_ok("prepare", &json!({ "gid": "g", "trans_type": "tcc" })).await;
    let branch = json!({
        "gid": "g", "trans_type": "tcc", "branch_id": "01", "data": "{}",
        "confirm": "http://127.0.0.1:1/c", "cancel": "http://127.0.0.1:1/x",
    });
    server.post_ok("registerBranch", &branch).await;
    server.post_ok("registerBranch", &branch).await;
    let other = with(branch, json!({ "cancel": "http://127.0.0.1:1/y" }));
    let refused = server.post("registerBranch", &other).await;
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert_eq!(server.query("g").await["branches"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn d27_what_the_server_keeps_cannot_be_set_from_outside() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let body = with(
        saga("g", &[service.step("a")]),
        json!({
            "id": 77, "owner": "me", "status": "succeed", "create_time": "2001-01-01T00:00:00Z",
            "update_time": "2001-01-01T00:00:00Z", "next_cron_time": "2099-01-01T00:00:00Z",
            "finish_time": "2001-01-01T00:00:00Z", "rollback_time": "2001-01-01T00:00:00Z",
            "result": "mine", "next_cron_interval": 999, "ext_data": "x", "options": "{}",
        }),
    );
    server.post_ok("prepare", &body).await;
    let transaction = server.query("g").await["transaction"].take();
    assert_eq!((&transaction["id"], &transaction["status"]), (&json!(0), &json!("prepared")));
    for name in ["owner", "result", "finish_time", "rollback_time", "ext_data"] {
        assert_eq!(transaction[name], Value::Null, "{name}");
    }
    for name in ["create_time", "update_time", "next_cron_time"] {
        let time = transaction[name].as_str().unwrap();
        assert!(!time.starts_with("2001") && !time.starts_with("2099"), "{name}: {time}");
    }
    assert!(service.paths().is_empty());
}

#[tokio::test]
async fn d28_a_delay_that_comes_with_the_submit_counts_after_a_kill_too() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    let body = json!({
        "gid": "g", "trans_type": "msg", "steps": [{ "action": service.at("/a") }],
        "payloads": ["{}"], "query_prepared": service.at("/query"),
    });
    server.post_ok("prepare", &body).await;
    let created = server.query("g").await["transaction"]["create_time"].clone();
    let late = json!({ "custom_data": "{\"delay\":3600}", "retry_interval": 77 });
    server.post_ok("submit", &with(body, late)).await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    let transaction = server.query("g").await["transaction"].take();
    assert_eq!(transaction["status"], "submitted");
    assert_eq!(transaction["custom_data"], "{\"delay\":3600}");
    assert_eq!(transaction["retry_interval"], 77);
    assert_eq!(transaction["create_time"], created, "its age is that of the prepare");
    // If it were forgotten, the message would be delivered right after the restart.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(service.paths().is_empty());
}

#[tokio::test]
async fn d29_a_topic_that_went_away_after_prepare_does_not_matter() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let subscribe = format!("subscribe?topic=t&url={}", service.at("/a"));
    assert_eq!(server.get(&subscribe).await.status, 200);
    let body = json!({
        "gid": "g", "trans_type": "msg", "steps": [{ "action": "topic://t" }], "payloads": ["{}"],
    });
    server.post_ok("prepare", &body).await;
    let url = server.at("/api/dtmsvr/topic/t");
    let deleted = server.client.http().send(http::Method::DELETE, &url, "".into()).await.unwrap();
    assert_eq!(deleted.status, 200, "{}", deleted.body);
    server.post_ok("submit", &body).await;
    server.wait_status("g", "succeed").await;
    assert_eq!(service.calls("/a").len(), 1);
}

#[tokio::test]
async fn d15_topics_count_at_once_and_for_good() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    let change = async |server: &Server, how: &str, path: &str| {
        let answer = server.get(&format!("{how}?topic=t&url={}", service.at(path))).await;
        assert_eq!(answer.status, 200, "{how}: {}", answer.body);
    };
    let publish = async |server: &Server, gid: &str| {
        let body = json!({
            "gid": gid, "trans_type": "msg", "steps": [{ "action": "topic://t" }],
            "payloads": ["{}"],
        });
        server.post("submit", &body).await.status
    };
    change(&server, "subscribe", "/old").await;
    change(&server, "subscribe", "/old2").await;
    let url = server.at("/api/dtmsvr/topic/t");
    server.client.http().send(http::Method::DELETE, &url, "".into()).await.unwrap();
    assert_eq!(publish(&server, "none").await, 500, "a deleted topic is gone");
    change(&server, "subscribe", "/new").await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    assert_eq!(publish(&server, "one").await, 200);
    server.wait_status("one", "succeed").await;
    assert_eq!(service.paths(), ["/new"]);
}

#[tokio::test]
async fn d37_orders_that_can_never_be_met_are_refused_at_submit() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    for (orders, concurrent) in [
        (json!({ "1": [7] }), true),
        (json!({ "9": [0] }), true),
        (json!({ "1": [1] }), true),
        (json!({ "0": [1], "1": [0] }), true),
        (json!({ "0": [1] }), false),
    ] {
        let custom = json!({ "orders": orders, "concurrent": concurrent }).to_string();
        let body = saga("g", &[service.step("a"), service.step("b")]);
        let refused = server.post("submit", &with(body, json!({ "custom_data": custom }))).await;
        assert_eq!(refused.status, 400, "{custom}: {}", refused.body);
        assert_eq!(server.query("g").await["transaction"], Value::Null);
    }
}

#[tokio::test]
async fn d37_no_compensation_is_sent_while_its_action_is_under_way() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let long = Duration::from_millis(700);
    service.script("/a", [Says::failure()]);
    service.script("/b", [Says::success().after(long)]);
    let custom = json!({ "concurrent": true }).to_string();
    let body = saga("g", &[service.step("a"), service.step("b")]);
    server.post_ok("submit", &with(body, json!({ "custom_data": custom }))).await;
    let query = server.wait_status("g", "failed").await;
    assert_eq!(branch_statuses(&query), ["succeed", "failed", "succeed", "succeed"]);
    let (action, undo) = (&service.calls("/b")[0], &service.calls("/b-undo")[0]);
    assert!(undo.at >= action.at + long, "the compensation overtook its action");
}

#[tokio::test]
async fn d45_options_out_of_range_are_refused_by_name() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    for name in ["retry_interval", "timeout_to_fail", "request_timeout", "retry_limit"] {
        for value in [json!(-1), json!(i64::MIN), json!(i64::MAX), json!(0.5)] {
            let body = with(saga("g", &[service.step("a")]), json!({ name: value }));
            let refused = server.post("submit", &body).await;
            assert_eq!(refused.status, 400, "{name} {value}: {}", refused.body);
            let message = refused.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(name), "{name} {value}: {message}");
        }
    }
    assert_eq!(server.query("g").await["transaction"], Value::Null);
    assert!(service.paths().is_empty());
}

#[tokio::test]
async fn d49_a_gid_is_kept_as_it_is_or_refused() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    for gid in ["a\nb", "a\rb", "a\u{0}b", "", &"x".repeat(129)] {
        let refused = server.post("submit", &saga(gid, &[service.step("a")])).await;
        assert_eq!(refused.status, 400, "{gid:?}: {}", refused.body);
    }
    assert!(service.paths().is_empty());
    let gid = "a;b'\"%/ü";
    server.post_ok("submit", &saga(gid, &[service.step("a")])).await;
    let encoded = "a%3Bb%27%22%25%2F%C3%BC";
    let query = server.wait_status(encoded, "succeed").await;
    assert_eq!(query["transaction"]["gid"], gid);
    assert_eq!(service.calls("/a")[0].parameter("gid"), encoded);
    assert_eq!(server.status("ab").await, "", "nothing was cut out of it");
}
