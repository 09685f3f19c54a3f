//! The seam through which branches are called.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use dtmd_protocol::{Call, CallProtocol, Gid, Outcome, TransType};

/// One branch call, complete.
#[derive(Debug, Clone)]
pub struct BranchCall {
    /// The global.
    pub gid: Gid,
    /// Its type.
    pub trans_type: TransType,
    /// What to call, where, with what body, how long to wait.
    pub call: Call,
    /// The transaction's `branch_headers`.
    pub headers: Arc<BTreeMap<String, String>>,
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it means to the protocol.
    pub outcome: Outcome,
    /// Whether the service could not be reached, by this server or by a proxy, or did not answer in
    /// time: counts for the circuit breaker of its destination.
    pub unreachable: bool,
}

/// Calls branches. Implemented by the transports.
#[async_trait]
pub trait BranchCaller: Send + Sync {
    /// Calls one branch and returns what it answered, within the call's timeout.
    ///
    /// Never fails: a service that cannot be reached is an [`Outcome::Unknown`]. Runs on the
    /// runtime of the calling task.
    async fn call(&self, call: &BranchCall) -> Answer;

    /// Returns why a URL cannot be called by this server, if it cannot.
    fn cannot_call(&self, url: &str, protocol: CallProtocol) -> Option<String>;
}
