//! The state of a global transaction: what is stored, and what every decision is made from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{BranchId, Gid};
use crate::options::{Options, Policy};
use crate::status::{BranchStatus, GlobalStatus, Op, TransType};
use crate::time::Timestamp;

/// Names one durable state of a global: a count of its changes, and a tag of who made it.
///
/// A bare count is not enough. A writer goes on from its own lazy changes before it knows what
/// became of them; if one was refused, another writer's change may bear the very count that the
/// next write expects, and would be overwritten unseen. Compare revisions for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Returns the plainly next revision, for a single writer.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Returns the revision that the writer of this tag gives to its next change. A writer takes a
    /// new tag whenever it loads the global.
    #[must_use]
    pub fn next_by(self, tag: u32) -> Self {
        Self((((self.0 >> 32) + 1) << 32) | u64::from(tag))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How branch calls are spoken when the URL does not say (spec 02 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CallProtocol {
    /// Plain HTTP.
    #[default]
    Http,
    /// JSON-RPC 2.0 over HTTP, for URLs that name a method.
    JsonRpc,
    /// gRPC.
    Grpc,
}

impl CallProtocol {
    /// Returns the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::JsonRpc => "json-rpc",
            Self::Grpc => "grpc",
        }
    }

    /// Returns the protocol of a word; the empty word is HTTP.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "" | "http" => Some(Self::Http),
            "json-rpc" => Some(Self::JsonRpc),
            "grpc" => Some(Self::Grpc),
            _ => None,
        }
    }
}

/// One step as the application wrote it, kept to be shown and compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepDef {
    /// URL of the forward call, or `topic://NAME` in a message.
    pub action: Arc<str>,
    /// URL of the undoing call; empty in a message.
    pub compensate: Arc<str>,
}

/// What only one mode has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A saga: for each step the steps that must succeed before it.
    Saga {
        /// Run everything the order allows at once.
        concurrent: bool,
        /// `orders[i]` lists the steps (from 0) before step `i`; may be shorter than the steps.
        orders: Arc<[Vec<usize>]>,
    },
    /// A TCC.
    Tcc,
    /// An XA transaction.
    Xa,
    /// A message, delivered when it is `delay` old.
    Msg {
        /// Age at which delivery begins.
        delay: Duration,
    },
    /// A workflow and its input.
    Workflow {
        /// The registered name; sent as `op` of the callback.
        name: Arc<str>,
        /// The workflow's input, the callback's body.
        data: Arc<[u8]>,
    },
}

impl Mode {
    /// Returns the type's word.
    pub fn trans_type(&self) -> TransType {
        match self {
            Self::Saga { .. } => TransType::Saga,
            Self::Tcc => TransType::Tcc,
            Self::Xa => TransType::Xa,
            Self::Msg { .. } => TransType::Msg,
            Self::Workflow { .. } => TransType::Workflow,
        }
    }
}

/// The retry state of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retry {
    /// Calls in a row whose outcome was unknown (or a FAILURE where none is final).
    pub attempts: u32,
    /// Not to be called before; [`Timestamp::ZERO`] means at once.
    pub next_at: Timestamp,
}

/// One branch operation: a row of its global (spec 01 §1.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The branch.
    pub branch_id: BranchId,
    /// What is asked of it. (branch id, op) is unique within a global.
    pub op: Op,
    /// Where; empty means nothing is to be called, and it counts as done.
    pub url: Arc<str>,
    /// The request body; for a workflow's step the recorded result.
    pub data: Arc<[u8]>,
    /// What is known of it. Only ever moves away from `prepared`, once.
    pub status: BranchStatus,
    /// Its retry state.
    pub retry: Retry,
    /// When the row was made.
    pub created: Timestamp,
    /// When the row changed last.
    pub updated: Timestamp,
    /// When its status became final.
    pub finished: Option<Timestamp>,
}

