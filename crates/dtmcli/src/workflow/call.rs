//! A call that is a step, or a part of one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{BranchCall, Client, Method};
use crate::payload::{Payload, Reply, payload_methods};
use crate::{Branch, BranchResult, TransType};

/// A call of a service from within a workflow. It carries which branch it is, so that the service
/// can use its barrier.
#[derive(Debug, Clone)]
#[must_use]
pub struct Call {
    method: http::Method,
    url: String,
    payload: Payload,
    headers: BTreeMap<String, String>,
    timeout: Option<Duration>,
}

impl Call {
    /// A POST over HTTP.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new(http::Method::POST, url.into())
    }

    /// A GET over HTTP.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(http::Method::GET, url.into())
    }

    /// A PUT over HTTP.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new(http::Method::PUT, url.into())
    }

    /// A DELETE over HTTP.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new(http::Method::DELETE, url.into())
    }

    /// A unary call over gRPC, of `host:port/package.Service/Method`.
    #[cfg(feature = "grpc")]
    pub fn grpc(method: impl Into<String>) -> Self {
        Self::new(http::Method::POST, method.into())
    }

    fn new(method: http::Method, url: String) -> Self {
        Self { method, url, payload: Payload::default(), headers: BTreeMap::new(), timeout: None }
    }

    payload_methods!();

    pub(crate) fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// A header, or metadata over gRPC.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// How long the service may take. Without it: the client's timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes the call as this branch.
    pub(crate) async fn send(self, client: &Client, branch: &Branch) -> BranchResult<Reply> {
        let payload = self.payload.get()?;
        let call = BranchCall {
            url: &self.url,
            trans_type: TransType::Workflow,
            gid: branch.gid(),
            branch_id: branch.branch_id(),
            op: branch.op(),
            phase2_url: None,
            tells_server: false,
            headers: &self.headers,
            timeout: self.timeout.unwrap_or(client.timeout()),
        };
        client.call_branch(call, payload, Method::Step(self.method)).await
    }
}
