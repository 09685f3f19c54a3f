//! What an application says to the server over gRPC (spec 03), made from what it would say over
//! HTTP, and calls of branches over either.

use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use serde_json::Value;

use super::flows::{DtmClient, FlowError, branch_url, check_outcome};
use crate::grpc::client::{GrpcAnswer, GrpcError};
use crate::grpc::messages::{BranchRequest, ProgressesReply, TransOptions, TransRequest};

impl DtmClient {
    /// Asks for one of the server's operations over gRPC.
    pub(super) async fn grpc_operation(
        &self,
        server: &str,
        operation: &str,
        body: &Value,
    ) -> Result<(), FlowError> {
        let (method, message) = match operation {
            "submit" => ("Submit", trans_request(body).encode_to_vec()),
            "prepare" => ("Prepare", trans_request(body).encode_to_vec()),
            "abort" => ("Abort", trans_request(body).encode_to_vec()),
            "registerBranch" => ("RegisterBranch", branch_request(body).encode_to_vec()),
            other => return Err(GrpcError::Url(format!("{server}/dtmgimp.Dtm/{other}")).into()),
        };
        let answer = self.grpc_call(server, method, &message).await?;
        check_outcome(operation, answer.outcome())
    }

    async fn grpc_call(
        &self,
        server: &str,
        method: &str,
        message: &[u8],
    ) -> Result<GrpcAnswer, GrpcError> {
        let url = format!("{server}/dtmgimp.Dtm/{method}");
        self.grpc_client().call(&url, HeaderMap::new(), message).await
    }

    /// Calls a branch as an application does (spec 04 §1.5): over HTTP if the URL says so, over gRPC
    /// if it is `ADDRESS:PORT/Service/Method`. `get` is for HTTP.
    ///
    /// # Errors
    /// The branch refused, or nobody knows.
    pub async fn call_branch(
        &self,
        url: &str,
        (trans_type, gid, branch_id, op): (&str, &str, &str, &str),
        payload: Option<&Value>,
    ) -> Result<(), FlowError> {
        let what = format!("{op} {branch_id}");
        if url.contains("://") {
            let url = branch_url(url, self.base(), trans_type, gid, branch_id, op);
            let answer = match payload {
                Some(payload) => self.http().post(&url, payload).await?,
                None => self.http().get(&url).await?,
            };
            return check_outcome(&what, answer.outcome());
        }
        let mut metadata = HeaderMap::new();
        let pairs = [
            ("dtm-gid", gid),
            ("dtm-trans_type", trans_type),
            ("dtm-branch_id", branch_id),
            ("dtm-op", op),
            ("dtm-dtm", self.grpc_server().unwrap_or_default()),
        ];
        for (name, value) in pairs {
            let value = HeaderValue::from_str(value);
            metadata.insert(name, value.map_err(|_| GrpcError::Url(url.to_owned()))?);
        }
        let message = payload.map(Value::to_string).unwrap_or_default();
        let answer = self.grpc_client().call(url, metadata, message.as_bytes()).await?;
        check_outcome(&what, answer.outcome())
    }

    /// Begins a workflow, or asks how far it is; over gRPC only.
    ///
    /// # Errors
    /// This client has no gRPC address, the server refused, or nobody knows.
    pub async fn prepare_workflow(
        &self,
        request: &TransRequest,
    ) -> Result<ProgressesReply, FlowError> {
        let server = self.workflow_server()?;
        let message = request.encode_to_vec();
        let answer = self.grpc_call(server, "PrepareWorkflow", &message).await?;
        check_outcome("prepareWorkflow", answer.outcome())?;
        ProgressesReply::decode(answer.message).map_err(|error| FlowError::Unclear {
            what: "prepareWorkflow".to_owned(),
            text: error.to_string(),
        })
    }

    /// Records a workflow's step; over gRPC only.
    ///
    /// # Errors
    /// As [`DtmClient::prepare_workflow`].
    pub async fn record_step(&self, step: &BranchRequest) -> Result<(), FlowError> {
        let server = self.workflow_server()?;
        let answer = self.grpc_call(server, "RegisterBranch", &step.encode_to_vec()).await?;
        check_outcome("registerBranch", answer.outcome())
    }

    /// Ends a workflow; over gRPC only.
    ///
    /// # Errors
    /// As [`DtmClient::prepare_workflow`].
    pub async fn end_workflow(&self, end: &TransRequest) -> Result<(), FlowError> {
        let server = self.workflow_server()?;
        let answer = self.grpc_call(server, "Submit", &end.encode_to_vec()).await?;
        check_outcome("submit", answer.outcome())
    }

    fn workflow_server(&self) -> Result<&str, GrpcError> {
        self.grpc_server().ok_or_else(|| GrpcError::Url("no gRPC address is known".to_owned()))
    }
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_default().to_owned()
}

fn trans_request(body: &Value) -> TransRequest {
    let number = |name: &str| body[name].as_i64().unwrap_or(0);
    let flag = |name: &str| body[name].as_bool().unwrap_or(false);
    let payloads = body["payloads"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bytes = |payload: &Value| payload.as_str().unwrap_or_default().as_bytes().to_vec();
    TransRequest {
        gid: text(body, "gid"),
        trans_type: text(body, "trans_type"),
        trans_options: Some(TransOptions {
            wait_result: flag("wait_result"),
            retry_limit: number("retry_limit"),
            concurrent: flag("concurrent"),
            timeout_to_fail_ms: number("timeout_to_fail_ms"),
            retry_interval_ms: number("retry_interval_ms"),
            request_timeout_ms: number("request_timeout_ms"),
            ..TransOptions::default()
        }),
        custom_data: text(body, "custom_data"),
        payloads: payloads.iter().map(bytes).collect(),
        query_prepared: text(body, "query_prepared"),
        steps: body.get("steps").map(Value::to_string).unwrap_or_default(),
        rollback_reason: text(body, "rollback_reason"),
        ..TransRequest::default()
    }
}

fn branch_request(body: &Value) -> BranchRequest {
    let pair = |name: &str| body[name].as_str().map(|url| (name.to_owned(), url.to_owned()));
    BranchRequest {
        gid: text(body, "gid"),
        trans_type: text(body, "trans_type"),
        branch_id: text(body, "branch_id"),
        data: ["confirm", "cancel"].into_iter().filter_map(pair).collect(),
        payload: text(body, "data").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_becomes_a_message() {
        let body = json!({
            "gid": "g", "trans_type": "saga", "retry_interval_ms": 200, "concurrent": false,
            "steps": [{ "action": "h:1/S/A", "compensate": "h:1/S/B" }],
            "payloads": ["{\"amount\":1}"],
        });
        let message = trans_request(&body);
        assert_eq!(message.steps, r#"[{"action":"h:1/S/A","compensate":"h:1/S/B"}]"#);
        assert_eq!(message.payloads, [br#"{"amount":1}"#.to_vec()]);
        assert_eq!(message.trans_options.unwrap().retry_interval_ms, 200);
        let none = trans_request(&json!({ "gid": "g", "trans_type": "tcc" }));
        assert_eq!((none.steps.as_str(), none.payloads.len()), ("", 0));
        let row = json!({ "gid": "g", "branch_id": "01", "data": "x", "confirm": "h:1/S/C" });
        let row = branch_request(&row);
        assert_eq!((row.data["confirm"].as_str(), row.payload.as_slice()), ("h:1/S/C", &b"x"[..]));
    }
}
