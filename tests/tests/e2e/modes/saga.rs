//! Sagas: serial, concurrent, ordered; waiting callers; retry limit and timeouts.

use dtmd_tests::{Says, Server, Service, branch_statuses, saga, with};
use serde_json::json;

use crate::turn;

#[tokio::test]
async fn a_serial_saga_goes_forward_in_order() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let body = saga("g", &[service.step("a"), service.step("b"), service.step("c")]);
    let body = with(body, json!({ "payloads": ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"] }));
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g", "succeed").await;
    assert_eq!(branch_statuses(&query), ["prepared", "succeed"].repeat(3));
    assert_eq!(service.paths(), ["/a", "/b", "/c"]);
    let call = &service.calls("/b")[0];
    assert_eq!(call.query, "branch_id=02&gid=g&op=action&trans_type=saga");
    assert_eq!((call.method.as_str(), call.body.as_str()), ("POST", "{\"n\":2}"));
    assert_eq!(call.headers["content-type"], "application/json");
    assert_eq!(call.headers["accept"], "application/json");
}

#[tokio::test]
async fn a_serial_saga_goes_back_in_reverse_and_undoes_the_failed_step_too() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/b", [Says::failure()]);
    service.script("/b-undo", [Says::error(), Says::success()]);
    let body = saga("g", &[service.step("a"), service.step("b"), service.step("c")]);
    server.post_ok("submit", &with(body, json!({ "retry_interval_ms": 20 }))).await;
    let query = server.wait_status("g", "failed").await;
    let rows = ["succeed", "succeed", "succeed", "failed", "prepared", "prepared"];
    assert_eq!(branch_statuses(&query), rows);
    assert_eq!(service.paths(), ["/a", "/b", "/b-undo", "/b-undo", "/a-undo"]);
    let reason = query["transaction"]["rollback_reason"].as_str().unwrap();
    let url = service.at("/b");
    assert!(reason.starts_with(&format!("url:{url} return failed: ")), "{reason}");
    assert!(reason.ends_with("FAILURE"), "an application looks for the word: {reason}");
}

#[tokio::test]
async fn a_concurrent_saga_starts_all_it_may() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    // Both are held until both were called: one after the other would time out.
    let pause = std::time::Duration::from_millis(300);
    service.script("/a", [Says::success().after(pause)]);
    service.script("/b", [Says::success().after(pause)]);
    let custom = json!({ "concurrent": true, "orders": { "2": [0, 1] } }).to_string();
    let body = saga("g", &[service.step("a"), service.step("b"), service.step("c")]);
    server.post_ok("submit", &with(body, json!({ "custom_data": custom }))).await;
    server.wait_status("g", "succeed").await;
    let (a, b, c) = (service.calls("/a"), service.calls("/b"), service.calls("/c"));
    let apart = if a[0].at < b[0].at { b[0].at - a[0].at } else { a[0].at - b[0].at };
    assert!(apart < pause, "the second was not called beside the first");
    assert!(c[0].at >= a[0].at + pause && c[0].at >= b[0].at + pause, "the order was not kept");
}

#[tokio::test]
async fn an_ordered_saga_as_in_spec_a1() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/in", [Says::new(409, r#"{"error":"no such account. FAILURE"}"#)]);
    let (out, into) = (service.at("/out"), service.at("/in"));
    let body = json!({
        "gid": "g-1", "trans_type": "saga", "concurrent": true, "protocol": "",
        "steps": [{ "action": out, "compensate": format!("{out}C") },
                  { "action": into, "compensate": format!("{into}C") }],
        "payloads": ["{\"amount\":30}", "{\"amount\":30}"],
        "custom_data": "{\"orders\":{\"1\":[0]},\"concurrent\":true}",
    });
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g-1", "failed").await;
    assert_eq!(service.paths(), ["/out", "/in", "/inC", "/outC"]);
    assert_eq!(service.calls("/out")[0].query, "branch_id=01&gid=g-1&op=action&trans_type=saga");
    assert_eq!(service.calls("/inC")[0].parameter("op"), "compensate");
    assert_eq!(
        query["transaction"]["rollback_reason"],
        format!("url:{into} return failed: {{\"error\":\"no such account. FAILURE\"}} FAILURE")
    );
}

#[tokio::test]
async fn an_ordered_step_that_never_ran_is_not_undone() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::failure()]);
    let custom = json!({ "concurrent": true, "orders": { "1": [0] } }).to_string();
    let body = saga("g", &[service.step("a"), service.step("b")]);
    server.post_ok("submit", &with(body, json!({ "custom_data": custom }))).await;
    let query = server.wait_status("g", "failed").await;
    assert_eq!(branch_statuses(&query), ["succeed", "failed", "prepared", "prepared"]);
    assert_eq!(service.paths(), ["/a", "/a-undo"]);
}

