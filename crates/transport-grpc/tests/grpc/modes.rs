//! Every mode over gRPC, in and out, and mixed with HTTP.

use std::sync::Arc;
use std::time::Duration;

use dtmd_transport_grpc::inbound::CONCURRENT;
use dtmd_transport_grpc::proto::dtmgimp::{DtmRequest, DtmTopicRequest, DtmTransOptions};
use serde_json::json;
use tokio::sync::Barrier;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};

use crate::service::{Service, at_once};
use crate::stage::{Stage, payload, registration, request, rows, waiting};

async fn willing() -> Service {
    Service::grpc(at_once(|_| (0, ""))).await
}

#[tokio::test]
async fn a_saga_succeeds() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let (out, out_undo) = (service.method("Out"), service.method("OutUndo"));
    let (into, in_undo) = (service.method("In"), service.method("InUndo"));
    let mut saga = request("saga", "s1", &[(&out, &out_undo), (&into, &in_undo)]);
    saga.trans_options.as_mut().unwrap().branch_headers.insert("Tenant".into(), "blue".into());
    stage.dtm.submit(saga).await.unwrap();
    let global = stage.global("s1").await;
    assert_eq!(global.status.as_str(), "succeed");
    assert_eq!(global.protocol.as_str(), "grpc");
    assert_eq!(rows(&global), ["prepared", "succeed", "prepared", "succeed"]);
    let heard = service.heard();
    assert_eq!(service.names(), ["Out", "In"]);
    for (call, nth) in heard.iter().zip(1..) {
        assert_eq!(call.message, payload(nth));
        assert_eq!(call.header("dtm-gid"), "s1");
        assert_eq!(call.header("dtm-trans_type"), "saga");
        assert_eq!(call.header("dtm-branch_id"), format!("0{nth}"));
        assert_eq!(call.header("dtm-op"), "action");
        assert_eq!(call.header("tenant"), "blue");
    }
}

/// The caller's trace goes with the transaction to every branch, over both protocols.
#[tokio::test]
async fn branches_join_the_callers_trace() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (mut stage, service) = (Stage::start().await, willing().await);
    let http = Service::http(at_once(|_| (200, "{}"))).await;
    let traced = |message: DtmRequest, parent: &'static str| {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("traceparent", MetadataValue::from_static(parent));
        metadata.insert("tracestate", MetadataValue::from_static("vendor=1"));
        request
    };
    let steps = [(&*service.method("Out"), ""), (&*http.url("/in"), "")];
    stage.dtm.submit(traced(request("saga", "s1", &steps), TRACE)).await.unwrap();
    for call in [&service.heard()[0], &http.heard()[0]] {
        assert_eq!(call.header("traceparent"), TRACE);
        assert_eq!(call.header("tracestate"), "vendor=1");
    }

    // A message's two requests: the first one's trace counts, and it outlives both.
    let mut message = request("msg", "m1", &[(&service.method("Later"), "")]);
    message.query_prepared = service.method("Query");
    stage.dtm.prepare(traced(message.clone(), TRACE)).await.unwrap();
    stage.dtm.submit(message).await.unwrap();
    assert_eq!(service.heard()[1].header("traceparent"), TRACE);
    assert_eq!(stage.global("m1").await.options.branch_headers["traceparent"], TRACE);

    // What is no trace is not stored.
    stage.dtm.submit(traced(request("saga", "s2", &steps[..1]), "00-nonsense")).await.unwrap();
    assert_eq!(service.heard()[2].header("traceparent"), "");
    assert_eq!(service.heard()[2].header("tracestate"), "");
}

#[tokio::test]
async fn a_saga_is_compensated_and_its_caller_told_why() {
    let service = Service::grpc(at_once(|heard| match heard.name() {
        "In" => (10, "no such account"),
        _ => (0, ""),
    }));
    let (mut stage, service) = (Stage::start().await, service.await);
    let (out, out_undo) = (service.method("Out"), service.method("OutUndo"));
    let (into, in_undo) = (service.method("In"), service.method("InUndo"));
    let saga = request("saga", "s1", &[(&out, &out_undo), (&into, &in_undo)]);
    let status = stage.dtm.submit(saga).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("no such account"), "{}", status.message());
    assert!(status.message().ends_with("FAILURE"), "{}", status.message());
    assert_eq!(rows(&stage.global("s1").await), ["succeed", "succeed", "succeed", "failed"]);
    assert_eq!(service.names(), ["Out", "In", "InUndo", "OutUndo"]);
    assert_eq!(service.heard()[3].message, payload(1));
    assert_eq!(service.heard()[3].header("dtm-op"), "compensate");
}

#[tokio::test]
async fn a_saga_waits_for_what_is_ongoing() {
    let service = Service::grpc(at_once(|heard| match heard.nth {
        0 => (9, "later"),
        1 => (425, "later"),
        2 => (14, "not up yet"),
        _ => (0, ""),
    }));
    let (mut stage, service) = (Stage::retrying(5).await, service.await);
    let mut saga = request("saga", "s1", &[(&service.method("Out"), "")]);
    saga.trans_options = None;
    stage.dtm.submit(saga).await.unwrap();
    stage.becomes("s1", "succeed").await;
    assert_eq!(service.heard().len(), 4);
}

