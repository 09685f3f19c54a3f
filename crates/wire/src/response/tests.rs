use std::collections::BTreeMap;
use std::sync::Arc;

use dtmd_protocol::{
    BranchId, CallProtocol, Context, GlobalStatus, Mode, NewGlobal, NewStep, Op, Policy, StepDef,
    create,
};
use serde_json::{Value, json};

use super::*;

/// 2024-05-01T12:00:00.123456+08:00.
const CREATED: Timestamp = Timestamp(1_714_536_000_123_456);

fn value(body: Vec<u8>) -> Value {
    serde_json::from_slice(&body).unwrap()
}

fn new(mode: Mode, steps: Vec<NewStep>) -> NewGlobal {
    NewGlobal {
        gid: Gid::new("g-3").unwrap(),
        namespace: "default".into(),
        mode,
        protocol: CallProtocol::Http,
        query_prepared: "".into(),
        custom_data: "".into(),
        options: Options::default(),
        steps,
        content: 1,
    }
}

fn step(action: &str, compensate: &str, payload: &[u8]) -> NewStep {
    let def = StepDef { action: action.into(), compensate: compensate.into() };
    NewStep { def, payload: payload.into() }
}

fn global(new: &NewGlobal, submitted: bool, subscribers: &[Option<Vec<Arc<str>>>]) -> Global {
    let policy = Policy::default();
    let cx = Context::at(CREATED);
    create(new, submitted, subscribers, &policy, &cx)
}

fn saga() -> NewGlobal {
    let mode = Mode::Saga { concurrent: false, orders: Arc::from([]) };
    new(mode, vec![step("http://s/a", "http://s/b", b"{}")])
}

/// Spec 02 appendix A.3, with the microseconds that we keep.
#[test]
fn a_finished_saga_reads_as_dtm_shows_it() {
    let mut global = global(&saga(), true, &[]);
    let ended = Timestamp(1_714_536_000_200_000);
    global.status = GlobalStatus::Succeed;
    global.updated = ended;
    global.finished = Some(ended);
    global.interval = Duration::from_secs(10);
    global.wake_at = Timestamp(1_714_536_010_120_000);
    let row = &mut global.branches[1];
    row.status = dtmd_protocol::BranchStatus::Succeed;
    row.updated = Timestamp(1_714_536_000_190_000);
    row.finished = Some(row.updated);

    let expected = json!({
        "transaction": {
            "id": 0,
            "create_time": "2024-05-01T12:00:00.123456+08:00",
            "update_time": "2024-05-01T12:00:00.2+08:00",
            "gid": "g-3", "trans_type": "saga",
            "steps": [{"action": "http://s/a", "compensate": "http://s/b"}],
            "payloads": ["{}"],
            "status": "succeed", "protocol": "http",
            "finish_time": "2024-05-01T12:00:00.2+08:00",
            "options": "{\"concurrent\":false}",
            "next_cron_interval": 10,
            "next_cron_time": "2024-05-01T12:00:10.12+08:00",
            "concurrent": false,
        },
        "branches": [
            {"id": 0,
             "create_time": "2024-05-01T12:00:00.123456+08:00",
             "update_time": "2024-05-01T12:00:00.123456+08:00",
             "gid": "g-3", "url": "http://s/b", "bin_data": "e30=", "branch_id": "01",
             "op": "compensate", "status": "prepared"},
            {"id": 0,
             "create_time": "2024-05-01T12:00:00.123456+08:00",
             "update_time": "2024-05-01T12:00:00.19+08:00",
             "gid": "g-3", "url": "http://s/a", "bin_data": "e30=", "branch_id": "01",
             "op": "action", "status": "succeed", "finish_time": "2024-05-01T12:00:00.19+08:00"},
        ],
    });
    assert_eq!(value(query(Some(&global), Zone::parse("+8").unwrap())), expected);
}

