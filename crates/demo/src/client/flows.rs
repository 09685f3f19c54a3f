//! The flows of an application (spec 04 §2–5) over the server's HTTP API, or over gRPC.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{Answer, HttpClient, HttpError, Outcome};
use super::model::{
    Msg, Saga, TccBranch, TransOptions, Transaction, XaBranch, head, msg_body, saga_body,
};
use crate::grpc::client::{GrpcClient, GrpcError};

/// How often [`DtmClient::wait_final`] asks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Why a flow did not go through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// There was no answer over gRPC.
    #[error(transparent)]
    Grpc(#[from] GrpcError),
    /// The server or a branch refused for good.
    #[error("{what} was refused: {text}")]
    Failure {
        /// What was asked.
        what: String,
        /// What was answered.
        text: String,
    },
    /// The answer was neither success nor failure: query before concluding.
    #[error("{what} has no clear outcome: {text}")]
    Unclear {
        /// What was asked.
        what: String,
        /// What was answered.
        text: String,
    },
    /// The global transaction did not become final in time.
    #[error("{gid} is not final after {} ms: {last}", waited.as_millis())]
    NotFinal {
        /// The global transaction's id.
        gid: String,
        /// How long was waited.
        waited: Duration,
        /// What was seen last.
        last: String,
    },
}

/// Speaks to one server as an application does.
#[derive(Debug, Clone)]
pub struct DtmClient {
    base: String,
    http: HttpClient,
    /// The server's gRPC address, if flows go over that.
    grpc: Option<String>,
}

