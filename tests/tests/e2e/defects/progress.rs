//! What the store keeps: rows, progress, long texts, records as a whole.

use std::time::Duration;

use dtmd_tests::{Says, Server, Service, branch_statuses, saga, until, with};
use serde_json::{Value, json};

use crate::turn;

#[tokio::test]
async fn d04_gids_that_are_prefixes_of_one_another_keep_their_rows() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    let gids =
        ["order", "order-1", "order1", "order10", "a", "a0", "a00", "a001", "a-", "a\u{1F600}"];
    for gid in gids {
        let begin = json!({ "gid": gid, "trans_type": "tcc" });
        server.post_ok("prepare", &begin).await;
        for branch_id in ["01", "02", "03"] {
            let branch = json!({
                "gid": gid, "trans_type": "tcc", "branch_id": branch_id,
                "data": format!("{gid}/{branch_id}"),
                "confirm": service.at("/confirm"), "cancel": service.at("/cancel"),
            });
            server.post_ok("registerBranch", &branch).await;
        }
    }
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    for gid in gids {
        server.post_ok("submit", &json!({ "gid": gid, "trans_type": "tcc" })).await;
        let shown = gid.replace('\u{1F600}', "%F0%9F%98%80");
        let query = server.wait_status(&shown, "succeed").await;
        assert_eq!(branch_statuses(&query), ["prepared", "succeed"].repeat(3), "{gid}");
    }
    let calls = service.calls("/confirm");
    let mut bodies: Vec<_> = calls.iter().map(|call| call.body.clone()).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), calls.len()), (3 * gids.len(), 3 * gids.len()));
}

#[tokio::test]
async fn d04_a_thousand_rows_keep_their_order() {
    let _turn = turn::shared().await;
    let mut server = Server::start().await;
    let steps = vec![(String::new(), String::new()); 1000];
    server.post_ok("prepare", &saga("g", &steps)).await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    let query = server.query("g").await;
    let rows = query["branches"].as_array().unwrap();
    assert_eq!(rows.len(), 2000);
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row["branch_id"], format!("{:02}", at / 2 + 1));
        assert_eq!(row["op"], if at % 2 == 0 { "compensate" } else { "action" });
    }
}

#[tokio::test]
async fn d08_acknowledged_progress_survives_a_kill_with_its_data() {
    let _turn = turn::shared().await;
    let mut server = Server::start().await;
    let begin = json!({
        "gid": "g", "trans_type": "workflow", "custom_data": "{\"name\":\"wf\",\"data\":\"\"}",
        "query_prepared": "http://127.0.0.1:1/resume", "protocol": "http",
    });
    server.post("prepareWorkflow", &begin).await;
    for n in 1..=20 {
        let step = json!({
            "gid": "g", "trans_type": "workflow", "branch_id": format!("{n:02}"), "op": "action",
            "status": if n % 2 == 0 { "succeed" } else { "failed" }, "data": format!("result {n}"),
        });
        server.post_ok("registerBranch", &step).await;
        server.post_ok("registerBranch", &step).await;
        if n % 7 == 0 {
            server.process.kill_9().await.unwrap();
            server.process.restart().await.unwrap();
        }
    }
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    let progresses = server.post("prepareWorkflow", &begin).await.json()["progresses"].take();
    let progresses = progresses.as_array().unwrap();
    assert_eq!(progresses.len(), 20);
    assert_eq!(progresses[0]["bin_data"], "cmVzdWx0IDE=", "the data of the first");
    assert_eq!(
        (&progresses[0]["status"], &progresses[1]["status"]),
        (&json!("failed"), &json!("succeed"))
    );
}

#[tokio::test]
async fn d09_progress_keeps_the_callback_away() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/resume", [Says::ongoing()]);
    let begin = json!({
        "gid": "g", "trans_type": "workflow", "custom_data": "{\"name\":\"wf\",\"data\":\"\"}",
        "query_prepared": service.at("/resume"), "protocol": "http", "retry_interval_ms": 2000,
    });
    server.post("prepareWorkflow", &begin).await;
    for n in 1..=20 {
        let step = json!({
            "gid": "g", "trans_type": "workflow", "branch_id": format!("{n:02}"), "op": "action",
            "status": "succeed", "data": "",
        });
        server.post_ok("registerBranch", &step).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert!(service.paths().is_empty(), "it was called back while it was running");
    }
    service.wait_calls("/resume", 1).await;
}

