//! When calls are repeated, and what they cost others.

use std::time::{Duration, SystemTime};

use dtmd_tests::{Says, Server, Service, raw_service, saga, until, with};
use serde_json::{Value, json};

use crate::turn;

#[tokio::test]
async fn d03_one_hanging_service_does_not_delay_others() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let hanging = Service::start().await;
    hanging.script("/a", [Says::success().after(Duration::from_secs(3600))]);
    let count = 150;
    for n in 0..count {
        let body = saga(&format!("hangs-{n}"), &[hanging.step("a")]);
        server.post_ok("submit", &with(body, json!({ "request_timeout": 60 }))).await;
    }
    until("a full bulkhead", async || (hanging.calls("/a").len() >= 64).then_some(())).await;
    for n in 0..50 {
        let body = saga(&format!("healthy-{n}"), &[service.step("a"), service.step("b")]);
        server.post_ok("submit", &with(body, json!({ "wait_result": true }))).await;
    }
    assert_eq!(hanging.calls("/a").len(), 64, "no more than the limit of one destination");
    let list = server.get("all?status=submitted&limit=1000").await.json();
    assert_eq!(list["transactions"].as_array().unwrap().len(), count, "all of them still hang");
}

#[tokio::test]
async fn d05_a_late_answer_does_not_revive_what_was_stopped() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::error().after(Duration::from_millis(400))]);
    server.post_ok("submit", &saga("g", &[service.step("a")])).await;
    service.wait_calls("/a", 1).await;
    server.post_ok("forceStop", &json!({ "gid": "g" })).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    for _ in 0..2 {
        assert_eq!(server.status("g").await, "failed");
        let list = server.get("all?status=submitted").await.json();
        assert_eq!(list["transactions"], json!([]), "it is not listed as unfinished either");
        server.process.restart().await.unwrap();
    }
    assert_eq!(service.calls("/a").len(), 1);
}

#[tokio::test]
async fn d06_the_retry_limit_is_counted_over_a_restart() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::error()]);
    let body = saga("g", &[service.step("a")]);
    let body = with(body, json!({ "retry_limit": 4, "retry_interval_ms": 100 }));
    server.post_ok("submit", &body).await;
    until("two attempts on record", async || {
        let query = server.query("g").await;
        (query["branches"][1]["attempts"].as_u64() >= Some(2)).then_some(())
    })
    .await;
    server.process.kill_9().await.unwrap();
    server.process.restart().await.unwrap();
    let query = server.wait_status("g", "failed").await;
    let reason = query["transaction"]["rollback_reason"].as_str().unwrap();
    assert_eq!(reason, "RetryCount is greater than RetryLimit, RetryLimit: 4");
    // Five, and one whose count may have died with the server; seven if it had begun anew.
    let calls = service.calls("/a").len();
    assert!((5..=6).contains(&calls), "{calls} calls");
}

#[tokio::test]
async fn d06_ongoing_does_not_count_towards_the_retry_limit() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let mut says = vec![Says::ongoing(); 6];
    says.push(Says::success());
    service.script("/a", says);
    let body = saga("g", &[service.step("a")]);
    server
        .post_ok("submit", &with(body, json!({ "retry_limit": 2, "retry_interval_ms": 20 })))
        .await;
    server.wait_status("g", "succeed").await;
    assert_eq!(service.calls("/a").len(), 7);
}

#[tokio::test]
async fn d07_the_wait_has_a_cap_and_is_each_branchs_own() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    for path in ["/a", "/b", "/c"] {
        service.script(path, [Says::error()]);
    }
    let custom = json!({ "concurrent": true }).to_string();
    let steps = [service.step("a"), service.step("b"), service.step("c")];
    let body = with(saga("g", &steps), json!({ "custom_data": custom, "retry_interval": 3000 }));
    server.post_ok("submit", &body).await;
    // Three failures in one pass: with one shared interval the wait would be 8 times the base.
    let query = until("three attempts on record", async || {
        let query = server.query("g").await;
        let failed = [1, 3, 5].iter().all(|row| query["branches"][row]["attempts"] == 1);
        failed.then_some(query)
    })
    .await;
    let limit = SystemTime::now() + Duration::from_secs(3600 * 11 / 10 + 1);
    let limit: chrono_like::Utc = limit.into();
    for row in [1, 3, 5] {
        let next = query["branches"][row]["next_at"].as_str().unwrap();
        assert!(limit.is_after(next), "{next} is later than the cap of an hour and its deviation");
    }
}

