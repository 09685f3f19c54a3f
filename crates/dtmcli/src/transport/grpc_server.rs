//! The server over gRPC (spec 03 §1).

use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::grpc::{GrpcError, Meaning, meaning, unary};
use super::messages::{
    DtmBranchRequest, DtmGidReply, DtmRequest, DtmTopicRequest, DtmTransOptions, Empty, QueryReply,
    QueryRequest,
};
use crate::client::Change;
use crate::error::{Error, Result};
use crate::request::{Operation, RegisterRequest, TransRequest};
use crate::transaction::{BranchRow, GlobalStatus, Transaction};
use crate::{TransOptions, TransType};

/// A server that is spoken to over gRPC.
#[derive(Debug)]
pub(crate) struct GrpcServer {
    channel: Channel,
    /// `host:port`, for error texts and for branches.
    address: String,
    token: Option<MetadataValue<tonic::metadata::Ascii>>,
    timeout: Duration,
}

impl GrpcServer {
    pub(crate) fn new(
        channel: Channel,
        address: String,
        token: Option<MetadataValue<tonic::metadata::Ascii>>,
        timeout: Duration,
    ) -> Self {
        Self { channel, address, token, timeout }
    }

    /// What branches are told as `dtm-dtm`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn new_gid(&self) -> Result<String> {
        let reply: DtmGidReply = self.dtm("newGid", "NewGid", Empty {}, self.timeout).await?;
        Ok(reply.gid)
    }

    pub(crate) async fn call(&self, operation: Operation, request: &TransRequest) -> Result<()> {
        let method = match operation {
            Operation::Prepare => "Prepare",
            Operation::Submit => "Submit",
            Operation::Abort => "Abort",
            #[cfg(feature = "workflow")]
            Operation::PrepareWorkflow => "PrepareWorkflow",
        };
        let timeout = request.options.request_timeout.map_or(self.timeout, |t| t.max(self.timeout));
        let message = message(request);
        self.dtm::<_, Empty>(operation.word(), method, message, timeout).await.map(|_| ())
    }

    #[cfg(feature = "workflow")]
    pub(crate) async fn prepare_workflow(
        &self,
        request: &TransRequest,
    ) -> Result<crate::workflow::progress::Progress> {
        let message = message(request);
        let reply = self.dtm("prepareWorkflow", "PrepareWorkflow", message, self.timeout).await?;
        crate::workflow::progress::Progress::from_reply(reply)
    }

    pub(crate) async fn register(&self, request: &RegisterRequest) -> Result<()> {
        let data = request.data.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let message = DtmBranchRequest {
            gid: request.gid.clone(),
            trans_type: request.trans_type.as_str().to_owned(),
            branch_id: request.branch_id.clone(),
            op: request.data.get("op").cloned().unwrap_or_default(),
            data: data.collect(),
            busi_payload: request.payload.clone(),
        };
        self.dtm::<_, Empty>("registerBranch", "RegisterBranch", message, self.timeout)
            .await
            .map(|_| ())
    }

    /// Asks for a transaction as dtmd can be asked.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] from DTM, which has no query over gRPC.
    pub(crate) async fn query(&self, gid: &str) -> Result<Option<Transaction>> {
        let path = PathAndQuery::from_static("/dtmd.v1.Admin/Query");
        let request = QueryRequest { gid: gid.to_owned() };
        let reply = self.unary(path, request, self.timeout).await;
        let reply: QueryReply = match reply {
            Ok(reply) => reply,
            Err(GrpcError::Status(status)) if status.code() == Code::NotFound => return Ok(None),
            Err(GrpcError::Status(status)) if status.code() == Code::Unimplemented => {
                return Err(Error::Unsupported("this server cannot be queried over gRPC"));
            }
            Err(error) => return Err(self.error("query", error)),
        };
        let status = GlobalStatus::parse(&reply.status).ok_or_else(|| Error::Unexpected {
            what: "query",
            status: 0,
            text: format!("'{}' is not a status", reply.status),
        })?;
        let branches = reply.branches.into_iter().map(|branch| BranchRow {
            branch_id: branch.branch_id,
            op: branch.op,
            status: branch.status,
            url: branch.url,
        });
        Ok(Some(Transaction {
            gid: reply.gid,
            trans_type: reply.trans_type,
            status,
            rollback_reason: reply.rollback_reason,
            branches: branches.collect(),
        }))
    }

    /// Finds out the status of a transaction that is known to be there, where there is no query:
    /// preparing it again changes nothing and is refused with its status (spec 01 §2.1).
    pub(crate) async fn probe(&self, gid: &str, trans_type: TransType) -> Result<GlobalStatus> {
        let request = TransRequest::new(gid.to_owned(), trans_type, TransOptions::new())?;
        match self.call(Operation::Prepare, &request).await {
            Ok(()) => Ok(GlobalStatus::Prepared),
            Err(Error::Failure { what, reason }) => {
                status_told(&reason).ok_or(Error::Failure { what, reason })
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn topic(&self, change: Change<'_>) -> Result<()> {
        let (what, method, topic, url, remark) = match change {
            Change::Subscribe { topic, url, remark } => {
                ("subscribe", "Subscribe", topic, url, remark)
            }
            Change::Unsubscribe { topic, url } => ("unsubscribe", "Unsubscribe", topic, url, ""),
            Change::Delete { topic } => ("delete topic", "DeleteTopic", topic, "", ""),
        };
        let message = DtmTopicRequest {
            topic: topic.to_owned(),
            url: url.to_owned(),
            remark: remark.to_owned(),
        };
        self.dtm::<_, Empty>(what, method, message, self.timeout).await.map(|_| ())
    }

    async fn dtm<M, R>(
        &self,
        what: &'static str,
        method: &'static str,
        message: M,
        timeout: Duration,
    ) -> Result<R>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/dtmgimp.Dtm/{method}"))
            .map_err(|_| Error::invalid(format!("{method} is not a method")))?;
        let reply = self.unary(path, message, timeout).await;
        reply.map_err(|error| self.error(what, error))
    }

    async fn unary<M, R>(
        &self,
        path: PathAndQuery,
        message: M,
        timeout: Duration,
    ) -> Result<R, GrpcError>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut metadata = MetadataMap::new();
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        let codec = tonic_prost::ProstCodec::default();
        unary(self.channel.clone(), path, metadata, message, timeout, codec).await
    }

    fn error(&self, what: &'static str, error: GrpcError) -> Error {
        match error {
            GrpcError::Call(error) => error.into_error(what, &self.address),
            GrpcError::Status(status) => status_error(what, &status),
        }
    }
}

