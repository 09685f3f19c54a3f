//! Workflows (spec 04 §7): code with recorded steps.

pub(crate) mod base64;
mod call;
mod context;
pub(crate) mod progress;
mod serve;
#[cfg(any(
    feature = "mysql-async",
    feature = "sqlx-mysql",
    feature = "sqlx-postgres",
    feature = "tokio-postgres"
))]
mod xa;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

pub use call::Call;
pub use context::{PhaseTwo, Workflow, WorkflowStep};
#[cfg(feature = "tonic-server")]
pub use serve::WorkflowService;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::request::{Operation, TransRequest};
use crate::transaction::GlobalStatus;
use crate::{BranchError, BranchResult, Op, TransOptions, TransType};
use progress::Progress;

type Function = Box<
    dyn Fn(Workflow, Bytes) -> Pin<Box<dyn Future<Output = BranchResult<Bytes>> + Send>>
        + Send
        + Sync,
>;

/// The workflows of this service: their functions by name, the server they are recorded at, and
/// where that server calls to have one resumed.
///
/// ```no_run
/// # async fn example(dtm: dtmcli::Client) -> dtmcli::Result<()> {
/// use dtmcli::{BranchResult, Call, Workflow, Workflows};
///
/// async fn transfer(mut wf: Workflow, amount: i64) -> BranchResult<String> {
///     wf.step()
///         .undo(Call::post("http://bank/out-undo").json(&amount))
///         .call(Call::post("http://bank/out").json(&amount))
///         .await?;
///     let receipt = wf.step().call(Call::post("http://bank/in").json(&amount)).await?;
///     receipt.json()
/// }
///
/// let workflows = Workflows::builder(dtm, "http://me:8080/workflows")
///     .register("transfer", transfer)
///     .build()?;
/// // let app = axum::Router::new().merge(workflows.router("/workflows"));
/// let receipt: String = workflows.execute("transfer", "order-42", &30).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Rules
///
/// - **Deterministic**: for the same input, the same steps in the same order. Time, randomness and
///   what other systems say belong **into** a step, for a step's value is recorded.
/// - **Steps may run twice**: done, but not recorded. Guard them by barriers, as every branch.
/// - **Every process behind the callback** registers the same workflows.
/// - An error that is not `Failure` ends the run, not the workflow: the server has it resumed.
#[derive(Clone)]
pub struct Workflows {
    registry: Arc<Registry>,
}

struct Registry {
    client: Client,
    callback: String,
    options: TransOptions,
    functions: HashMap<String, Function>,
    /// The gids whose function runs in this process: a second run would do its steps again.
    running: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Workflows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names: Vec<&String> = self.registry.functions.keys().collect();
        names.sort();
        f.debug_struct("Workflows").field("names", &names).finish_non_exhaustive()
    }
}

/// Collects workflows. Made by [`Workflows::builder`].
#[must_use]
pub struct WorkflowsBuilder {
    registry: Registry,
    twice: Option<String>,
}

impl std::fmt::Debug for WorkflowsBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkflowsBuilder").finish_non_exhaustive()
    }
}

impl WorkflowsBuilder {
    /// Adds a workflow: an async function of a [`Workflow`] and its input, which answers with its
    /// result. Input and result travel as JSON.
    pub fn register<T, R, F, Fut>(mut self, name: impl Into<String>, function: F) -> Self
    where
        T: DeserializeOwned + Send,
        R: Serialize,
        F: Fn(Workflow, T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = BranchResult<R>> + Send + 'static,
    {
        let name = name.into();
        let function = Arc::new(function);
        let erased: Function = Box::new(move |workflow, input: Bytes| {
            let function = Arc::clone(&function);
            Box::pin(async move {
                let input = serde_json::from_slice(&input).map_err(|error| {
                    BranchError::retry(format!("the workflow's input cannot be read: {error}"))
                })?;
                let result = function(workflow, input).await?;
                Ok(serde_json::to_vec(&result)?.into())
            })
        });
        if self.registry.functions.insert(name.clone(), erased).is_some() {
            self.twice = Some(name);
        }
        self
    }

    /// The options of all workflows. Of the times, `retry_interval` says how soon the server has
    /// an unfinished one resumed.
    pub fn options(mut self, options: TransOptions) -> Self {
        self.registry.options = options;
        self
    }

    /// Makes the registry.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: a name was registered twice, or the callback is none.
    pub fn build(self) -> Result<Workflows> {
        if let Some(name) = self.twice {
            return Err(Error::Invalid(format!("the workflow '{name}' is registered twice")));
        }
        if self.registry.callback.is_empty() {
            return Err(Error::invalid("workflows need a URL at which they are resumed"));
        }
        Ok(Workflows { registry: Arc::new(self.registry) })
    }
}

impl Workflows {
    /// Collects the workflows of a service that can be called at `callback`: the URL of
    /// [`Workflows::router`] over HTTP, `host:port` over gRPC.
    pub fn builder(client: Client, callback: impl Into<String>) -> WorkflowsBuilder {
        let mut callback = callback.into();
        if client.is_grpc() && !callback.is_empty() && !callback.contains('/') {
            callback.push_str("/workflow.Workflow/Execute");
        }
        let registry = Registry {
            client,
            callback,
            options: TransOptions::new(),
            functions: HashMap::new(),
            running: Mutex::default(),
        };
        WorkflowsBuilder { registry, twice: None }
    }