#[tokio::test]
async fn a_concurrent_saga_is_ordered_by_its_custom_data() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let urls = ["A", "B", "C"].map(|name| service.method(name));
    let mut saga = request("saga", "s1", &[(&urls[0], ""), (&urls[1], ""), (&urls[2], "")]);
    saga.customed_data = r#"{"concurrent":true,"orders":{"0":[2]}}"#.to_owned();
    stage.dtm.submit(saga).await.unwrap();
    let names = service.names();
    let at = |name| names.iter().position(|called| called == name).unwrap();
    assert!(at("C") < at("A"), "{names:?}");
}

#[tokio::test]
async fn a_tcc_is_confirmed_or_cancelled() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let prepare = |gid: &str| DtmRequest {
        gid: gid.into(),
        trans_type: "tcc".into(),
        trans_options: Some(waiting()),
        ..DtmRequest::default()
    };
    let (confirm, cancel) = (service.method("Confirm"), service.method("Cancel"));
    for (gid, branch_id) in [("t1", "01"), ("t1", "0101"), ("t2", "01")] {
        stage.dtm.prepare(prepare(gid)).await.unwrap();
        let urls = [("confirm", confirm.as_str()), ("cancel", cancel.as_str())];
        let row = registration("tcc", gid, branch_id, &urls);
        stage.dtm.register_branch(row).await.unwrap();
    }
    stage.dtm.submit(prepare("t1")).await.unwrap();
    assert_eq!(stage.global("t1").await.status.as_str(), "succeed");
    assert_eq!(service.names(), ["Confirm", "Confirm"]);
    assert_eq!(service.heard()[0].header("dtm-branch_id"), "0101", "the last one first");
    assert_eq!(service.heard()[0].message, payload(7));

    let mut abort = prepare("t2");
    abort.rollback_reason = "changed my mind".into();
    stage.dtm.abort(abort).await.unwrap();
    let global = stage.becomes("t2", "failed").await;
    assert_eq!(&*global.rollback_reason, "changed my mind");
    assert_eq!(service.names()[2..], ["Cancel"]);
    let late = registration("tcc", "t2", "02", &[("confirm", &confirm), ("cancel", &cancel)]);
    let status = stage.dtm.register_branch(late).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
}

#[tokio::test]
async fn an_xa_is_committed_with_an_empty_message() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let xa = DtmRequest {
        gid: "x1".into(),
        trans_type: "xa".into(),
        trans_options: Some(waiting()),
        ..DtmRequest::default()
    };
    stage.dtm.prepare(xa.clone()).await.unwrap();
    let mut row = registration("xa", "x1", "01", &[("url", &service.method("Phase2"))]);
    row.busi_payload.clear();
    stage.dtm.register_branch(row).await.unwrap();
    stage.dtm.submit(xa).await.unwrap();
    let heard = &service.heard()[0];
    assert_eq!((heard.header("dtm-op"), heard.message.len()), ("commit", 0));
    assert_eq!(rows(&stage.global("x1").await), ["prepared", "succeed"]);
}

#[tokio::test]
async fn a_message_is_delivered_also_when_its_sender_is_lost() {
    let service = Service::grpc(at_once(|heard| match (heard.name(), heard.header("dtm-gid")) {
        ("Ask", "m3") => (10, "rolled back"),
        _ => (0, ""),
    }));
    let (mut stage, service) = (Stage::retrying(5).await, service.await);
    let mut msg = request("msg", "m1", &[(&service.method("In"), "")]);
    msg.query_prepared = service.method("Ask");
    stage.dtm.prepare(msg.clone()).await.unwrap();
    stage.dtm.submit(msg.clone()).await.unwrap();
    assert_eq!(service.names(), ["In"]);

    for (gid, end) in [("m2", "succeed"), ("m3", "failed")] {
        msg.gid = gid.into();
        msg.trans_options = Some(DtmTransOptions { timeout_to_fail_ms: 1, ..Default::default() });
        stage.dtm.prepare(msg.clone()).await.unwrap();
        stage.becomes(gid, end).await;
    }
    let asked: Vec<_> = service.heard().into_iter().filter(|call| call.name() == "Ask").collect();
    assert_eq!((asked[0].header("dtm-branch_id"), asked[0].header("dtm-op")), ("00", "msg"));
    assert!(asked[0].message.is_empty());
}

