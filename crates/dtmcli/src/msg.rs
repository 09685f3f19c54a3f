//! Two-phase messages (spec 04 §5).

use std::time::Duration;

use bytes::Bytes;
use dtmcli_barrier::{BarrierDb, LocalOutcome, MESSAGE_BRANCH_ID};
use serde_json::json;
use tracing::warn;

use crate::client::{BranchCall, Client, Method};
use crate::error::{Error, Result};
use crate::guard;
use crate::options::option_methods;
use crate::payload::{Payload, payload_methods};
use crate::request::{Operation, RequestStep, TransRequest};
use crate::{Branch, BranchError, BranchResult, Op, Submit, TransOptions, TransType};

/// One thing that a message brings about: a URL or a topic, and the body.
///
/// A delivery cannot be refused, so it has no compensation:
///
/// ```compile_fail
/// dtmcli::Delivery::at("http://bank/in").compensate("http://bank/in-undo");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Delivery {
    action: String,
    payload: Payload,
}

impl Delivery {
    /// To a branch: an `http://` or `https://` URL, or `host:port/package.Service/Method` over
    /// gRPC. It is called until it says that it is done.
    pub fn at(url: impl Into<String>) -> Self {
        Self { action: url.into(), payload: Payload::default() }
    }

    /// To everyone who is subscribed to a topic when the message is accepted.
    pub fn topic(topic: &str) -> Self {
        Self { action: format!("topic://{topic}"), payload: Payload::default() }
    }

    payload_methods!();
}

/// A message in the making. Made by [`Client::msg`].
///
/// Either it goes out with a local transaction ([`commit_with`](Self::commit_with) and its
/// relatives), or by itself ([`submit`](Self::submit)).
#[derive(Debug)]
#[must_use = "nothing happens before it is sent"]
pub struct Msg {
    client: Client,
    gid: String,
    options: TransOptions,
    delay: Option<Duration>,
    deliveries: Vec<Delivery>,
}

/// How the local transaction of a message that goes out was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed<T> {
    /// By this call, with the closure's value.
    Now(T),
    /// By an earlier call with the same gid, or by this one but its confirmation was lost: the
    /// value is not known.
    Before,
}

impl<T> Committed<T> {
    /// The closure's value, if it is known.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Now(value) => Some(value),
            Self::Before => None,
        }
    }
}

impl Msg {
    pub(crate) fn new(client: Client) -> Self {
        let gid = crate::gid::new_gid();
        Self { client, gid, options: TransOptions::new(), delay: None, deliveries: Vec::new() }
    }

    option_methods!();

    /// Adds a delivery. They are made one after the other, unless the message is
    /// [`concurrent`](Self::concurrent).
    pub fn deliver(mut self, delivery: Delivery) -> Self {
        self.deliveries.push(delivery);
        self
    }

    /// Makes all deliveries at once.
    pub fn concurrent(mut self) -> Self {
        self.options = self.options.concurrent();
        self
    }

    /// Waits so long before the first delivery; whole seconds, rounded up.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Sends the message without a local transaction: it is delivered whatever happens here.
    pub fn submit(self) -> Submit {
        let client = self.client.clone();
        Submit::new(client, self.into_request(""))
    }

    /// Sends the first half of the message and leaves the rest to you, for local transactions that
    /// none of the other ways fits. Who does neither submit nor abort is asked by the server, at
    /// `query_prepared`, after `timeout_to_fail`.
    ///
    /// # Errors
    ///
    /// The server's. Nothing is delivered then.
    pub async fn prepare(self, query_prepared: &str) -> Result<PreparedMsg> {
        let client = self.client.clone();
        let request = self.into_request(query_prepared)?;
        if query_prepared.is_empty() {
            return Err(Error::invalid("a message that is prepared needs a URL to ask back at"));
        }
        client.call(Operation::Prepare, &request).await?;
        Ok(PreparedMsg { client, request })
    }

