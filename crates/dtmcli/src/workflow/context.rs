//! A workflow that runs: its steps, what is recorded of them, and what follows at the end.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::debug;

use super::call::Call;
use super::progress::{Progress, Recorded};
use crate::client::Client;
use crate::error::Error;
use crate::gid::BranchIds;
use crate::payload::Reply;
use crate::request::RegisterRequest;
use crate::{Branch, BranchError, BranchResult, Op, TccBranch, TransType};

type Callback =
    Box<dyn FnOnce(PhaseTwo) -> Pin<Box<dyn Future<Output = BranchResult> + Send>> + Send>;

/// A workflow while its function runs: the only way to steps.
///
/// Steps come one after the other (each needs `&mut`), because a step is recognised by its place
/// in the order when the function runs again:
///
/// ```compile_fail
/// # use dtmcli::{BranchResult, Call, Workflow};
/// async fn two_at_once(mut wf: Workflow, url: String) -> BranchResult {
///     let one = wf.step().call(Call::post(&url));
///     let two = wf.step().call(Call::post(&url));
///     let (one, two) = tokio::join!(one, two);
///     one?;
///     two?;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Workflow {
    shared: Arc<Shared>,
}

/// What the function and the one who runs it have in common.
pub(crate) struct Shared {
    client: Client,
    gid: String,
    ids: BranchIds,
    recorded: std::collections::HashMap<(String, String), Recorded>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    on_commit: Vec<(String, Callback)>,
    on_rollback: Vec<(String, Callback)>,
    /// Steps that have begun and whose outcome is not recorded.
    unsettled: u32,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("gid", &self.gid).finish_non_exhaustive()
    }
}

impl Workflow {
    pub(super) fn new(client: Client, gid: String, progress: Progress) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            client,
            gid,
            ids: BranchIds::top(),
            recorded: progress.steps,
            state: Mutex::default(),
        });
        (Self { shared: Arc::clone(&shared) }, shared)
    }

    /// The global transaction.
    #[must_use]
    pub fn gid(&self) -> &str {
        &self.shared.gid
    }

    /// Begins the next step: say what undoes it, then what it does.
    pub fn step(&mut self) -> WorkflowStep<'_> {
        WorkflowStep { workflow: self, on_commit: None, on_rollback: None, even_if_failed: false }
    }

    /// A TCC branch as a step: its try now, its confirm when the workflow succeeds, its cancel
    /// when it is rolled back.
    ///
    /// # Errors
    ///
    /// As [`WorkflowStep::call`].
    pub async fn tcc(&mut self, branch: TccBranch) -> BranchResult<Reply> {
        let TccBranch { url, confirm, cancel, payload } = branch;
        let second = |url: String| Call::post(url).with_payload(payload.clone());
        let (confirm, cancel) = (second(confirm), second(cancel));
        self.step()
            .on_commit(|phase| async move { phase.call(confirm).await.map(|_| ()) })
            .on_rollback(|phase| async move { phase.call(cancel).await.map(|_| ()) })
            .call(Call::post(url).with_payload(payload))
            .await
    }
}

/// One step in the making. Made by [`Workflow::step`].
#[must_use = "a step does nothing before it runs or calls"]
pub struct WorkflowStep<'w> {
    workflow: &'w mut Workflow,
    on_commit: Option<Callback>,
    on_rollback: Option<Callback>,
    /// Whether it is undone although it failed.
    even_if_failed: bool,
}

impl std::fmt::Debug for WorkflowStep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowStep").field("workflow", &self.workflow).finish_non_exhaustive()
    }
}

impl WorkflowStep<'_> {
    /// What undoes this step if the workflow is rolled back later. Not called when this very step
    /// failed: what failed has nothing to undo. It cannot fail itself: it is repeated until it is
    /// done.
    pub fn on_rollback<F, Fut>(mut self, undo: F) -> Self
    where
        F: FnOnce(PhaseTwo) -> Fut + Send + 'static,
        Fut: Future<Output = BranchResult> + Send + 'static,
    {
        self.on_rollback = Some(Box::new(|phase| Box::pin(undo(phase))));
        self
    }

    /// What follows when the workflow has succeeded, such as TCC's confirm. Repeated until done.
    pub fn on_commit<F, Fut>(mut self, confirm: F) -> Self
    where
        F: FnOnce(PhaseTwo) -> Fut + Send + 'static,
        Fut: Future<Output = BranchResult> + Send + 'static,
    {
        self.on_commit = Some(Box::new(|phase| Box::pin(confirm(phase))));
        self
    }

    /// [`on_rollback`](Self::on_rollback) for the usual case: one call.
    pub fn undo(self, call: Call) -> Self {
        self.on_rollback(|phase| async move { phase.call(call).await.map(|_| ()) })
    }

    /// Runs code here as the step. Its value is recorded, and given back instead of running it
    /// when the workflow runs again. It may run twice, if it was done and could not be recorded:
    /// guard it by the barrier of the branch.
    ///
    /// # Errors
    ///
    /// What the code answers: `Failure` is recorded as well, anything else is not, and must be
    /// returned from the workflow (`?`), which is then resumed later.
    pub async fn run<T, F>(self, action: F) -> BranchResult<T>
    where
        T: Serialize + DeserializeOwned,
        F: AsyncFnOnce(&Branch) -> BranchResult<T>,
    {
        let data = self
            .record(async |branch| {
                let value = action(branch).await?;
                Ok(Bytes::from(serde_json::to_vec(&value)?))
            })
            .await?;
        serde_json::from_slice(&data)
            .map_err(|error| BranchError::retry(format!("a recorded step's value: {error}")))
    }

    /// Calls a service as the step. Its answer is recorded, and given back instead of calling it
    /// when the workflow runs again. Over HTTP the status alone says how it ended: 200, 409, 425.
    ///
    /// # Errors
    ///
    /// What the service answered; see [`run`](Self::run).
    pub async fn call(self, call: Call) -> BranchResult<Reply> {
        let client = self.workflow.shared.client.clone();
        let send = async |branch: &Branch| {
            call.send(&client, branch).await.map(|reply| reply.bytes().clone())
        };
        self.record(send).await.map(Reply::new)
    }

    /// Undoes the step although it failed: what failed may have left something behind.
    #[cfg(any(
        feature = "mysql-async",
        feature = "sqlx-mysql",
        feature = "sqlx-postgres",
        feature = "tokio-postgres"
    ))]
    pub(super) fn even_if_failed(mut self) -> Self {
        self.even_if_failed = true;
        self
    }

    #[cfg(any(
        feature = "mysql-async",
        feature = "sqlx-mysql",
        feature = "sqlx-postgres",
        feature = "tokio-postgres"
    ))]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.workflow.shared)
    }

    pub(super) async fn record<F>(self, action: F) -> BranchResult<Bytes>
    where
        F: AsyncFnOnce(&Branch) -> BranchResult<Bytes>,
    {
        let shared = &self.workflow.shared;
        let branch_id = shared.ids.next().map_err(Error::into_branch_error)?;
        let branch = shared.branch(&branch_id, Op::Action)?;
        let outcome = shared.recorded(&branch, action).await;
        let mut state = shared.state();
        if outcome.is_ok() {
            state.on_commit.extend(self.on_commit.map(|call| (branch_id.clone(), call)));
        }
        if outcome.is_ok() || self.even_if_failed {
            state.on_rollback.extend(self.on_rollback.map(|call| (branch_id, call)));
        }
        drop(state);
        outcome
    }
}

