//! DTM's API over an engine with a memory store.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dtmd_engine::{Answer as BranchAnswer, BranchCall, BranchCaller, Engine, EngineOptions};
use dtmd_protocol::{CallProtocol, Outcome};
use dtmd_store::MemoryStore;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::super::{InboundOptions, bind, serve, serve_test_control};
use super::{Answer, Client, FAR};

/// Answers by the URL's last word, and remembers what was called.
#[derive(Default)]
struct Branches {
    /// Opens `http://s/gate`, for one call.
    gate: Notify,
    calls: Mutex<Vec<String>>,
    answers: Mutex<HashMap<String, Outcome>>,
}

#[async_trait]
impl BranchCaller for Branches {
    async fn call(&self, call: &BranchCall) -> BranchAnswer {
        let url = call.call.url.to_string();
        let outcome = self.answers.lock().unwrap().get(&url).cloned().unwrap_or(Outcome::Success);
        self.calls.lock().unwrap().push(url.clone());
        if url == "http://s/gate" {
            self.gate.notified().await;
        }
        BranchAnswer { outcome, unreachable: false }
    }

    fn cannot_call(&self, url: &str, _: CallProtocol) -> Option<String> {
        (!url.starts_with("http")).then(|| "only http here".to_owned())
    }
}

struct Server {
    client: Client,
    engine: Engine,
    branches: Arc<Branches>,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start() -> Self {
        Self::with(EngineOptions::default()).await
    }

    async fn with(options: EngineOptions) -> Self {
        let branches = Arc::new(Branches::default());
        let store = Arc::new(MemoryStore::new());
        let engine = Engine::start(store, branches.clone(), options).unwrap();
        engine.register_runtime(true);
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let options = InboundOptions { version: "v9".into(), ..InboundOptions::default() };
        tokio::spawn(serve(listener, engine.clone(), options, stopped));
        Self { client: Client::connect(address).await, engine, branches, _stop: stop }
    }

    fn answer(&self, url: &str, outcome: Outcome) {
        self.branches.answers.lock().unwrap().insert(url.to_owned(), outcome);
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.client.get(path).await
    }

    async fn post(&mut self, route: &str, body: &Value) -> Answer {
        self.client.post(&format!("/api/dtmsvr/{route}"), &body.to_string()).await
    }

    /// Posts what must succeed.
    async fn done(&mut self, route: &str, body: &Value) {
        let answer = self.post(route, body).await;
        assert_eq!(answer.status, 200, "{route} {body}: {}", answer.body);
        assert_eq!(answer.json(), json!({"dtm_result": "SUCCESS"}));
    }

    async fn status(&mut self, gid: &str) -> String {
        let answer = self.get(&format!("/api/dtmsvr/query?gid={gid}")).await;
        answer.json()["transaction"]["status"].as_str().unwrap_or("none").to_owned()
    }

    async fn rpc(&mut self, body: &Value) -> Answer {
        self.client.post("/api/json-rpc", &body.to_string()).await
    }
}

fn saga(gid: &str) -> Value {
    json!({"gid": gid, "trans_type": "saga", "wait_result": true,
        "steps": [{"action": "http://s/out", "compensate": "http://s/outC"},
                  {"action": "http://s/in", "compensate": "http://s/inC"}],
        "payloads": ["{\"amount\":30}", "{\"amount\":30}"]})
}

fn failure(text: &str) -> Value {
    json!({"dtm_result": "FAILURE", "message": text})
}

#[tokio::test]
async fn a_saga_runs_and_is_shown() {
    let mut server = Server::start().await;
    server.done("submit", &saga("g-1")).await;
    assert_eq!(*server.branches.calls.lock().unwrap(), ["http://s/out", "http://s/in"]);
    let shown = server.get("/api/dtmsvr/query?gid=g-1").await;
    assert_eq!(shown.header("content-type"), "application/json; charset=utf-8");
    let shown = shown.json();
    assert_eq!(shown["transaction"]["status"], "succeed");
    assert_eq!(shown["transaction"]["payloads"][1], "{\"amount\":30}");
    let rows: Vec<_> =
        shown["branches"].as_array().unwrap().iter().map(|row| &row["status"]).collect();
    assert_eq!(rows, ["prepared", "succeed", "prepared", "succeed"]);

    let again = server.post("submit", &saga("g-1")).await;
    assert_eq!(again.status, 409);
    assert_eq!(again.json(), failure("current status 'succeed', cannot sumbmit. FAILURE"));
}

