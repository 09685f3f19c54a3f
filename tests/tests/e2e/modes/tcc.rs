//! TCC: confirm, cancel, nested branches, time running out.

use dtmd_tests::{Says, Server, Service, branch_statuses, with};
use serde_json::{Value, json};

use crate::turn;

/// Registers a branch, as the SDK of an application or of a nested service does.
async fn register(server: &Server, service: &Service, branch_id: &str) {
    let body = branch(service, branch_id);
    server.post_ok("registerBranch", &body).await;
}

fn branch(service: &Service, branch_id: &str) -> Value {
    json!({
        "gid": "g", "trans_type": "tcc", "branch_id": branch_id,
        "data": format!("{{\"id\":\"{branch_id}\"}}"),
        "confirm": service.at("/confirm"), "cancel": service.at("/cancel"),
    })
}

fn ids(service: &Service, path: &str) -> Vec<String> {
    service.calls(path).iter().map(|call| call.parameter("branch_id").to_owned()).collect()
}

#[tokio::test]
async fn a_nested_tcc_confirms_all_branches_last_first() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let begin = json!({ "gid": "g", "trans_type": "tcc" });
    server.post_ok("prepare", &begin).await;
    for branch_id in ["01", "02", "0201", "0202"] {
        register(&server, &service, branch_id).await;
    }
    service.script("/confirm", [Says::error(), Says::success()]);
    server.post_ok("submit", &with(begin, json!({ "retry_interval_ms": 20 }))).await;
    let query = server.wait_status("g", "succeed").await;
    assert_eq!(branch_statuses(&query), ["prepared", "succeed"].repeat(4));
    assert_eq!(ids(&service, "/confirm"), ["0202", "0202", "0201", "02", "01"]);
    assert!(service.calls("/cancel").is_empty());
    let call = &service.calls("/confirm")[4];
    assert_eq!(call.query, "branch_id=01&gid=g&op=confirm&trans_type=tcc");
    assert_eq!(call.body, "{\"id\":\"01\"}");
}

#[tokio::test]
async fn an_abort_cancels_with_its_reason() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    server.post_ok("prepare", &json!({ "gid": "g", "trans_type": "tcc" })).await;
    register(&server, &service, "01").await;
    register(&server, &service, "02").await;
    let body = json!({ "gid": "g", "trans_type": "tcc", "rollback_reason": "sold out FAILURE" });
    server.post_ok("abort", &body).await;
    let query = server.wait_status("g", "failed").await;
    assert_eq!(query["transaction"]["rollback_reason"], "sold out FAILURE");
    assert_eq!(branch_statuses(&query), ["succeed", "prepared", "succeed", "prepared"]);
    assert_eq!(ids(&service, "/cancel"), ["02", "01"]);
    let late = server.post("registerBranch", &branch(&service, "03")).await;
    assert_eq!(late.status, 409);
    let text = "no trans with gid: g status: prepared found FAILURE";
    assert_eq!(late.json()["message"], text);
}

#[tokio::test]
async fn time_running_out_cancels_and_keeps_later_branches_out() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let begin = json!({ "gid": "g", "trans_type": "tcc", "timeout_to_fail_ms": 300 });
    server.post_ok("prepare", &begin).await;
    register(&server, &service, "01").await;
    server.wait_status("g", "failed").await;
    assert_eq!(ids(&service, "/cancel"), ["01"]);
    assert_eq!(server.post("registerBranch", &branch(&service, "02")).await.status, 409);
    let submit = server.post("submit", &json!({ "gid": "g", "trans_type": "tcc" })).await;
    assert_eq!(submit.status, 409);
    assert!(service.calls("/confirm").is_empty());
}

#[tokio::test]
async fn a_waiting_submit_tells_that_a_confirm_is_ongoing() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/confirm", [Says::ongoing(), Says::success()]);
    let begin = json!({ "gid": "g", "trans_type": "tcc", "retry_interval_ms": 50 });
    server.post_ok("prepare", &begin).await;
    register(&server, &service, "01").await;
    let submit = server.post("submit", &with(begin, json!({ "wait_result": true }))).await;
    assert_eq!(submit.status, 425, "{}", submit.body);
    assert_eq!(submit.json()["dtm_result"], "ONGOING");
    server.wait_status("g", "succeed").await;
}

#[tokio::test]
async fn a_submitted_tcc_is_confirmed_after_a_kill() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    service.script("/confirm", [Says::nothing(), Says::nothing(), Says::success()]);
    let begin = json!({ "gid": "g", "trans_type": "tcc", "retry_interval_ms": 100 });
    server.post_ok("prepare", &begin).await;
    register(&server, &service, "01").await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    register(&server, &service, "02").await;
    server.post_ok("submit", &begin).await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    let query = server.wait_status("g", "succeed").await;
    assert_eq!(branch_statuses(&query), ["prepared", "succeed"].repeat(2));
    assert!(service.calls("/cancel").is_empty());
}