/// The end of a workflow, for one of its steps: what [`WorkflowStep::on_commit`] and
/// [`WorkflowStep::on_rollback`] get.
#[derive(Debug)]
pub struct PhaseTwo {
    client: Client,
    branch: Branch,
}

impl PhaseTwo {
    /// The branch, with the op `commit` or `rollback`.
    #[must_use]
    pub fn branch(&self) -> &Branch {
        &self.branch
    }

    /// Calls a service.
    ///
    /// # Errors
    ///
    /// What the service answered.
    pub async fn call(&self, call: Call) -> BranchResult<Reply> {
        call.send(&self.client, &self.branch).await
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a step has begun whose outcome nobody knows, whatever the function made of it.
    pub(super) fn is_unsettled(&self) -> bool {
        self.state().unsettled > 0
    }

    fn branch(&self, branch_id: &str, op: Op) -> BranchResult<Branch> {
        Ok(Branch::new(TransType::Workflow, &self.gid, branch_id, op)?)
    }

    #[cfg(any(
        feature = "mysql-async",
        feature = "sqlx-mysql",
        feature = "sqlx-postgres",
        feature = "tokio-postgres"
    ))]
    pub(super) fn is_recorded(&self, branch: &Branch) -> bool {
        let key = (branch.branch_id().to_owned(), branch.op().as_str().to_owned());
        self.recorded.contains_key(&key)
    }

    /// Gives back what is recorded of a step, or does it and records it.
    pub(super) async fn recorded<F>(&self, branch: &Branch, action: F) -> BranchResult<Bytes>
    where
        F: AsyncFnOnce(&Branch) -> BranchResult<Bytes>,
    {
        let key = (branch.branch_id().to_owned(), branch.op().as_str().to_owned());
        if let Some(recorded) = self.recorded.get(&key) {
            debug!(gid = self.gid, branch_id = key.0, op = key.1, "step is replayed");
            return match recorded.failed {
                false => Ok(recorded.data.clone()),
                true => {
                    Err(BranchError::Failure(String::from_utf8_lossy(&recorded.data).into_owned()))
                }
            };
        }
        self.state().unsettled += 1;
        let outcome = action(branch).await;
        let (status, data) = match &outcome {
            Ok(data) => ("succeed", data.clone()),
            Err(BranchError::Failure(reason)) => ("failed", Bytes::from(reason.clone())),
            Err(_) => return outcome,
        };
        let registration = RegisterRequest {
            gid: self.gid.clone(),
            trans_type: TransType::Workflow,
            branch_id: key.0,
            data: BTreeMap::from([("op", key.1), ("status", status.to_owned())]),
            payload: data,
        };
        // Whatever the server says, it says nothing about the step: never a failure of it.
        self.client.register(&registration).await.map_err(BranchError::retry)?;
        self.state().unsettled -= 1;
        outcome
    }

    /// Runs what follows the end, the last step's first.
    pub(super) async fn finish(&self, op: Op) -> BranchResult {
        let mut callbacks = match op {
            Op::Commit => std::mem::take(&mut self.state().on_commit),
            _ => std::mem::take(&mut self.state().on_rollback),
        };
        while let Some((branch_id, callback)) = callbacks.pop() {
            let branch = self.branch(&branch_id, op.clone())?;
            let phase = PhaseTwo { client: self.client.clone(), branch: branch.clone() };
            let action = async |_: &Branch| match callback(phase).await {
                Ok(()) => Ok(Bytes::new()),
                // The decision is made: there is no way but on.
                Err(BranchError::Failure(reason)) => Err(BranchError::retry(format!(
                    "{} of branch {branch_id} failed, which it must not: {reason}",
                    branch.op()
                ))),
                Err(error) => Err(error),
            };
            self.recorded(&branch, action).await?;
        }
        Ok(())
    }
}
