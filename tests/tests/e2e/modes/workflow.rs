//! Workflows: the server's side of the worked exchange of spec 02 A.4.

use dtmd_tests::{Server, Service, with};
use serde_json::{Value, json};

use crate::turn;

fn prepare(service: &Service) -> Value {
    json!({
        "gid": "g-4", "trans_type": "workflow", "concurrent": false, "protocol": "http",
        "custom_data": "{\"data\":\"eyJhIjoxfQ==\",\"name\":\"wf1\"}",
        "query_prepared": service.at("/resume"),
    })
}

#[tokio::test]
async fn a_workflow_is_resumed_and_ended_as_in_spec_a4() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    let begin = with(prepare(&service), json!({ "retry_interval_ms": 300 }));
    let fresh = server.post("prepareWorkflow", &begin).await.json();
    assert_eq!(fresh["transaction"]["status"], "prepared");
    assert_eq!(fresh["progresses"], json!([]), "a list, never null");

    let step = json!({
        "gid": "g-4", "trans_type": "workflow", "branch_id": "01", "op": "action",
        "status": "succeed", "data": "{\"ok\":true}",
    });
    server.post_ok("registerBranch", &step).await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();

    let call = service.wait_calls("/resume", 1).await.remove(0);
    assert_eq!(call.method.as_str(), "POST");
    assert_eq!(call.query, "branch_id=00&gid=g-4&op=wf1&trans_type=workflow");
    assert_eq!(call.body, "{\"a\":1}");

    let again = server.post("prepareWorkflow", &begin).await.json();
    let progress = &again["progresses"][0];
    assert_eq!(progress["bin_data"], "eyJvayI6dHJ1ZX0=");
    assert_eq!((&progress["branch_id"], &progress["op"]), (&json!("01"), &json!("action")));
    assert_eq!(progress["status"], "succeed");

    let end = json!({
        "gid": "g-4", "trans_type": "workflow",
        "req_extra": { "status": "succeed", "rollback_reason": "", "result": "cmVzdWx0" },
    });
    server.post_ok("submit", &end).await;
    let ended = server.post("prepareWorkflow", &begin).await.json();
    assert_eq!(ended["transaction"]["status"], "succeed");
    assert_eq!(ended["transaction"]["result"], "cmVzdWx0");
    let late = server.post("registerBranch", &with(step, json!({ "branch_id": "02" }))).await;
    assert_eq!(late.status, 409, "{}", late.body);
}

#[tokio::test]
async fn a_workflow_fails_with_its_reason() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    assert_eq!(server.post("prepareWorkflow", &prepare(&service)).await.status, 200);
    let end = json!({
        "gid": "g-4", "trans_type": "workflow",
        "req_extra": { "status": "failed", "rollback_reason": "no seat. FAILURE", "result": "" },
    });
    server.post_ok("submit", &end).await;
    let query = server.query("g-4").await;
    assert_eq!(query["transaction"]["status"], "failed");
    assert_eq!(query["transaction"]["rollback_reason"], "no seat. FAILURE");
    let other = json!({
        "gid": "g-4", "trans_type": "workflow", "req_extra": { "status": "succeed" },
    });
    let refused = server.post("submit", &other).await;
    assert_eq!(refused.status, 500, "DTM's answer when the row is not prepared: {}", refused.body);
    let unknown = with(end, json!({ "gid": "nobody" }));
    let unknown = server.post("submit", &unknown).await;
    assert_eq!(
        (unknown.status, unknown.json()["message"].as_str()),
        (500, Some("storage: NotFound"))
    );
}

#[tokio::test]
async fn a_workflows_status_is_one_of_two_words() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    assert_eq!(server.post("prepareWorkflow", &prepare(&service)).await.status, 200);
    let end = json!({
        "gid": "g-4", "trans_type": "workflow", "req_extra": { "status": "whatever" },
    });
    let refused = server.post("submit", &end).await;
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert_eq!(server.status("g-4").await, "prepared");
}
