//! Workflows over gRPC: code of the application's, recorded step by step at the server, which calls
//! the application back when it has stopped in the middle (spec 04 §7).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::stage::{Expected, Stage};
use crate::bank::{Admission, Fault, FaultKind};
use crate::client::{DtmClient, FlowError};
use crate::grpc::messages::{
    BranchRequest, ProgressesReply, TransOptions, TransRequest, Transaction,
};
use crate::grpc::server::{GrpcCall, GrpcReply, GrpcService, serve};
use crate::grpc::status;

const NAME: &str = "demo-transfer";
const METHOD: &str = "/workflow.Workflow/Execute";
/// Steps that the application makes before it is gone, in the scenario where it goes.
const STEPS_BEFORE_THE_END: usize = 1;
/// When the server calls back: long after a run that goes on, soon after one that has stopped.
const CALL_BACK_LATE_MS: i64 = 8_000;
const CALL_BACK_SOON_MS: i64 = 400;

/// One step and what undoes it.
struct Step {
    action: String,
    undo: String,
    payload: Value,
}

/// The application: a transfer in three steps, written as a workflow.
struct Application {
    client: DtmClient,
    callback: String,
    steps: Vec<Step>,
    call_back_ms: i64,
    /// How often the server has called back.
    callbacks: AtomicUsize,
}

/// The application while it serves callbacks.
struct Serving {
    application: Arc<Application>,
    task: JoinHandle<()>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Application {
    async fn begin(stage: &Stage, call_back_ms: i64) -> anyhow::Result<Serving> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no free port")?;
        let mut steps = Vec::new();
        for (leg, path) in ["/out", "/in", "/in"].into_iter().enumerate() {
            let (action, payload) = stage.leg(leg, path)?;
            let (undo, _) = stage.leg(leg, &format!("{path}-undo"))?;
            steps.push(Step { action, undo, payload });
        }
        let application = Arc::new(Self {
            client: stage.client(),
            callback: format!("{}{METHOD}", listener.local_addr()?),
            steps,
            call_back_ms,
            callbacks: AtomicUsize::new(0),
        });
        let service = application.clone();
        let task = tokio::spawn(async move { match serve(listener, service).await {} });
        Ok(Serving { application, task })
    }

    /// Runs what is not recorded yet, `steps_max` steps at most.
    async fn run(&self, gid: &str, steps_max: usize) -> Result<(), FlowError> {
        let progress = self.client.prepare_workflow(&self.request(gid)).await?;
        if let Some(Transaction { status, rollback_reason, .. }) = &progress.transaction {
            match status.as_str() {
                "succeed" => return Ok(()),
                "failed" => return Err(failure(rollback_reason)),
                _ => {}
            }
        }
        let mut done = Vec::new();
        for (at, step) in self.steps.iter().enumerate().take(steps_max) {
            let branch_id = format!("{:02}", at + 1);
            match self.step(gid, &progress, &branch_id, "action", &step.action, step).await {
                Ok(()) => done.push((branch_id, step)),
                Err(FlowError::Failure { text, .. }) => {
                    self.undo(gid, &progress, &done).await?;
                    self.end(gid, "failed", &text).await?;
                    return Err(failure(&text));
                }
                Err(unclear) => return Err(unclear),
            }
        }
        if done.len() < self.steps.len() {
            return Ok(());
        }
        self.end(gid, "succeed", "").await
    }

    async fn undo(
        &self,
        gid: &str,
        progress: &ProgressesReply,
        done: &[(String, &Step)],
    ) -> Result<(), FlowError> {
        for (branch_id, step) in done.iter().rev() {
            self.step(gid, progress, branch_id, "rollback", &step.undo, step).await?;
        }
        Ok(())
    }

    /// Makes a step and records what came of it, unless that is recorded already.
    async fn step(
        &self,
        gid: &str,
        progress: &ProgressesReply,
        branch_id: &str,
        op: &str,
        url: &str,
        step: &Step,
    ) -> Result<(), FlowError> {
        let known =
            progress.progresses.iter().find(|row| row.branch_id == branch_id && row.op == op);
        if let Some(row) = known {
            let text = String::from_utf8_lossy(&row.data);
            return if row.status == "failed" { Err(failure(&text)) } else { Ok(()) };
        }
        let names = ("workflow", gid, branch_id, op);
        let called = self.client.call_branch(url, names, Some(&step.payload)).await;
        let (status, payload) = match &called {
            Ok(()) => ("succeed", Vec::new()),
            Err(FlowError::Failure { text, .. }) => ("failed", text.clone().into_bytes()),
            Err(_) => return called,
        };
        let data = [("op", op), ("status", status)];
        let record = BranchRequest {
            gid: gid.to_owned(),
            trans_type: "workflow".to_owned(),
            branch_id: branch_id.to_owned(),
            data: data.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            payload,
        };
        self.client.record_step(&record).await?;
        called
    }

