use dtmd_protocol::{BranchStatus, Limits, Op};

use super::*;

fn parse(body: &str) -> TransRequest<'_> {
    TransRequest::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn new_global(body: &str) -> Result<NewGlobal, RequestError> {
    TransRequest::parse(body.as_bytes())?.into_new_global("default".into())
}

/// Every row of the tolerance table (spec 02 §1.1) decodes to the same request.
#[test]
fn what_is_tolerated() {
    let plain =
        parse(r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a"}],"payloads":["p"]}"#);
    let same = [
        // Unknown members of any shape.
        r#"{"gid":"g","subType":[{"x":1}],"trans_type":"saga","steps":[{"action":"a","z":{}}],"payloads":["p"],"dtm":null,"barrier_id":7}"#,
        // Null is the zero value.
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":null,"data":null}],"payloads":["p"],
            "query_prepared":null,"protocol":null,"custom_data":null,"rollback_reason":null,"req_extra":null,
            "wait_result":null,"concurrent":null,"timeout_to_fail":null,"retry_interval":null,"request_timeout":null,
            "retry_limit":null,"retry_count":null,"branch_headers":null}"#,
        // The same member twice: the last one wins.
        r#"{"gid":"x","trans_type":"tcc","trans_type":"saga","gid":"g","steps":null,"steps":[{"action":"b","action":"a"}],"payloads":["p"]}"#,
        // Letter case.
        r#"{"GID":"g","Trans_Type":"saga","STEPS":[{"Action":"a"}],"Payloads":["p"]}"#,
        // Pretty-printed.
        "{\r\n  \"gid\" : \"g\",\n\t\"trans_type\": \"saga\", \"steps\": [ { \"action\": \"a\" } ], \"payloads\": [ \"p\" ]\n}\n",
        // Escapes.
        r#"{"g\u0069d":"\u0067","trans_type":"saga","steps":[{"action":"a"}],"payloads":["p"]}"#,
    ];
    for body in same {
        assert_eq!(parse(body), plain, "{body}");
    }
    assert_eq!(parse("null"), TransRequest::default());
    assert_eq!(parse("{}"), TransRequest::default());
    let nulls = parse(r#"{"steps":[null],"payloads":[null],"branch_headers":{"a":null,"b":"c"}}"#);
    assert_eq!(nulls.steps, [RequestStep::default()]);
    assert_eq!(nulls.payloads, [b"".as_slice()]);
    assert_eq!(nulls.branch_headers["a"], "");
}

#[test]
fn wrong_types_are_errors_that_name_the_member() {
    let table = [
        (r#"{"gid":1}"#, "gid: "),
        (r#"{"gid":["g"]}"#, "gid: "),
        (r#"{"trans_type":{}}"#, "trans_type: "),
        (r#"{"steps":{}}"#, "steps: "),
        (r#"{"steps":[1]}"#, "steps: "),
        (r#"{"steps":[{"action":1}]}"#, "steps: action: "),
        (r#"{"payloads":"x"}"#, "payloads: "),
        (r#"{"payloads":[{"a":1}]}"#, "payloads: "),
        (r#"{"wait_result":"true"}"#, "wait_result: "),
        (r#"{"timeout_to_fail":"3"}"#, "timeout_to_fail: "),
        (r#"{"branch_headers":{"a":1}}"#, "branch_headers: a: "),
        (r#"{"req_extra":{"status":true}}"#, "req_extra: status: "),
        ("", "EOF"),
        ("[]", "invalid type"),
        ("{} x", "trailing"),
        ("{\"gid\":\"\u{1}\"}", "gid: control character"),
    ];
    for (body, text) in table {
        match TransRequest::parse(body.as_bytes()) {
            Err(RequestError::Undecodable(error)) => {
                assert!(error.starts_with(text), "{body}: {error}");
            }
            other => panic!("{body}: {other:?}"),
        }
    }
    let long = format!(r#"{{"wait_result":"{}"}}"#, "ü".repeat(5000));
    let error = TransRequest::parse(long.as_bytes()).unwrap_err().to_string();
    assert!(error.len() < 600 && error.contains("line 1"), "{error}");
    assert!(TransRequest::parse(b"{\"gid\":\"\xff\"}").is_err(), "invalid UTF-8");
}

#[test]
fn deep_nesting_is_refused_or_passed_over_without_overflow() {
    let deep = format!(r#"{{"gid":"g","x":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let _ = TransRequest::parse(deep.as_bytes());
    let deep = format!(r#"{{"steps":{}}}"#, "[".repeat(200_000));
    assert!(TransRequest::parse(deep.as_bytes()).is_err());
}

#[test]
fn a_concurrent_saga_becomes_a_new_global() {
    // Spec 02 appendix A.1.
    let new = new_global(
        r#"{"gid":"g-1","trans_type":"saga","concurrent":true,"protocol":"",
            "steps":[{"action":"http://s/out","compensate":"http://s/outC"},
                     {"action":"http://s/in","compensate":"http://s/inC"}],
            "payloads":["{\"amount\":30}","{\"amount\":30}"],
            "custom_data":"{\"orders\":{\"1\":[0]},\"concurrent\":true}"}"#,
    )
    .unwrap();
    assert_eq!(new.gid.as_str(), "g-1");
    assert_eq!(&*new.namespace, "default");
    assert_eq!(new.protocol, CallProtocol::Http);
    assert!(new.options.concurrent);
    let orders: Arc<[Vec<usize>]> = Arc::from([vec![], vec![0]]);
    assert_eq!(new.mode, Mode::Saga { concurrent: true, orders });
    assert_eq!(&*new.steps[1].def.compensate, "http://s/inC");
    assert_eq!(&*new.steps[1].payload, br#"{"amount":30}"#);
    assert_eq!(new.validate(&Limits::default()), Ok(()));
    assert_ne!(new.content, 0);
}

#[test]
fn orders_in_every_spelling() {
    let orders = |custom_data: &str| {
        let body = serde_json::json!({"gid":"g","trans_type":"saga","custom_data":custom_data,
            "steps":[{},{},{}],"payloads":["","",""]});
        match new_global(&body.to_string())?.mode {
            Mode::Saga { concurrent, orders } => Ok((concurrent, orders.to_vec())),
            other => panic!("{other:?}"),
        }
    };
    type Orders = (bool, Vec<Vec<usize>>);
    let table: [(&str, Orders); 9] = [
        ("", (false, vec![])),
        ("null", (false, vec![])),
        ("{}", (false, vec![])),
        (r#"{"orders":null,"concurrent":null}"#, (false, vec![])),
        (r#"{"concurrent":true}"#, (true, vec![])),
        (r#"{"Orders":{"2":[0,1]},"CONCURRENT":true}"#, (true, vec![vec![], vec![], vec![0, 1]])),
        (r#"{"orders":{"0":null}}"#, (false, vec![vec![]])),
        (r#"{"orders":[[],[0],null]}"#, (false, vec![vec![], vec![0], vec![]])),
        (r#"{"orders":{"1":[0],"1":[2]},"x":1}"#, (false, vec![vec![], vec![2]])),
    ];
    for (text, expected) in table {
        assert_eq!(orders(text), Ok(expected), "{text}");
    }
    for bad in [
        "x",
        "[]",
        r#"{"orders":{"x":[0]}}"#,
        r#"{"orders":{"-1":[0]}}"#,
        r#"{"orders":{"1":["0"]}}"#,
        r#"{"orders":{"1":[-1]}}"#,
        r#"{"orders":{"3":[0]}}"#,
        r#"{"orders":{"18446744073709551615":[0]}}"#,
        r#"{"concurrent":1}"#,
    ] {
        match orders(bad) {
            Err(RequestError::Invalid(text)) => assert!(text.starts_with("custom_data"), "{text}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[test]
fn payloads_come_first_and_old_style_data_after_them() {
    let steps = |body: &str| {
        new_global(body).map(|new| {
            let text = |step: &NewStep| String::from_utf8(step.payload.to_vec()).unwrap();
            new.steps.iter().map(text).collect::<Vec<_>>()
        })
    };
    let table = [
        (r#"[{"action":"a"},{"action":"b"}]"#, r#"["1","2","3"]"#, vec!["1", "2"]),
        (r#"[{"action":"a","data":"x"},{"action":"b","data":"y"}]"#, "null", vec!["x", "y"]),
        (r#"[{"action":"a"},{"action":"b","data":"y"}]"#, r#"["1"]"#, vec!["1", "y"]),
        (r#"[{"action":"a","data":"x"}]"#, r#"["1"]"#, vec!["1"]),
        ("[]", "[]", vec![]),
    ];
    for (list, payloads, expected) in table {
        let body =
            format!(r#"{{"gid":"g","trans_type":"msg","steps":{list},"payloads":{payloads}}}"#);
        assert_eq!(steps(&body).unwrap(), expected, "{body}");
    }
    let short = steps(r#"{"gid":"g","trans_type":"saga","steps":[{},{}],"payloads":["1"]}"#);
    let text = short.unwrap_err().to_string();
    assert!(text.contains("2 steps but only 1 payloads"), "{text}");
    // Types that have no steps do not care.
    assert!(new_global(r#"{"gid":"g","trans_type":"tcc","steps":[{}]}"#).unwrap().steps.is_empty());
}

#[test]
fn options_are_whole_and_not_negative() {
    let options = |members: &str| {
        new_global(&format!(r#"{{"gid":"g","trans_type":"tcc",{members}}}"#)).map(|new| new.options)
    };
    let secs = |n| Some(Duration::from_secs(n));
    let millis = |n| Some(Duration::from_millis(n));
    assert_eq!(options(r#""timeout_to_fail":0"#).unwrap().timeout_to_fail, None);
    assert_eq!(options(r#""timeout_to_fail":3"#).unwrap().timeout_to_fail, secs(3));
    assert_eq!(options(r#""request_timeout_ms":250"#).unwrap().request_timeout, millis(250));
    let both = options(r#""retry_interval":3,"retry_interval_ms":20"#).unwrap();
    assert_eq!(both.retry_interval, millis(20));
    let rest =
        options(r#""wait_result":true,"retry_limit":2,"retry_count":1,"branch_headers":{"a":"b"}"#);
    let rest = rest.unwrap();
    assert!(rest.wait_result && !rest.concurrent);
    assert_eq!((rest.retry_limit, rest.retry_count), (2, 1));
    assert_eq!(rest.branch_headers["a"], "b");

    for bad in [
        r#""retry_interval":-1"#,
        r#""timeout_to_fail":1.5"#,
        r#""request_timeout":-9223372036854775808"#,
        r#""request_timeout_ms":1e3"#,
        r#""retry_limit":4294967296"#,
        r#""retry_count":-2"#,
    ] {
        let name = bad.split('"').nth(1).unwrap();
        match options(bad) {
            Err(RequestError::Invalid(text)) => assert!(text.starts_with(name), "{text}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    // Too large to be a number of ours is too large for every limit.
    let huge =
        new_global(r#"{"gid":"g","trans_type":"tcc","retry_interval":18446744073709551615}"#);
    assert!(huge.unwrap().validate(&Limits::default()).is_err());
}

#[test]
fn messages_and_workflows_read_their_custom_data() {
    let mode = |trans_type: &str, custom_data: &str| {
        let body = serde_json::json!({"gid":"g","trans_type":trans_type,"custom_data":custom_data});
        new_global(&body.to_string()).map(|new| new.mode)
    };
    let msg = |secs| Ok(Mode::Msg { delay: Duration::from_secs(secs) });
    assert_eq!(mode("msg", ""), msg(0));
    assert_eq!(mode("msg", r#"{"delay":5}"#), msg(5));
    assert_eq!(mode("msg", r#"{"Delay":5}"#), msg(5));
    assert_eq!(mode("msg", "null"), msg(0));
    // The last one wins, in any letter case, and the same one each time.
    for _ in 0..50 {
        assert_eq!(mode("msg", r#"{"delay":1,"Delay":2,"DELAY":3,"delAY":4}"#), msg(4));
    }
    assert!(mode("msg", r#"{"delay":-5}"#).is_err());
    assert!(mode("msg", r#"{"delay":"5"}"#).is_err());

    let workflow = |data: &[u8]| Ok(Mode::Workflow { name: "wf1".into(), data: data.into() });
    assert_eq!(mode("workflow", r#"{"data":"eyJhIjoxfQ==","name":"wf1"}"#), workflow(b"{\"a\":1}"));
    assert_eq!(mode("workflow", r#"{"name":"wf1","data":null}"#), workflow(b""));
    for bad in ["", "{}", "null", "x", r#"{"name":""}"#, r#"{"name":"w","data":"?"}"#] {
        match mode("workflow", bad) {
            Err(RequestError::Invalid(text)) => assert!(text.starts_with("custom_data"), "{text}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    // Not interpreted.
    assert_eq!(mode("tcc", "anything"), Ok(Mode::Tcc));
    assert_eq!(mode("xa", "{"), Ok(Mode::Xa));
}

#[test]
fn bad_ids_types_and_protocols_are_refused() {
    let table = [
        (r#"{"trans_type":"saga"}"#, "gid is empty"),
        (r#"{"gid":"a\nb","trans_type":"saga"}"#, "gid contains a control character"),
        (r#"{"gid":"a\rb","trans_type":"saga"}"#, "gid contains a control character"),
        (r#"{"gid":"g"}"#, "trans_type: '' is not one of saga, tcc, xa, msg, workflow"),
        (r#"{"gid":"g","trans_type":"SAGA"}"#, "trans_type: 'SAGA' is not one of"),
        (r#"{"gid":"g","trans_type":"tcc","protocol":"soap"}"#, "protocol: 'soap' is not known"),
    ];
    for (body, text) in table {
        match new_global(body) {
            Err(RequestError::Invalid(error)) => assert!(error.starts_with(text), "{error}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    // What DTM would silently change stays what it is.
    assert_eq!(new_global(r#"{"gid":"a;b'c","trans_type":"tcc"}"#).unwrap().gid.as_str(), "a;b'c");
}

#[test]
fn what_the_server_keeps_cannot_be_set() {
    let plain = new_global(r#"{"gid":"g","trans_type":"tcc"}"#).unwrap();
    let more = new_global(
        r#"{"gid":"g","trans_type":"tcc","id":5,"owner":"me","create_time":"2000-01-01T00:00:00Z",
            "status":"succeed","result":"r","finish_time":null,"next_cron_time":"x","content":1}"#,
    );
    assert_eq!(more.unwrap(), plain);
}

#[test]
fn the_digest_changes_with_what_a_repeat_must_repeat() {
    let content = |body: &str| new_global(body).unwrap().content;
    let base = content(
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"]}"#,
    );
    let same = [
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"wait_result":true}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b","data":"p"}],"custom_data":"{ }"}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"branch_headers":{"traceparent":"1"}}"#,
    ];
    for body in same {
        assert_eq!(content(body), base, "{body}");
    }
    let others = [
        r#"{"gid":"g","trans_type":"msg","steps":[{"action":"a","compensate":"b"}],"payloads":["p"]}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"ab"}],"payloads":["p"]}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["q"]}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"bp"}],"payloads":[""]}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[],"payloads":["p"]}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"protocol":"json-rpc"}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"query_prepared":"q"}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"timeout_to_fail":1}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"request_timeout":1}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"retry_interval":1}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"retry_limit":1}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"concurrent":true}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"custom_data":"{\"concurrent\":true}"}"#,
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","compensate":"b"}],"payloads":["p"],"custom_data":"{\"orders\":{\"0\":[]}}"}"#,
    ];
    let mut seen = std::collections::HashSet::from([base]);
    for body in others {
        assert!(seen.insert(content(body)), "{body}");
    }
}

#[test]
fn the_end_of_a_workflow() {
    // Spec 02 appendix A.4, step 4.
    let request = parse(
        r#"{"gid":"g-4","trans_type":"workflow","req_extra":{"status":"succeed","rollback_reason":"","result":"cmVzdWx0"}}"#,
    );
    let end = WorkflowEnd { succeed: true, reason: "", result: "cmVzdWx0" };
    assert_eq!(request.workflow_end(), Ok(end));
    let failed =
        parse(r#"{"req_extra":{"status":"failed","rollback_reason":"why","result":null}}"#);
    let end = WorkflowEnd { succeed: false, reason: "why", result: "" };
    assert_eq!(failed.workflow_end(), Ok(end));
    for bad in
        [r#"{}"#, r#"{"req_extra":{"status":"submitted"}}"#, r#"{"req_extra":{"status":null}}"#]
    {
        assert!(matches!(parse(bad).workflow_end(), Err(RequestError::Invalid(_))), "{bad}");
    }
}

fn rows(body: &str) -> Result<Vec<dtmd_protocol::NewBranch>, RequestError> {
    RegisterRequest::parse(body.as_bytes())?.rows()
}

#[test]
fn registrations_become_rows_in_the_order_that_matters() {
    let shown = |body: &str| -> Vec<String> {
        let show = |row: &dtmd_protocol::NewBranch| {
            let data = String::from_utf8(row.data.to_vec()).unwrap();
            format!("{} {} {} {} {data}", row.branch_id, row.op, row.url, row.status)
        };
        rows(body).unwrap().iter().map(show).collect()
    };
    // A.2, with what Java and Node add.
    let tcc = r#"{"gid":"g-2","trans_type":"tcc","branch_id":"01","data":"{}","confirm":"http://s/c",
        "cancel":"http://s/x","subType":null,"try":"http://s/t","status":"prepared","subType":"a"}"#;
    assert_eq!(
        shown(tcc),
        ["01 cancel http://s/x prepared {}", "01 confirm http://s/c prepared {}"]
    );
    let null = r#"{"gid":"g","trans_type":"tcc","branch_id":"01","data":null,"confirm":"c","cancel":null}"#;
    assert_eq!(shown(null), ["01 cancel  prepared ", "01 confirm c prepared "]);
    let xa = r#"{"gid":"g","trans_type":"xa","branch_id":"02","url":"http://s/xa"}"#;
    let expected = ["02 rollback http://s/xa prepared ", "02 commit http://s/xa prepared "];
    assert_eq!(shown(xa), expected);
    let workflow = r#"{"gid":"g-4","trans_type":"workflow","branch_id":"01","op":"action","status":"succeed","data":"{\"ok\":true}","sync":"1"}"#;
    assert_eq!(shown(workflow), [r#"01 action  succeed {"ok":true}"#]);
    let named =
        rows(r#"{"trans_type":"workflow","branch_id":"01","op":"business","status":"failed"}"#);
    let named = named.unwrap();
    assert_eq!(
        (&named[0].op, named[0].status),
        (&Op::Named("business".into()), BranchStatus::Failed)
    );
}

#[test]
fn bad_registrations_are_refused() {
    for body in [
        r#"{"gid":1}"#,
        r#"{"x":1}"#,
        r#"{"x":true}"#,
        r#"{"x":{}}"#,
        r#"{"x":[]}"#,
        r#"{"x":1.5}"#,
        "[]",
        "null",
        "",
        "{",
    ] {
        let error = RegisterRequest::parse(body.as_bytes()).unwrap_err();
        assert!(matches!(error, RequestError::Undecodable(_)), "{body}: {error}");
    }
    let named = RegisterRequest::parse(br#"{"branch_id":7}"#).unwrap_err().to_string();
    assert!(named.starts_with("branch_id: "), "{named}");

    for trans_type in ["saga", "msg", "", "x"] {
        let body = format!(r#"{{"trans_type":"{trans_type}","branch_id":"01"}}"#);
        assert_eq!(rows(&body), Err(RequestError::UnknownType(trans_type.to_owned())));
    }
    for body in [
        r#"{"trans_type":"tcc"}"#,
        r#"{"trans_type":"tcc","branch_id":"a\nb"}"#,
        r#"{"trans_type":"workflow","branch_id":"01","op":"action"}"#,
        r#"{"trans_type":"workflow","branch_id":"01","op":"action","status":"prepared"}"#,
        r#"{"trans_type":"workflow","branch_id":"01","status":"succeed"}"#,
    ] {
        assert!(matches!(rows(body), Err(RequestError::Invalid(_))), "{body}");
    }
    assert!(RegisterRequest::parse(b"{}").unwrap().gid().is_err());
}

#[test]
fn steps_alone() {
    assert_eq!(TransRequest::parse_steps(""), Ok(Vec::new()));
    assert_eq!(TransRequest::parse_steps("null"), Ok(Vec::new()));
    let steps = TransRequest::parse_steps(r#"[{"action":"a","compensate":"b","x":1}]"#).unwrap();
    assert_eq!((&*steps[0].action, &*steps[0].compensate), ("a", "b"));
    for text in ["{", r#"{"action":"a"}"#, r#"[{"action":1}]"#] {
        let error = TransRequest::parse_steps(text).unwrap_err().to_string();
        assert!(error.starts_with("Steps: "), "{error}");
    }
}
