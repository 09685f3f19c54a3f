//! Why a request was not done, by what the caller is told.

use dtmd_protocol::{Gid, Invalid, Refused};

/// Why the engine did not do what was asked.
///
/// `Display` is what the caller reads; failures end in `FAILURE` and ongoing ones in `ONGOING`,
/// the words that SDKs search for (spec 02 §1.2).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The protocol has no row for it (HTTP 409). Nothing was changed.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The request cannot be accepted (HTTP 400). Nothing was stored.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The caller waited, and the transaction was rolled back (HTTP 409).
    #[error("{0}")]
    RolledBack(String),
    /// The caller waited, and the transaction is not final yet (HTTP 425). It goes on.
    #[error("{0}")]
    Ongoing(String),
    /// The caller waited, and a branch answered nothing that decides (HTTP 500). It goes on.
    #[error("{0}")]
    Branch(String),
    /// There is no such transaction (HTTP 500, as in DTM).
    #[error("no TransGlobal with gid: {0} found")]
    NotFound(Gid),
    /// A registration for a gid that does not exist (HTTP 409).
    #[error("no trans with gid: {0} status: prepared found FAILURE")]
    NotPrepared(Gid),
    /// The end of a workflow that does not exist (HTTP 500, DTM's text).
    #[error("storage: NotFound")]
    NoWorkflow,
    /// A message names a topic without subscribers (HTTP 500, as in DTM).
    #[error("topic not found: {0}")]
    TopicNotFound(String),
    /// A topic request that cannot be done (HTTP 500, DTM's texts, spec 01 §4.4).
    #[error("{0}")]
    Topic(String),
    /// The store cannot be reached or is full (HTTP 503). Whether the request was done is unknown:
    /// repeat it with the same gid.
    #[error("{0}; the outcome is unknown, repeat the request with the same gid")]
    Unavailable(String),
    /// Too much is under way (HTTP 503). Nothing was done; try again later.
    #[error("the server is overloaded: {0}; try again later")]
    Overloaded(&'static str),
    /// The server is shutting down (HTTP 503). Nothing was done; try again.
    #[error("the server is shutting down; try again")]
    ShuttingDown,
}
