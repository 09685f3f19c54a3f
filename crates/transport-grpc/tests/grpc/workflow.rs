//! Workflows: progress, callbacks, ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dtmd_engine::EngineOptions;
use dtmd_protocol::Policy;
use dtmd_transport_grpc::inbound::GrpcOptions;
use dtmd_transport_grpc::proto::dtmgimp::DtmRequest;
use dtmd_transport_grpc::proto::dtmgimp::dtm_client::DtmClient;
use dtmd_transport_grpc::proto::workflow::WorkflowData;
use dtmd_transport_grpc::proto::workflow::workflow_server::{Workflow, WorkflowServer};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};

use crate::service::{Service, at_once};
use crate::stage::{Stage, extra, payload, registration};

fn workflow(gid: &str, callback: &str, data: &str) -> DtmRequest {
    let name = "wf-1";
    DtmRequest {
        gid: gid.into(),
        trans_type: "workflow".into(),
        query_prepared: callback.into(),
        customed_data: json!({"name": name, "data": data}).to_string(),
        ..DtmRequest::default()
    }
}

fn end(gid: &str, pairs: &[(&str, &str)]) -> DtmRequest {
    DtmRequest {
        gid: gid.into(),
        trans_type: "workflow".into(),
        req_extra: extra(pairs),
        ..DtmRequest::default()
    }
}

#[tokio::test]
async fn progress_is_kept_and_the_result_told() {
    let mut stage = Stage::start().await;
    let request = workflow("w1", "127.0.0.1:1/workflow.Workflow/Execute", "aW4=");
    let fresh = stage.dtm.prepare_workflow(request.clone()).await.unwrap().into_inner();
    assert_eq!(fresh.transaction.unwrap().status, "prepared");
    assert!(fresh.progresses.is_empty());

    for (branch_id, status) in [("01", "succeed"), ("02", "failed")] {
        let data = [("op", "action"), ("status", status)];
        let row = registration("workflow", "w1", branch_id, &data);
        stage.dtm.register_branch(row).await.unwrap();
    }
    let resumed = stage.dtm.prepare_workflow(request.clone()).await.unwrap().into_inner();
    let seen: Vec<_> = resumed
        .progresses
        .iter()
        .map(|row| (row.branch_id.as_str(), row.op.as_str(), row.status.as_str()))
        .collect();
    assert_eq!(seen, [("01", "action", "succeed"), ("02", "action", "failed")]);
    assert_eq!(resumed.progresses[0].bin_data, payload(7));

    // DTM leaves the result out over gRPC (spec 07 D10).
    let done = [("status", "succeed"), ("result", "b3V0")];
    stage.dtm.submit(end("w1", &done)).await.unwrap();
    stage.dtm.submit(end("w1", &done)).await.unwrap();
    let ended = stage.dtm.prepare_workflow(request).await.unwrap().into_inner();
    let ended = ended.transaction.unwrap();
    assert_eq!((ended.status.as_str(), ended.result.as_str()), ("succeed", "b3V0"));
    // What the end did not say again is still there (spec 07 D35).
    let global = stage.global("w1").await;
    assert!(!global.query_prepared.is_empty() && !global.custom_data.is_empty());

    let other = [("status", "failed"), ("rollback_reason", "no")];
    let status = stage.dtm.submit(end("w1", &other)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status:?}");
    let status = stage.dtm.submit(end("nobody", &other)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "storage: NotFound"));
}

#[tokio::test]
async fn results_and_reasons_may_be_large() {
    let mut stage = Stage::start().await;
    let result = "QUFB".repeat(50_000);
    let reason = "错误 ".repeat(500);
    let ends = [
        ("w1", vec![("status", "succeed"), ("result", result.as_str())]),
        ("w2", vec![("status", "failed"), ("rollback_reason", reason.as_str())]),
    ];
    for (gid, pairs) in ends {
        let request = workflow(gid, "127.0.0.1:1/workflow.Workflow/Execute", "");
        stage.dtm.prepare_workflow(request.clone()).await.unwrap();
        stage.dtm.submit(end(gid, &pairs)).await.unwrap();
        let ended = stage.dtm.prepare_workflow(request).await.unwrap().into_inner();
        let ended = ended.transaction.unwrap();
        assert!(ended.result == result || ended.rollback_reason == reason, "{gid}");
    }
}