#[tokio::test]
async fn a_waiting_caller_is_told_how_it_ended() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let wait = json!({ "wait_result": true, "retry_interval_ms": 20 });
    let submit = async |gid: &str, step: &str| {
        let body = with(saga(gid, &[service.step(step)]), wait.clone());
        server.post("submit", &body).await
    };
    server.post_ok("submit", &with(saga("ok", &[service.step("a")]), wait.clone())).await;
    assert_eq!(server.status("ok").await, "succeed");

    service.script("/no", [Says::failure()]);
    let answer = submit("no", "no").await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert_eq!(answer.json()["dtm_result"], "FAILURE");
    assert!(answer.json()["message"].as_str().unwrap().contains("no money"), "{}", answer.body);
    assert_eq!(server.status("no").await, "failed");

    service.script("/later", [Says::ongoing(), Says::success()]);
    let answer = submit("later", "later").await;
    assert_eq!(answer.status, 425, "{}", answer.body);
    assert_eq!(answer.json()["dtm_result"], "ONGOING");
    server.wait_status("later", "succeed").await;
}

#[tokio::test]
async fn the_retry_limit_gives_up_and_undoes() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/b", [Says::error()]);
    let body = saga("g", &[service.step("a"), service.step("b")]);
    let body = with(body, json!({ "retry_limit": 2, "retry_interval_ms": 20 }));
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g", "failed").await;
    assert_eq!(branch_statuses(&query), ["succeed", "succeed", "succeed", "prepared"]);
    assert_eq!(service.calls("/b").len(), 3, "the first call and two more");
    assert_eq!(
        query["transaction"]["rollback_reason"],
        "RetryCount is greater than RetryLimit, RetryLimit: 2"
    );
}

#[tokio::test]
async fn a_saga_times_out_while_a_step_is_ongoing() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::ongoing()]);
    let body = saga("g", &[service.step("a"), service.step("b")]);
    let body = with(body, json!({ "timeout_to_fail_ms": 400, "retry_interval_ms": 50 }));
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g", "failed").await;
    assert_eq!(branch_statuses(&query), ["succeed", "prepared", "prepared", "prepared"]);
    assert!(service.calls("/a").len() > 1, "ONGOING is asked again");
    let reason = query["transaction"]["rollback_reason"].as_str().unwrap();
    assert!(reason.starts_with("Timeout after "), "{reason}");
    assert!(service.calls("/b").is_empty());
}

#[tokio::test]
async fn a_call_that_takes_longer_than_its_request_timeout_is_repeated() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let late = Says::success().after(std::time::Duration::from_secs(20));
    service.script("/a", [late, Says::success()]);
    let body = saga("g", &[service.step("a")]);
    let body = with(body, json!({ "request_timeout_ms": 100, "retry_interval_ms": 20 }));
    server.post_ok("submit", &body).await;
    let query = server.wait_status("g", "succeed").await;
    assert_eq!(service.calls("/a").len(), 2);
    let transaction = &query["transaction"];
    assert_eq!(transaction["request_timeout_ms"], 100, "it is shown as it was given");
    assert_eq!(transaction["retry_interval_ms"], 20);
}

#[tokio::test]
async fn branch_headers_go_with_every_call() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::failure()]);
    let body = saga("g", &[service.step("a")]);
    let headers = json!({ "x-tenant": "blue", "authorization": "Bearer t" });
    server.post_ok("submit", &with(body, json!({ "branch_headers": headers }))).await;
    server.wait_status("g", "failed").await;
    for path in ["/a", "/a-undo"] {
        assert_eq!(service.calls(path)[0].headers["x-tenant"], "blue");
        assert_eq!(service.calls(path)[0].headers["authorization"], "Bearer t");
    }
}

#[tokio::test]
async fn old_style_steps_carry_their_own_data() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let body = json!({
        "gid": "g", "trans_type": "saga",
        "steps": [{ "action": service.at("/a"), "compensate": service.at("/c"),
                    "data": "{\"n\":7}" }],
    });
    server.post_ok("submit", &body).await;
    server.wait_status("g", "succeed").await;
    assert_eq!(service.calls("/a")[0].body, "{\"n\":7}");
}

#[tokio::test]
async fn a_prepared_saga_waits_for_its_submit() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let body = saga("g", &[service.step("a")]);
    server.post_ok("prepare", &body).await;
    server.post_ok("prepare", &body).await;
    assert_eq!(server.status("g").await, "prepared");
    assert!(service.paths().is_empty());
    server.post_ok("submit", &body).await;
    server.wait_status("g", "succeed").await;
    let again = server.post("prepare", &body).await;
    assert_eq!(again.status, 409);
    let text = "current status 'succeed', cannot prepare. FAILURE";
    assert_eq!(again.json()["message"], text);
}
