//! What applications and operators can ask for.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Gid, Global, Limits, NewBranch, NewGlobal, TransType};
use dtmd_store::{Kv, KvPage, ListFilter, ListPage};

use crate::error::EngineError;
use crate::events::TestControl;
use crate::metrics::Metrics;

/// What a bulk reset did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResetCount {
    /// How many are due now.
    pub succeed_count: usize,
    /// Whether more would match.
    pub has_remaining: bool,
}

/// A handle to the engine; clones share it.
#[derive(Clone)]
pub struct Engine {}

#[allow(unused, reason = "placeholder")]
impl Engine {
    /// Accepts a transaction as prepared. Returns when it is durable.
    pub async fn prepare(&self, new: NewGlobal) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Accepts a transaction and starts it; with `wait_result` returns when its first pass ended.
    pub async fn submit(&self, new: NewGlobal) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Rolls a prepared transaction back.
    pub async fn abort(&self, gid: &Gid, trans_type: Option<TransType>, reason: &str) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Ends a transaction as failed, whatever has been done.
    pub async fn force_stop(&self, gid: &Gid) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Registers rows of a prepared transaction.
    pub async fn register(&self, gid: &Gid, trans_type: TransType, rows: Vec<NewBranch>) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Accepts a workflow, or returns the one that is there with its progress.
    pub async fn prepare_workflow(&self, new: NewGlobal) -> Result<Arc<Global>, EngineError> { Err(EngineError::ShuttingDown) }
    /// Ends a workflow.
    pub async fn finish_workflow(&self, gid: &Gid, succeed: bool, reason: &str, result: &str) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Makes everything of one transaction that waits for a retry due now.
    pub async fn retry_now(&self, gid: &Gid) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Makes unfinished transactions due now that would wait for longer than `wait`.
    pub async fn reset_cron_time(&self, wait: Duration, limit: usize) -> Result<ResetCount, EngineError> { Err(EngineError::ShuttingDown) }
    /// Returns a transaction.
    pub async fn query(&self, gid: &Gid) -> Result<Option<Arc<Global>>, EngineError> { Err(EngineError::ShuttingDown) }
    /// Returns a page of transactions, newest first.
    pub async fn list(&self, filter: &ListFilter, position: &str, limit: usize) -> Result<ListPage, EngineError> { Err(EngineError::ShuttingDown) }
    /// Adds a subscriber to a topic; makes the topic if needed.
    pub async fn subscribe(&self, topic: &str, url: &str, remark: &str) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Removes a subscriber.
    pub async fn unsubscribe(&self, topic: &str, url: &str) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Deletes a topic.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// Returns one stored key.
    pub async fn load_kv(&self, cat: &str, key: &str) -> Result<Option<Kv>, EngineError> { Err(EngineError::ShuttingDown) }
    /// Returns a page of a category's keys.
    pub async fn list_kv(&self, cat: &str, position: &str, limit: usize) -> Result<KvPage, EngineError> { Err(EngineError::ShuttingDown) }
    /// Answers if the server can accept transactions: the store answers and it is not shutting down.
    pub async fn ready(&self) -> Result<(), EngineError> { Err(EngineError::ShuttingDown) }
    /// The bounds of what is accepted.
    pub fn limits(&self) -> &Limits { unreachable!() }
    /// The metrics.
    pub fn metrics(&self) -> &Metrics { unreachable!() }
    /// The test clock, if the server was started with one.
    pub fn test_control(&self) -> Option<&TestControl> { None }
    /// Default of `timeout_to_fail`, for `resetCronTime`.
    pub fn timeout_to_fail(&self) -> Duration { Duration::from_secs(35) }
}
