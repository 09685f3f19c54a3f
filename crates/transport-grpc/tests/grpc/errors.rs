//! What callers are told (spec 03 §1.3).

use dtmd_transport_grpc::proto::admin::{GidRequest, ListRequest, QueryRequest};
use dtmd_transport_grpc::proto::dtmgimp::{DtmRequest, DtmTopicRequest};
use tonic::{Code, Status};

use crate::service::{Service, at_once};
use crate::stage::{Stage, registration, request};

fn said(status: &Status, code: Code, text: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{text}: {}", status.message());
}

#[tokio::test]
async fn requests_that_cannot_be_understood_are_internal_and_the_server_lives() {
    let mut stage = Stage::start().await;
    let fits = || request("saga", "g", &[("127.0.0.1:1/S/M", "")]);
    let table: Vec<(DtmRequest, &str)> = vec![
        (DtmRequest { gid: "g".into(), ..DtmRequest::default() }, "trans_type"),
        (DtmRequest { trans_type: "sage".into(), ..fits() }, "'sage'"),
        (DtmRequest { gid: String::new(), ..fits() }, "gid"),
        (DtmRequest { gid: "a\nb".into(), ..fits() }, "gid"),
        (DtmRequest { steps: "{".into(), ..fits() }, "Steps"),
        (DtmRequest { steps: "[1]".into(), ..fits() }, "Steps"),
        (DtmRequest { bin_payloads: Vec::new(), ..fits() }, "1 steps but only 0 payloads"),
        (DtmRequest { customed_data: "{".into(), ..fits() }, "custom_data"),
        (request("saga", "g", &[("127.0.0.1:1", "")]), "Service/Method"),
        (request("saga", "g", &[("nacos://a/S/M", "")]), "nacos"),
        (request("msg", "g", &[("topic://nobody", "")]), "topic not found"),
        (request("workflow", "g", &[]), "req_extra.status"),
    ];
    for (message, text) in table {
        said(&stage.dtm.submit(message).await.unwrap_err(), Code::Internal, text);
    }
    let negative = {
        let mut message = fits();
        message.trans_options.as_mut().unwrap().retry_limit = -1;
        message
    };
    said(&stage.dtm.submit(negative).await.unwrap_err(), Code::Internal, "retry_limit");
    let workflow = request("saga", "g", &[]);
    let status = stage.dtm.prepare_workflow(workflow).await.unwrap_err();
    said(&status, Code::Internal, "'saga' is not workflow");
    assert!(stage.dtm.new_gid(()).await.unwrap().into_inner().gid.len() == 22);
}

#[tokio::test]
async fn what_the_protocol_refuses_is_aborted() {
    let mut stage = Stage::start().await;
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    let saga = request("saga", "s1", &[(&service.method("Out"), "")]);
    stage.dtm.submit(saga.clone()).await.unwrap();
    let status = stage.dtm.prepare(saga.clone()).await.unwrap_err();
    said(&status, Code::Aborted, "current status 'succeed', cannot prepare. FAILURE");
    let status = stage.dtm.submit(saga.clone()).await.unwrap_err();
    said(&status, Code::Aborted, "current status 'succeed', cannot sumbmit. FAILURE");
    let status = stage.dtm.abort(saga).await.unwrap_err();
    said(&status, Code::Aborted, "cannot abort. FAILURE");

    let unknown =
        DtmRequest { gid: "nobody".into(), trans_type: "tcc".into(), ..request("", "", &[]) };
    let status = stage.dtm.abort(unknown).await.unwrap_err();
    said(&status, Code::Internal, "no TransGlobal with gid: nobody found");
    let row = |trans_type| registration(trans_type, "nobody", "01", &[("url", "a:1/S/M")]);
    let status = stage.dtm.register_branch(row("xa")).await.unwrap_err();
    said(&status, Code::Aborted, "no trans with gid: nobody status: prepared found FAILURE");
    let status = stage.dtm.register_branch(row("saga")).await.unwrap_err();
    said(&status, Code::Unknown, "unknow trans type: saga");
}