/// The error that a status is (spec 03 §1.3).
fn status_error(what: &'static str, status: &Status) -> Error {
    let text = status.message().to_owned();
    match meaning(status) {
        Meaning::Failure => Error::Failure { what, reason: text },
        Meaning::Ongoing => Error::Ongoing { what, text },
        Meaning::Unknown => {
            let status = u16::try_from(i32::from(status.code())).unwrap_or_default();
            Error::Unexpected { what, status, text }
        }
    }
}

/// The status within `current status '<s>', cannot prepare. FAILURE`.
fn status_told(text: &str) -> Option<GlobalStatus> {
    let (_, rest) = text.split_once("current status '")?;
    GlobalStatus::parse(rest.split_once('\'')?.0)
}

fn message(request: &TransRequest) -> DtmRequest {
    let options = &request.options;
    let [timeout, request_timeout, interval] = options.times().map(|(_, _, times)| times);
    let seconds = |times: Option<crate::options::Times>| times.map_or(0, |times| times.seconds);
    let millis =
        |times: Option<crate::options::Times>| times.and_then(|times| times.millis).unwrap_or(0);
    let steps =
        if request.steps.is_empty() { String::new() } else { request.steps_json().to_string() };
    let extra = request.req_extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    DtmRequest {
        gid: request.gid.clone(),
        trans_type: request.trans_type.as_str().to_owned(),
        trans_options: Some(DtmTransOptions {
            wait_result: options.wait_result,
            timeout_to_fail: seconds(timeout),
            retry_interval: seconds(interval),
            branch_headers: options.branch_headers.clone(),
            request_timeout: seconds(request_timeout),
            retry_limit: options.retry_limit.map_or(0, i64::from),
            concurrent: options.concurrent,
            timeout_to_fail_ms: millis(timeout),
            retry_interval_ms: millis(interval),
            request_timeout_ms: millis(request_timeout),
        }),
        customed_data: request.custom_data.clone(),
        bin_payloads: request.steps.iter().map(|step| step.payload.clone()).collect(),
        query_prepared: request.query_prepared.clone(),
        steps,
        req_extra: extra.collect(),
        rollback_reason: request.rollback_reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestStep;

    #[test]
    fn a_request_as_a_message() {
        let options = TransOptions::new()
            .timeout_to_fail(Duration::from_secs(30))
            .retry_interval(Duration::from_millis(1_200))
            .retry_limit(2)
            .branch_header("x-a", "1");
        let mut request = TransRequest::new("g".to_owned(), TransType::Saga, options).unwrap();
        request.steps = vec![RequestStep {
            action: "s:1/a.B/Out".to_owned(),
            compensate: Some(String::new()),
            payload: bytes::Bytes::from_static(&[0xff, 0]),
        }];
        let message = message(&request);
        let options = message.trans_options.unwrap();
        assert_eq!((options.timeout_to_fail, options.timeout_to_fail_ms), (30, 0));
        assert_eq!((options.retry_interval, options.retry_interval_ms), (2, 1_200));
        assert_eq!((options.request_timeout, options.retry_limit), (0, 2));
        assert_eq!(options.branch_headers["x-a"], "1");
        assert_eq!(message.steps, r#"[{"action":"s:1/a.B/Out","compensate":""}]"#);
        assert_eq!(message.bin_payloads, [bytes::Bytes::from_static(&[0xff, 0])]);
    }

    #[test]
    fn a_refusal_tells_the_status() {
        let text = "current status 'aborting', cannot prepare. FAILURE";
        assert_eq!(status_told(text), Some(GlobalStatus::Aborting));
        assert_eq!(status_told("topic not found"), None);
    }

    #[test]
    fn statuses_as_errors() {
        let word = |status: Status| match status_error("submit", &status) {
            Error::Failure { .. } => "failure",
            Error::Ongoing { .. } => "ongoing",
            Error::Unexpected { status, .. } => match status {
                13 => "internal",
                _ => "unexpected",
            },
            _ => "other",
        };
        assert_eq!(word(Status::aborted("x FAILURE")), "failure");
        assert_eq!(word(Status::failed_precondition("ONGOING")), "ongoing");
        assert_eq!(word(Status::internal("boom")), "internal");
        assert_eq!(word(Status::unknown("this url exists")), "unexpected");
    }
}