impl Branch {
    /// Returns whether its outcome is still to be learned.
    pub fn is_pending(&self) -> bool {
        self.status == BranchStatus::Prepared
    }
}

/// A global transaction with its branches: the unit of storage, of ownership and of decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// Its id.
    pub gid: Gid,
    /// The namespace of the caller's credential; `default` until there are credentials.
    pub namespace: Arc<str>,
    /// What only its mode has.
    pub mode: Mode,
    /// Where it stands.
    pub status: GlobalStatus,
    /// How branches are called by default.
    pub protocol: CallProtocol,
    /// Message: whom to ask about the local transaction. Workflow: whom to call to resume.
    pub query_prepared: Arc<str>,
    /// The caller's `custom_data`, verbatim; [`Mode`] holds what it means.
    pub custom_data: Arc<str>,
    /// Its options.
    pub options: Options,
    /// The steps as given; empty for tcc, xa and workflow.
    pub steps: Arc<[StepDef]>,
    /// Digest of the content of the submit that was accepted; 0 before.
    pub content: u128,
    /// Its rows, in the order that matters (spec 01 §1.8).
    pub branches: Vec<Branch>,
    /// When it was accepted; the start of every age.
    pub created: Timestamp,
    /// When it changed last.
    pub updated: Timestamp,
    /// When it became `succeed`.
    pub finished: Option<Timestamp>,
    /// When it became `failed`.
    pub rolled_back: Option<Timestamp>,
    /// Why it was rolled back.
    pub rollback_reason: Arc<str>,
    /// A workflow's result (base64 text, as the SDK sent it).
    pub result: Arc<str>,
    /// Retry state of the query-prepared call or the workflow callback.
    pub query: Retry,
    /// When it must be looked at: while a server works on it, the end of that server's lease;
    /// at rest, when the next call, timeout or delay is due. DTM's `next_cron_time`.
    pub wake_at: Timestamp,
    /// The current retry interval, shown as DTM's `next_cron_interval`.
    pub interval: Duration,
    /// The server that works on it or did last; empty if none has.
    pub owner: Arc<str>,
    /// Counts the changes of owner; a writer with an older epoch is refused by the store.
    pub epoch: u64,
    /// Counts its durable changes.
    pub revision: Revision,
}

impl Global {
    /// Returns its type.
    pub fn trans_type(&self) -> TransType {
        self.mode.trans_type()
    }

    /// Returns the first wait of its retry schedule, before any doubling (spec 01 §5.1).
    pub fn base_interval(&self, policy: &Policy) -> Duration {
        if let Some(interval) = self.options.retry_interval {
            return interval;
        }
        match self.options.timeout_to_fail {
            Some(timeout) if timeout < policy.retry_interval => timeout,
            _ => policy.retry_interval,
        }
    }

    /// Returns the age at which it times out; `None` if it never does.
    pub fn timeout(&self, policy: &Policy) -> Option<Duration> {
        match self.mode {
            Mode::Saga { .. } => self.options.timeout_to_fail,
            Mode::Workflow { .. } => None,
            Mode::Tcc | Mode::Xa | Mode::Msg { .. } => {
                Some(self.options.timeout_to_fail.unwrap_or(policy.timeout_to_fail))
            }
        }
    }

    /// Returns when it times out; `None` if it never does.
    pub fn times_out_at(&self, policy: &Policy) -> Option<Timestamp> {
        self.timeout(policy).map(|timeout| self.created.after(timeout))
    }

    /// Returns how long one of its branch calls may take.
    pub fn request_timeout(&self, policy: &Policy) -> Duration {
        self.options.request_timeout.unwrap_or(policy.request_timeout)
    }

    /// Returns the row of (branch id, op), if there is one.
    pub fn branch(&self, branch_id: &BranchId, op: &Op) -> Option<&Branch> {
        self.branches.iter().find(|row| row.branch_id == *branch_id && row.op == *op)
    }
}
