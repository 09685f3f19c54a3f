//! What applications and operators ask of a global that exists.

use std::fmt;
use std::sync::Arc;

use crate::create::NewGlobal;
use crate::ids::{BranchId, Gid};
use crate::status::{BranchStatus, GlobalStatus, Op, TransType};

/// A row that an application registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBranch {
    /// The branch.
    pub branch_id: BranchId,
    /// What is asked of it.
    pub op: Op,
    /// Where.
    pub url: Arc<str>,
    /// The body; for a workflow's step its recorded result.
    pub data: Arc<[u8]>,
    /// `prepared`, but for a workflow's step, which is recorded with its outcome.
    pub status: BranchStatus,
}

/// A request for a global that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `prepare` of a gid that is taken: success while it is prepared, without any change.
    Prepare,
    /// `prepareWorkflow` of a gid that is taken: reads it.
    PrepareWorkflow,
    /// `submit` of a gid that is taken.
    Submit(Arc<NewGlobal>),
    /// `abort`.
    Abort {
        /// The type as the caller names it; DTM checks this, not the stored one, for tcc and xa.
        trans_type: Option<TransType>,
        /// Why; kept if not empty.
        reason: Arc<str>,
    },
    /// `forceStop`.
    ForceStop,
    /// `registerBranch`; all rows or none.
    Register {
        /// The type as the caller names it.
        trans_type: TransType,
        /// The rows.
        rows: Vec<NewBranch>,
    },
    /// `submit` of a workflow: its end.
    FinishWorkflow {
        /// True for succeed, false for failed.
        succeed: bool,
        /// Why it failed.
        reason: Arc<str>,
        /// Its result.
        result: Arc<str>,
    },
    /// `resetNextCronTime`: everything that waits is due now.
    RetryNow,
}

impl Request {
    /// Returns its kind, for texts and metrics.
    pub fn kind(&self) -> RequestKind {
        match self {
            Self::Prepare => RequestKind::Prepare,
            Self::PrepareWorkflow => RequestKind::PrepareWorkflow,
            Self::Submit(_) => RequestKind::Submit,
            Self::Abort { .. } => RequestKind::Abort,
            Self::ForceStop => RequestKind::ForceStop,
            Self::Register { .. } => RequestKind::Register,
            Self::FinishWorkflow { .. } => RequestKind::FinishWorkflow,
            Self::RetryNow => RequestKind::RetryNow,
        }
    }
}

/// The kind of a [`Request`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// See [`Request::Prepare`].
    Prepare,
    /// See [`Request::PrepareWorkflow`].
    PrepareWorkflow,
    /// See [`Request::Submit`].
    Submit,
    /// See [`Request::Abort`].
    Abort,
    /// See [`Request::ForceStop`].
    ForceStop,
    /// See [`Request::Register`].
    Register,
    /// See [`Request::FinishWorkflow`].
    FinishWorkflow,
    /// See [`Request::RetryNow`].
    RetryNow,
}

/// A request that the protocol has no row for. Nothing was changed.
///
/// `Display` is the text that DTM's SDKs know (spec 02 §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The status does not allow it.
    Status {
        /// The global.
        gid: Gid,
        /// What was asked.
        request: RequestKind,
        /// Its type.
        trans_type: TransType,
        /// Where it stands.
        status: GlobalStatus,
    },
    /// The gid is taken by a transaction with other content.
    OtherContent {
        /// The global.
        gid: Gid,
        /// What differs, named as in the request.
        what: &'static str,
    },
    /// The (branch id, op) is taken by a branch with other content.
    OtherBranch {
        /// The branch.
        branch_id: BranchId,
        /// Its op.
        op: Op,
    },
    /// The request names another type than the stored one.
    OtherType {
        /// The global.
        gid: Gid,
        /// The stored type.
        stored: TransType,
        /// The type named.
        named: TransType,
    },
    /// The global has as many branches as the server keeps.
    TooManyBranches {
        /// The limit.
        max: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { gid, request, trans_type, status } => match request {
                RequestKind::Prepare | RequestKind::PrepareWorkflow => {
                    write!(f, "current status '{status}', cannot prepare. FAILURE")
                }
                // The spelling is DTM's; tools search for it (spec 07 E4).
                RequestKind::Submit => {
                    write!(f, "current status '{status}', cannot sumbmit. FAILURE")
                }
                RequestKind::FinishWorkflow => f.write_str("storage: NotFound"),
                RequestKind::Abort => write!(
                    f,
                    "trans type: '{trans_type}' current status '{status}', cannot abort. FAILURE"
                ),
                RequestKind::ForceStop => write!(
                    f,
                    "global transaction force stop error. status: {status}. error: FAILURE"
                ),
                RequestKind::Register => {
                    write!(f, "no trans with gid: {gid} status: prepared found FAILURE")
                }
                RequestKind::RetryNow => {
                    write!(f, "current status '{status}', cannot retry. FAILURE")
                }
            },
            Self::OtherContent { gid, what } => write!(
                f,
                "gid {gid} is taken by a transaction with other {what}; use a new gid. FAILURE"
            ),
            Self::OtherBranch { branch_id, op } => {
                write!(f, "branch {branch_id} {op} is registered with other content. FAILURE")
            }
            Self::OtherType { gid, stored, named } => {
                write!(f, "gid {gid} is a {stored}, not a {named}. FAILURE")
            }
            Self::TooManyBranches { max } => {
                write!(f, "a transaction may have {max} branch rows at most. FAILURE")
            }
        }
    }
}

impl std::error::Error for Refused {}
