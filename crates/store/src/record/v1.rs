//! Format version 1. The order of members and variants is the format: never change this file,
//! add a `v2` beside it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{
    Branch, BranchId, BranchStatus, CallProtocol, Gid, Global, GlobalStatus, Mode, Op, Options,
    Retry, Revision, StepDef, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::payload::{Digest, Payload};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GlobalV1<'a> {
    #[serde(borrow)]
    gid: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    mode: ModeV1<'a>,
    status: GlobalStatusV1,
    protocol: CallProtocolV1,
    #[serde(borrow)]
    query_prepared: Cow<'a, str>,
    #[serde(borrow)]
    custom_data: Cow<'a, str>,
    #[serde(borrow)]
    options: OptionsV1<'a>,
    #[serde(borrow)]
    steps: Vec<StepV1<'a>>,
    content: Digest,
    #[serde(borrow)]
    branches: Vec<BranchV1<'a>>,
    created: i64,
    updated: i64,
    finished: Option<i64>,
    rolled_back: Option<i64>,
    #[serde(borrow)]
    rollback_reason: Cow<'a, str>,
    #[serde(borrow)]
    result: Cow<'a, str>,
    query: RetryV1,
    wake_at: i64,
    interval: Duration,
    #[serde(borrow)]
    owner: Cow<'a, str>,
    epoch: u64,
    revision: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ModeV1<'a> {
    Saga {
        concurrent: bool,
        orders: Vec<Vec<usize>>,
    },
    Tcc,
    Xa,
    Msg {
        delay: Duration,
    },
    Workflow {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow)]
        data: Payload<'a>,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum GlobalStatusV1 {
    Prepared,
    Submitted,
    Aborting,
    Succeed,
    Failed,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BranchStatusV1 {
    Prepared,
    Succeed,
    Failed,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum CallProtocolV1 {
    Http,
    JsonRpc,
    Grpc,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OpV1<'a> {
    Action,
    Compensate,
    Try,
    Confirm,
    Cancel,
    Commit,
    Rollback,
    Msg,
    Named(#[serde(borrow)] Cow<'a, str>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OptionsV1<'a> {
    wait_result: bool,
    timeout_to_fail: Option<Duration>,
    request_timeout: Option<Duration>,
    retry_interval: Option<Duration>,
    retry_limit: u32,
    retry_count: u32,
    concurrent: bool,
    #[serde(borrow)]
    branch_headers: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StepV1<'a> {
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    compensate: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct RetryV1 {
    attempts: u32,
    next_at: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BranchV1<'a> {
    #[serde(borrow)]
    branch_id: Cow<'a, str>,
    #[serde(borrow)]
    op: OpV1<'a>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow)]
    data: Payload<'a>,
    status: BranchStatusV1,
    retry: RetryV1,
    created: i64,
    updated: i64,
    finished: Option<i64>,
}

fn text(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.0)
}

impl<'a> From<&'a Global> for GlobalV1<'a> {
    fn from(global: &'a Global) -> Self {
        Self {
            gid: text(global.gid.as_str()),
            namespace: text(&global.namespace),
            mode: (&global.mode).into(),
            status: global.status.into(),
            protocol: global.protocol.into(),
            query_prepared: text(&global.query_prepared),
            custom_data: text(&global.custom_data),
            options: (&global.options).into(),
            steps: global.steps.iter().map(StepV1::from).collect(),
            content: Digest(global.content),
            branches: global.branches.iter().map(BranchV1::from).collect(),
            created: global.created.0,
            updated: global.updated.0,
            finished: micros(global.finished),
            rolled_back: micros(global.rolled_back),
            rollback_reason: text(&global.rollback_reason),
            result: text(&global.result),
            query: global.query.into(),
            wake_at: global.wake_at.0,
            interval: global.interval,
            owner: text(&global.owner),
            epoch: global.epoch,
            revision: global.revision.0,
        }
    }
}

impl TryFrom<GlobalV1<'_>> for Global {
    type Error = RecordError;

    fn try_from(record: GlobalV1<'_>) -> Result<Self, RecordError> {
        let branches: Result<Vec<_>, _> =
            record.branches.into_iter().map(Branch::try_from).collect();
        Ok(Self {
            gid: Gid::new(&record.gid).map_err(|_| RecordError::Invalid { member: "gid" })?,
            namespace: record.namespace.into(),
            mode: record.mode.into(),
            status: record.status.into(),
            protocol: record.protocol.into(),
            query_prepared: record.query_prepared.into(),
            custom_data: record.custom_data.into(),
            options: record.options.into(),
            steps: record.steps.into_iter().map(StepDef::from).collect(),
            content: record.content.0,
            branches: branches?,
            created: Timestamp(record.created),
            updated: Timestamp(record.updated),
            finished: record.finished.map(Timestamp),
            rolled_back: record.rolled_back.map(Timestamp),
            rollback_reason: record.rollback_reason.into(),
            result: record.result.into(),
            query: record.query.into(),
            wake_at: Timestamp(record.wake_at),
            interval: record.interval,
            owner: record.owner.into(),
            epoch: record.epoch,
            revision: Revision(record.revision),
        })
    }
}

impl<'a> From<&'a Mode> for ModeV1<'a> {
    fn from(mode: &'a Mode) -> Self {
        match mode {
            Mode::Saga { concurrent, orders } => {
                Self::Saga { concurrent: *concurrent, orders: orders.to_vec() }
            }
            Mode::Tcc => Self::Tcc,
            Mode::Xa => Self::Xa,
            Mode::Msg { delay } => Self::Msg { delay: *delay },
            Mode::Workflow { name, data } => {
                Self::Workflow { name: text(name), data: Payload(Cow::Borrowed(data)) }
            }
        }
    }
}

