//! What one input does to a global.

use std::sync::Arc;

use crate::backoff;
use crate::create::{Invalid, Limits};
use crate::global::{Branch, Global, Mode, Retry};
use crate::mode::{msg, saga, tcc, workflow, xa};
use crate::options::Policy;
use crate::plan::{Target, schedule};
use crate::request::{NewBranch, Refused, Request};
use crate::status::{BranchStatus, GlobalStatus, Move, Outcome, TransType};
use crate::time::Timestamp;

/// The time, as a decision sees it. All three are one, but under the test clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Now: the time that is written, and that retries wait for.
    pub now: Timestamp,
    /// Now, for ages and timeouts.
    pub age: Timestamp,
    /// Now, for a message's delay.
    pub delay: Timestamp,
}

impl Context {
    /// Returns the context of a moment.
    pub fn at(now: Timestamp) -> Self {
        Self { now, age: now, delay: now }
    }
}

/// What may happen to a global.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody asks for something.
    Request(Request),
    /// A call was answered.
    Reply {
        /// Whose call.
        target: Target,
        /// What it answered.
        outcome: Outcome,
    },
    /// Time has passed.
    Wake,
    /// A repeated look that does not wait for retry times: an operator's, or a test clock's.
    Kick,
}

/// Returns the global after an input; equal to the one before when the input changes nothing.
///
/// Deterministic and total: no input makes it panic, a request without a row is [`Refused`], and a
/// late, repeated or reordered reply changes nothing. What must be called next is
/// [`plan`](crate::plan::plan) of the result.
///
/// # Errors
///
/// [`Refused`], only for requests; the global stays as it is.
pub fn step(
    global: &Global,
    input: &Input,
    policy: &Policy,
    limits: &Limits,
    cx: &Context,
) -> Result<Global, Refused> {
    let mut next = global.clone();
    match input {
        Input::Request(request) => apply(&mut next, request, policy, limits, cx)?,
        Input::Reply { target, outcome } => reply(&mut next, *target, outcome, policy, cx),
        Input::Wake => {}
        Input::Kick => make_due(&mut next),
    }
    settle(&mut next, policy, cx);
    let wake_at = std::mem::replace(&mut next.wake_at, global.wake_at);
    if next != *global {
        next.updated = cx.now;
        next.wake_at = wake_at;
    } else if !schedule(&next, policy, cx).has_calls {
        // At rest the schedule may move by itself. A lease does not: renewing it is the engine's.
        next.wake_at = wake_at;
    }
    Ok(next)
}

/// Returns the status a move leads to, by the table of the global's mode; `None` if it has no row.
pub fn next_status(
    trans_type: TransType,
    status: GlobalStatus,
    movement: Move,
) -> Option<GlobalStatus> {
    use GlobalStatus::{Aborting, Failed, Prepared, Submitted};

    if movement == Move::ForceStop {
        return matches!(status, Prepared | Submitted | Aborting).then_some(Failed);
    }
    match trans_type {
        TransType::Saga => saga::next_status(status, movement),
        TransType::Tcc => tcc::next_status(status, movement),
        TransType::Xa => xa::next_status(status, movement),
        TransType::Msg => msg::next_status(status, movement),
        TransType::Workflow => workflow::next_status(status, movement),
    }
}

/// Moves a global if its table allows; returns whether it did.
pub(crate) fn advance(global: &mut Global, movement: Move, now: Timestamp) -> bool {
    let Some(status) = next_status(global.trans_type(), global.status, movement) else {
        return false;
    };
    if status != global.status {
        global.status = status;
        match status {
            GlobalStatus::Succeed => global.finished = Some(now),
            GlobalStatus::Failed => global.rolled_back = Some(now),
            GlobalStatus::Prepared | GlobalStatus::Submitted | GlobalStatus::Aborting => {
                // A new direction starts with a clean schedule.
                global.query = Retry::default();
            }
        }
    }
    true
}

/// Like [`advance`], and keeps the reason of a rollback, cut to the policy's length.
pub(crate) fn advance_because(
    global: &mut Global,
    movement: Move,
    reason: &str,
    policy: &Policy,
    now: Timestamp,
) -> bool {
    let moved = advance(global, movement, now);
    if moved && !reason.is_empty() {
        let mut end = reason.len().min(policy.reason_max_bytes);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        global.rollback_reason = Arc::from(&reason[..end]);
    }
    moved
}

/// Brings a global to where its own state and the time take it, and sets its schedule.
pub(crate) fn settle(global: &mut Global, policy: &Policy, cx: &Context) {
    match global.trans_type() {
        TransType::Saga => saga::settle(global, policy, cx),
        TransType::Tcc => tcc::settle(global, policy, cx),
        TransType::Xa => xa::settle(global, policy, cx),
        TransType::Msg => msg::settle(global, policy, cx),
        TransType::Workflow => {}
    }
    let planned = schedule(global, policy, cx);
    global.interval = interval(global, policy);
    match planned.wake_at {
        // Final: the time last shown stays.
        None => {}
        Some(wake_at) if !planned.has_calls => global.wake_at = wake_at,
        // Calls are due: whoever runs them owns the global for a lease.
        Some(_) => global.wake_at = cx.now.after(policy.lease.max(global.base_interval(policy))),
    }
}