/// Spec 02 appendix A.1: the second action refuses.
#[tokio::test]
async fn a_saga_that_fails_answers_409_with_the_reason() {
    let mut server = Server::start().await;
    server.answer("http://s/in", Outcome::Failure("no such account".into()));
    let answer = server.post("submit", &saga("g-1")).await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("no such account") && message.ends_with("FAILURE"), "{message}");
    assert_eq!(answer.json()["dtm_result"], "FAILURE");
}

/// A caller that hangs up cancels nothing (design.md section 7).
#[tokio::test]
async fn a_transaction_goes_on_when_its_caller_hangs_up() {
    let mut server = Server::start().await;
    let mut body = saga("g-1");
    body["steps"][0]["action"] = json!("http://s/gate");
    let mut caller = Client::connect(server.client.stream.peer_addr().unwrap()).await;
    let text = body.to_string();
    let head = "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: d\r\ncontent-length";
    caller.send(&format!("{head}: {}\r\n\r\n{text}", text.len())).await;
    let called = async {
        while server.branches.calls.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(FAR, called).await.expect("the first action is called");
    drop(caller);
    assert_eq!(server.status("g-1").await, "submitted");
    server.branches.gate.notify_one();
    let ended = async {
        while server.status("g-1").await != "succeed" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(FAR, ended).await.expect("the saga ends");
}

#[tokio::test]
async fn a_tcc_is_prepared_registered_and_submitted() {
    let mut server = Server::start().await;
    let tcc = json!({"gid": "g-2", "trans_type": "tcc"});
    server.done("prepare", &tcc).await;
    let branch = |id: &str| {
        json!({"gid": "g-2", "trans_type": "tcc", "branch_id": id, "data": "{}",
            "confirm": "http://s/c", "cancel": "http://s/x", "subType": null})
    };
    server.done("registerBranch", &branch("01")).await;
    server.done("registerBranch", &branch("01")).await;
    server.done("registerTccBranch", &branch("02")).await;
    let mut submit = tcc.clone();
    submit["wait_result"] = json!(true);
    server.done("submit", &submit).await;
    assert_eq!(server.status("g-2").await, "succeed");
    assert_eq!(*server.branches.calls.lock().unwrap(), ["http://s/c", "http://s/c"]);

    let late = server.post("registerBranch", &branch("03")).await;
    assert_eq!(late.status, 409);
    assert_eq!(late.json(), failure("no trans with gid: g-2 status: prepared found FAILURE"));
    let prepare = server.post("prepare", &tcc).await;
    assert_eq!(prepare.json(), failure("current status 'succeed', cannot prepare. FAILURE"));
    let abort = server.post("abort", &tcc).await;
    let text = "trans type: 'tcc' current status 'succeed', cannot abort. FAILURE";
    assert_eq!((abort.status, abort.json()), (409, failure(text)));
}

#[tokio::test]
async fn an_abort_rolls_back_with_the_reason() {
    let mut server = Server::start().await;
    server.done("prepare", &json!({"gid": "g", "trans_type": "tcc", "wait_result": true})).await;
    let reason = "the user changed her mind FAILURE";
    let abort = json!({"gid": "g", "trans_type": "tcc", "rollback_reason": reason});
    server.done("abort", &abort).await;
    let shown = server.get("/api/dtmsvr/query?gid=g").await.json();
    assert_eq!(shown["transaction"]["rollback_reason"], reason);

    let msg = json!({"gid": "m", "trans_type": "msg", "query_prepared": "http://s/q"});
    server.done("prepare", &msg).await;
    server.done("abort", &json!({"gid": "m"})).await;
    assert_eq!(server.status("m").await, "failed");
}

/// Spec 02 appendix A.4.
#[tokio::test]
async fn a_workflow_keeps_its_progress_and_ends() {
    let mut server = Server::start().await;
    let prepare = json!({"gid": "g-4", "trans_type": "workflow", "concurrent": false,
        "custom_data": "{\"data\":\"eyJhIjoxfQ==\",\"name\":\"wf1\"}",
        "query_prepared": "http://app/resume", "protocol": "http"});
    let answer = server.post("prepareWorkflow", &prepare).await.json();
    assert_eq!(answer["transaction"]["status"], "prepared");
    assert_eq!(answer["progresses"], json!([]));
    let step = json!({"gid": "g-4", "trans_type": "workflow", "branch_id": "01", "op": "action",
        "status": "succeed", "data": "{\"ok\":true}"});
    server.done("registerBranch", &step).await;
    let answer = server.post("prepareWorkflow", &prepare).await.json();
    assert_eq!(answer["progresses"][0]["bin_data"], "eyJvayI6dHJ1ZX0=");

    let end = |status: &str| {
        json!({"gid": "g-4", "trans_type": "workflow",
            "req_extra": {"status": status, "rollback_reason": "", "result": "cmVzdWx0"}})
    };
    assert_eq!(server.post("submit", &end("done")).await.status, 400);
    server.done("submit", &end("succeed")).await;
    let answer = server.post("prepareWorkflow", &prepare).await.json();
    assert_eq!(answer["transaction"]["result"], "cmVzdWx0");
    let refused = server.post("submit", &end("failed")).await;
    assert_eq!((refused.status, refused.json()), (500, json!({"message": "storage: NotFound"})));
    let unknown = json!({"gid": "x", "trans_type": "workflow", "req_extra": {"status": "failed"}});
    let unknown = server.post("submit", &unknown).await;
    assert_eq!((unknown.status, unknown.json()), (500, json!({"message": "storage: NotFound"})));
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let mut server = Server::start().await;
    let with = |name: &str, value: Value| {
        let mut body = saga("g");
        body[name] = value;
        body
    };
    // Route, body, status, and what the message holds.
    let table = [
        ("submit", json!({"gid": 1}), 500, "gid: invalid type"),
        ("submit", json!([]), 500, "invalid type"),
        ("registerBranch", json!({"gid": "g", "x": 1}), 400, "x: invalid type"),
        (
            "registerBranch",
            json!({"gid": "g", "trans_type": "saga"}),
            500,
            "unknow trans type: saga",
        ),
        ("registerBranch", json!({"trans_type": "other"}), 500, "unknow trans type: other"),
        ("submit", with("gid", json!("")), 400, "gid is empty"),
        ("submit", with("gid", json!("a\nb")), 400, "control character"),
        ("submit", with("trans_type", json!("sage")), 400, "'sage' is not one of"),
        ("submit", with("payloads", json!([])), 400, "2 steps but only 0 payloads"),
        ("submit", with("retry_interval", json!(-1)), 400, "retry_interval: -1 is negative"),
        ("submit", with("timeout_to_fail", json!(1.5)), 400, "timeout_to_fail: 1.5"),
        ("submit", with("request_timeout", json!(9e12 as i64)), 400, "request_timeout"),
        ("submit", with("custom_data", json!("{\"orders\":{\"0\":[0]}}")), 400, "waits for itself"),
        ("submit", with("custom_data", json!("{\"orders\":{\"7\":[0]}}")), 400, "out of range"),
        ("submit", with("steps", json!([{"action": "ftp://s"}, {}])), 400, "ftp"),
        ("prepareWorkflow", json!({"gid": "g"}), 400, "a workflow needs"),
        ("prepareWorkflow", json!({"gid": "g", "trans_type": "tcc"}), 400, "is not workflow"),
        ("abort", json!({"gid": "none"}), 500, "no TransGlobal with gid: none found"),
        ("forceStop", json!({"gid": "none"}), 500, "no TransGlobal with gid: none found"),
        ("resetNextCronTime", json!({"gid": "none"}), 500, "no TransGlobal with gid: none found"),
    ];
    for (route, body, status, text) in table {
        let answer = server.post(route, &body).await;
        assert_eq!(answer.status, status, "{route} {body}: {}", answer.body);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(text), "{route} {body}: {message}");
        let result = answer.json()["dtm_result"].clone();
        let is_failure = status == 400 && !message.contains("invalid type");
        assert_eq!(result, if is_failure { json!("FAILURE") } else { Value::Null }, "{message}");
    }
    let answer = server.client.post("/api/dtmsvr/submit", "{").await;
    assert_eq!(answer.status, 500);
    assert_eq!(server.status("g").await, "none", "nothing was stored");
}

#[tokio::test]
async fn force_stop_ends_what_is_not_final() {
    let mut server = Server::start().await;
    server.done("prepare", &json!({"gid": "g", "trans_type": "xa"})).await;
    server.done("forceStop", &json!({"gid": "g"})).await;
    assert_eq!(server.status("g").await, "failed");
    let again = server.post("forceStop", &json!({"gid": "g"})).await;
    let text = "global transaction force stop error. status: failed. error: FAILURE";
    assert_eq!((again.status, again.json()), (409, failure(text)));
}

#[tokio::test]
async fn lists_filter_and_page() {
    let mut server = Server::start().await;
    for n in 0..5 {
        let trans_type = if n < 3 { "tcc" } else { "xa" };
        server.done("prepare", &json!({"gid": format!("g{n}"), "trans_type": trans_type})).await;
    }
    let gids = |answer: &Answer| -> Vec<String> {
        let list = answer.json()["transactions"].as_array().unwrap().clone();
        list.iter().map(|record| record["gid"].as_str().unwrap().to_owned()).collect()
    };
    let first = server.get("/api/dtmsvr/all?limit=3").await;
    assert_eq!(gids(&first), ["g4", "g3", "g2"]);
    let position = first.json()["next_position"].as_str().unwrap().to_owned();
    let rest = server.get(&format!("/api/dtmsvr/all?limit=3&position={position}")).await;
    assert_eq!(gids(&rest), ["g1", "g0"]);
    assert_eq!(rest.json()["next_position"], "");
    let xa = server.get("/api/dtmsvr/all?transType=xa&status=prepared&limit=9999").await;
    assert_eq!(gids(&xa), ["g4", "g3"]);
    assert!(gids(&server.get("/api/dtmsvr/all?status=succeed").await).is_empty());
    assert!(gids(&server.get("/api/dtmsvr/all?createTimeEnd=1000").await).is_empty());
    assert_eq!(gids(&server.get("/api/dtmsvr/all?createTimeStart=1000").await).len(), 5);
    assert_eq!(gids(&server.get("/api/dtmsvr/all?gid=g1&status=failed").await), ["g1"]);
    let unknown = server.get("/api/dtmsvr/all?gid=none").await;
    assert_eq!(unknown.json(), json!({"transactions": null, "next_position": ""}));
    for (query, status, text) in [
        ("limit=x", 500, "convert to int error: x"),
        ("limit=0", 400, "limit: 0"),
        ("createTimeStart=a", 500, "convert to int error: a"),
        ("status=done", 400, "status: 'done'"),
    ] {
        let answer = server.get(&format!("/api/dtmsvr/all?{query}")).await;
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.json()["message"].as_str().unwrap().starts_with(text), "{}", answer.body);
    }
    let none = server.get("/api/dtmsvr/query").await;
    assert_eq!((none.status, none.json()), (500, json!({"message": "no gid specified"})));
    let unknown = server.get("/api/dtmsvr/query?gid=none").await;
    assert_eq!(unknown.json(), json!({"transaction": null, "branches": []}));
}