    /// Runs a local transaction of `db` and sends the message exactly if it commits.
    ///
    /// The closure borrows the open transaction. The message's barrier row is in it, so that the
    /// service can answer `query_prepared` (with
    /// [`Branch::query_prepared`](crate::Branch::query_prepared)) whatever happens in between:
    /// the process may die at any point.
    ///
    /// If the closure fails, nothing is committed and the message is aborted. If the future is
    /// dropped, or the commit's confirmation is lost, the database decides: the server asks.
    ///
    /// ```no_run
    /// # async fn example<D>(dtm: dtmcli::Client, db: D, order: serde_json::Value) -> dtmcli::Result<()>
    /// # where D: dtmcli::BarrierDb {
    /// # async fn debit<X>(_: &mut X, _: &serde_json::Value) -> dtmcli::BranchResult { Ok(()) }
    /// use dtmcli::Delivery;
    ///
    /// dtm.msg()
    ///     .deliver(Delivery::at("http://bank/in").json(&order))
    ///     .commit_with(&db, "http://me/query-prepared", async |tx| debit(tx, &order).await)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::Aborted`]: certainly not committed; the cause is in it
    /// - [`Error::Unclear`]: the commit's confirmation was lost and the database cannot be asked
    ///   now. Do not repeat it under another gid: the server will find out
    /// - [`Error::Failure`]: the gid was used before, or an operator ended the message
    /// - any other: the message could not be prepared; the closure did not run
    pub async fn commit_with<D, T, F>(
        self,
        db: &D,
        query_prepared: &str,
        business: F,
    ) -> Result<Committed<T>>
    where
        D: BarrierDb,
        F: AsyncFnOnce(&mut D::Tx) -> BranchResult<T>,
    {
        let prepared = self.prepare(query_prepared).await?;
        let branch = prepared.branch()?;
        match branch.local_transaction(db, business).await {
            LocalOutcome::Committed(value) => {
                prepared.submit_committed().await.map(|()| Committed::Now(value))
            }
            LocalOutcome::AlreadyCommitted => {
                prepared.submit_committed().await.map(|()| Committed::Before)
            }
            LocalOutcome::RolledBack(cause) => Err(prepared.give_up(cause).await),
            LocalOutcome::Unknown(cause) => {
                let found = branch.query_prepared(db).await;
                prepared.act_on(found, cause).await.map(|()| Committed::Before)
            }
        }
    }

    /// As [`commit_with`](Self::commit_with), for any local transaction: the closure gets the
    /// message's [`Branch`] and must use its barrier, so that the question at `query_prepared` can
    /// be answered.
    ///
    /// `Ok` from the closure means committed, `FAILURE` not. After any other error the question
    /// is asked from here, at `query_prepared` itself, and its answer decides.
    ///
    /// # Errors
    ///
    /// As [`commit_with`](Self::commit_with).
    pub async fn commit_by<T, F>(self, query_prepared: &str, business: F) -> Result<Committed<T>>
    where
        F: AsyncFnOnce(&Branch) -> BranchResult<T>,
    {
        let prepared = self.prepare(query_prepared).await?;
        let branch = prepared.branch()?;
        match business(&branch).await {
            Ok(value) => prepared.submit_committed().await.map(|()| Committed::Now(value)),
            Err(cause @ BranchError::Failure(_)) => Err(prepared.give_up(cause).await),
            Err(cause) => {
                let found = prepared.query().await;
                prepared.act_on(found, cause).await.map(|()| Committed::Before)
            }
        }
    }

    fn into_request(self, query_prepared: &str) -> Result<TransRequest> {
        if self.deliveries.is_empty() {
            return Err(Error::invalid("a message needs a delivery"));
        }
        let mut request = TransRequest::new(self.gid, TransType::Msg, self.options)?;
        request.query_prepared = query_prepared.to_owned();
        if let Some(delay) = self.delay {
            // Sent with the prepare as well: then it counts also if the submit is lost (07 D28).
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            request.custom_data = json!({ "delay": seconds }).to_string();
        }
        for delivery in self.deliveries {
            request.steps.push(RequestStep {
                payload: delivery.payload.get()?,
                action: delivery.action,
                compensate: None,
            });
        }
        Ok(request)
    }
}

/// A message whose first half the server has. Made by [`Msg::prepare`].
///
/// Dropping it leaves the decision to `query_prepared`. Each of the two decisions takes it, so
/// there is only one:
///
/// ```compile_fail
/// # async fn example(message: dtmcli::PreparedMsg) -> dtmcli::Result<()> {
/// message.submit().await?;
/// message.abort("changed my mind").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "submit it, abort it, or let the server ask"]
pub struct PreparedMsg {
    client: Client,
    request: TransRequest,
}

