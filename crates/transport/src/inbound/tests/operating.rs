//! Our own API, and what metrics make of callers' texts.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dtmd_engine::{Answer, BranchCall, BranchCaller, Engine, EngineOptions};
use dtmd_protocol::{CallProtocol, Outcome};
use dtmd_store::MemoryStore;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::super::InboundOptions;
use super::super::api::Api;
use super::super::connection::Handler;

struct Branches;

#[async_trait]
impl BranchCaller for Branches {
    async fn call(&self, call: &BranchCall) -> Answer {
        let is_bad = call.call.url.contains("/bad");
        let outcome = match is_bad {
            true => Outcome::Failure(Arc::from("no money\u{7}")),
            false => Outcome::Success,
        };
        Answer { outcome, unreachable: false }
    }

    fn cannot_call(&self, _: &str, _: CallProtocol) -> Option<String> {
        None
    }
}

fn api() -> Arc<Api> {
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::start(store, Arc::new(Branches), EngineOptions::default()).unwrap();
    engine.register_runtime(true);
    Arc::new(Api::new(engine, InboundOptions::default()))
}

async fn ask(api: &Arc<Api>, method: Method, path: &str, body: &str) -> Response<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    let (head, ()) = request.into_parts();
    api.clone().handle(head, Ok(Bytes::from(body.to_owned()))).await
}

async fn get(api: &Arc<Api>, path: &str) -> (u16, Value) {
    let response = ask(api, Method::GET, path, "").await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn saga(gid: &str, action: &str) -> String {
    json!({"gid": gid, "trans_type": "saga", "wait_result": true, "payloads": ["{}"],
        "steps": [{"action": action, "compensate": "http://s/undo"}]})
    .to_string()
}

#[tokio::test]
async fn attempts_are_shown_with_their_errors() {
    let api = api();
    let body = saga("a/b", "http://user:pass@s/bad?token=1");
    ask(&api, Method::POST, "/api/dtmsvr/submit", &body).await;
    let (status, shown) = get(&api, "/dtmd/v1/transactions/a%2Fb/attempts").await;
    assert_eq!((status, &shown["gid"]), (200, &json!("a/b")));
    let attempts = shown["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2);
    let first = &attempts[0];
    assert_eq!(first["op"], "action");
    assert_eq!(first["outcome"], "failure");
    assert_eq!(first["error"], "no money ");
    assert_eq!(first["url"], "http://s/bad");
    assert!(first["ms"].as_f64().is_some() && first["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(attempts[1]["op"], "compensate");
    assert_eq!(attempts[1].get("error"), None);
    let (status, said) = get(&api, "/dtmd/v1/transactions/nobody/attempts").await;
    assert_eq!(status, 404);
    assert_eq!(said["message"], "there is no transaction with gid nobody");
}

#[tokio::test]
async fn the_callers_trace_is_stored_with_the_transaction() {
    let api = api();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = Request::post("/api/dtmsvr/submit").header("traceparent", trace).body(());
    let (head, ()) = request.unwrap().into_parts();
    let body = Bytes::from(saga("traced", "http://s/a"));
    assert_eq!(api.clone().handle(head, Ok(body)).await.status(), 200);
    // A repeat in another trace is the same transaction.
    let again = ask(&api, Method::POST, "/api/dtmsvr/submit", &saga("traced", "http://s/a")).await;
    assert_eq!(again.status(), 409, "it has ended");
    let gid = dtmd_protocol::Gid::new("traced").unwrap();
    let global = api.engine.query(&gid).await.unwrap().unwrap();
    assert_eq!(global.options.branch_headers["traceparent"], trace);
}

#[tokio::test]
async fn a_server_says_what_it_is() {
    let api = api();
    let (status, info) = get(&api, "/dtmd/v1/info").await;
    assert_eq!(status, 200);
    assert_eq!((&info["store"]["kind"], &info["ready"]), (&json!("memory"), &json!(true)));
    assert_eq!(get(&api, "/dtmd/v1/store").await, (200, json!({"checks": []})));
    assert_eq!(get(&api, "/dtmd/v1/alerts").await, (200, json!({"alerts": []})));
}

/// The names and labels of all series there are, without their values.
async fn series(api: &Arc<Api>) -> BTreeSet<String> {
    let response = ask(api, Method::GET, "/api/metrics", "").await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn a_hundred_thousand_gids_add_no_series() {
    let api = api();
    let mut random = 1u64;
    let mut round = async |count: usize| {
        for number in 0..count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let gid = format!("gid{random:x}");
            match number % 100 {
                0 => {
                    let place = if number % 200 == 0 { "bad" } else { "good" };
                    let body = saga(&gid, &format!("http://s/{place}/{gid}"));
                    ask(&api, Method::POST, "/api/dtmsvr/submit", &body).await;
                }
                1..50 => {
                    let path = format!("/api/dtmsvr/query?gid={gid}");
                    ask(&api, Method::GET, &path, "").await;
                }
                50..75 => {
                    let path = format!("/dtmd/v1/transactions/{gid}/attempts");
                    ask(&api, Method::GET, &path, "").await;
                }
                _ => {
                    ask(&api, Method::GET, &format!("/api/{gid}"), "").await;
                }
            }
        }
        series(&api).await
    };
    // The first metrics are written before they are counted themselves.
    round(300).await;
    let first = round(300).await;
    let then = round(100_000).await;
    assert_eq!(first, then);
    assert!(then.len() < 300, "{} series", then.len());
    assert!(then.iter().all(|series| !series.contains("gid")));
}