#[test]
fn no_member_appears_twice() {
    let mut new = saga();
    new.options.wait_result = true;
    new.options.retry_limit = 2;
    let body = query(Some(&global(&new, true, &[])), Zone::UTC);
    let text = String::from_utf8(body).unwrap();
    let (transaction, branches) = text.split_once("\"branches\"").unwrap();
    for member in ["concurrent", "wait_result", "gid", "status", "create_time", "retry_limit"] {
        let key = format!("\"{member}\":");
        assert_eq!(transaction.matches(&key).count(), 1, "{member}: {transaction}");
    }
    assert_eq!(branches.matches("\"gid\":").count(), 2);
}

#[test]
fn options_are_shown_as_text_and_as_members() {
    let mut new = saga();
    new.options = Options {
        wait_result: true,
        timeout_to_fail: Some(Duration::from_secs(3)),
        request_timeout: Some(Duration::from_millis(1500)),
        retry_interval: None,
        retry_limit: 2,
        retry_count: 1,
        concurrent: true,
        branch_headers: Arc::new(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
    };
    let shown = value(query(Some(&global(&new, true, &[])), Zone::UTC));
    let transaction = &shown["transaction"];
    let expected = json!({"wait_result": true, "timeout_to_fail": 3, "request_timeout": 2,
        "request_timeout_ms": 1500, "branch_headers": {"a": "b"}, "concurrent": true,
        "retry_limit": 2, "retry_count": 1});
    let text = transaction["options"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), expected);
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&transaction[name], value, "{name}");
    }
}

#[test]
fn payloads_are_read_back_from_the_rows() {
    let topic = |urls: &[&str]| Some(urls.iter().map(|url| Arc::from(*url)).collect());
    let steps = vec![step("topic://t", "", b"1"), step("http://b", "", b"2"), step("", "", b"3")];
    let msg = new(Mode::Msg { delay: Duration::ZERO }, steps);
    let subscribers = [topic(&["http://x", "http://y"]), None, None];
    let shown = value(query(Some(&global(&msg, false, &subscribers)), Zone::UTC));
    assert_eq!(shown["transaction"]["payloads"], json!(["1", "2", "3"]));
    let steps = json!([{"action": "topic://t"}, {"action": "http://b"}, {"action": ""}]);
    assert_eq!(shown["transaction"]["steps"], steps);
    assert_eq!(shown["branches"][1]["branch_id"], "01-02");

    let binary = new(Mode::Msg { delay: Duration::ZERO }, vec![step("a:1/S/M", "", &[0xff])]);
    let shown = value(query(Some(&global(&binary, false, &[])), Zone::UTC));
    assert!(shown["transaction"].get("payloads").is_none());
    assert_eq!(shown["branches"][0]["bin_data"], "/w==");
}

#[test]
fn times_are_present_or_absent_but_never_null() {
    let global = global(&new(Mode::Tcc, vec![]), false, &[]);
    let shown = value(query(Some(&global), Zone::UTC));
    let transaction = shown["transaction"].as_object().unwrap();
    for name in ["create_time", "update_time", "next_cron_time"] {
        assert!(transaction[name].is_string(), "{name}");
    }
    for name in ["finish_time", "rollback_time", "rollback_reason", "result", "steps", "owner"] {
        assert!(!transaction.contains_key(name), "{name}");
    }
    assert!(!String::from_utf8(query(Some(&global), Zone::UTC)).unwrap().contains("null"));
}