fn interval(global: &Global, policy: &Policy) -> std::time::Duration {
    let pending = global.branches.iter().filter(|row| row.is_pending());
    let attempts = pending.map(|row| row.retry.attempts).max().unwrap_or(0);
    backoff::interval(global.base_interval(policy), attempts.max(global.query.attempts), policy)
}

fn make_due(global: &mut Global) {
    if global.status.is_final() {
        return;
    }
    global.query.next_at = Timestamp::ZERO;
    for row in global.branches.iter_mut().filter(|row| row.is_pending()) {
        row.retry.next_at = Timestamp::ZERO;
    }
}

fn apply(
    global: &mut Global,
    request: &Request,
    policy: &Policy,
    limits: &Limits,
    cx: &Context,
) -> Result<(), Refused> {
    let refused = Refused::Status {
        gid: global.gid.clone(),
        request: request.kind(),
        trans_type: global.trans_type(),
        status: global.status,
    };
    match request {
        Request::Prepare if global.status == GlobalStatus::Prepared => Ok(()),
        Request::Prepare => Err(refused),
        Request::PrepareWorkflow if global.trans_type() == TransType::Workflow => {
            renew_callback(global, policy, cx);
            Ok(())
        }
        Request::PrepareWorkflow => Err(refused),
        Request::Submit(new) => submit(global, new, refused, cx),
        Request::Abort { trans_type, reason } => {
            // DTM looks at the type in the request, but for messages (spec 01 §2.3).
            let named = matches!(trans_type, Some(TransType::Tcc | TransType::Xa));
            if global.trans_type() != TransType::Msg && !named {
                return Err(refused);
            }
            let moved = advance_because(global, Move::Abort, reason, policy, cx.now);
            moved.then_some(()).ok_or(refused)
        }
        Request::ForceStop => {
            let moved = advance_because(global, Move::ForceStop, "forced", policy, cx.now);
            moved.then_some(()).ok_or(refused)
        }
        Request::Register { trans_type, rows } => {
            register(global, *trans_type, rows, limits, refused, policy, cx)
        }
        Request::FinishWorkflow { succeed, reason, result } => {
            let movement = if *succeed { Move::FinishSucceed } else { Move::FinishFailed };
            if !advance_because(global, movement, reason, policy, cx.now) {
                return Err(refused);
            }
            if !result.is_empty() {
                global.result = result.clone();
            }
            Ok(())
        }
        Request::RetryNow => {
            make_due(global);
            if global.status.is_final() {
                // Shown only: nothing is scheduled (spec 07 D12).
                global.wake_at = cx.now;
            }
            Ok(())
        }
    }
}

fn submit(
    global: &mut Global,
    new: &crate::create::NewGlobal,
    refused: Refused,
    cx: &Context,
) -> Result<(), Refused> {
    if new.mode.trans_type() != global.trans_type() {
        return Err(Refused::OtherType {
            gid: global.gid.clone(),
            stored: global.trans_type(),
            named: new.mode.trans_type(),
        });
    }
    let first = global.status == GlobalStatus::Prepared;
    if next_status(global.trans_type(), global.status, Move::Submit).is_none() {
        return Err(refused);
    }
    if !first && global.content != 0 {
        // A repeat: success if it says the same, and nothing is executed because of it (D01).
        return if global.content == new.content {
            Ok(())
        } else {
            Err(Refused::OtherContent { gid: global.gid.clone(), what: "content" })
        };
    }
    if !new.steps.is_empty() && !same_steps(global, new) {
        return Err(Refused::OtherContent { gid: global.gid.clone(), what: "steps or payloads" });
    }
    if !first {
        // The local transaction's outcome has submitted it before its application could.
        return Ok(());
    }
    // What only the submit carries belongs to the stored record (D28).
    global.options.fill_from(&new.options);
    if global.custom_data.is_empty() && !new.custom_data.is_empty() {
        global.custom_data = new.custom_data.clone();
        global.mode = new.mode.clone();
    }
    global.content = new.content;
    advance(global, Move::Submit, cx.now);
    Ok(())
}

/// Compares steps and payloads; rows of a step that fanned out all carry its payload.
fn same_steps(global: &Global, new: &crate::create::NewGlobal) -> bool {
    let same =
        |(stored, step): (&crate::global::StepDef, &crate::create::NewStep)| *stored == step.def;
    let payload_of = |id: &str| {
        let of_step = |row: &&Branch| {
            let row_id = row.branch_id.as_str();
            row_id == id || row_id.strip_prefix(id).is_some_and(|rest| rest.starts_with('-'))
        };
        global.branches.iter().find(of_step).map(|row| &row.data)
    };
    global.steps.len() == new.steps.len()
        && global.steps.iter().zip(&new.steps).all(same)
        && new.steps.iter().enumerate().all(|(index, step)| {
            let id = crate::ids::BranchId::of_step(index);
            payload_of(id.as_str()).is_none_or(|data| *data == step.payload)
        })
}