/// The services answer only when both are being called.
#[tokio::test]
async fn a_concurrent_message_calls_its_branches_at_once() {
    let both = Arc::new(Barrier::new(2));
    let service = Service::grpc(move |_| {
        let both = both.clone();
        Box::pin(async move {
            both.wait().await;
            (0, String::new())
        })
    });
    let (mut stage, service) = (Stage::start().await, service.await);
    let urls = ["A", "B"].map(|name| service.method(name));
    let steps = [(urls[0].as_str(), ""), (urls[1].as_str(), "")];
    let mut by_metadata = Request::new(request("msg", "m1", &steps));
    by_metadata.metadata_mut().insert(CONCURRENT, MetadataValue::from_static("true"));
    stage.dtm.submit(by_metadata).await.unwrap();
    let mut by_field = request("msg", "m2", &steps);
    by_field.trans_options.as_mut().unwrap().concurrent = true;
    stage.dtm.submit(by_field).await.unwrap();
    assert_eq!(service.heard().len(), 4);
}

#[tokio::test]
async fn a_topic_fans_out() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let subscriber = |name: &str| DtmTopicRequest {
        topic: "paid".into(),
        url: service.method(name),
        remark: "why".into(),
    };
    stage.dtm.subscribe(subscriber("A")).await.unwrap();
    stage.dtm.subscribe(subscriber("B")).await.unwrap();
    let status = stage.dtm.subscribe(subscriber("A")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "this url exists"));
    stage.dtm.submit(request("msg", "m1", &[("topic://paid", "")])).await.unwrap();
    assert_eq!(service.names(), ["A", "B"]);
    assert_eq!(service.heard()[1].header("dtm-branch_id"), "01-02");
    stage.dtm.unsubscribe(subscriber("A")).await.unwrap();
    stage.dtm.delete_topic(subscriber("")).await.unwrap();
    let status = stage.dtm.submit(request("msg", "m2", &[("topic://paid", "")])).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("topic not found"), "{status:?}");
}

#[tokio::test]
async fn a_grpc_transaction_has_http_branches() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let http = Service::http(at_once(|heard| match heard.name() {
        "in" => (409, "no"),
        _ => (200, "{}"),
    }))
    .await;
    let (out, into, in_undo) = (service.method("Out"), http.url("in"), http.url("in-undo"));
    let saga = request("saga", "s1", &[(&out, ""), (&into, &in_undo)]);
    assert_eq!(stage.dtm.submit(saga).await.unwrap_err().code(), Code::Aborted);
    assert_eq!((service.names(), http.names().len()), (vec!["Out".to_owned()], 2));
    let heard = &http.heard()[1];
    assert_eq!(heard.path, "/in-undo?branch_id=02&gid=s1&op=compensate&trans_type=saga");
    assert_eq!((heard.method.as_str(), &heard.message[..]), ("POST", &payload(2)[..]));
}

#[tokio::test]
async fn an_http_transaction_has_grpc_branches() {
    let (stage, service) = (Stage::start().await, willing().await);
    let http = Service::http(at_once(|_| (200, "{}"))).await;
    let saga = json!({"gid": "s1", "trans_type": "saga", "wait_result": true,
        "steps": [{"action": http.url("out")},
                  {"action": format!("grpc://{}", service.method("In"))}],
        "payloads": ["{}", "raw"]});
    assert_eq!(stage.post("submit", &saga).await.0, 200);
    assert_eq!((http.names(), service.names()), (vec!["out".into()], vec!["In".into()]));
    assert_eq!(service.heard()[0].message, "raw");

    // A forgotten http:// is not taken for gRPC.
    let saga = json!({"gid": "s2", "trans_type": "saga",
        "steps": [{"action": service.method("In")}], "payloads": [""]});
    let (status, body) = stage.post("submit", &saga).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.to_string().contains("grpc://"), "{body}");
}

/// A service reached over gRPC registers its branch with a transaction that began over HTTP.
#[tokio::test]
async fn a_branch_is_registered_over_grpc_with_an_http_transaction() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let tcc = json!({"gid": "t1", "trans_type": "tcc", "wait_result": true});
    assert_eq!(stage.post("prepare", &tcc).await.0, 200);
    let (confirm, cancel) = (service.method("Confirm"), service.method("Cancel"));
    let row = registration("tcc", "t1", "01", &[("confirm", &confirm), ("cancel", &cancel)]);
    stage.dtm.register_branch(row).await.unwrap();
    assert_eq!(stage.post("submit", &tcc).await.0, 200);
    assert_eq!(service.names(), ["Confirm"]);
    assert_eq!(stage.global("t1").await.protocol.as_str(), "http");
}

/// DTM's deadline of a call is the transaction's, else the server's.
#[tokio::test]
async fn the_deadline_is_the_transactions() {
    let (mut stage, service) = (Stage::start().await, willing().await);
    let url = service.method("Out");
    stage.dtm.submit(request("saga", "s1", &[(&url, "")])).await.unwrap();
    let mut saga = request("saga", "s2", &[(&url, "")]);
    saga.trans_options.as_mut().unwrap().request_timeout = 7;
    stage.dtm.submit(saga).await.unwrap();
    let deadlines: Vec<_> =
        service.heard().iter().map(|call| call.header("grpc-timeout").to_owned()).collect();
    assert_eq!(deadlines, ["3000m", "7000m"]);
    assert_eq!(Duration::from_secs(3), dtmd_protocol::Policy::default().request_timeout);
}