impl PreparedMsg {
    /// Its gid.
    #[must_use]
    pub fn gid(&self) -> &str {
        &self.request.gid
    }

    /// The branch that stands for the local transaction: its barrier row goes into it.
    ///
    /// # Errors
    ///
    /// Never for a message that was prepared; the gid was checked then.
    pub fn branch(&self) -> Result<Branch> {
        Branch::message(&self.request.gid).map_err(|error| Error::invalid(error.to_string()))
    }

    /// Lets the message go out: the local transaction is committed. Await the outcome.
    pub fn submit(self) -> Submit {
        Submit::new(self.client, Ok(self.request))
    }

    /// Drops the message: the local transaction is rolled back for good.
    ///
    /// # Errors
    ///
    /// The server's. If the message is prepared still, `query_prepared` decides.
    pub async fn abort(self, reason: &str) -> Result<()> {
        let mut request = self.request;
        request.rollback_reason = reason.to_owned();
        self.client.call(Operation::Abort, &request).await
    }

    /// Submits after a commit. Whatever happens to the submit, the message goes out, for the
    /// server finds the commit by asking; only a refusal means that it does not.
    async fn submit_committed(self) -> Result<()> {
        match self.client.call(Operation::Submit, &self.request).await {
            Ok(()) => Ok(()),
            Err(error @ Error::Failure { .. }) => Err(error),
            Err(error) => {
                warn!(
                    gid = self.request.gid,
                    %error,
                    "the submit was not confirmed; the server asks query-prepared and goes on"
                );
                Ok(())
            }
        }
    }

    /// Aborts, for this cause.
    async fn give_up(self, cause: BranchError) -> Error {
        guard::abort(&self.client, &self.request, &cause.to_string()).await;
        Error::Aborted { gid: self.request.gid, cause }
    }

    /// Acts on what is known of the local transaction after its outcome was lost with `cause`.
    async fn act_on(self, found: BranchResult, cause: BranchError) -> Result<()> {
        match found {
            Ok(()) => self.submit_committed().await,
            Err(BranchError::Failure(_)) => Err(self.give_up(cause).await),
            Err(_) => Err(Error::Unclear { gid: self.request.gid, cause }),
        }
    }

    /// Asks query-prepared as the server does.
    async fn query(&self) -> BranchResult {
        let call = BranchCall {
            url: &self.request.query_prepared,
            trans_type: TransType::Msg,
            gid: &self.request.gid,
            branch_id: MESSAGE_BRANCH_ID,
            op: &Op::Msg,
            phase2_url: None,
            tells_server: false,
            headers: &self.request.options.branch_headers,
            timeout: self.request.options.request_timeout.unwrap_or(self.client.timeout()),
        };
        self.client.call_branch(call, Bytes::new(), Method::Get).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg() -> Msg {
        Client::new("http://127.0.0.1:1").unwrap().msg().gid("g")
    }

    #[tokio::test]
    async fn messages_on_the_wire() {
        let message = msg()
            .deliver(Delivery::at("http://s/in").json(&1))
            .deliver(Delivery::topic("paid"))
            .delay(Duration::from_millis(1_500))
            .concurrent();
        let request = message.into_request("http://s/query").unwrap();
        assert_eq!(request.custom_data, r#"{"delay":2}"#);
        assert_eq!(request.query_prepared, "http://s/query");
        assert!(request.options.concurrent);
        let actions: Vec<&str> = request.steps.iter().map(|step| step.action.as_str()).collect();
        assert_eq!(actions, ["http://s/in", "topic://paid"]);
        assert!(request.steps.iter().all(|step| step.compensate.is_none()));
    }

    #[tokio::test]
    async fn messages_without_meaning_are_not_sent() {
        let empty = msg().submit().await;
        assert!(matches!(empty, Err(Error::Invalid(_))), "{empty:?}");
        let unasked = msg().deliver(Delivery::at("http://s/in")).prepare("").await;
        assert!(matches!(unasked, Err(Error::Invalid(_))), "{unasked:?}");
    }
}
