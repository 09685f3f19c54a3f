//! The test clock, used as DTM's own tests use theirs (design.md §9).

use std::time::{Duration, Instant};

use dtmd_tests::{Says, Server, Service, branch_statuses, cli, saga, until};
use serde_json::{Value, json};

use crate::turn;

/// A server whose time stands still until it is moved.
pub(crate) struct Stage {
    pub(crate) server: Server,
    control: String,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(env: &[(&str, &str)]) -> Self {
        let server = Server::start_with(&["--test-control", "127.0.0.1:0"], env).await;
        let control = until("the test clock's address", async || {
            let log = server.log();
            let line = log.lines().find_map(|line| line.strip_prefix("test control on "))?;
            Some(line.to_owned())
        })
        .await;
        Self { server, control }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/test/{path}", self.control);
        let answer = self.server.client.http().post(&url, &body).await.unwrap();
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.json()
    }

    pub(crate) async fn forward(&self, now_ms: i64, cron_ms: i64) {
        let body = json!({ "now_forward_ms": now_ms, "cron_forward_ms": cron_ms });
        self.post("clock", body).await;
    }

    pub(crate) async fn cron_once(&self) -> String {
        self.post("cron-once", json!({})).await["gid"].as_str().unwrap().to_owned()
    }

    /// The gid of the next pass that ended; empty if none did in time.
    async fn processed(&self, wait_ms: u32) -> String {
        let url = format!("{}/test/processed?wait_ms={wait_ms}", self.control);
        let answer = self.server.client.http().get(&url).await.unwrap();
        answer.json()["gid"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_pass_follows_a_submit_and_nothing_follows_by_itself() {
    let _turn = turn::shared().await;
    let (stage, service) = (Stage::start().await, Service::start().await);
    service.script("/a", [Says::error(), Says::success()]);
    stage.server.post_ok("submit", &saga("g", &[service.step("a")])).await;
    assert_eq!(stage.processed(20_000).await, "g");
    assert_eq!(branch_statuses(&stage.server.query("g").await), ["prepared", "prepared"]);
    assert_eq!(stage.processed(300).await, "", "one event a pass");
    assert_eq!(service.calls("/a").len(), 1, "nothing is retried by itself");
    stage.forward(0, 60_000).await;
    assert_eq!(stage.cron_once().await, "g");
    assert_eq!(stage.processed(20_000).await, "g");
    assert_eq!(stage.server.status("g").await, "succeed");
    assert_eq!(stage.cron_once().await, "", "nothing is due any more");
}

#[tokio::test]
async fn a_detached_pass_starts_a_tenth_of_a_second_after_the_reply() {
    let _turn = turn::shared().await;
    let (stage, service) = (Stage::start().await, Service::start().await);
    stage.server.post_ok("submit", &saga("g", &[service.step("a")])).await;
    let replied = Instant::now();
    // DTM's tests look at the statuses right after the submit.
    assert!(service.paths().is_empty());
    assert_eq!(stage.server.status("g").await, "submitted");
    assert_eq!(stage.processed(20_000).await, "g");
    let pause = service.calls("/a")[0].at - replied;
    assert!(pause > Duration::from_millis(50), "it started after {} ms", pause.as_millis());
}

#[tokio::test]
async fn events_come_for_passes_only() {
    let _turn = turn::shared().await;
    let (stage, service) = (Stage::start().await, Service::start().await);
    let server = &stage.server;
    let begin = json!({ "gid": "tcc", "trans_type": "tcc" });
    server.post_ok("prepare", &begin).await;
    let msg = json!({
        "gid": "msg", "trans_type": "msg", "steps": [{ "action": service.at("/a") }],
        "payloads": ["{}"],
    });
    server.post_ok("prepare", &msg).await;
    server.post_ok("abort", &msg).await;
    server.post_ok("prepare", &json!({ "gid": "stop", "trans_type": "xa" })).await;
    server.post_ok("forceStop", &json!({ "gid": "stop" })).await;
    assert_eq!(server.post("submit", &msg).await.status, 409);
    assert_eq!(stage.processed(300).await, "", "none of these is a pass");
    server.post_ok("abort", &begin).await;
    assert_eq!(stage.processed(20_000).await, "tcc");
}

#[tokio::test]
async fn ages_and_delays_are_moved_apart() {
    let _turn = turn::shared().await;
    let (stage, service) = (Stage::start().await, Service::start().await);
    let msg = json!({
        "gid": "g", "trans_type": "msg", "steps": [{ "action": service.at("/a") }],
        "payloads": ["{}"], "custom_data": "{\"delay\":10}",
    });
    stage.server.post_ok("submit", &msg).await;
    assert_eq!(stage.processed(20_000).await, "g");
    assert!(service.paths().is_empty());
    stage.forward(0, 8_000).await;
    stage.cron_once().await;
    assert!(service.paths().is_empty(), "not before its delay is over");
    stage.forward(0, 12_000).await;
    assert_eq!(stage.cron_once().await, "g");
    assert_eq!(stage.server.status("g").await, "succeed");
}

#[tokio::test]
async fn reset_empties_everything_and_settings_change_while_it_runs() {
    let _turn = turn::shared().await;
    let (stage, service) = (Stage::start().await, Service::start().await);
    stage.server.post_ok("submit", &saga("g", &[service.step("a")])).await;
    assert_eq!(stage.processed(20_000).await, "g");
    stage.post("reset", json!({})).await;
    assert_eq!(stage.server.status("g").await, "");

    stage
        .post("config", json!({ "AlertWebHook": service.at("/hook"), "AlertRetryLimit": 1 }))
        .await;
    stage.post("topics-refresh", json!({})).await;
    service.script("/b", [Says::error()]);
    stage.server.post_ok("submit", &saga("h", &[service.step("b")])).await;
    service.wait_calls("/hook", 1).await;
    stage.post("config", json!({ "AlertWebHook": "", "AlertRetryLimit": 3 })).await;
}

#[tokio::test]
async fn a_public_test_clock_is_refused() {
    let _turn = turn::shared().await;
    let refused = cli(&["serve", "--http-port", "0", "--test-control", "0.0.0.0:0"]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
}