    /// Runs a workflow, or goes on with the one that has this gid, or tells the result of one that
    /// has ended. The gid makes it the same workflow, whoever executes it and how often.
    ///
    /// # Errors
    ///
    /// - [`Error::RolledBack`]: it has failed, and what it did is undone
    /// - [`Error::Suspended`]: it stopped at a step whose outcome is not known; the server has it
    ///   resumed, and executing it again is also right
    /// - [`Error::Ongoing`]: it runs in this process already
    /// - [`Error::Invalid`]: no workflow of that name, or an input that cannot be JSON
    /// - any other: the server's. It is the same to execute it again
    pub async fn execute<R: DeserializeOwned>(
        &self,
        name: &str,
        gid: &str,
        input: &(impl Serialize + ?Sized),
    ) -> Result<R> {
        let input = serde_json::to_vec(input)
            .map_err(|error| Error::invalid(format!("the input cannot be made JSON: {error}")))?;
        let result = self.run(name, gid, input.into()).await?;
        serde_json::from_slice(&result).map_err(|error| Error::Unexpected {
            what: "workflow",
            status: 200,
            text: format!("the result cannot be read: {error}"),
        })
    }

    /// Goes on with a workflow because the server asks for it: what
    /// [`router`](Workflows::router) does, for frameworks that the SDK has no feature for. `name`
    /// is the op of the call, `data` its body.
    ///
    /// It is not given up when the caller hangs up: it goes on in a task of its own.
    ///
    /// # Errors
    ///
    /// What is to be answered to the server.
    pub async fn resume(&self, name: &str, gid: &str, data: Bytes) -> BranchResult {
        let (this, name, gid) = (self.clone(), name.to_owned(), gid.to_owned());
        let run = tokio::spawn(async move { this.run(&name, &gid, data).await });
        match run.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into_branch_error()),
            Err(panic) => Err(BranchError::retry(panic)),
        }
    }

    async fn run(&self, name: &str, gid: &str, input: Bytes) -> Result<Bytes> {
        let registry = &self.registry;
        let Some(function) = registry.functions.get(name) else {
            return Err(Error::Invalid(format!(
                "workflow '{name}' not registered. Register it in every process behind {}",
                registry.callback
            )));
        };
        let Some(_running) = Running::begin(registry, gid) else {
            let text = format!("the workflow {gid} runs in this process");
            return Err(Error::Ongoing { what: "workflow", text });
        };
        let mut request =
            TransRequest::new(gid.to_owned(), TransType::Workflow, registry.options.clone())?;
        let data = base64::encode(&input);
        request.custom_data = json!({ "name": name, "data": data }).to_string();
        request.query_prepared.clone_from(&registry.callback);
        let progress = Progress::prepare(&registry.client, &request).await?;
        match progress.status {
            GlobalStatus::Succeed => return Ok(progress.result),
            GlobalStatus::Failed => {
                let reason = progress.rollback_reason;
                return Err(Error::RolledBack { gid: gid.to_owned(), reason });
            }
            _ => {}
        }
        let (workflow, shared) = Workflow::new(registry.client.clone(), gid.to_owned(), progress);
        let outcome = function(workflow, input).await;
        let outcome = match outcome {
            Ok(_) | Err(BranchError::Failure(_)) if shared.is_unsettled() => {
                Err(BranchError::retry("a step's outcome is not known, and was not returned"))
            }
            outcome => outcome,
        };
        let suspended = |cause| Error::Suspended { gid: gid.to_owned(), cause };
        match outcome {
            Ok(result) => {
                shared.finish(Op::Commit).await.map_err(suspended)?;
                self.end(request, Ok(&result)).await?;
                Ok(result)
            }
            Err(BranchError::Failure(reason)) => {
                shared.finish(Op::Rollback).await.map_err(suspended)?;
                self.end(request, Err(&reason)).await?;
                Err(Error::RolledBack { gid: gid.to_owned(), reason })
            }
            Err(cause) => Err(suspended(cause)),
        }
    }

    /// Tells the server how it ended.
    async fn end(&self, mut request: TransRequest, end: Result<&Bytes, &String>) -> Result<()> {
        let (status, reason, result) = match end {
            Ok(result) => ("succeed", String::new(), base64::encode(result)),
            Err(reason) => ("failed", reason.clone(), String::new()),
        };
        request.req_extra = BTreeMap::from([
            ("status", status.to_owned()),
            ("rollback_reason", reason),
            ("result", result),
        ]);
        self.registry.client.call(Operation::Submit, &request).await
    }
}

/// Keeps a gid's second run out while the first goes on, until it is dropped.
struct Running<'a> {
    registry: &'a Registry,
    gid: &'a str,
}

impl<'a> Running<'a> {
    fn begin(registry: &'a Registry, gid: &'a str) -> Option<Self> {
        let mut running = registry.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Made only if it is the first: its drop would let go of the other one's gid.
        running.insert(gid.to_owned()).then(|| Self { registry, gid })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.registry.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(self.gid);
    }
}
