use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::{Config, StoreDriver};
use crate::run::Server;

/// Far longer than anything takes; only a test that fails waits for it.
const FAR: Duration = Duration::from_secs(20);
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A request as a peer of the server heard it.
#[derive(Debug, Clone)]
struct Heard {
    line: String,
    traceparent: String,
    body: String,
}

type Ledger = Arc<Mutex<Vec<Heard>>>;

/// Serves HTTP/1.1 with a status for each request, from 0.
async fn peer(status: fn(usize) -> u16) -> (SocketAddr, Ledger) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Ledger::default());
    let ledger = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, ledger.clone(), status));
        }
    });
    (address, heard)
}

async fn answer(mut stream: TcpStream, ledger: Ledger, status: fn(usize) -> u16) {
    let mut input = Vec::new();
    loop {
        let whole = std::str::from_utf8(&input).ok().and_then(|text| {
            let (head, body) = text.split_once("\r\n\r\n")?;
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(':'));
                let mut found = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
                found.next().map(|(_, value)| value.trim().to_owned())
            };
            let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
            (body.len() >= length).then(|| Heard {
                line: head.lines().next().unwrap().to_owned(),
                traceparent: header("traceparent").unwrap_or_default(),
                body: body.to_owned(),
            })
        });
        if let Some(request) = whole {
            let nth = {
                let mut heard = ledger.lock().unwrap();
                heard.push(request);
                heard.len() - 1
            };
            let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 2\r\n\r\n{{}}", status(nth));
            stream.write_all(answer.as_bytes()).await.unwrap();
            input.clear();
        }
        if stream.read_buf(&mut input).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

async fn server(change: impl FnOnce(&mut Config)) -> Server {
    let mut config = Config::default();
    config.store.driver = StoreDriver::Memory;
    (config.listen.http_port, config.listen.grpc_port) = (0, 0);
    config.network_threads = 1;
    change(&mut config);
    Server::start(config, false).await.unwrap()
}

async fn post(server: &Server, route: &str, traceparent: &str, body: &Json) {
    let body = body.to_string();
    let request = format!(
        "POST /api/dtmsvr/{route} HTTP/1.1\r\nhost: dtm\r\nconnection: close\r\n\
         traceparent: {traceparent}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(FAR, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(FAR, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn saga(gid: &str, service: SocketAddr) -> Json {
    json!({
        "gid": gid, "trans_type": "saga", "retry_interval_ms": 20,
        "steps": [{ "action": format!("http://{service}/act"), "compensate": "" }],
        "payloads": ["{}"],
    })
}

/// All spans that a collector was sent.
fn spans(collector: &Ledger) -> Vec<Json> {
    let mut spans = Vec::new();
    for request in collector.lock().unwrap().iter() {
        assert!(request.line.starts_with("POST /v1/traces "), "{}", request.line);
        let body: Json = serde_json::from_str(&request.body).unwrap();
        let resource = &body["resourceSpans"][0];
        let name = &resource["resource"]["attributes"][0];
        assert_eq!(
            (&name["key"], &name["value"]["stringValue"]),
            (&json!("service.name"), &json!("tm"))
        );
        spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().iter().cloned());
    }
    spans
}

fn attribute<'a>(span: &'a Json, key: &str) -> &'a str {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("no {key} in {span}"))["value"];
    value["stringValue"].as_str().or(value["intValue"].as_str()).unwrap()
}

