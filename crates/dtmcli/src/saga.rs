//! Sagas (spec 04 §2).

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::options::option_methods;
use crate::payload::{Payload, payload_methods};
use crate::request::{RequestStep, TransRequest};
use crate::transaction::{GlobalStatus, Transaction};
use crate::{TransOptions, TransType};

/// How long [`Submit::wait`] waits.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

/// One step of a saga: an action, what undoes it, and the body of both.
#[derive(Debug, Clone)]
#[must_use]
pub struct Step {
    action: String,
    compensate: String,
    payload: Payload,
    after: Vec<usize>,
}

impl Step {
    /// A step whose action is called here: an `http://` or `https://` URL, or
    /// `host:port/package.Service/Method` over gRPC. An empty URL is a step that only has a
    /// compensation.
    pub fn at(action: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            compensate: String::new(),
            payload: Payload::default(),
            after: Vec::new(),
        }
    }

    /// Where what the action did is undone. Called for a failed action too: it must cope with an
    /// action that never ran, which a barrier does.
    pub fn compensate(mut self, url: impl Into<String>) -> Self {
        self.compensate = url.into();
        self
    }

    /// In a concurrent saga: begins only when these steps, counted from 0, have succeeded.
    /// Makes the saga concurrent.
    pub fn after(mut self, steps: impl IntoIterator<Item = usize>) -> Self {
        self.after.extend(steps);
        self
    }

    payload_methods!();
}

/// A saga in the making. Made by [`Client::saga`].
///
/// ```no_run
/// # async fn example(dtm: dtmcli::Client, order: serde_json::Value) -> dtmcli::Result<()> {
/// use dtmcli::Step;
///
/// dtm.saga()
///     .step(Step::at("http://bank/out").compensate("http://bank/out-undo").json(&order))
///     .step(Step::at("http://bank/in").compensate("http://bank/in-undo").json(&order))
///     .submit()
///     .wait()
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// A message's [`Delivery`](crate::Delivery) has no compensation and is no step of a saga:
///
/// ```compile_fail
/// # fn example(dtm: dtmcli::Client) {
/// dtm.saga().step(dtmcli::Delivery::at("http://bank/in"));
/// # }
/// ```
#[derive(Debug)]
#[must_use = "nothing happens before it is submitted"]
pub struct Saga {
    client: Client,
    gid: String,
    options: TransOptions,
    steps: Vec<Step>,
}

impl Saga {
    pub(crate) fn new(client: Client) -> Self {
        let gid = crate::gid::new_gid();
        Self { client, gid, options: TransOptions::new(), steps: Vec::new() }
    }

    option_methods!();

    /// Adds a step.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Lets the steps run at once, except where [`Step::after`] orders them.
    pub fn concurrent(mut self) -> Self {
        self.options = self.options.concurrent();
        self
    }

    /// See [`TransOptions::retry_limit`].
    pub fn retry_limit(mut self, times: u32) -> Self {
        self.options = self.options.retry_limit(times);
        self
    }

    /// Sends the saga. Await the outcome: either that the server has it
    /// (`saga.submit().await?`), or how it ended (`saga.submit().wait().await?`).
    pub fn submit(self) -> Submit {
        let client = self.client.clone();
        Submit::new(client, self.into_request())
    }

    fn into_request(mut self) -> Result<TransRequest> {
        check_orders(&self.steps)?;
        let orders: BTreeMap<String, &Vec<usize>> = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| !step.after.is_empty())
            .map(|(at, step)| (at.to_string(), &step.after))
            .collect();
        if !orders.is_empty() {
            self.options.concurrent = true;
        }
        let mut request = TransRequest::new(self.gid, TransType::Saga, self.options)?;
        if request.options.concurrent {
            request.custom_data = json!({ "orders": orders, "concurrent": true }).to_string();
        }
        for step in &self.steps {
            request.steps.push(RequestStep {
                action: step.action.clone(),
                compensate: Some(step.compensate.clone()),
                payload: step.payload.get()?,
            });
        }
        Ok(request)
    }
}

