//! DTM's service: what applications ask (spec 03 §1).

use dtmd_engine::Engine;
use dtmd_protocol::{CallProtocol, NewGlobal, TransType};
use dtmd_transport::inbound::{Principal, RequestSpan, SpanHook, TraceContext};
use dtmd_wire::{RequestError, TransRequest};
use tonic::{Request, Response, Status};

use super::CONCURRENT;
use super::convert::{progresses, register_request, trans_request, with_payload};
use super::guard::guarded;
use super::problem::Problem;
use crate::proto::dtmgimp::{
    DtmBranchRequest, DtmGidReply, DtmProgressesReply, DtmRequest, DtmTopicRequest, dtm_server,
};

pub(super) struct Dtm {
    engine: Engine,
    spans: SpanHook,
}

impl Dtm {
    pub(super) fn new(engine: Engine, spans: SpanHook) -> Self {
        Self { engine, spans }
    }

    /// Begins the span of a request, in the trace that its metadata say.
    fn span<T>(&self, name: &'static str, is_root: bool, request: &Request<T>) -> RequestSpan {
        let caller = TraceContext::of(request.metadata().as_ref());
        self.spans.begin("grpc", name, is_root, caller)
    }

    /// Returns what is to be accepted, in its caller's trace.
    fn accepted(
        &self,
        request: TransRequest<'_>,
        span: &RequestSpan,
    ) -> Result<NewGlobal, RequestError> {
        let mut new = new_global(request)?;
        span.is_about(&new.gid);
        span.attach(&mut new.options, self.engine.limits());
        Ok(new)
    }

    async fn start(&self, request: Request<DtmRequest>, span: &RequestSpan) -> Result<(), Problem> {
        let concurrent = is_concurrent(&request);
        let mut message = request.into_inner();
        let request = trans_request(&mut message, concurrent)?;
        // A workflow's submit ends it; every other's starts it.
        if request.trans_type()? == TransType::Workflow {
            let (gid, end) = (request.gid()?, request.workflow_end()?);
            span.is_about(&gid);
            let done = self.engine.finish_workflow(&gid, end.succeed, end.reason, end.result);
            return Ok(done.await?);
        }
        Ok(self.engine.submit(self.accepted(request, span)?).await?)
    }

    async fn hold(&self, request: Request<DtmRequest>, span: &RequestSpan) -> Result<(), Problem> {
        let concurrent = is_concurrent(&request);
        let mut message = request.into_inner();
        let new = self.accepted(trans_request(&mut message, concurrent)?, span)?;
        Ok(self.engine.prepare(new).await?)
    }

    async fn roll_back(&self, mut message: DtmRequest, span: &RequestSpan) -> Result<(), Problem> {
        let request = trans_request(&mut message, false)?;
        // A word that is none is no type: a message is aborted without one.
        let trans_type = TransType::parse(&request.trans_type);
        let gid = request.gid()?;
        span.is_about(&gid);
        Ok(self.engine.abort(&gid, trans_type, &request.rollback_reason).await?)
    }

    async fn register(&self, message: DtmBranchRequest, span: &RequestSpan) -> Result<(), Problem> {
        let request = register_request(&message);
        let (trans_type, gid) = (request.trans_type()?, request.gid()?);
        span.is_about(&gid);
        let rows = with_payload(request.rows()?, &message.busi_payload);
        Ok(self.engine.register_over(CallProtocol::Grpc, &gid, trans_type, rows).await?)
    }

    async fn open_workflow(
        &self,
        mut message: DtmRequest,
        span: &RequestSpan,
    ) -> Result<DtmProgressesReply, Problem> {
        let mut request = trans_request(&mut message, false)?;
        if request.trans_type.is_empty() {
            request.trans_type = TransType::Workflow.as_str().into();
        }
        if request.trans_type != TransType::Workflow.as_str() {
            let text = format!("trans_type: '{}' is not workflow", request.trans_type);
            return Err(RequestError::Invalid(text).into());
        }
        let global = self.engine.prepare_workflow(self.accepted(request, span)?).await?;
        Ok(progresses(&global))
    }
}

pub(super) fn new_global(request: TransRequest<'_>) -> Result<NewGlobal, RequestError> {
    request.into_new_global(Principal::anonymous().namespace().clone())
}

/// Returns whether the metadata ask for a message's branches at once (spec 07 D38).
fn is_concurrent(request: &Request<DtmRequest>) -> bool {
    request.metadata().get(CONCURRENT).is_some_and(|value| value == "true" || value == "1")
}

#[tonic::async_trait]
impl dtm_server::Dtm for Dtm {
    async fn new_gid(&self, _: Request<()>) -> Result<Response<DtmGidReply>, Status> {
        let gid = dtmd_wire::gid::new_gid().as_str().to_owned();
        guarded(&self.engine, "newgid", async { Ok(DtmGidReply { gid }) }).await
    }

    async fn submit(&self, request: Request<DtmRequest>) -> Result<Response<()>, Status> {
        let span = self.span("submit", true, &request);
        let done = guarded(&self.engine, "submit", self.start(request, &span)).await;
        span.end(done.is_ok());
        done
    }

    async fn prepare(&self, request: Request<DtmRequest>) -> Result<Response<()>, Status> {
        let span = self.span("prepare", true, &request);
        let done = guarded(&self.engine, "prepare", self.hold(request, &span)).await;
        span.end(done.is_ok());
        done
    }

    async fn abort(&self, request: Request<DtmRequest>) -> Result<Response<()>, Status> {
        let span = self.span("abort", false, &request);
        let work = self.roll_back(request.into_inner(), &span);
        let done = guarded(&self.engine, "abort", work).await;
        span.end(done.is_ok());
        done
    }

    async fn register_branch(
        &self,
        request: Request<DtmBranchRequest>,
    ) -> Result<Response<()>, Status> {
        let span = self.span("registerbranch", false, &request);
        let work = self.register(request.into_inner(), &span);
        let done = guarded(&self.engine, "registerbranch", work).await;
        span.end(done.is_ok());
        done
    }

    async fn prepare_workflow(
        &self,
        request: Request<DtmRequest>,
    ) -> Result<Response<DtmProgressesReply>, Status> {
        let span = self.span("prepareworkflow", true, &request);
        let work = self.open_workflow(request.into_inner(), &span);
        let done = guarded(&self.engine, "prepareworkflow", work).await;
        span.end(done.is_ok());
        done
    }

    async fn subscribe(&self, request: Request<DtmTopicRequest>) -> Result<Response<()>, Status> {
        let DtmTopicRequest { topic, url, remark } = request.into_inner();
        let done = async {
            Ok(self.engine.subscribe_over(CallProtocol::Grpc, &topic, &url, &remark).await?)
        };
        guarded(&self.engine, "subscribe", done).await
    }

    async fn unsubscribe(&self, request: Request<DtmTopicRequest>) -> Result<Response<()>, Status> {
        let DtmTopicRequest { topic, url, .. } = request.into_inner();
        let done = async { Ok(self.engine.unsubscribe(&topic, &url).await?) };
        guarded(&self.engine, "unsubscribe", done).await
    }

    async fn delete_topic(
        &self,
        request: Request<DtmTopicRequest>,
    ) -> Result<Response<()>, Status> {
        let topic = request.into_inner().topic;
        let done = async { Ok(self.engine.delete_topic(&topic).await?) };
        guarded(&self.engine, "topic", done).await
    }
}