impl DtmClient {
    /// A client of the server at `url`, for example `http://127.0.0.1:36789`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let base = format!("{}/api/dtmsvr", url.trim_end_matches('/'));
        Self { base, http: HttpClient::default(), grpc: None }
    }

    /// Lets flows go over gRPC, to the server at this `ADDRESS:PORT`; queries stay HTTP, for there
    /// are none over gRPC.
    #[must_use]
    pub fn over_grpc(mut self, address: &str) -> Self {
        self.grpc = Some(address.to_owned());
        self
    }

    /// The server's gRPC address, if flows go over that.
    #[must_use]
    pub fn grpc_server(&self) -> Option<&str> {
        self.grpc.as_deref()
    }

    pub(super) fn grpc_client(&self) -> GrpcClient {
        GrpcClient::default()
    }

    /// The server's API prefix, as branches get it in the parameter `dtm`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The HTTP client, for calls that are not flows.
    #[must_use]
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Posts a body to one of the server's operations and returns the answer as it is.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn post(&self, operation: &str, body: &Value) -> Result<Answer, HttpError> {
        self.http.post(&format!("{}/{operation}", self.base), body).await
    }

    /// Asks the server for a new gid.
    ///
    /// # Errors
    /// There was no answer, or none with a gid.
    pub async fn new_gid(&self) -> Result<String, FlowError> {
        let answer = self.http.get(&format!("{}/newGid", self.base)).await?;
        match answer.json()["gid"].as_str() {
            Some(gid) if !gid.is_empty() => Ok(gid.to_owned()),
            _ => Err(FlowError::Unclear { what: "newGid".to_owned(), text: answer.body }),
        }
    }

    async fn operation(&self, operation: &str, body: &Value) -> Result<(), FlowError> {
        match &self.grpc {
            Some(server) => self.grpc_operation(server, operation, body).await,
            None => check(operation, &self.post(operation, body).await?),
        }
    }

    /// Submits a saga.
    ///
    /// # Errors
    /// It was refused or nobody knows; with `wait_result` a refusal does not prove a rollback.
    pub async fn submit_saga(&self, gid: &str, saga: &Saga) -> Result<(), FlowError> {
        self.operation("submit", &saga_body(gid, saga)).await
    }

    /// Prepares a tcc or xa.
    ///
    /// # Errors
    /// It was refused, or nobody knows.
    pub async fn prepare(
        &self,
        trans_type: &str,
        gid: &str,
        options: &TransOptions,
    ) -> Result<(), FlowError> {
        self.operation("prepare", &Value::Object(head(trans_type, gid, options))).await
    }

    /// Submits a prepared tcc or xa.
    ///
    /// # Errors
    /// It was refused, or nobody knows: query before concluding.
    pub async fn submit(&self, trans_type: &str, gid: &str) -> Result<(), FlowError> {
        self.operation("submit", &json!({ "gid": gid, "trans_type": trans_type })).await
    }

    /// Aborts a prepared tcc, xa or msg.
    ///
    /// # Errors
    /// It was refused, or nobody knows.
    pub async fn abort(&self, trans_type: &str, gid: &str, reason: &str) -> Result<(), FlowError> {
        let body = json!({ "gid": gid, "trans_type": trans_type, "rollback_reason": reason });
        self.operation("abort", &body).await
    }

    /// Registers a branch of a TCC.
    ///
    /// # Errors
    /// It was refused (the global is not prepared any more), or nobody knows.
    pub async fn register_tcc(
        &self,
        gid: &str,
        branch_id: &str,
        branch: &TccBranch,
    ) -> Result<(), FlowError> {
        let body = json!({
            "gid": gid, "trans_type": "tcc", "branch_id": branch_id,
            "data": branch.payload.to_string(),
            "confirm": branch.confirm, "cancel": branch.cancel,
        });
        self.operation("registerBranch", &body).await
    }

    /// Calls try of a TCC branch, with the parameters of spec 04 §1.5.
    ///
    /// # Errors
    /// The branch refused, or nobody knows.
    pub async fn call_try(
        &self,
        gid: &str,
        branch_id: &str,
        branch: &TccBranch,
    ) -> Result<(), FlowError> {
        let names = ("tcc", gid, branch_id, "try");
        self.call_branch(&branch.try_url, names, Some(&branch.payload)).await
    }

    /// Runs a TCC: prepare, then register and try each branch, then submit. If a branch fails the
    /// global is aborted and the branch's error is returned.
    ///
    /// # Errors
    /// What stopped the flow.
    pub async fn tcc(
        &self,
        gid: &str,
        options: &TransOptions,
        branches: &[TccBranch],
    ) -> Result<(), FlowError> {
        self.prepare("tcc", gid, options).await?;
        for (at, branch) in branches.iter().enumerate() {
            let branch_id = format!("{:02}", at + 1);
            let tried = match self.register_tcc(gid, &branch_id, branch).await {
                Ok(()) => self.call_try(gid, &branch_id, branch).await,
                refused => refused,
            };
            if let Err(error) = tried {
                // The abort's own error is dropped: the timeout does the same a little later.
                let _ = self.abort("tcc", gid, &error.to_string()).await;
                return Err(error);
            }
        }
        self.submit("tcc", gid).await
    }

    /// Calls the action of an XA branch, with the parameters of spec 04 §1.5.
    ///
    /// # Errors
    /// The branch refused, or nobody knows.
    pub async fn call_xa_action(
        &self,
        gid: &str,
        branch_id: &str,
        branch: &XaBranch,
    ) -> Result<(), FlowError> {
        let url = branch_url(&branch.url, &self.base, "xa", gid, branch_id, "action");
        let url = format!("{url}&phase2_url={}", percent_encode(&branch.url));
        check(&format!("xa action {branch_id}"), &self.http.post(&url, &branch.payload).await?)
    }

    /// Runs an XA transaction: prepare, the action of each branch, then submit; abort if one
    /// fails.
    ///
    /// # Errors
    /// What stopped the flow.
    pub async fn xa(
        &self,
        gid: &str,
        options: &TransOptions,
        branches: &[XaBranch],
    ) -> Result<(), FlowError> {
        self.prepare("xa", gid, options).await?;
        for (at, branch) in branches.iter().enumerate() {
            let branch_id = format!("{:02}", at + 1);
            if let Err(error) = self.call_xa_action(gid, &branch_id, branch).await {
                // The abort's own error is dropped: the timeout does the same a little later.
                let _ = self.abort("xa", gid, "").await;
                return Err(error);
            }
        }
        self.submit("xa", gid).await
    }

    /// Prepares a message.
    ///
    /// # Errors
    /// It was refused, or nobody knows.
    pub async fn prepare_msg(&self, gid: &str, msg: &Msg) -> Result<(), FlowError> {
        self.operation("prepare", &msg_body(gid, msg)).await
    }

    /// Submits a message.
    ///
    /// # Errors
    /// It was refused, or nobody knows.
    pub async fn submit_msg(&self, gid: &str, msg: &Msg) -> Result<(), FlowError> {
        self.operation("submit", &msg_body(gid, msg)).await
    }

    /// Calls the endpoint that runs a message's local transaction, barrier row included.
    ///
    /// # Errors
    /// It refused, or nobody knows: then query-prepared decides.
    pub async fn call_local(&self, gid: &str, url: &str, payload: &Value) -> Result<(), FlowError> {
        self.call_branch(url, ("msg", gid, "00", "msg"), Some(payload)).await
    }

    /// Runs a two-phase message (spec 04 §5): prepare, local transaction, then submit or abort;
    /// if the local transaction's outcome is unknown, query-prepared is asked from here.
    ///
    /// # Errors
    /// What stopped the flow. If it is unclear the server asks query-prepared later.
    pub async fn msg(&self, gid: &str, msg: &Msg, local: (&str, &Value)) -> Result<(), FlowError> {
        self.prepare_msg(gid, msg).await?;
        let done = self.call_local(gid, local.0, local.1).await;
        let decided = match &done {
            Ok(()) | Err(FlowError::Failure { .. }) => done,
            Err(_) => self.call_branch(&msg.query_prepared, ("msg", gid, "00", "msg"), None).await,
        };
        match decided {
            Ok(()) => self.submit_msg(gid, msg).await,
            Err(error @ FlowError::Failure { .. }) => {
                // The abort's own error is dropped: the timeout does the same a little later.
                let _ = self.abort("msg", gid, &error.to_string()).await;
                Err(error)
            }
            unclear => unclear,
        }
    }

    /// Asks for a global transaction; `None` if the server does not know the gid.
    ///
    /// # Errors
    /// There was no answer or not one of this shape.
    pub async fn query(&self, gid: &str) -> Result<Option<Transaction>, FlowError> {
        let url = format!("{}/query?gid={}", self.base, percent_encode(gid));
        let answer = self.http.get(&url).await?;
        let unclear = || FlowError::Unclear { what: "query".to_owned(), text: answer.body.clone() };
        if answer.status != 200 {
            return Err(unclear());
        }
        let mut value = answer.json();
        let branches = value["branches"].take();
        let transaction = &value["transaction"];
        if transaction.is_null() {
            return Ok(None);
        }
        let text = |name: &str| transaction[name].as_str().unwrap_or_default().to_owned();
        Ok(Some(Transaction {
            status: text("status"),
            rollback_reason: text("rollback_reason"),
            branches: serde_json::from_value(branches).map_err(|_| unclear())?,
        }))
    }

    /// Asks until the global transaction is `succeed` or `failed`.
    ///
    /// # Errors
    /// It is not final when the deadline has passed; the error tells what was seen last.
    pub async fn wait_final(
        &self,
        gid: &str,
        deadline: Duration,
    ) -> Result<Transaction, FlowError> {
        let begun = Instant::now();
        loop {
            let seen = self.query(gid).await;
            if let Ok(Some(transaction)) = &seen
                && transaction.is_final()
            {
                return Ok(transaction.clone());
            }
            if begun.elapsed() >= deadline {
                let last = match seen {
                    Ok(Some(transaction)) => format!("{transaction:?}"),
                    Ok(None) => "the server does not know it".to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(FlowError::NotFinal { gid: gid.to_owned(), waited: deadline, last });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

fn check(what: &str, answer: &Answer) -> Result<(), FlowError> {
    check_outcome(what, answer.outcome())
}

pub(super) fn check_outcome(what: &str, outcome: Outcome) -> Result<(), FlowError> {
    let what = what.to_owned();
    match outcome {
        Outcome::Success => Ok(()),
        Outcome::Failure(text) => Err(FlowError::Failure { what, text }),
        Outcome::Ongoing(text) | Outcome::Unknown(text) => Err(FlowError::Unclear { what, text }),
    }
}

/// A branch's URL with the parameters an application sends (spec 04 §1.5).
#[must_use]
pub fn branch_url(
    url: &str,
    dtm: &str,
    trans_type: &str,
    gid: &str,
    branch_id: &str,
    op: &str,
) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    let (dtm, gid) = (percent_encode(dtm), percent_encode(gid));
    format!(
        "{url}{separator}dtm={dtm}&gid={gid}&branch_id={branch_id}&trans_type={trans_type}&op={op}"
    )
}

/// Encodes all but unreserved characters.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branch_urls_are_encoded() {
        let url = branch_url("http://b/x?y=1", "http://s:1/api/dtmsvr", "tcc", "g/1", "01", "try");
        assert_eq!(
            url,
            "http://b/x?y=1&dtm=http%3A%2F%2Fs%3A1%2Fapi%2Fdtmsvr&gid=g%2F1&branch_id=01\
             &trans_type=tcc&op=try"
        );
    }
}