/// Refuses what could never run: DTM would keep such a saga for ever without a word (07 D37).
fn check_orders(steps: &[Step]) -> Result<()> {
    if steps.is_empty() {
        return Err(Error::invalid("a saga needs a step"));
    }
    for (at, step) in steps.iter().enumerate() {
        if let Some(wrong) = step.after.iter().find(|&&before| before >= steps.len()) {
            let text =
                format!("step {at} is after step {wrong}, of {} (counted from 0)", steps.len());
            return Err(Error::Invalid(text));
        }
    }
    let mut done = vec![false; steps.len()];
    loop {
        let runnable =
            |at: &usize| !done[*at] && steps[*at].after.iter().all(|&before| done[before]);
        match (0..steps.len()).find(runnable) {
            Some(at) => done[at] = true,
            None if done.iter().all(|&done| done) => return Ok(()),
            None => return Err(Error::invalid("the saga's steps wait for each other in a circle")),
        }
    }
}

/// A transaction on its way to the server. Await it.
///
/// Dropping it while it is awaited leaves open whether the server has it; what the server has goes
/// on without the caller.
#[derive(Debug)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Submit {
    client: Client,
    request: Result<TransRequest>,
    wait: Option<Duration>,
}

impl Submit {
    pub(crate) fn new(client: Client, request: Result<TransRequest>) -> Self {
        Self { client, request, wait: None }
    }

    /// Waits for the end, 60 s at most: `Ok` is success, [`Error::RolledBack`] is what it says,
    /// and [`Error::Unfinished`] is neither.
    pub fn wait(self) -> Self {
        self.wait_at_most(WAIT_DEFAULT)
    }

    /// As [`wait`](Self::wait), for another time.
    pub fn wait_at_most(mut self, at_most: Duration) -> Self {
        self.wait = Some(at_most);
        self
    }

    async fn send(self) -> Result<Submitted> {
        let mut request = self.request?;
        request.options.wait_result = self.wait.is_some();
        let status = self.client.submit(&request, self.wait).await?;
        Ok(Submitted { client: self.client, gid: request.gid, status })
    }
}

impl IntoFuture for Submit {
    type Output = Result<Submitted>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A transaction that the server has: it will be carried through, whatever becomes of the caller.
#[derive(Debug, Clone)]
pub struct Submitted {
    client: Client,
    gid: String,
    status: GlobalStatus,
}

impl Submitted {
    /// Its gid.
    #[must_use]
    pub fn gid(&self) -> &str {
        &self.gid
    }

    /// What was known when the server answered: `Succeed` after waiting, else `Submitted`.
    #[must_use]
    pub fn status(&self) -> GlobalStatus {
        self.status
    }

    /// Waits until it is final, see [`Client::wait`].
    ///
    /// # Errors
    ///
    /// As [`Client::wait`].
    pub async fn wait(&self, at_most: Duration) -> Result<Transaction> {
        self.client.wait(&self.gid, at_most).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saga(steps: Vec<Step>) -> Saga {
        let mut saga = Client::new("http://127.0.0.1:1").unwrap().saga().gid("g");
        saga.steps = steps;
        saga
    }

    fn step() -> Step {
        Step::at("http://s/a").compensate("http://s/c").json(&7)
    }

    #[tokio::test]
    async fn orders_on_the_wire() {
        let table = [
            (saga(vec![step(), step()]), String::new()),
            (saga(vec![step()]).concurrent(), r#"{"concurrent":true,"orders":{}}"#.to_owned()),
            (
                saga(vec![step(), step().after([0])]),
                r#"{"concurrent":true,"orders":{"1":[0]}}"#.to_owned(),
            ),
        ];
        for (saga, custom_data) in table {
            let request = saga.into_request().unwrap();
            assert_eq!(request.custom_data, custom_data);
            assert_eq!(request.options.concurrent, !custom_data.is_empty());
            assert_eq!(request.steps[0].compensate.as_deref(), Some("http://s/c"));
            assert_eq!(request.steps[0].payload, "7");
        }
    }

    #[tokio::test]
    async fn sagas_that_could_never_end_are_not_sent() {
        let unprintable = std::collections::BTreeMap::from([((1, 2), 3)]);
        let table = [
            (saga(vec![]), "needs a step"),
            (saga(vec![step().after([1])]), "after step 1"),
            (saga(vec![step().after([0])]), "circle"),
            (saga(vec![step().after([1]), step().after([0])]), "circle"),
            (saga(vec![step()]).gid(""), "gid is missing"),
            (saga(vec![Step::at("http://s/a").json(&unprintable)]), "JSON"),
        ];
        for (saga, why) in table {
            match saga.submit().await {
                Err(Error::Invalid(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{why}: {other:?}"),
            }
        }
    }
}