#[tokio::test]
async fn a_caller_who_waits_is_told_what_is_not_decided() {
    let mut stage = Stage::start().await;
    let service = Service::grpc(at_once(|heard| match heard.name() {
        "Later" => (9, "later"),
        _ => (13, "broken"),
    }))
    .await;
    let table = [("Later", Code::FailedPrecondition), ("Broken", Code::Unknown)];
    for (name, code) in table {
        let tcc = |gid: &str| DtmRequest { trans_type: "tcc".into(), ..request("tcc", gid, &[]) };
        stage.dtm.prepare(tcc(name)).await.unwrap();
        let url = service.method(name);
        let row = registration("tcc", name, "01", &[("confirm", &url), ("cancel", &url)]);
        stage.dtm.register_branch(row).await.unwrap();
        let status = stage.dtm.submit(tcc(name)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(stage.global(name).await.status.as_str(), "submitted");
    }
}

#[tokio::test]
async fn topics_tell_in_dtms_words() {
    let mut stage = Stage::start().await;
    let topic = |topic: &str, url: &str| DtmTopicRequest {
        topic: topic.into(),
        url: url.into(),
        remark: String::new(),
    };
    let status = stage.dtm.subscribe(topic("", "u")).await.unwrap_err();
    said(&status, Code::Unknown, "empty topic");
    let status = stage.dtm.subscribe(topic("t", "")).await.unwrap_err();
    said(&status, Code::Unknown, "empty url");
    let status = stage.dtm.unsubscribe(topic("t", "u")).await.unwrap_err();
    said(&status, Code::Unknown, "no such a topic");
    let status = stage.dtm.delete_topic(topic("t", "")).await.unwrap_err();
    said(&status, Code::Unknown, "storage: NotFound");
}

#[tokio::test]
async fn operators_look_and_intervene() {
    let service = Service::grpc(at_once(|heard| match heard.nth {
        0 => (14, "down"),
        _ => (0, ""),
    }));
    let (mut stage, service) = (Stage::retrying(3_600_000).await, service.await);
    let mut saga = request("saga", "s1", &[(&service.method("Out"), "")]);
    saga.trans_options = None;
    stage.dtm.submit(saga).await.unwrap();
    service.has_heard(1).await;
    let gid = |gid: &str| GidRequest { gid: gid.into() };
    // The first call's outcome is stored at its own time; the retry is due only after that.
    while stage.global("s1").await.branches[1].retry.attempts == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    stage.admin.retry_now(gid("s1")).await.unwrap();
    stage.becomes("s1", "succeed").await;

    let found = stage.admin.query(QueryRequest { gid: "s1".into() }).await.unwrap().into_inner();
    assert_eq!((found.status.as_str(), found.protocol.as_str()), ("succeed", "grpc"));
    assert_eq!((found.branches.len(), found.branches[1].op.as_str()), (2, "action"));
    assert!(found.created_ms > 1_700_000_000_000 && found.finished_ms >= found.created_ms);
    let status = stage.admin.query(QueryRequest { gid: "x".into() }).await.unwrap_err();
    said(&status, Code::NotFound, "x");

    let status = stage.admin.force_stop(gid("s1")).await.unwrap_err();
    said(&status, Code::Aborted, "force stop error. status: succeed. error: FAILURE");
    said(&stage.admin.force_stop(gid("x")).await.unwrap_err(), Code::Internal, "gid: x found");
    stage.dtm.prepare(request("tcc", "t1", &[])).await.unwrap();
    stage.admin.force_stop(gid("t1")).await.unwrap();
    assert_eq!(stage.global("t1").await.status.as_str(), "failed");

    let all = ListRequest { limit: 1, ..ListRequest::default() };
    let page = stage.admin.list(all.clone()).await.unwrap().into_inner();
    assert_eq!((page.transactions.len(), page.next_position.is_empty()), (1, false));
    let rest = ListRequest { position: page.next_position, ..all };
    let rest = stage.admin.list(rest).await.unwrap().into_inner();
    let mut gids = [page.transactions[0].gid.clone(), rest.transactions[0].gid.clone()];
    gids.sort();
    assert_eq!(gids, ["s1", "t1"]);
    let failed = ListRequest { status: "failed".into(), ..ListRequest::default() };
    let failed = stage.admin.list(failed).await.unwrap().into_inner();
    assert_eq!(failed.transactions[0].gid, "t1");
    let wrong = ListRequest { status: "done".into(), ..ListRequest::default() };
    said(&stage.admin.list(wrong).await.unwrap_err(), Code::Internal, "'done' is not known");
}
