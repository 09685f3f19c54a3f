//! Two-phase message: prepared, made final by the local transaction's outcome, then delivered
//! until it is taken (spec 01 §4.3).

use std::sync::Arc;

use crate::backoff;
use crate::global::{Global, Mode, Retry};
use crate::mode::{pass_over_empty, pending_of};
use crate::options::Policy;
use crate::plan::Planner;
use crate::status::{GlobalStatus, Move, Op, Outcome};
use crate::step::{Context, advance, advance_because};
use crate::time::Timestamp;

/// The table of a message's moves. A submitted message never fails but by force.
pub fn next_status(status: GlobalStatus, movement: Move) -> Option<GlobalStatus> {
    use GlobalStatus::{Failed, Prepared, Submitted, Succeed};
    use Move::{Abort, AllDone, LocalCommitted, LocalRolledBack, Submit};

    match (status, movement) {
        (Prepared | Submitted, Submit) => Some(Submitted),
        (Prepared, LocalCommitted) => Some(Submitted),
        // A message that was never submitted has no branch to undo.
        (Prepared, Abort | LocalRolledBack) => Some(Failed),
        (Submitted, AllDone) => Some(Succeed),
        _ => None,
    }
}

/// Plans the question about the local transaction, or the deliveries.
pub(crate) fn plan(planner: &mut Planner<'_>) {
    let global = planner.global;
    match global.status {
        GlobalStatus::Prepared => match global.times_out_at(planner.policy) {
            Some(at) if at > planner.cx.age => planner.wake_at(at),
            _ => {
                let timeout = global.request_timeout(planner.policy);
                planner.call_query(Op::Msg, &Arc::from([]), timeout);
            }
        },
        GlobalStatus::Submitted => {
            let deliver_at = deliver_at(global);
            if deliver_at > planner.cx.delay {
                return planner.wake_at(deliver_at);
            }
            let at_once = if global.options.concurrent { usize::MAX } else { 1 };
            for row in pending_of(global, &Op::Action).take(at_once) {
                planner.call_row(row);
            }
        }
        GlobalStatus::Aborting | GlobalStatus::Succeed | GlobalStatus::Failed => {}
    }
}

/// Takes a message as far as it goes without a call.
pub(crate) fn settle(global: &mut Global, policy: &Policy, cx: &Context) {
    let unasked = global.status == GlobalStatus::Prepared && global.query_prepared.is_empty();
    if unasked && global.times_out_at(policy).is_some_and(|at| at <= cx.age) {
        // Nobody to ask: an empty URL counts as success, as in DTM (E10).
        advance(global, Move::LocalCommitted, cx.now);
    }
    if global.status != GlobalStatus::Submitted || deliver_at(global) > cx.delay {
        return;
    }
    let empty: Vec<usize> = pending_of(global, &Op::Action)
        .filter(|&row| global.branches[row].url.is_empty())
        .collect();
    for row in empty {
        pass_over_empty(global, row, cx.now);
    }
    if pending_of(global, &Op::Action).next().is_none() {
        advance(global, Move::AllDone, cx.now);
    }
}

/// Applies the answer to "was the local transaction committed?".
pub(crate) fn query_answered(
    global: &mut Global,
    outcome: &Outcome,
    policy: &Policy,
    cx: &Context,
) {
    if global.status != GlobalStatus::Prepared {
        return;
    }
    match outcome {
        Outcome::Success => {
            advance(global, Move::LocalCommitted, cx.now);
        }
        Outcome::Failure(_) => {
            let reason = "query prepared: the local transaction was not committed";
            advance_because(global, Move::LocalRolledBack, reason, policy, cx.now);
        }
        Outcome::Ongoing => {
            let next_at = cx.now.after(global.base_interval(policy));
            global.query = Retry { attempts: global.query.attempts, next_at };
        }
        Outcome::Postponed(until) => global.query.next_at = *until,
        Outcome::Unknown(_) => {
            let row = usize::MAX;
            global.query = backoff::after_unknown(global, row, global.query, policy, cx.now);
        }
    }
}

/// The delay's clock starts when the message is accepted, at its prepare if it has one.
fn deliver_at(global: &Global) -> Timestamp {
    match global.mode {
        Mode::Msg { delay } => global.created.after(delay),
        Mode::Saga { .. } | Mode::Tcc | Mode::Xa | Mode::Workflow { .. } => global.created,
    }
}
