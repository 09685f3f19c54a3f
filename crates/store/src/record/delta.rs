//! The difference between two states of one global.

use std::borrow::Cow;
use std::time::Duration;

use dtmd_protocol::{Branch, Global, Revision, Timestamp};
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::payload::{Digest, Payload};
use super::v1::{
    BranchStatusV1, BranchV1, CallProtocolV1, GlobalStatusV1, ModeV1, OpV1, OptionsV1, RetryV1,
    StepV1,
};

/// What changed between two states of one global: members of its head, members of its rows, and
/// rows that were added.
///
/// It borrows from the later state, or from the bytes it was read from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Delta<'a> {
    /// The revision it follows.
    base: u64,
    revision: u64,
    /// Always stated: leases move the epoch of a stored global without a record.
    epoch: u64,
    #[serde(borrow)]
    head: Vec<HeadV1<'a>>,
    #[serde(borrow)]
    changed: Vec<(u32, Vec<RowV1<'a>>)>,
    #[serde(borrow)]
    added: Vec<BranchV1<'a>>,
}

/// One changed member of the head. New ones are added at the end.
#[derive(Debug, Serialize, Deserialize)]
enum HeadV1<'a> {
    Status(GlobalStatusV1),
    Updated(i64),
    WakeAt(i64),
    Interval(Duration),
    Query(RetryV1),
    Finished(Option<i64>),
    RolledBack(Option<i64>),
    RollbackReason(#[serde(borrow)] Cow<'a, str>),
    Result(#[serde(borrow)] Cow<'a, str>),
    Owner(#[serde(borrow)] Cow<'a, str>),
    Content(Digest),
    CustomData(#[serde(borrow)] Cow<'a, str>),
    Mode(#[serde(borrow)] ModeV1<'a>),
    Options(#[serde(borrow)] OptionsV1<'a>),
    Namespace(#[serde(borrow)] Cow<'a, str>),
    Protocol(CallProtocolV1),
    QueryPrepared(#[serde(borrow)] Cow<'a, str>),
    Steps(#[serde(borrow)] Vec<StepV1<'a>>),
    Created(i64),
    /// Only the first rows stay.
    RowsKept(u32),
}

/// One changed member of a row. New ones are added at the end.
#[derive(Debug, Serialize, Deserialize)]
enum RowV1<'a> {
    Status(BranchStatusV1),
    Retry(RetryV1),
    Updated(i64),
    Finished(Option<i64>),
    Url(#[serde(borrow)] Cow<'a, str>),
    Data(#[serde(borrow)] Payload<'a>),
    Op(#[serde(borrow)] OpV1<'a>),
    BranchId(#[serde(borrow)] Cow<'a, str>),
    Created(i64),
}

impl<'a> Delta<'a> {
    /// Returns what changed from `before` to `after`, two states of one global.
    pub fn between(before: &Global, after: &'a Global) -> Self {
        let kept = before.branches.len().min(after.branches.len());
        let mut head = head_changes(before, after);
        if before.branches.len() > kept {
            head.push(HeadV1::RowsKept(index(kept)));
        }
        let rows = before.branches.iter().zip(&after.branches).enumerate();
        let changed = rows.filter_map(|(at, (old, new))| {
            let changes = if old == new { Vec::new() } else { row_changes(old, new) };
            (!changes.is_empty()).then(|| (index(at), changes))
        });
        Self {
            base: before.revision.0,
            revision: after.revision.0,
            epoch: after.epoch,
            head,
            changed: changed.collect(),
            added: after.branches[kept..].iter().map(BranchV1::from).collect(),
        }
    }

    /// States owner and wake-up even where they did not change, for a store that keeps leases
    /// beside its records: the record before this one may hold others.
    pub fn restate_lease(&mut self, after: &'a Global) {
        self.head.push(HeadV1::Owner(Cow::Borrowed(&after.owner)));
        self.head.push(HeadV1::WakeAt(after.wake_at.0));
    }

    /// Appends the change's record to `out`.
    ///
    /// # Errors
    ///
    /// [`RecordError::Malformed`] if it cannot be written; no change of the protocol is such.
    pub fn encode(&self, out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        super::write(self, out)
    }

    /// Returns the change of a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`], saying whether the bytes are broken or from a later release.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        super::read(bytes)
    }

    /// Returns the state after the change.
    ///
    /// # Errors
    ///
    /// [`RecordError::WrongBase`] if the change follows another revision, and
    /// [`RecordError::Invalid`] if it names a row that does not exist.
    pub fn apply(self, global: &Global) -> Result<Global, RecordError> {
        if global.revision.0 != self.base {
            let (expected, found) = (self.base, global.revision.0);
            return Err(RecordError::WrongBase { expected, found });
        }
        let mut global = global.clone();
        for change in self.head {
            change.apply(&mut global);
        }
        for (at, changes) in self.changed {
            let row = usize::try_from(at).ok().and_then(|at| global.branches.get_mut(at));
            let row = row.ok_or(RecordError::Invalid { member: "row index" })?;
            for change in changes {
                change.apply(row)?;
            }
        }
        for row in self.added {
            global.branches.push(row.try_into()?);
        }
        global.revision = Revision(self.revision);
        global.epoch = self.epoch;
        Ok(global)
    }
}

/// A global with four thousand million rows cannot be held in memory, let alone accepted.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn head_changes<'a>(before: &Global, after: &'a Global) -> Vec<HeadV1<'a>> {
    let mut changes = Vec::with_capacity(6);
    // One line a member; the order is that of frequency.
    macro_rules! changed {
        ($member:ident, $change:expr) => {
            if before.$member != after.$member {
                changes.push($change);
            }
        };
    }
    let text = |text: &'a str| Cow::Borrowed(text);
    let micros = |at: Option<Timestamp>| at.map(|at| at.0);
    changed!(status, HeadV1::Status(after.status.into()));
    changed!(updated, HeadV1::Updated(after.updated.0));
    changed!(wake_at, HeadV1::WakeAt(after.wake_at.0));
    changed!(interval, HeadV1::Interval(after.interval));
    changed!(query, HeadV1::Query(after.query.into()));
    changed!(finished, HeadV1::Finished(micros(after.finished)));
    changed!(rolled_back, HeadV1::RolledBack(micros(after.rolled_back)));
    changed!(rollback_reason, HeadV1::RollbackReason(text(&after.rollback_reason)));
    changed!(result, HeadV1::Result(text(&after.result)));
    changed!(owner, HeadV1::Owner(text(&after.owner)));
    changed!(content, HeadV1::Content(Digest(after.content)));
    changed!(custom_data, HeadV1::CustomData(text(&after.custom_data)));
    changed!(mode, HeadV1::Mode((&after.mode).into()));
    changed!(options, HeadV1::Options((&after.options).into()));
    changed!(namespace, HeadV1::Namespace(text(&after.namespace)));
    changed!(protocol, HeadV1::Protocol(after.protocol.into()));
    changed!(query_prepared, HeadV1::QueryPrepared(text(&after.query_prepared)));
    changed!(steps, HeadV1::Steps(after.steps.iter().map(StepV1::from).collect()));
    changed!(created, HeadV1::Created(after.created.0));
    changes
}

impl HeadV1<'_> {
    fn apply(self, global: &mut Global) {
        match self {
            Self::Status(status) => global.status = status.into(),
            Self::Updated(at) => global.updated = Timestamp(at),
            Self::WakeAt(at) => global.wake_at = Timestamp(at),
            Self::Interval(interval) => global.interval = interval,
            Self::Query(retry) => global.query = retry.into(),
            Self::Finished(at) => global.finished = at.map(Timestamp),
            Self::RolledBack(at) => global.rolled_back = at.map(Timestamp),
            Self::RollbackReason(text) => global.rollback_reason = text.into(),
            Self::Result(text) => global.result = text.into(),
            Self::Owner(text) => global.owner = text.into(),
            Self::Content(digest) => global.content = digest.0,
            Self::CustomData(text) => global.custom_data = text.into(),
            Self::Mode(mode) => global.mode = mode.into(),
            Self::Options(options) => global.options = options.into(),
            Self::Namespace(text) => global.namespace = text.into(),
            Self::Protocol(protocol) => global.protocol = protocol.into(),
            Self::QueryPrepared(text) => global.query_prepared = text.into(),
            Self::Steps(steps) => global.steps = steps.into_iter().map(Into::into).collect(),
            Self::Created(at) => global.created = Timestamp(at),
            Self::RowsKept(rows) => {
                global.branches.truncate(usize::try_from(rows).unwrap_or(usize::MAX));
            }
        }
    }
}

fn row_changes<'a>(before: &Branch, after: &'a Branch) -> Vec<RowV1<'a>> {
    let mut changes = Vec::with_capacity(4);
    macro_rules! changed {
        ($member:ident, $change:expr) => {
            if before.$member != after.$member {
                changes.push($change);
            }
        };
    }
    changed!(status, RowV1::Status(after.status.into()));
    changed!(retry, RowV1::Retry(after.retry.into()));
    changed!(updated, RowV1::Updated(after.updated.0));
    changed!(finished, RowV1::Finished(after.finished.map(|at| at.0)));
    changed!(url, RowV1::Url(Cow::Borrowed(&after.url)));
    changed!(data, RowV1::Data(Payload(Cow::Borrowed(&after.data))));
    changed!(op, RowV1::Op((&after.op).into()));
    changed!(branch_id, RowV1::BranchId(Cow::Borrowed(after.branch_id.as_str())));
    changed!(created, RowV1::Created(after.created.0));
    changes
}

impl RowV1<'_> {
    fn apply(self, row: &mut Branch) -> Result<(), RecordError> {
        match self {
            Self::Status(status) => row.status = status.into(),
            Self::Retry(retry) => row.retry = retry.into(),
            Self::Updated(at) => row.updated = Timestamp(at),
            Self::Finished(at) => row.finished = at.map(Timestamp),
            Self::Url(text) => row.url = text.into(),
            Self::Data(data) => row.data = data.0.into(),
            Self::Op(op) => row.op = op.into(),
            Self::BranchId(text) => {
                let invalid = |_| RecordError::Invalid { member: "branch_id" };
                row.branch_id = dtmd_protocol::BranchId::new(&text).map_err(invalid)?;
            }
            Self::Created(at) => row.created = Timestamp(at),
        }
        Ok(())
    }
}