#[tokio::test]
async fn retries_are_pulled_to_now() {
    let mut server = Server::start().await;
    let body = json!({"gid": "g", "trans_type": "msg", "query_prepared": "http://s/q"});
    server.done("prepare", &body).await;
    server.done("resetNextCronTime", &json!({"gid": "g"})).await;
    let count = server.get("/api/dtmsvr/resetCronTime?timeout=1000&limit=10").await;
    assert_eq!(count.json(), json!({"succeed_count": 0, "has_remaining": false}));
    let bad = server.get("/api/dtmsvr/resetCronTime?timeout=-1").await;
    assert_eq!(bad.json(), json!({"message": "convert to int error: -1"}));
}

#[tokio::test]
async fn topics_and_keys() {
    let mut server = Server::start().await;
    let subscribe = "/api/dtmsvr/subscribe?topic=t%2F1&url=http%3A%2F%2Fs%2Fa&remark=r+1";
    assert_eq!(server.get(subscribe).await.json(), json!({"dtm_result": "SUCCESS"}));
    let again = server.get(subscribe).await;
    assert_eq!((again.status, again.json()), (500, json!({"message": "this url exists"})));

    let keys = server.get("/api/dtmsvr/queryKV?cat=topics&key=t%2F1").await.json();
    let key = &keys["kv"][0];
    assert_eq!((&key["k"], &key["version"]), (&json!("t/1"), &json!(1)));
    let subscribers: Value = serde_json::from_str(key["v"].as_str().unwrap()).unwrap();
    assert_eq!(subscribers, json!([{"url": "http://s/a", "remark": "r 1"}]));
    let listed = server.get("/api/dtmsvr/scanKV?cat=topics").await.json();
    assert_eq!((&listed["kv"], &listed["next_position"]), (&keys["kv"], &json!("")));
    assert_eq!(server.get("/api/dtmsvr/queryKV?cat=topics&key=x").await.json(), json!({"kv": []}));

    let unsubscribe = "/api/dtmsvr/unsubscribe?topic=t%2F1&url=http%3A%2F%2Fs%2Fa";
    assert_eq!(server.get(unsubscribe).await.status, 200);
    let delete = "DELETE /api/dtmsvr/topic/t%2F1 HTTP/1.1\r\nhost: d\r\n\r\n";
    for status in [200, 500] {
        server.client.send(delete).await;
        assert_eq!(server.client.answer().await.status, status);
    }
    let unknown = json!({"gid": "g", "trans_type": "msg", "steps": [{"action": "topic://none"}],
        "payloads": [""]});
    let unknown = server.post("submit", &unknown).await;
    assert_eq!(unknown.status, 500);
    assert!(unknown.json()["message"].as_str().unwrap().starts_with("topic not found"));
}

