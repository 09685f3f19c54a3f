//! The shapes of answers that SDKs decode strictly (spec 02 §2, §6).

use dtmd_tests::{Says, Server, Service, saga, until, with};
use serde_json::{Value, json};

use crate::turn;

#[tokio::test]
async fn new_gids_are_strings_only() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let answer = server.get("newGid").await.json();
        let members = answer.as_object().unwrap();
        assert!(members.values().all(Value::is_string), "the Go SDK panics otherwise: {answer}");
        assert_eq!(answer["dtm_result"], "SUCCESS");
        let gid = answer["gid"].as_str().unwrap();
        assert_eq!(gid.len(), 22);
        assert!(seen.insert(gid.to_owned()));
    }
    assert!(server.get("version").await.json()["version"].is_string());
}

#[tokio::test]
async fn a_finished_saga_reads_as_in_spec_a3() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    server.post_ok("submit", &saga("g-3", &[service.step("a")])).await;
    let query = server.wait_status("g-3", "succeed").await;
    let transaction = &query["transaction"];
    assert_eq!((&transaction["id"], &transaction["concurrent"]), (&json!(0), &json!(false)));
    assert_eq!(transaction["gid"], "g-3");
    assert_eq!(
        (&transaction["trans_type"], &transaction["protocol"]),
        (&json!("saga"), &json!("http"))
    );
    let (action, compensate) = service.step("a");
    assert_eq!(transaction["steps"], json!([{ "action": action, "compensate": compensate }]));
    assert_eq!(transaction["payloads"], json!(["{}"]));
    assert_eq!(transaction["options"], "{\"concurrent\":false}");
    for name in ["create_time", "update_time", "finish_time", "next_cron_time"] {
        assert!(is_time(&transaction[name]), "{name}: {}", transaction[name]);
    }
    for name in ["rollback_time", "rollback_reason", "result", "custom_data", "query_prepared"] {
        assert!(transaction.get(name).is_none(), "{name} is empty: {}", transaction[name]);
    }
    let branches = query["branches"].as_array().unwrap();
    for (branch, (op, status)) in
        branches.iter().zip([("compensate", "prepared"), ("action", "succeed")])
    {
        assert_eq!((&branch["op"], &branch["status"]), (&json!(op), &json!(status)));
        assert_eq!((&branch["id"], &branch["gid"]), (&json!(0), &json!("g-3")));
        assert_eq!((&branch["branch_id"], &branch["bin_data"]), (&json!("01"), &json!("e30=")));
        assert!(is_time(&branch["create_time"]) && is_time(&branch["update_time"]));
        assert_eq!(branch.get("finish_time").is_some(), status == "succeed", "{branch}");
    }
}

fn is_time(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let has_zone =
        text.ends_with('Z') || text.get(text.len() - 6..).is_some_and(|zone| zone.contains([':']));
    text.len() >= 20 && text.as_bytes()[10] == b'T' && has_zone
}

/// C# cannot decode a null time, and takes an absent one only for `finish_time`.
#[tokio::test]
async fn no_time_is_ever_null_whatever_the_transaction_does() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/late", [Says::error()]);
    server.post_ok("prepare", &json!({ "gid": "tcc", "trans_type": "tcc" })).await;
    let branch = json!({
        "gid": "tcc", "trans_type": "tcc", "branch_id": "01", "data": "",
        "confirm": service.at("/c"), "cancel": service.at("/x"),
    });
    server.post_ok("registerBranch", &branch).await;
    server.post_ok("submit", &saga("late", &[service.step("late")])).await;
    service.wait_calls("/late", 1).await;
    server.post_ok("prepare", &json!({ "gid": "stopped", "trans_type": "xa" })).await;
    server.post_ok("forceStop", &json!({ "gid": "stopped" })).await;
    for gid in ["tcc", "late", "stopped"] {
        let query = server.query(gid).await;
        assert!(!query.to_string().contains(":null"), "{query}");
        for name in ["create_time", "update_time", "next_cron_time"] {
            assert!(is_time(&query["transaction"][name]), "{gid} {name}: {query}");
        }
        for branch in query["branches"].as_array().unwrap() {
            assert!(is_time(&branch["create_time"]) && is_time(&branch["update_time"]), "{query}");
        }
    }
}

#[tokio::test]
async fn what_is_unknown_is_null_or_empty_and_no_error() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    assert_eq!(server.query("none").await, json!({ "transaction": null, "branches": [] }));
    assert_eq!(server.get("all?gid=none").await.json()["transactions"], Value::Null);
    let all = server.get("all").await.json();
    assert_eq!(all, json!({ "transactions": [], "next_position": "" }));
    assert_eq!(server.get("queryKV?cat=topics&key=none").await.json(), json!({ "kv": [] }));
    let scan = server.get("scanKV?cat=topics").await.json();
    assert_eq!(scan, json!({ "kv": [], "next_position": "" }));
}

#[tokio::test]
async fn lists_filter_page_and_show_the_newest_first() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    for n in 0..7 {
        let trans_type = if n % 2 == 0 { "tcc" } else { "xa" };
        server
            .post_ok("prepare", &json!({ "gid": format!("g{n}"), "trans_type": trans_type }))
            .await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let gids = |list: &Value| -> Vec<String> {
        let list = list["transactions"].as_array().unwrap();
        list.iter().map(|record| record["gid"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = Vec::new();
    let mut position = String::new();
    loop {
        let page = server.get(&format!("all?limit=3&position={position}")).await.json();
        assert!(gids(&page).len() <= 3);
        seen.extend(gids(&page));
        position = page["next_position"].as_str().unwrap().to_owned();
        if position.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["g6", "g5", "g4", "g3", "g2", "g1", "g0"]);
    let xa = server.get("all?transType=xa&status=prepared").await.json();
    assert_eq!(gids(&xa), ["g5", "g3", "g1"]);
    assert_eq!(gids(&server.get("all?gid=g2&status=succeed").await.json()), ["g2"]);
    let old = server.get("all?createTimeEnd=1000").await.json();
    assert_eq!(old["transactions"], json!([]));
}

/// The words FAILURE and ONGOING decide in many SDKs: no success may hold them.
#[tokio::test]
async fn no_success_holds_the_words_that_sdks_search_for() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::ongoing(), Says::success()]);
    let body = with(saga("g", &[service.step("a")]), json!({ "retry_interval_ms": 300 }));
    server.post_ok("submit", &body).await;
    until("the end", async || {
        for path in
            ["query?gid=g", "all", "newGid", "version", "scanKV?cat=topics", "resetCronTime"]
        {
            let text = server.get(path).await.body;
            assert!(!text.contains("FAILURE") && !text.contains("ONGOING"), "{text}");
        }
        (server.status("g").await == "succeed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    server.assert_serves("g").await;
    let metrics = server.metrics().await;
    for name in ["dtm_server_info{", "dtm_server_process_total{", "dtm_transaction_process_total{"]
    {
        assert!(metrics.contains(name), "{name} is missing");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.client.http().get(&server.at(path)).await.unwrap().status, 200);
    }
}