/// Spec 02 appendix A.4, steps 1 to 3.
#[test]
fn workflows_show_their_progress() {
    let mode = Mode::Workflow { name: "wf1".into(), data: b"{\"a\":1}".as_slice().into() };
    let mut global = global(&new(mode, vec![]), false, &[]);
    let shown = value(prepare_workflow(&global, Zone::UTC));
    assert_eq!(shown["transaction"]["status"], "prepared");
    assert_eq!(shown["progresses"], json!([]));

    global.branches.push(Branch {
        branch_id: BranchId::new("01").unwrap(),
        op: Op::Action,
        url: "".into(),
        data: br#"{"ok":true}"#.as_slice().into(),
        status: dtmd_protocol::BranchStatus::Succeed,
        retry: dtmd_protocol::Retry::default(),
        created: CREATED,
        updated: CREATED,
        finished: Some(CREATED),
    });
    let shown = value(prepare_workflow(&global, Zone::UTC));
    let progress = &shown["progresses"][0];
    assert_eq!(progress["bin_data"], "eyJvayI6dHJ1ZX0=");
    assert_eq!((&progress["branch_id"], &progress["op"]), (&json!("01"), &json!("action")));
    assert_eq!(progress["status"], "succeed");
}

#[test]
fn retried_rows_show_their_attempts() {
    let mut global = global(&saga(), true, &[]);
    global.branches[1].retry = dtmd_protocol::Retry { attempts: 3, next_at: CREATED };
    let shown = value(query(Some(&global), Zone::UTC));
    assert_eq!(shown["branches"][1]["attempts"], 3);
    assert_eq!(shown["branches"][1]["next_at"], "2024-05-01T04:00:00.123456Z");
    assert!(shown["branches"][0].get("attempts").is_none());
}

#[test]
fn unknown_gids_and_lists() {
    let shown = value(query(None, Zone::UTC));
    assert_eq!(shown, json!({"transaction": null, "branches": []}));
    let none: Option<[&Global; 0]> = None;
    let expected = json!({"transactions": null, "next_position": ""});
    assert_eq!(value(list(none, "", Zone::UTC)), expected);
    let empty: Option<[&Global; 0]> = Some([]);
    let expected = json!({"transactions": [], "next_position": ""});
    assert_eq!(value(list(empty, "", Zone::UTC)), expected);
    let global = global(&saga(), true, &[]);
    let shown = value(list(Some([&global, &global]), "p", Zone::UTC));
    assert_eq!(shown["transactions"][1]["gid"], "g-3");
    assert_eq!(shown["next_position"], "p");
}

#[test]
fn keys() {
    let record = KvRecord {
        cat: "topics",
        key: "t",
        value: "[]",
        version: 2,
        created: CREATED,
        updated: CREATED,
    };
    let shown = value(kv_list(&[record], Some("n"), Zone::UTC));
    let time = "2024-05-01T04:00:00.123456Z";
    let expected = json!({"kv": [{"id": 0, "create_time": time, "update_time": time,
        "cat": "topics", "k": "t", "v": "[]", "version": 2}], "next_position": "n"});
    assert_eq!(shown, expected);
    assert_eq!(value(kv_list(&[], None, Zone::UTC)), json!({"kv": []}));
}

#[test]
fn error_bodies_hold_the_word_that_sdks_search_for() {
    let failed = |text: &str| value(failure(text));
    assert_eq!(failed("no"), json!({"dtm_result": "FAILURE", "message": "no FAILURE"}));
    assert_eq!(failed("a FAILURE"), json!({"dtm_result": "FAILURE", "message": "a FAILURE"}));
    assert_eq!(failed(""), json!({"dtm_result": "FAILURE", "message": "FAILURE"}));
    let expected = json!({"dtm_result": "ONGOING", "message": "wait ONGOING"});
    assert_eq!(value(ongoing("wait")), expected);
    assert_eq!(value(message("x \"y\"")), json!({"message": "x \"y\""}));
}

#[test]
fn success_bodies_hold_no_such_word() {
    let gid = Gid::new("x").unwrap();
    for body in [SUCCESS.to_vec(), new_gid(&gid), version("v1"), reset_count(1, true)] {
        let text = String::from_utf8(body).unwrap();
        assert!(!text.contains("FAILURE") && !text.contains("ONGOING"), "{text}");
    }
    assert_eq!(value(new_gid(&gid)), json!({"dtm_result": "SUCCESS", "gid": "x"}));
    assert_eq!(value(reset_count(3, false)), json!({"succeed_count": 3, "has_remaining": false}));
}