#[tokio::test]
async fn d13_long_texts_are_kept_or_cut_but_never_stop_a_transaction() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let long = "x".repeat(50_000);

    let custom = with(json!({ "gid": "tcc", "trans_type": "tcc" }), json!({ "custom_data": long }));
    server.post_ok("prepare", &custom).await;
    let abort = json!({ "gid": "tcc", "trans_type": "tcc", "rollback_reason": long });
    server.post_ok("abort", &abort).await;
    let query = server.wait_status("tcc", "failed").await;
    assert_eq!(query["transaction"]["custom_data"], long);
    assert!(query["transaction"]["rollback_reason"].as_str().unwrap().len() >= 1024);

    service.script("/a", [Says::new(409, &format!("{long} FAILURE"))]);
    server.post_ok("submit", &saga("saga", &[service.step("a")])).await;
    let query = server.wait_status("saga", "failed").await;
    let reason = query["transaction"]["rollback_reason"].as_str().unwrap();
    assert!(reason.starts_with("url:") && reason.len() < 10_000, "{} bytes", reason.len());

    let begin = json!({
        "gid": "wf", "trans_type": "workflow", "protocol": "http",
        "custom_data": json!({ "name": "wf", "data": "eHh4".repeat(10_000) }).to_string(),
    });
    assert_eq!(server.post("prepareWorkflow", &begin).await.status, 200);
    let end = json!({
        "gid": "wf", "trans_type": "workflow",
        "req_extra": { "status": "succeed", "result": "eHh4".repeat(20_000) },
    });
    server.post_ok("submit", &end).await;
    let query = server.query("wf").await;
    assert_eq!(query["transaction"]["result"].as_str().unwrap().len(), 80_000);
}

#[tokio::test]
async fn d35_the_end_of_a_workflow_leaves_the_rest_of_its_record_alone() {
    let _turn = turn::shared().await;
    let server = Server::start().await;
    let begin = json!({
        "gid": "g", "trans_type": "workflow", "custom_data": "{\"name\":\"wf\",\"data\":\"YQ==\"}",
        "query_prepared": "http://127.0.0.1:1/resume", "protocol": "http",
    });
    server.post("prepareWorkflow", &begin).await;
    let before = server.query("g").await["transaction"].take();
    let end = json!({
        "gid": "g", "trans_type": "workflow", "req_extra": { "status": "succeed", "result": "" },
    });
    server.post_ok("submit", &end).await;
    let after = server.query("g").await["transaction"].take();
    for name in ["create_time", "query_prepared", "custom_data", "protocol"] {
        assert!(!before[name].is_null() && before[name] == after[name], "{name}: {}", after[name]);
    }
    let list = server.get("all?createTimeStart=1000&createTimeEnd=99999999999999").await;
    assert_eq!(list.status, 200, "{}", list.body);
    assert_eq!(list.json()["transactions"][0]["gid"], "g");
}

#[tokio::test]
async fn d36_retries_do_not_shift_with_the_processs_time_zone() {
    let _turn = turn::shared().await;
    let service = Service::start().await;
    service.script("/a", [Says::error(), Says::success()]);
    let server = Server::start_with(&[], &[("TZ", "UTC-9"), ("TIME_ZONE_OFFSET", "+9")]).await;
    let body = with(saga("g", &[service.step("a")]), json!({ "retry_interval_ms": 400 }));
    server.post_ok("submit", &body).await;
    let query = until("an attempt on record", async || {
        let query = server.query("g").await;
        (query["branches"][1]["attempts"] == 1).then_some(query)
    })
    .await;
    let created = query["transaction"]["create_time"].as_str().unwrap();
    assert!(created.ends_with("+09:00"), "{created}");
    let folder = server.stop().await;
    let server = Server::try_start(folder, &[], &[("TZ", "UTC+5"), ("TIME_ZONE_OFFSET", "-5")])
        .await
        .unwrap();
    let query = server.wait_status("g", "succeed").await;
    assert!(query["transaction"]["create_time"].as_str().unwrap().ends_with("-05:00"));
}

#[tokio::test]
async fn d11_d40_finished_data_goes_while_it_runs_and_unfinished_never() {
    let _turn = turn::shared().await;
    let service = Service::start().await;
    service.script("/a", [Says::error()]);
    let server = Server::start_with(&[], &[("STORE_FINISHED_DATA_EXPIRE", "1")]).await;
    server.post_ok("submit", &saga("unfinished", &[service.step("a")])).await;
    server.assert_serves("finished").await;
    let begun = std::time::Instant::now();
    // It cleans up every half minute.
    while server.query("finished").await["transaction"] != Value::Null {
        assert!(begun.elapsed() < Duration::from_secs(90), "it was never deleted");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(server.status("unfinished").await, "submitted");
    assert_eq!(branch_statuses(&server.query("unfinished").await), ["prepared", "prepared"]);
}
