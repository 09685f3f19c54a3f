//! The server over HTTP and JSON-RPC (spec 02 §2, §5; 04 §1).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, HttpCaller};
use super::query::{encode, with_query};
use crate::client::Change;
use crate::error::{Error, Result};
use crate::outcome::{Outcome, Words, text};
use crate::request::{Operation, RegisterRequest, TransRequest};
use crate::transaction::Transaction;

/// Any id will do: there is one request on its way in one exchange.
const JSON_RPC_ID: &str = "dtmcli";
const JSON_RPC_FAILURE: i64 = -32_901;

/// A server that is spoken to over HTTP.
#[derive(Debug)]
pub(crate) struct HttpServer {
    http: HttpCaller,
    /// The prefix of the operations, such as `http://host:36789/api/dtmsvr`.
    prefix: String,
    /// The endpoint of JSON-RPC, if that is spoken.
    json_rpc: Option<String>,
    token: Option<HeaderValue>,
    timeout: Duration,
}

impl HttpServer {
    pub(crate) fn new(
        http: HttpCaller,
        prefix: String,
        json_rpc: bool,
        token: Option<HeaderValue>,
        timeout: Duration,
    ) -> Self {
        let rpc = |prefix: &str| match prefix.strip_suffix("/api/dtmsvr") {
            Some(root) => format!("{root}/api/json-rpc"),
            None => format!("{prefix}/json-rpc"),
        };
        let json_rpc = json_rpc.then(|| rpc(&prefix));
        Self { http, prefix, json_rpc, token, timeout }
    }

    /// What branches are told as `dtm`.
    pub(crate) fn address(&self) -> &str {
        &self.prefix
    }

    fn protocol(&self) -> &'static str {
        if self.json_rpc.is_some() { "json-rpc" } else { "http" }
    }

    pub(crate) async fn new_gid(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Gid {
            gid: String,
        }
        let body = match &self.json_rpc {
            Some(url) => self.rpc(url, "newGid", Value::Null, self.timeout).await?,
            None => self.get("newGid", "newGid", &[]).await?,
        };
        let Gid { gid } = decode("newGid", &body)?;
        Ok(gid)
    }

    pub(crate) async fn call(&self, operation: Operation, request: &TransRequest) -> Result<()> {
        self.operation(operation, request).await.map(|_| ())
    }

    /// Sends an operation and returns the body of its success.
    pub(crate) async fn operation(
        &self,
        operation: Operation,
        request: &TransRequest,
    ) -> Result<Bytes> {
        let body = request.to_json(self.protocol())?;
        // With wait_result the server answers when its branches have: each may take this long.
        let timeout = request.options.request_timeout.map_or(self.timeout, |t| t.max(self.timeout));
        self.post(operation.word(), body, timeout).await
    }

    #[cfg(feature = "workflow")]
    pub(crate) async fn prepare_workflow(
        &self,
        request: &TransRequest,
    ) -> Result<crate::workflow::progress::Progress> {
        if self.json_rpc.is_some() {
            return Err(Error::Unsupported("there are no workflows over JSON-RPC; use HTTP"));
        }
        let body = self.operation(Operation::PrepareWorkflow, request).await?;
        crate::workflow::progress::Progress::from_json(&body)
    }

    pub(crate) async fn register(&self, request: &RegisterRequest) -> Result<()> {
        self.post("registerBranch", request.to_json()?, self.timeout).await.map(|_| ())
    }

    /// Asks for a transaction; `None` if the server does not know it.
    pub(crate) async fn query(&self, gid: &str) -> Result<Option<Transaction>> {
        let body = self.get("query", "query", &[("gid", gid)]).await?;
        Transaction::from_query(&body).map_err(|error| unreadable("query", &error))
    }

    pub(crate) async fn topic(&self, change: Change<'_>) -> Result<()> {
        match change {
            Change::Subscribe { topic, url, remark } => {
                let pairs = [("topic", topic), ("url", url), ("remark", remark)];
                self.get("subscribe", "subscribe", &pairs).await?;
            }
            Change::Unsubscribe { topic, url } => {
                let pairs = [("topic", topic), ("url", url)];
                self.get("unsubscribe", "unsubscribe", &pairs).await?;
            }
            Change::Delete { topic } => {
                let url = format!("{}/topic/{}", self.prefix, encode(topic));
                let what = "delete topic";
                let sent = self.send(what, Method::DELETE, &url, Bytes::new(), self.timeout);
                check(what, sent.await?, Words::Status)?;
            }
        }
        Ok(())
    }

    async fn get(&self, what: &'static str, path: &str, pairs: &[(&str, &str)]) -> Result<Bytes> {
        let url = with_query(&format!("{}/{path}", self.prefix), pairs);
        let answer = self.send(what, Method::GET, &url, Bytes::new(), self.timeout).await?;
        // What is shown of a transaction may hold any word, so only the status counts.
        check(what, answer, Words::Status)
    }

    async fn post(&self, operation: &'static str, body: Value, timeout: Duration) -> Result<Bytes> {
        if let Some(url) = &self.json_rpc {
            return self.rpc(url, operation, body, timeout).await;
        }
        let url = format!("{}/{operation}", self.prefix);
        let body = body.to_string().into();
        let answer = self.send(operation, Method::POST, &url, body, timeout).await?;
        check(operation, answer, Words::Exact)
    }

    async fn rpc(
        &self,
        url: &str,
        method: &'static str,
        params: Value,
        timeout: Duration,
    ) -> Result<Bytes> {
        let body =
            json!({ "jsonrpc": "2.0", "id": JSON_RPC_ID, "method": method, "params": params });
        let body = body.to_string().into();
        let answer = self.send(method, Method::POST, url, body, timeout).await?;
        rpc_result(method, &answer)
    }

    async fn send(
        &self,
        what: &'static str,
        method: Method,
        url: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        let sent = self.http.send(method, url, headers, body, timeout).await;
        sent.map_err(|error| error.into_error(what, &self.prefix))
    }
}