#[tokio::test]
async fn json_rpc_is_the_same_api_in_an_envelope() {
    let mut server = Server::start().await;
    let call = |method: &str, params: Value| json!({"jsonrpc": "2.0", "id": "1", "method": method, "params": params});
    let gid = server.rpc(&call("newGid", Value::Null)).await.json();
    assert_eq!(gid["result"]["gid"].as_str().unwrap().len(), 22);
    let done = json!({"jsonrpc": "2.0", "id": "1", "result": null, "error": null});
    assert_eq!(server.rpc(&call("submit", saga("g-1"))).await.json(), done);
    let tcc = json!({"gid": "g-2", "trans_type": "tcc"});
    assert_eq!(server.rpc(&call("prepare", tcc.clone())).await.json(), done);
    let branch =
        json!({"gid": "g-2", "trans_type": "tcc", "branch_id": "01", "confirm": "http://s/c"});
    assert_eq!(server.rpc(&call("registerBranch", branch)).await.json(), done);
    assert_eq!(server.rpc(&call("abort", tcc)).await.json(), done);

    let table = [
        (call("submit", saga("g-1")), 200, -32901),
        (call("submit", json!({"gid": "", "trans_type": "saga"})), 200, -32901),
        (call("submit", json!({"gid": 1})), 200, -32603),
        (call("abort", json!({"gid": "none", "trans_type": "tcc"})), 200, -32603),
        (call("forceStop", json!({"gid": "g-1"})), 200, -32601),
        (json!({"jsonrpc": "2.0", "id": "", "method": "newGid"}), 200, -32600),
        (json!([]), 400, -32700),
    ];
    for (body, status, code) in table {
        let answer = server.rpc(&body).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{body}"
        );
    }
    let failed = server.rpc(&call("submit", saga("g-1"))).await.json();
    assert!(failed["error"]["message"].as_str().unwrap().contains("FAILURE"));
    assert_eq!(failed["result"], json!({}));
}

