//! Calling a branch from here: try, XA action, query-prepared, steps of workflows (spec 04 §1.5).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Client;
use crate::outcome::Words;
use crate::payload::Reply;
use crate::{BranchError, BranchResult, Op, TransType};

/// One call of one branch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BranchCall<'a> {
    /// Empty for nothing to call.
    pub(crate) url: &'a str,
    pub(crate) trans_type: TransType,
    pub(crate) gid: &'a str,
    pub(crate) branch_id: &'a str,
    pub(crate) op: &'a Op,
    /// Where XA's second phase is to be called.
    pub(crate) phase2_url: Option<&'a str>,
    /// Whether the branch gets the server's address, to open branches of its own.
    pub(crate) tells_server: bool,
    pub(crate) headers: &'a BTreeMap<String, String>,
    pub(crate) timeout: Duration,
}

impl Client {
    /// Calls a branch: a URL with `http://` or `https://` over HTTP, any other over gRPC.
    ///
    /// # Errors
    ///
    /// `Failure` and `Ongoing` as the branch answered; `Retry` if there was no clear answer.
    pub(crate) async fn call_branch(
        &self,
        call: BranchCall<'_>,
        body: Bytes,
        method: Method,
    ) -> BranchResult<Reply> {
        if call.url.is_empty() {
            return Ok(Reply::default());
        }
        tracing::debug!(
            gid = call.gid,
            trans_type = call.trans_type.as_str(),
            branch_id = call.branch_id,
            op = call.op.as_str(),
            "calling a branch"
        );
        let is_http = call.url.starts_with("http://") || call.url.starts_with("https://");
        match is_http {
            #[cfg(feature = "http")]
            true => self.call_http(call, body, method).await,
            #[cfg(feature = "grpc")]
            false => self.call_grpc(call, body).await,
            #[allow(unreachable_patterns, reason = "reached when a feature is off")]
            _ => {
                let _ = (body, method);
                Err(BranchError::retry(format!(
                    "{} cannot be called: the feature `http` or `grpc` of dtmcli is off",
                    call.url
                )))
            }
        }
    }

    #[cfg(feature = "http")]
    async fn call_http(
        &self,
        call: BranchCall<'_>,
        body: Bytes,
        method: Method,
    ) -> BranchResult<Reply> {
        use crate::outcome::Outcome;
        use crate::transport::query::with_query;

        let mut pairs = Vec::with_capacity(6);
        if call.tells_server {
            pairs.push(("dtm", self.server_address()));
        }
        pairs.extend([
            ("gid", call.gid),
            ("trans_type", call.trans_type.as_str()),
            ("branch_id", call.branch_id),
            ("op", call.op.as_str()),
        ]);
        pairs.extend(call.phase2_url.map(|url| ("phase2_url", url)));
        let mut headers = http::HeaderMap::new();
        for (name, value) in call.headers {
            let name = name.parse::<http::HeaderName>();
            let value = value.parse::<http::HeaderValue>();
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(BranchError::retry("a branch header is no header"));
            };
            headers.insert(name, value);
        }
        let url = with_query(call.url, &pairs);
        let (method, words) = match method {
            Method::Post => (http::Method::POST, self.inner.words),
            Method::Get => (http::Method::GET, self.inner.words),
            Method::Step(method) => (method, Words::Status),
        };
        let sent = self.inner.http.send(method, &url, headers, body, call.timeout).await;
        let answer = sent.map_err(|error| error.into_branch_error(call.url))?;
        Outcome::of_http(answer.status, &answer.body, words).into_branch_result(call.url)?;
        Ok(Reply::new(answer.body))
    }

    #[cfg(feature = "grpc")]
    async fn call_grpc(&self, call: BranchCall<'_>, body: Bytes) -> BranchResult<Reply> {
        use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

        let mut metadata = MetadataMap::new();
        let server = if call.tells_server { self.server_address() } else { "" };
        let pairs = [
            ("dtm-gid", call.gid),
            ("dtm-trans_type", call.trans_type.as_str()),
            ("dtm-branch_id", call.branch_id),
            ("dtm-op", call.op.as_str()),
            ("dtm-dtm", server),
        ];
        let phase2 = call.phase2_url.map(|url| ("dtm-phase2_url", url));
        let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in pairs.into_iter().chain(phase2).chain(headers) {
            let name = AsciiMetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            let (Ok(name), Ok(value)) = (name, value.parse::<AsciiMetadataValue>()) else {
                return Err(BranchError::retry("gRPC cannot carry a branch header, or the gid"));
            };
            metadata.insert(name, value);
        }
        let reply = self.inner.grpc.call(call.url, metadata, body, call.timeout).await;
        reply.map(Reply::new).map_err(|error| error.into_branch_error(call.url))
    }
}

/// How a branch is called over HTTP.
#[derive(Debug, Clone)]
pub(crate) enum Method {
    Post,
    Get,
    /// A workflow's step: any method, and the status alone decides.
    #[cfg_attr(not(feature = "workflow"), allow(dead_code, reason = "workflows only"))]
    Step(http::Method),
}