/// Enough of a calendar to compare a shown time with a limit.
mod chrono_like {
    use std::time::{SystemTime, UNIX_EPOCH};

    /// Seconds since the epoch.
    pub(super) struct Utc(i64);

    impl From<SystemTime> for Utc {
        fn from(time: SystemTime) -> Self {
            let since = time.duration_since(UNIX_EPOCH).unwrap();
            Self(i64::try_from(since.as_secs()).unwrap())
        }
    }

    impl Utc {
        /// Whether an RFC 3339 time is not later than this.
        pub(super) fn is_after(&self, time: &str) -> bool {
            seconds(time) <= self.0
        }
    }

    /// Reads `YYYY-MM-DDTHH:MM:SS…` and the offset at its end.
    fn seconds(time: &str) -> i64 {
        let number = |from: usize, to: usize| time[from..to].parse::<i64>().unwrap();
        let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
        // Days from the civil calendar, with years that begin in March.
        let shifted = if month <= 2 { year - 1 } else { year };
        let of_era = shifted.rem_euclid(400);
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let days = shifted.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100
            + of_year
            - 719_468;
        let local = days * 86_400 + number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19);
        let offset = match time.strip_suffix('Z') {
            Some(_) => 0,
            None => {
                let at = time.len() - 6;
                let offset = number(at + 1, at + 3) * 3600 + number(at + 4, at + 6) * 60;
                if &time[at..=at] == "-" { -offset } else { offset }
            }
        };
        local - offset
    }
}

#[tokio::test]
async fn d12_retry_now_really_retries_now() {
    let _turn = turn::shared().await;
    let (mut server, service) = (Server::start().await, Service::start().await);
    service.script("/a", [Says::error(), Says::error(), Says::success()]);
    let body = with(saga("g", &[service.step("a")]), json!({ "retry_interval": 1000 }));
    server.post_ok("submit", &body).await;
    for calls in [2, 3] {
        until("an attempt on record", async || {
            let query = server.query("g").await;
            (query["branches"][1]["attempts"].as_u64() == Some(calls - 1)).then_some(())
        })
        .await;
        // Whether the server has been running since or not.
        server.process.restart().await.unwrap();
        server.post_ok("resetNextCronTime", &json!({ "gid": "g" })).await;
        service.wait_calls("/a", usize::try_from(calls).unwrap()).await;
    }
    let ended = server.wait_status("g", "succeed").await;
    server.post_ok("resetNextCronTime", &json!({ "gid": "g" })).await;
    let again = server.query("g").await;
    let shown = |query: &Value| query["transaction"]["next_cron_time"].clone();
    assert_ne!(shown(&again), shown(&ended), "DTM's test wants to see a change");
    assert_eq!(again["transaction"]["status"], "succeed");
    assert_eq!(service.calls("/a").len(), 3);
}

#[tokio::test]
async fn d41_far_retries_are_pulled_to_now_in_bulk() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    for n in 0..5 {
        service.script(&format!("/s{n}"), [Says::error(), Says::success()]);
        let step = service.step(&format!("s{n}"));
        let body = with(saga(&format!("g{n}"), &[step]), json!({ "retry_interval": 1000 }));
        server.post_ok("submit", &body).await;
        until("its attempt on record", async || {
            let query = server.query(&format!("g{n}")).await;
            (query["branches"][1]["attempts"] == 1).then_some(())
        })
        .await;
    }
    let reset = async |limit: u32| {
        server.get(&format!("resetCronTime?timeout=60&limit={limit}")).await.json()
    };
    assert_eq!(reset(3).await, json!({ "succeed_count": 3, "has_remaining": true }));
    assert_eq!(reset(100).await["has_remaining"], false);
    for n in 0..5 {
        server.wait_status(&format!("g{n}"), "succeed").await;
    }
}