#[tokio::test]
async fn the_server_tells_of_itself() {
    let mut server = Server::start().await;
    assert_eq!(server.get("/api/dtmsvr/version").await.json(), json!({"version": "v9"}));
    let gid = server.get("/api/dtmsvr/newGid").await.json();
    assert_eq!(gid["dtm_result"], "SUCCESS");
    assert!(gid.as_object().unwrap().values().all(Value::is_string), "string members only");
    assert_eq!(server.get("/api/ping").await.json(), json!({"msg": "pong"}));
    assert_eq!(server.client.post("/api/ping", "x").await.json(), json!({"msg": "pong"}));
    assert_eq!(server.get("/healthz").await.body, "ok");
    assert_eq!(server.get("/readyz").await.body, "ok");
    let root = server.get("/").await;
    assert!(
        root.body.starts_with("dtmd v9") && root.header("content-type").starts_with("text/plain")
    );

    let missing = server.get("/api/dtmsvr/none").await;
    assert_eq!((missing.status, &*missing.body), (404, "404 page not found"));
    assert_eq!(server.client.post("/api/dtmsvr/query", "").await.status, 404);
    let moved = server.get("/api/dtmsvr/query/?gid=a%20b").await;
    assert_eq!((moved.status, moved.header("location")), (301, "/api/dtmsvr/query?gid=a%20b"));
    let moved = server.client.post("/api/dtmsvr/submit/", "{}").await;
    assert_eq!((moved.status, moved.header("location")), (307, "/api/dtmsvr/submit"));
    let foreign = "POST /api/dtmsvr/submit HTTP/1.1\r\nhost: d\r\norigin: http://evil\r\n\
        content-length: 2\r\n\r\n{}";
    server.client.send(foreign).await;
    assert_eq!(server.client.answer().await.status, 403);

    let metrics = server.get("/api/metrics").await;
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for (api, status) in [("newgid", "ok"), ("notfound", "fail"), ("submit", "fail")] {
        let line =
            format!("dtm_server_process_total{{type=\"http\",api=\"{api}\",status=\"{status}\"}}");
        assert!(metrics.body.contains(&line), "{line}\n{}", metrics.body);
    }

    server.engine.shutdown(Duration::ZERO).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(server.get("/healthz").await.status, 200);
    let refused = server.post("submit", &saga("g")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
}

#[tokio::test]
async fn the_test_clock_drives_time() {
    let options = EngineOptions { test_control: true, ..EngineOptions::default() };
    let mut server = Server::with(options).await;
    let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let (_stop, stopped) = watch::channel(false);
    let configure = Arc::new(|change: super::super::ConfigChange| match change.alert_retry_limit {
        Some(0) => Err("0 is too few".to_owned()),
        _ => Ok(()),
    });
    let engine = server.engine.clone();
    tokio::spawn(serve_test_control(listener, engine, configure, stopped));
    let mut clock = Client::connect(address).await;

    assert_eq!(clock.post("/test/reset", "").await.status, 200);
    assert_eq!(clock.post("/test/cron-once", "{}").await.json(), json!({"gid": ""}));
    assert_eq!(clock.get("/test/processed?wait_ms=1").await.json(), json!({"gid": ""}));
    server.done("submit", &saga("g-1")).await;
    assert_eq!(clock.get("/test/processed?wait_ms=9000").await.json(), json!({"gid": "g-1"}));

    let body = json!({"gid": "m", "trans_type": "msg", "query_prepared": "http://s/q"});
    server.done("prepare", &body).await;
    let forward = r#"{"now_forward_ms":60000,"cron_forward_ms":60000}"#;
    assert_eq!(clock.post("/test/clock", forward).await.status, 200);
    let picked = clock.post("/test/cron-once", r#"{"ignore_lease":false}"#).await;
    assert_eq!(picked.json(), json!({"gid": "m"}));
    assert_eq!(server.status("m").await, "succeed");

    assert_eq!(clock.post("/test/topics-refresh", "").await.status, 200);
    assert_eq!(clock.post("/test/config", r#"{"AlertRetryLimit":2}"#).await.status, 200);
    for (path, body) in [
        ("/test/config", r#"{"AlertRetryLimit":0}"#),
        ("/test/config", r#"{"Other":1}"#),
        ("/test/clock", "x"),
    ] {
        assert_eq!(clock.post(path, body).await.status, 400, "{path} {body}");
    }
    assert_eq!(clock.get("/test/processed?wait_ms=x").await.status, 400);
    assert_eq!(clock.get("/test/reset").await.status, 404);
}

#[tokio::test]
async fn the_test_clock_is_not_for_everybody() {
    let server = Server::start().await;
    let configure: super::super::Configure = Arc::new(|_| Ok(()));
    let (_stop, stopped) = watch::channel(false);
    let open = bind((Ipv4Addr::UNSPECIFIED, 0).into(), false).unwrap();
    let engine = server.engine.clone();
    let refused =
        serve_test_control(open, engine.clone(), configure.clone(), stopped.clone()).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let loopback = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
    let without = serve_test_control(loopback, engine, configure, stopped).await;
    assert_eq!(without.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