#[tokio::test]
async fn a_request_and_every_attempt_are_spans_of_the_callers_trace() {
    let (collector_at, collector) = peer(|_| 200).await;
    let (service_at, service) = peer(|nth| if nth == 0 { 500 } else { 200 }).await;
    let server = server(|config| {
        config.tracing.endpoint = format!("http://{collector_at}");
        config.tracing.service_name = "tm".to_owned();
    })
    .await;
    post(&server, "submit", &format!("00-{TRACE_ID}-{CALLER}-01"), &saga("g1", service_at)).await;
    until("the second attempt", || service.lock().unwrap().len() == 2).await;
    // What the caller does not record is handed on and not recorded here either.
    let unrecorded = format!("00-{TRACE_ID}-{CALLER}-00");
    post(&server, "submit", &unrecorded, &saga("g2", service_at)).await;
    until("the other saga", || service.lock().unwrap().len() == 3).await;
    // Nobody's trace: one is begun.
    post(&server, "submit", "", &saga("g3", service_at)).await;
    until("the third saga", || service.lock().unwrap().len() == 4).await;
    server.stop().await;

    let spans = spans(&collector);
    let heard: Vec<String> =
        service.lock().unwrap().iter().map(|call| call.traceparent.clone()).collect();
    // A call may be answered before the request that brought it: the order is by kind, then attempt.
    let of = |gid: &str| -> Vec<Json> {
        let its = spans.iter().filter(|span| attribute(span, "dtmd.gid") == gid);
        let mut its: Vec<Json> = its.cloned().collect();
        let rank = |span: &Json| match span["kind"].as_u64() {
            Some(2) => "0".to_owned(),
            _ => attribute(span, "dtmd.attempt").to_owned(),
        };
        its.sort_by_key(rank);
        its
    };
    let of_g1 = of("g1");
    let [request, first, second] = of_g1.as_slice() else { panic!("{of_g1:#?}") };
    assert_eq!(request["name"], "dtm submit");
    assert_eq!((&request["kind"], &request["parentSpanId"]), (&json!(2), &json!(CALLER)));
    assert_eq!(request["status"], json!({}));
    for (nth, attempt, outcome) in [(0, first, "unknown"), (1, second, "success")] {
        assert_eq!(attempt["name"], "saga action");
        assert_eq!((&attempt["kind"], &attempt["traceId"]), (&json!(3), &json!(TRACE_ID)));
        assert_eq!(attempt["parentSpanId"], request["spanId"]);
        assert_eq!(attribute(attempt, "dtmd.attempt"), (nth + 1).to_string());
        assert_eq!(attribute(attempt, "dtmd.outcome"), outcome);
        assert_eq!(attribute(attempt, "dtmd.branch_id"), "01");
        // The service goes on below the attempt itself.
        let own = attempt["spanId"].as_str().unwrap();
        assert_eq!(heard[nth], format!("00-{TRACE_ID}-{own}-01"));
    }
    assert_eq!(first["status"]["code"], 2);
    assert!(first["status"]["message"].as_str().unwrap().contains("500"), "{first}");
    assert_eq!(second["status"], json!({}));

    assert_eq!((of("g2").len(), &heard[2]), (0, &unrecorded));
    let of_g3 = of("g3");
    let [request, attempt] = of_g3.as_slice() else { panic!("{of_g3:#?}") };
    assert!(request.get("parentSpanId").is_none(), "{request}");
    assert_eq!(
        (&attempt["traceId"], &attempt["parentSpanId"]),
        (&request["traceId"], &request["spanId"])
    );
}

#[tokio::test]
async fn a_collector_that_is_not_there_harms_nothing() {
    let (service_at, service) = peer(|_| 200).await;
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let server = server(|config| config.tracing.endpoint = format!("http://{nobody}")).await;
    let mut waiting = saga("g1", service_at);
    waiting["wait_result"] = json!(true);
    post(&server, "submit", "", &waiting).await;
    assert_eq!(service.lock().unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn past_the_queues_bound_spans_are_dropped_and_counted() {
    let settings = Config::default().tracing.settings(&|name| {
        (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| "http://127.0.0.1:1".to_owned())
    });
    let spans = Spans::start(settings.unwrap().unwrap());
    // The task that sends does not run before this one waits.
    for _ in 0..QUEUE_MAX + 7 {
        let own = spans.begin(&TraceContext::default(), true).unwrap();
        let caller = TraceContext::default();
        let began = SystemTime::now();
        let (name, protocol, gid, is_ok) = ("submit", "http", None, true);
        spans.ended(EndedRequest { name, protocol, caller: &caller, own: &own, gid, began, is_ok });
    }
    assert_eq!(spans.dropped.load(Ordering::Relaxed), 7);
}

#[test]
fn contexts_are_read_and_written() {
    let text = format!("00-{TRACE_ID}-{CALLER}-01");
    assert_eq!(SpanContext::parse_sampled(&text).unwrap().to_header(), text);
    let (zero_trace, zero_span) = ("0".repeat(32), "0".repeat(16));
    for other in [
        format!("00-{TRACE_ID}-{CALLER}-00"),
        format!("00-{zero_trace}-{CALLER}-01"),
        format!("00-{TRACE_ID}-{zero_span}-01"),
        format!("ff-{TRACE_ID}-{CALLER}-01"),
        "00-x-y-01".to_owned(),
        String::new(),
    ] {
        assert_eq!(SpanContext::parse_sampled(&other), None, "{other}");
    }
    assert_ne!(new_span_id(), new_span_id());
}

/// `WorkflowCallbackGet` (spec 07 D43): DTM's rule only for those who ask for it.
#[tokio::test]
async fn a_workflow_without_input_is_called_back_as_the_operator_says() {
    for (by_get, method) in [(false, "POST /resume?"), (true, "GET /resume?")] {
        let (application_at, application) = peer(|_| 200).await;
        let server = server(|config| config.calls.workflow_callback_get = by_get).await;
        let workflow = json!({
            "gid": "w1", "trans_type": "workflow", "retry_interval_ms": 20,
            "custom_data": r#"{"name":"wf","data":null}"#,
            "query_prepared": format!("http://{application_at}/resume"),
        });
        post(&server, "prepareWorkflow", "", &workflow).await;
        until("the callback", || !application.lock().unwrap().is_empty()).await;
        let line = application.lock().unwrap()[0].line.clone();
        assert!(line.starts_with(method), "{line}");
        server.stop().await;
    }
}