#[tokio::test]
async fn d43_an_empty_payload_is_a_get_but_a_resumed_workflow_is_posted() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let body = with(saga("g", &[service.step("a")]), json!({ "payloads": [""] }));
    server.post_ok("submit", &body).await;
    server.wait_status("g", "succeed").await;
    assert_eq!(service.calls("/a")[0].method.as_str(), "GET", "as DTM does");
    let workflow = json!({
        "gid": "w", "trans_type": "workflow", "custom_data": "{\"name\":\"wf\",\"data\":null}",
        "query_prepared": service.at("/resume"), "protocol": "http", "retry_interval_ms": 100,
    });
    assert_eq!(server.post("prepareWorkflow", &workflow).await.status, 200);
    let call = service.wait_calls("/resume", 1).await.remove(0);
    assert_eq!((call.method.as_str(), call.parameter("op")), ("POST", "wf"));
}

#[tokio::test]
async fn d46_the_alert_comes_at_the_third_failure_and_holds_nothing_up() {
    let _turn = turn::shared().await;
    let (hook, service) = (Service::start().await, Service::start().await);
    // E8: DTM's users know these numbers. The hook itself hangs.
    hook.script("/alert", [Says::success().after(Duration::from_secs(3600))]);
    let url = hook.at("/alert");
    let server = Server::start_with(&[], &[("ALERT_WEB_HOOK", &url)]).await;
    let mut says = vec![Says::error(); 5];
    says.push(Says::success());
    service.script("/a", says);
    let body = saga("g", &[service.step("a")]);
    server.post_ok("submit", &with(body, json!({ "retry_interval_ms": 20 }))).await;
    let call = hook.wait_calls("/alert", 1).await.remove(0);
    assert_eq!(call.method.as_str(), "POST");
    let alert: Value = serde_json::from_str(&call.body).unwrap();
    assert_eq!((&alert["gid"], &alert["status"]), (&json!("g"), &json!("submitted")));
    assert_eq!(alert["branch"], service.at("/a"));
    assert_eq!(alert["retry_count"], 3);
    assert!(alert["error"].as_str().unwrap().contains("out of order"), "{alert}");
    server.wait_status("g", "succeed").await;
}

#[tokio::test]
async fn d18_answers_without_end_or_measure_hurt_nobody() {
    let _turn = turn::shared().await;
    let (server, service) = (Server::start().await, Service::start().await);
    let head = |rest: &str| format!("HTTP/1.1 {rest}\r\n\r\n").into_bytes();
    let chunked = "200 OK\r\ntransfer-encoding: chunked";
    let mut huge = head("200 OK\r\ncontent-length: 10485760");
    huge.resize(huge.len() + 10 * 1024 * 1024, b'x');
    let cases = [
        ("huge", huge, Vec::new()),
        (
            "endless",
            head(chunked),
            b"400\r\n".iter().copied().chain([b'y'; 1024]).chain(*b"\r\n").collect(),
        ),
        ("endless-head", b"HTTP/1.1 200 OK\r\n".to_vec(), b"x-more: and more\r\n".to_vec()),
        ("short", [head("200 OK\r\ncontent-length: 100"), b"less".to_vec()].concat(), Vec::new()),
        ("no-http", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Vec::new()),
        ("bad-header", b"HTTP/1.1 200 OK\r\nx\x00y: z\r\n\r\n".to_vec(), Vec::new()),
        (
            "bad-utf8",
            [head("500 Oops\r\ncontent-length: 4"), vec![0xff, 0xfe, 0, 0xc3]].concat(),
            Vec::new(),
        ),
        ("bad-status", head("999999 What"), Vec::new()),
        ("nothing", Vec::new(), Vec::new()),
    ];
    for (gid, answer, endless) in cases {
        let url = raw_service(answer, endless).await;
        let body = saga(gid, &[(url.clone(), url)]);
        let body = with(body, json!({ "retry_interval_ms": 50, "request_timeout_ms": 1000 }));
        server.post_ok("submit", &body).await;
    }
    for n in 0..20 {
        let body = saga(&format!("neighbour-{n}"), &[service.step("a")]);
        server.post_ok("submit", &with(body, json!({ "wait_result": true }))).await;
    }
    for gid in
        ["endless-head", "short", "no-http", "bad-header", "bad-utf8", "bad-status", "nothing"]
    {
        assert_eq!(server.status(gid).await, "submitted", "{gid}: the outcome is unknown");
    }
}