/// Gid, workflow's name, input.
type Callback = (String, String, Vec<u8>);

/// An application that resumes its workflow when it is called back: fails once, then ends it.
struct Application {
    dtm: DtmClient<Channel>,
    calls: Arc<Mutex<Vec<Callback>>>,
}

#[tonic::async_trait]
impl Workflow for Application {
    async fn execute(&self, request: Request<WorkflowData>) -> Result<Response<()>, Status> {
        let text = |name| request.metadata().get(name).unwrap().to_str().unwrap().to_owned();
        let (gid, name) = (text("dtm-gid"), text("dtm-op"));
        let first = {
            let mut calls = self.calls.lock().unwrap();
            calls.push((gid.clone(), name, request.get_ref().data.to_vec()));
            calls.len() == 1
        };
        if first {
            return Err(Status::unavailable("a service that the workflow needs is down"));
        }
        let done = [("status", "succeed"), ("result", "cmVzdW1lZA==")];
        self.dtm.clone().submit(end(&gid, &done)).await?;
        Ok(Response::new(()))
    }
}

#[tokio::test]
async fn a_workflow_that_was_left_is_called_back_over_grpc() {
    let stage = Stage::retrying(20).await;
    let calls = Arc::default();
    let application = Application { dtm: stage.dtm.clone(), calls: Arc::clone(&calls) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = Server::builder().add_service(WorkflowServer::new(application));
    tokio::spawn(server.serve_with_incoming(incoming));

    let callback = format!("{address}/workflow.Workflow/Execute");
    stage.dtm.clone().prepare_workflow(workflow("w1", &callback, "aW5wdXQ=")).await.unwrap();
    let global = stage.becomes("w1", "succeed").await;
    assert_eq!(&*global.result, "cmVzdW1lZA==");
    let calls = calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 2);
    assert!(calls.iter().all(|call| *call == ("w1".into(), "wf-1".into(), b"input".to_vec())));
}

#[tokio::test]
async fn a_workflow_that_was_left_is_called_back_over_http_by_post() {
    let stage = Stage::retrying(10).await;
    let service = Service::http(at_once(|_| (425, "ONGOING"))).await;
    let request = json!({"gid": "w1", "trans_type": "workflow", "protocol": "http",
        "query_prepared": service.url("resume"),
        "custom_data": json!({"name": "wf-1", "data": ""}).to_string()});
    assert_eq!(stage.post("prepareWorkflow", &request).await.0, 200);
    let heard = service.has_heard(2).await;
    assert_eq!(heard[1].method, "POST", "an empty body is no reason for a GET (spec 07 D43)");
    assert_eq!(heard[1].path, "/resume?branch_id=00&gid=w1&op=wf-1&trans_type=workflow");
    let done = json!({"gid": "w1", "trans_type": "workflow",
        "req_extra": {"status": "succeed", "result": "b2s="}});
    assert_eq!(stage.post("submit", &done).await.0, 200);
    // Over both transports it is one workflow.
    let request = workflow("w1", &service.url("resume"), "");
    let ended = stage.dtm.clone().prepare_workflow(request).await.unwrap().into_inner();
    assert_eq!(ended.transaction.unwrap().result, "b2s=");
}

/// Spec 07 D09: progress says that the application is at work.
#[tokio::test]
async fn a_workflow_that_makes_progress_is_not_called_back() {
    let retry_interval = Duration::from_secs(3600);
    let policy = Policy { retry_interval, ..Policy::default() };
    let options = EngineOptions { policy, ..EngineOptions::default() };
    let mut stage = Stage::with(options, GrpcOptions::default()).await;
    let service = Service::grpc(at_once(|_| (0, ""))).await;
    stage.dtm.prepare_workflow(workflow("w1", &service.method("Execute"), "")).await.unwrap();
    let before = stage.global("w1").await.query.next_at;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let row = registration("workflow", "w1", "01", &[("op", "action"), ("status", "succeed")]);
    stage.dtm.register_branch(row).await.unwrap();
    assert!(stage.global("w1").await.query.next_at > before, "the callback is put off");
    assert!(service.heard().is_empty());
}