impl From<ModeV1<'_>> for Mode {
    fn from(mode: ModeV1<'_>) -> Self {
        match mode {
            ModeV1::Saga { concurrent, orders } => Self::Saga { concurrent, orders: orders.into() },
            ModeV1::Tcc => Self::Tcc,
            ModeV1::Xa => Self::Xa,
            ModeV1::Msg { delay } => Self::Msg { delay },
            ModeV1::Workflow { name, data } => {
                Self::Workflow { name: name.into(), data: data.0.into() }
            }
        }
    }
}

/// Converts between two enums whose variants have the same names.
macro_rules! same_variants {
    ($ours:ident, $theirs:ident: $($variant:ident),+) => {
        impl From<$theirs> for $ours {
            fn from(value: $theirs) -> Self {
                match value { $($theirs::$variant => Self::$variant),+ }
            }
        }

        impl From<$ours> for $theirs {
            fn from(value: $ours) -> Self {
                match value { $($ours::$variant => Self::$variant),+ }
            }
        }
    };
}

same_variants!(GlobalStatusV1, GlobalStatus: Prepared, Submitted, Aborting, Succeed, Failed);
same_variants!(BranchStatusV1, BranchStatus: Prepared, Succeed, Failed);
same_variants!(CallProtocolV1, CallProtocol: Http, JsonRpc, Grpc);

impl<'a> From<&'a Op> for OpV1<'a> {
    fn from(op: &'a Op) -> Self {
        match op {
            Op::Action => Self::Action,
            Op::Compensate => Self::Compensate,
            Op::Try => Self::Try,
            Op::Confirm => Self::Confirm,
            Op::Cancel => Self::Cancel,
            Op::Commit => Self::Commit,
            Op::Rollback => Self::Rollback,
            Op::Msg => Self::Msg,
            Op::Named(name) => Self::Named(text(name)),
        }
    }
}

impl From<OpV1<'_>> for Op {
    fn from(op: OpV1<'_>) -> Self {
        match op {
            OpV1::Action => Self::Action,
            OpV1::Compensate => Self::Compensate,
            OpV1::Try => Self::Try,
            OpV1::Confirm => Self::Confirm,
            OpV1::Cancel => Self::Cancel,
            OpV1::Commit => Self::Commit,
            OpV1::Rollback => Self::Rollback,
            OpV1::Msg => Self::Msg,
            OpV1::Named(name) => Self::Named(name.into()),
        }
    }
}

impl<'a> From<&'a Options> for OptionsV1<'a> {
    fn from(options: &'a Options) -> Self {
        let headers = options.branch_headers.iter();
        Self {
            wait_result: options.wait_result,
            timeout_to_fail: options.timeout_to_fail,
            request_timeout: options.request_timeout,
            retry_interval: options.retry_interval,
            retry_limit: options.retry_limit,
            retry_count: options.retry_count,
            concurrent: options.concurrent,
            branch_headers: headers.map(|(name, value)| (text(name), text(value))).collect(),
        }
    }
}

impl From<OptionsV1<'_>> for Options {
    fn from(options: OptionsV1<'_>) -> Self {
        let headers = options.branch_headers.into_iter();
        Self {
            wait_result: options.wait_result,
            timeout_to_fail: options.timeout_to_fail,
            request_timeout: options.request_timeout,
            retry_interval: options.retry_interval,
            retry_limit: options.retry_limit,
            retry_count: options.retry_count,
            concurrent: options.concurrent,
            branch_headers: Arc::new(
                headers.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
            ),
        }
    }
}

impl<'a> From<&'a StepDef> for StepV1<'a> {
    fn from(step: &'a StepDef) -> Self {
        Self { action: text(&step.action), compensate: text(&step.compensate) }
    }
}

impl From<StepV1<'_>> for StepDef {
    fn from(step: StepV1<'_>) -> Self {
        Self { action: step.action.into(), compensate: step.compensate.into() }
    }
}

impl From<Retry> for RetryV1 {
    fn from(retry: Retry) -> Self {
        Self { attempts: retry.attempts, next_at: retry.next_at.0 }
    }
}

impl From<RetryV1> for Retry {
    fn from(retry: RetryV1) -> Self {
        Self { attempts: retry.attempts, next_at: Timestamp(retry.next_at) }
    }
}

impl<'a> From<&'a Branch> for BranchV1<'a> {
    fn from(row: &'a Branch) -> Self {
        Self {
            branch_id: text(row.branch_id.as_str()),
            op: (&row.op).into(),
            url: text(&row.url),
            data: Payload(Cow::Borrowed(&row.data)),
            status: row.status.into(),
            retry: row.retry.into(),
            created: row.created.0,
            updated: row.updated.0,
            finished: micros(row.finished),
        }
    }
}

impl TryFrom<BranchV1<'_>> for Branch {
    type Error = RecordError;

    fn try_from(row: BranchV1<'_>) -> Result<Self, RecordError> {
        let invalid = |_| RecordError::Invalid { member: "branch_id" };
        Ok(Self {
            branch_id: BranchId::new(&row.branch_id).map_err(invalid)?,
            op: row.op.into(),
            url: row.url.into(),
            data: row.data.0.into(),
            status: row.status.into(),
            retry: row.retry.into(),
            created: Timestamp(row.created),
            updated: Timestamp(row.updated),
            finished: row.finished.map(Timestamp),
        })
    }
}
