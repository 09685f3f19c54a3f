//! XA, the application's side (spec 04 §4). The service's side is the barrier crate's.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::client::{BranchCall, Client, Method};
use crate::error::{Error, Result};
use crate::guard;
use crate::open::Open;
use crate::options::option_methods;
use crate::payload::{Payload, Reply, payload_methods};
use crate::request::{RegisterRequest, TransRequest};
use crate::{Branch, BranchResult, Op, TransOptions, TransType};

/// One call of a service whose database takes part in an XA transaction.
#[derive(Debug, Clone)]
#[must_use]
pub struct XaCall {
    url: String,
    payload: Payload,
}

impl XaCall {
    /// The service's endpoint: called by you for the action, and by the server for commit or
    /// rollback.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), payload: Payload::default() }
    }

    payload_methods!();
}

/// An XA transaction in the making. Made by [`Client::xa`].
#[derive(Debug)]
#[must_use = "nothing happens before it runs"]
pub struct XaBuilder {
    client: Client,
    gid: String,
    options: TransOptions,
    wait: Option<Duration>,
}

impl XaBuilder {
    pub(crate) fn new(client: Client) -> Self {
        let gid = crate::gid::new_gid();
        Self { client, gid, options: TransOptions::new(), wait: None }
    }

    option_methods!();

    /// Waits for the end of the commits, or of the rollbacks if it is aborted, at most so long. Without
    /// it [`run`](Self::run) returns when the decision is stored.
    pub fn wait_at_most(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    /// Runs the business: prepares, lets the closure call services, and submits; aborts as
    /// [`TccBuilder::run`](crate::TccBuilder::run) does.
    ///
    /// ```no_run
    /// # async fn example(dtm: dtmcli::Client, order: serde_json::Value) -> dtmcli::Result<()> {
    /// use dtmcli::XaCall;
    ///
    /// dtm.xa().run(async |xa| {
    ///     xa.call(XaCall::at("http://bank/out").json(&order)).await?;
    ///     xa.call(XaCall::at("http://bank/in").json(&order)).await?;
    ///     Ok(())
    /// }).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`TccBuilder::run`](crate::TccBuilder::run).
    pub async fn run<T, F>(self, business: F) -> Result<T>
    where
        F: AsyncFnOnce(&Xa) -> BranchResult<T>,
    {
        let request = TransRequest::new(self.gid, TransType::Xa, self.options)?;
        let xa = Xa { open: Open::of(&self.client, &request) };
        guard::decide(&self.client, &request, self.wait, business(&xa)).await
    }
}

/// An XA transaction that is open for branches, within [`XaBuilder::run`].
#[derive(Debug)]
pub struct Xa {
    open: Open,
}

impl Xa {
    /// The global transaction.
    #[must_use]
    pub fn gid(&self) -> &str {
        &self.open.gid
    }

    /// Calls a service: it does its work in an XA branch, registers that with the server, and
    /// prepares it.
    ///
    /// # Errors
    ///
    /// What the service answered. Return it from the closure (`?`), which aborts.
    pub async fn call(&self, call: XaCall) -> BranchResult<Reply> {
        let payload = call.payload.get().map_err(Error::into_branch_error)?;
        let branch_id = self.open.ids.next().map_err(Error::into_branch_error)?;
        let branch_call = BranchCall {
            url: &call.url,
            trans_type: TransType::Xa,
            gid: &self.open.gid,
            branch_id: &branch_id,
            op: &Op::Action,
            phase2_url: Some(&call.url),
            tells_server: true,
            headers: &self.open.headers,
            timeout: self.open.timeout,
        };
        self.open.client.call_branch(branch_call, payload, Method::Post).await
    }

    pub(crate) async fn register(client: &Client, branch: &Branch) -> Result<()> {
        let url = match branch.phase2_url() {
            Some(url) if branch.trans_type() == TransType::Xa => url.to_owned(),
            _ => return Err(Error::invalid("this is not the call of an XA action")),
        };
        let registration = RegisterRequest {
            gid: branch.gid().to_owned(),
            trans_type: TransType::Xa,
            branch_id: branch.branch_id().to_owned(),
            data: BTreeMap::from([("url", url)]),
            payload: Bytes::new(),
        };
        client.register(&registration).await
    }
}
