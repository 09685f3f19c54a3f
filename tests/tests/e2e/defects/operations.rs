//! Running it: metrics, ports, stopping.

use std::time::Duration;

use dtmd_tests::{Says, Server, Service, cli, exchange, saga, with};
use serde_json::json;

use crate::turn;

/// The names and labels of all series, without values.
fn series(metrics: &str) -> Vec<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect()
}

#[tokio::test]
async fn d19_the_number_of_series_does_not_grow_with_requests() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    service.script("/no", [Says::failure()]);
    let round = async |n: u32| {
        let gid = format!("gid-{n}");
        let step = service.step(if n.is_multiple_of(2) { "a" } else { "no" });
        server.post_ok("submit", &saga(&gid, &[step])).await;
        for path in [
            format!("/api/dtmsvr/query?gid={gid}"),
            format!("/api/dtmsvr/all?position={n}"),
            format!("/api/dtmsvr/no-such-{n}"),
            format!("/{n}/{n}?x={n}"),
            format!("/api/dtmsvr/queryKV?cat=c{n}&key=k{n}"),
        ] {
            exchange(server.address(), "GET", &path, "").await;
        }
        let tcc = json!({ "gid": format!("tcc-{n}"), "trans_type": "tcc" });
        server.post_ok("prepare", &tcc).await;
        let branch = json!({
            "gid": format!("tcc-{n}"), "trans_type": "tcc", "branch_id": format!("b{n}"),
            "data": "", "confirm": service.at("/a"), "cancel": service.at("/a"),
        });
        server.post_ok("registerBranch", &branch).await;
        server.post_ok("submit", &with(tcc, json!({ "wait_result": true }))).await;
        server.wait_status(&gid, if n.is_multiple_of(2) { "succeed" } else { "failed" }).await;
    };
    for n in 0..4 {
        round(n).await;
    }
    let before = server.metrics().await;
    for n in 4..200 {
        round(n).await;
    }
    let after = server.metrics().await;
    let (before, after) = (series(&before), series(&after));
    let new: Vec<_> = after.iter().filter(|name| !before.contains(name)).collect();
    assert!(new.len() < 30, "{} new series: {new:?}", new.len());
    assert!(!after.iter().any(|name| name.contains("gid-") || name.contains("b1")), "{after:?}");
    assert!(after.len() < 600, "{} series", after.len());
}

#[tokio::test]
async fn d39_a_port_that_is_taken_ends_the_process_with_a_clear_text() {
    let _turn = turn::shared().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let ended = cli(&["serve", "--data", data.to_str().unwrap(), "--http-port", &port]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&port), "the port is not named: {}", ended.stderr);
    assert!(!ended.stdout.contains("listening"), "{}", ended.stdout);
}

#[tokio::test]
async fn d39_sigterm_drains_what_is_under_way() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::success().after(Duration::from_millis(800))]);
    let body = saga("g", &[service.step("a"), service.step("b")]);
    server.post_ok("submit", &body).await;
    service.wait_calls("/a", 1).await;
    server.process.terminate().await.unwrap();
    server.process.restart().await.unwrap();
    server.wait_status("g", "succeed").await;
    assert_eq!(service.counts()["/a"], 1, "its answer was awaited and kept");
}

#[tokio::test]
async fn d42_the_json_rpc_id_may_be_a_number_and_settings_without_effect_are_told() {
    let _turn = turn::shared().await;
    let server = Server::start_with(&[], &[("JSON_RPC_PORT", "1234")]).await;
    let body = r#"{"jsonrpc":"2.0","id":5,"method":"newGid"}"#;
    let reply = exchange(server.address(), "POST", "/api/json-rpc", body).await;
    assert_eq!((reply.status, &reply.json()["id"]), (200, &json!(5)));
    assert!(server.log().contains("JsonRpcPort"), "{}", server.log());
}

#[tokio::test]
async fn d44_the_reason_names_the_time_that_was_in_force() {
    let _turn = turn::shared().await;
    let stage = crate::test_clock::Stage::start().await;
    stage.server.post_ok("prepare", &json!({ "gid": "g", "trans_type": "tcc" })).await;
    stage.forward(40_000, 40_000).await;
    assert_eq!(stage.cron_once().await, "g");
    let query = stage.server.wait_status("g", "failed").await;
    assert_eq!(query["transaction"]["rollback_reason"], "Timeout after 35 seconds");
}