    async fn end(&self, gid: &str, status: &str, reason: &str) -> Result<(), FlowError> {
        let extra = [("status", status), ("rollback_reason", reason)];
        let extra = extra.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.client.end_workflow(&TransRequest { extra: extra.into(), ..self.request(gid) }).await
    }

    fn request(&self, gid: &str) -> TransRequest {
        TransRequest {
            gid: gid.to_owned(),
            trans_type: "workflow".to_owned(),
            query_prepared: self.callback.clone(),
            custom_data: json!({ "name": NAME, "data": null }).to_string(),
            trans_options: Some(TransOptions {
                retry_interval_ms: self.call_back_ms,
                ..TransOptions::default()
            }),
            ..TransRequest::default()
        }
    }
}

fn failure(text: &str) -> FlowError {
    FlowError::Failure { what: "the workflow".to_owned(), text: text.to_owned() }
}

impl GrpcService for Application {
    /// The server asks for the rest of a workflow.
    async fn call(&self, call: GrpcCall) -> GrpcReply {
        let read = |name: &str| {
            let value = call.metadata.get(name).map(HeaderValue::to_str);
            value.and_then(Result::ok).unwrap_or_default()
        };
        if call.path != METHOD || read("dtm-op") != NAME {
            let text = format!("no workflow {} at {}", read("dtm-op"), call.path);
            return GrpcReply::Status(status::UNIMPLEMENTED, text);
        }
        self.callbacks.fetch_add(1, Ordering::Relaxed);
        match self.run(read("dtm-gid"), self.steps.len()).await {
            Ok(()) => GrpcReply::Message(Bytes::new()),
            Err(FlowError::Failure { text, .. }) => GrpcReply::Status(status::ABORTED, text),
            Err(unclear) => GrpcReply::Status(status::UNKNOWN, unclear.to_string()),
        }
    }
}

pub(super) async fn good(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let serving = Application::begin(stage, CALL_BACK_LATE_MS).await?;
    let application = &serving.application;
    stage.during(application.run(gid, application.steps.len())).await?;
    Ok(Expected::moved().with("01", "action", Admission::Run).with("03", "action", Admission::Run))
}

/// Unlike a saga's, a workflow's failed step is not undone: there is nothing to undo.
pub(super) async fn failure_of_a_step(
    stage: &mut Stage,
    gid: &str,
    fail_at: usize,
) -> anyhow::Result<Expected> {
    let branch_id = format!("{fail_at:02}");
    let fault = Fault::new(FaultKind::Fail).gid(gid).op("action").branch_id(&branch_id);
    stage.inject(fail_at - 1, fault).await?;
    let serving = Application::begin(stage, CALL_BACK_LATE_MS).await?;
    let application = &serving.application;
    let ended = stage.during(application.run(gid, application.steps.len())).await;
    ensure!(matches!(ended, Err(FlowError::Failure { .. })), "not failed: {ended:?}");
    let expected = Expected::unmoved();
    Ok(if fail_at > 1 { expected.with("01", "rollback", Admission::Run) } else { expected })
}

/// The application stops after its first step and the server is killed: once it is back it has the
/// application called, which makes the steps that are not recorded.
pub(super) async fn kill(stage: &mut Stage, gid: &str) -> anyhow::Result<Expected> {
    let serving = Application::begin(stage, CALL_BACK_SOON_MS).await?;
    let application = &serving.application;
    stage.during(application.run(gid, STEPS_BEFORE_THE_END)).await?;
    stage.kill_server().await?;
    stage.note("the application has stopped after its first step").await;
    stage.restart_server().await?;
    let client = stage.client();
    stage.during(client.wait_final(gid, std::time::Duration::from_secs(15))).await?;
    let callbacks = application.callbacks.load(Ordering::Relaxed);
    ensure!(callbacks > 0, "the workflow ended without a callback");
    stage.note("the server had the application called, which made the rest").await;
    Ok(Expected::moved().with("01", "action", Admission::Run).with("03", "action", Admission::Run))
}