fn register(
    global: &mut Global,
    trans_type: TransType,
    rows: &[NewBranch],
    limits: &Limits,
    refused: Refused,
    policy: &Policy,
    cx: &Context,
) -> Result<(), Refused> {
    if trans_type != global.trans_type() {
        return Err(Refused::OtherType {
            gid: global.gid.clone(),
            stored: global.trans_type(),
            named: trans_type,
        });
    }
    if global.status != GlobalStatus::Prepared {
        return Err(refused);
    }
    if global.branches.len() + rows.len() > limits.branches_max {
        return Err(Refused::TooManyBranches { max: limits.branches_max });
    }
    for row in rows {
        match global.branch(&row.branch_id, &row.op) {
            // A retry of the same registration is not a mistake (D26).
            Some(stored) if stored.url == row.url && stored.data == row.data => {}
            Some(_) => {
                return Err(Refused::OtherBranch {
                    branch_id: row.branch_id.clone(),
                    op: row.op.clone(),
                });
            }
            None => global.branches.push(Branch {
                branch_id: row.branch_id.clone(),
                op: row.op.clone(),
                url: row.url.clone(),
                data: row.data.clone(),
                status: row.status,
                retry: Retry::default(),
                created: cx.now,
                updated: cx.now,
                finished: (row.status != BranchStatus::Prepared).then_some(cx.now),
            }),
        }
    }
    if global.trans_type() == TransType::Workflow {
        renew_callback(global, policy, cx);
    }
    Ok(())
}

/// Progress shows that the workflow runs: it is not called back while it does (D09).
fn renew_callback(global: &mut Global, policy: &Policy, cx: &Context) {
    if global.status == GlobalStatus::Prepared {
        let next_at = cx.now.after(global.base_interval(policy));
        global.query = Retry { attempts: 0, next_at: global.query.next_at.max(next_at) };
    }
}

fn reply(global: &mut Global, target: Target, outcome: &Outcome, policy: &Policy, cx: &Context) {
    if global.status.is_final() {
        return;
    }
    match target {
        Target::Query => match &global.mode {
            Mode::Msg { .. } => msg::query_answered(global, outcome, policy, cx),
            Mode::Workflow { .. } => workflow::called_back(global, outcome, policy, cx),
            Mode::Saga { .. } | Mode::Tcc | Mode::Xa => {}
        },
        Target::Branch(index) => branch_answered(global, index, outcome, policy, cx),
    }
}

/// Records what a row's call answered. The first result is kept, later ones change nothing (G7).
fn branch_answered(
    global: &mut Global,
    index: usize,
    outcome: &Outcome,
    policy: &Policy,
    cx: &Context,
) {
    let Some(row) = global.branches.get(index) else { return };
    // An answer to a call of the other direction comes too late to matter.
    let in_direction = match row.op {
        crate::Op::Action | crate::Op::Confirm | crate::Op::Commit => {
            global.status == GlobalStatus::Submitted
        }
        crate::Op::Compensate | crate::Op::Cancel | crate::Op::Rollback => {
            global.status == GlobalStatus::Aborting
        }
        crate::Op::Try | crate::Op::Msg | crate::Op::Named(_) => false,
    };
    if !row.is_pending() || !in_direction {
        return;
    }
    let is_saga_action = global.trans_type() == TransType::Saga && row.op == crate::Op::Action;
    let retry = row.retry;
    let url = row.url.clone();
    let (status, retry) = match outcome {
        Outcome::Success => (BranchStatus::Succeed, Retry::default()),
        Outcome::Failure(_) if is_saga_action => (BranchStatus::Failed, Retry::default()),
        Outcome::Ongoing => {
            (BranchStatus::Prepared, backoff::after_ongoing(global, retry, policy, cx.now))
        }
        Outcome::Postponed(until) => {
            (BranchStatus::Prepared, Retry { attempts: retry.attempts, next_at: *until })
        }
        // FAILURE where none is final is an unknown outcome: called again, for ever (E3).
        Outcome::Failure(_) | Outcome::Unknown(_) => {
            (BranchStatus::Prepared, backoff::after_unknown(global, index, retry, policy, cx.now))
        }
    };
    let row = &mut global.branches[index];
    row.status = status;
    row.retry = retry;
    row.updated = cx.now;
    row.finished = (status != BranchStatus::Prepared).then_some(cx.now);
    if is_saga_action {
        saga::action_answered(global, index, &url, outcome, policy, cx);
    }
}

/// Checks rows before they are registered.
///
/// # Errors
///
/// [`Invalid`] when a URL or payload is beyond the limits.
pub fn validate_rows(rows: &[NewBranch], limits: &Limits) -> Result<(), Invalid> {
    for row in rows {
        if row.url.len() > limits.url_max_bytes {
            let (got, max) = (row.url.len(), limits.url_max_bytes);
            return Err(Invalid::TooMany { what: "URL bytes", got, max });
        }
        if row.data.len() > limits.payload_max_bytes {
            let (got, max) = (row.data.len(), limits.payload_max_bytes);
            return Err(Invalid::TooMany { what: "data bytes", got, max });
        }
        crate::create::check_callable(&row.url)?;
    }
    Ok(())
}
