//! Saga: actions forward, compensations back (spec 01 §4.6).
//!
//! The row of step `i`'s compensation is at `2i`, of its action at `2i + 1`.

use crate::global::{Global, Mode};
use crate::mode::pass_over_empty;
use crate::options::Policy;
use crate::plan::Planner;
use crate::status::{BranchStatus, GlobalStatus, Move, Outcome};
use crate::step::{Context, advance, advance_because};

/// The table of a saga's moves.
pub fn next_status(status: GlobalStatus, movement: Move) -> Option<GlobalStatus> {
    use GlobalStatus::{Aborting, Failed, Prepared, Submitted, Succeed};
    use Move::{ActionFailed, AllDone, RetriesSpent, Submit, TimeOut};

    match (status, movement) {
        // Submitting twice is a retry by the application, not a mistake.
        (Prepared | Submitted, Submit) => Some(Submitted),
        (Submitted, AllDone) => Some(Succeed),
        (Submitted, ActionFailed | RetriesSpent | TimeOut) => Some(Aborting),
        (Aborting, AllDone) => Some(Failed),
        _ => None,
    }
}

/// Plans every action that may run, or every compensation that is ready.
pub(crate) fn plan(planner: &mut Planner<'_>) {
    let global = planner.global;
    match global.status {
        GlobalStatus::Submitted => {
            if let Some(at) = global.times_out_at(planner.policy) {
                planner.wake_at(at);
            }
            for step in (0..steps(global)).filter(|&step| is_runnable(global, step)) {
                planner.call_row(action(step));
            }
        }
        GlobalStatus::Aborting => {
            let to_undo = to_undo(global);
            for step in (0..steps(global)).rev().filter(|&step| is_ready(global, &to_undo, step)) {
                planner.call_row(compensation(step));
            }
        }
        // A prepared saga waits for its submit, without a timeout.
        GlobalStatus::Prepared | GlobalStatus::Succeed | GlobalStatus::Failed => {}
    }
}

/// Takes a saga as far as it goes without a call.
pub(crate) fn settle(global: &mut Global, policy: &Policy, cx: &Context) {
    if global.status == GlobalStatus::Submitted {
        settle_forward(global, policy, cx);
    }
    if global.status == GlobalStatus::Aborting {
        settle_backward(global, cx);
    }
}

fn settle_forward(global: &mut Global, policy: &Policy, cx: &Context) {
    let empty = |global: &Global| {
        let callable = |&step: &usize| {
            is_runnable(global, step) && global.branches[action(step)].url.is_empty()
        };
        (0..steps(global)).find(callable)
    };
    while let Some(step) = empty(global) {
        pass_over_empty(global, action(step), cx.now);
    }
    let statuses = || (0..steps(global)).map(|step| global.branches[action(step)].status);
    if statuses().all(|status| status == BranchStatus::Succeed) {
        advance(global, Move::AllDone, cx.now);
    } else if statuses().any(|status| status == BranchStatus::Failed) {
        // The server that heard the failure died before it could write the reason.
        let reason = "fail message lost";
        advance_because(global, Move::ActionFailed, reason, policy, cx.now);
    } else if let Some(timeout) = global.timeout(policy)
        && cx.age.since(global.created) >= timeout
    {
        let reason = format!("Timeout after {} seconds", timeout.as_secs());
        advance_because(global, Move::TimeOut, &reason, policy, cx.now);
    }
}

fn settle_backward(global: &mut Global, cx: &Context) {
    loop {
        let to_undo = to_undo(global);
        let empty = |&step: &usize| {
            is_ready(global, &to_undo, step) && global.branches[compensation(step)].url.is_empty()
        };
        let Some(step) = (0..steps(global)).rev().find(empty) else { break };
        pass_over_empty(global, compensation(step), cx.now);
    }
    let to_undo = to_undo(global);
    if (0..steps(global)).all(|step| is_undone(global, &to_undo, step)) {
        advance(global, Move::AllDone, cx.now);
    }
}

/// Decides what follows from an action's answer, beyond the row's own status.
pub(crate) fn action_answered(
    global: &mut Global,
    row: usize,
    url: &str,
    outcome: &Outcome,
    policy: &Policy,
    cx: &Context,
) {
    match outcome {
        Outcome::Failure(text) => {
            let text = text.trim_end();
            let word = if text.ends_with("FAILURE") { "" } else { " FAILURE" };
            let reason = format!("url:{url} return failed: {text}{word}");
            advance_because(global, Move::ActionFailed, &reason, policy, cx.now);
        }
        Outcome::Unknown(_) => {
            let limit = global.options.retry_limit;
            if limit > 0 && global.branches[row].retry.attempts > limit {
                let reason = format!("RetryCount is greater than RetryLimit, RetryLimit: {limit}");
                advance_because(global, Move::RetriesSpent, &reason, policy, cx.now);
            }
        }
        Outcome::Success | Outcome::Ongoing | Outcome::Postponed(_) => {}
    }
}

/// Returns whether another pending action waits for step `done` to succeed.
pub(crate) fn has_follower(global: &Global, done: usize) -> bool {
    (0..steps(global))
        .any(|step| global.branches[action(step)].is_pending() && waits_for(global, step, done))
}

fn steps(global: &Global) -> usize {
    global.branches.len() / 2
}

fn compensation(step: usize) -> usize {
    2 * step
}

fn action(step: usize) -> usize {
    2 * step + 1
}

/// Returns whether step `later` may only run after step `earlier`.
fn waits_for(global: &Global, later: usize, earlier: usize) -> bool {
    let Mode::Saga { concurrent, orders } = &global.mode else { return false };
    let next_in_line = !concurrent && later == earlier + 1;
    next_in_line || orders.get(later).is_some_and(|before| before.contains(&earlier))
}

/// Returns whether an action is to be called, as far as the other actions decide.
fn is_runnable(global: &Global, step: usize) -> bool {
    let Mode::Saga { concurrent, orders } = &global.mode else { return false };
    let done = |step: usize| {
        global.branches.get(action(step)).is_some_and(|row| row.status == BranchStatus::Succeed)
    };
    global.branches[action(step)].is_pending()
        && (*concurrent || step == 0 || done(step - 1))
        && orders.get(step).is_none_or(|before| before.iter().all(|&earlier| done(earlier)))
}

/// Returns for each step whether its compensation is owed.
///
/// Owed is what succeeded, what failed (a duplicate of its call may have succeeded) and what could
/// have been called, for its call may have left just before a crash. Action results do not change
/// any more once a saga is aborting, so this set is stable. The barrier turns a needless
/// compensation into a no-op.
fn to_undo(global: &Global) -> Vec<bool> {
    let may_have_run =
        |step| !global.branches[action(step)].is_pending() || is_runnable(global, step);
    (0..steps(global)).map(may_have_run).collect()
}

fn is_undone(global: &Global, to_undo: &[bool], step: usize) -> bool {
    !to_undo[step] || global.branches[compensation(step)].status == BranchStatus::Succeed
}

/// Returns whether a compensation is to be called: its step is owed, and what ran after is undone.
fn is_ready(global: &Global, to_undo: &[bool], step: usize) -> bool {
    !is_undone(global, to_undo, step)
        && (0..steps(global))
            .all(|later| !waits_for(global, later, step) || is_undone(global, to_undo, later))
}