fn check(what: &'static str, answer: Answer, words: Words) -> Result<Bytes> {
    match Outcome::of_http(answer.status, &answer.body, words) {
        Outcome::Success => Ok(answer.body),
        Outcome::Failure(reason) => Err(Error::Failure { what, reason }),
        Outcome::Ongoing(text) => Err(Error::Ongoing { what, text }),
        Outcome::Unknown { status, text } => Err(Error::Unexpected { what, status, text }),
    }
}

/// What an answer of JSON-RPC says (spec 02 §5.1).
fn rpc_result(what: &'static str, answer: &Answer) -> Result<Bytes> {
    #[derive(Deserialize)]
    struct Envelope {
        #[serde(default)]
        result: Value,
        #[serde(default)]
        error: Option<RpcError>,
    }
    #[derive(Deserialize)]
    struct RpcError {
        #[serde(default)]
        code: i64,
        #[serde(default)]
        message: String,
    }

    let unexpected = |text| Error::Unexpected { what, status: answer.status, text };
    if answer.status != 200 {
        return Err(unexpected(text(&answer.body)));
    }
    let Envelope { result, error } = decode(what, &answer.body)?;
    match error {
        None => Ok(result.to_string().into()),
        Some(RpcError { code: JSON_RPC_FAILURE, message }) => {
            Err(Error::Failure { what, reason: message })
        }
        Some(error) if error.message.contains("ONGOING") => {
            Err(Error::Ongoing { what, text: error.message })
        }
        // The code is not a status; 500 is what the same error is over HTTP.
        Some(error) => Err(Error::Unexpected { what, status: 500, text: error.message }),
    }
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &'static str, body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| unreadable(what, &error))
}

fn unreadable(what: &'static str, error: &serde_json::Error) -> Error {
    Error::Unexpected { what, status: 200, text: format!("the answer cannot be read: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        Answer { status, body: Bytes::from_static(body.as_bytes()) }
    }

    /// The error's variant in a word.
    fn word<T>(result: &Result<T>) -> &'static str {
        match result {
            Ok(_) => "ok",
            Err(Error::Failure { .. }) => "failure",
            Err(Error::Ongoing { .. }) => "ongoing",
            Err(Error::Unexpected { .. }) => "unexpected",
            Err(_) => "other",
        }
    }

    #[test]
    fn answers_of_json_rpc() {
        let table = [
            (200, r#"{"jsonrpc":"2.0","id":"x","result":null,"error":null}"#, "ok"),
            (200, r#"{"result":{"gid":"a"},"error":null}"#, "ok"),
            (200, r#"{"result":{},"error":{"code":-32901,"message":"x FAILURE"}}"#, "failure"),
            (200, r#"{"result":{},"error":{"code":-32603,"message":"x ONGOING"}}"#, "ongoing"),
            (200, r#"{"result":null,"error":{"code":-32603,"message":"boom"}}"#, "unexpected"),
            (200, r#"{"result":null,"error":{"code":-32601,"message":"?"}}"#, "unexpected"),
            (400, r#"{"error":{"code":-32700,"message":"Parse"}}"#, "unexpected"),
            (200, "<html>", "unexpected"),
        ];
        for (status, body, expected) in table {
            assert_eq!(word(&rpc_result("submit", &answer(status, body))), expected, "{body}");
        }
    }

    #[test]
    fn answers_of_operations() {
        let table = [
            (200, r#"{"dtm_result":"SUCCESS"}"#, "ok"),
            (409, r#"{"dtm_result":"FAILURE","message":"no FAILURE"}"#, "failure"),
            (425, r#"{"dtm_result":"ONGOING","message":"ONGOING"}"#, "ongoing"),
            (200, r#"{"dtm_result":"FAILURE"}"#, "failure"),
            (500, r#"{"message":"storage: NotFound"}"#, "unexpected"),
            (502, "", "unexpected"),
        ];
        for (status, body, expected) in table {
            let result = check("submit", answer(status, body), Words::Exact);
            assert_eq!(word(&result), expected, "{status} {body}");
        }
    }
}
