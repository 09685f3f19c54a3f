//! TCC: tries by the application, then confirm or cancel by the server (spec 01 §4.1).

use crate::global::Global;
use crate::mode::{pass_over_empty, pending_of};
use crate::options::Policy;
use crate::plan::Planner;
use crate::status::{GlobalStatus, Move, Op};
use crate::step::{Context, advance, advance_because};

/// The table of a TCC's moves; XA shares it.
pub fn next_status(status: GlobalStatus, movement: Move) -> Option<GlobalStatus> {
    use GlobalStatus::{Aborting, Failed, Prepared, Submitted, Succeed};
    use Move::{Abort, AllDone, Submit, TimeOut};

    match (status, movement) {
        (Prepared | Submitted, Submit) => Some(Submitted),
        (Prepared | Aborting, Abort) => Some(Aborting),
        (Prepared, TimeOut) => Some(Aborting),
        (Submitted, AllDone) => Some(Succeed),
        (Aborting, AllDone) => Some(Failed),
        _ => None,
    }
}

/// Plans the last registered branch that is not done; one at a time, last registered first (E2).
pub(crate) fn plan(planner: &mut Planner<'_>) {
    let global = planner.global;
    match direction(global.status, &Op::Confirm, &Op::Cancel) {
        None => wait_for_decision(planner),
        Some(op) => {
            if let Some(row) = pending_of(global, op).next_back() {
                planner.call_row(row);
            }
        }
    }
}

/// Takes a TCC as far as it goes without a call.
pub(crate) fn settle(global: &mut Global, policy: &Policy, cx: &Context) {
    time_out(global, policy, cx);
    let Some(op) = direction(global.status, &Op::Confirm, &Op::Cancel) else { return };
    loop {
        let last = pending_of(global, op).next_back();
        match last {
            Some(row) if pass_over_empty(global, row, cx.now) => {}
            Some(_) => return,
            None => break,
        }
    }
    advance(global, Move::AllDone, cx.now);
}

/// Returns which op the status asks for; `None` while nothing is decided.
pub(super) fn direction<'a>(status: GlobalStatus, forward: &'a Op, back: &'a Op) -> Option<&'a Op> {
    match status {
        GlobalStatus::Submitted => Some(forward),
        GlobalStatus::Aborting => Some(back),
        GlobalStatus::Prepared | GlobalStatus::Succeed | GlobalStatus::Failed => None,
    }
}

/// Until the application decides, there is only the timeout to wait for.
pub(super) fn wait_for_decision(planner: &mut Planner<'_>) {
    if let Some(at) = planner.global.times_out_at(planner.policy) {
        planner.wake_at(at);
    }
}

/// Rolls back what its application left undecided for too long. The reason names the time that
/// was in force, not the option (spec 07 D44).
pub(super) fn time_out(global: &mut Global, policy: &Policy, cx: &Context) {
    let Some(timeout) = global.timeout(policy) else { return };
    if global.status == GlobalStatus::Prepared && cx.age.since(global.created) >= timeout {
        let reason = format!("Timeout after {} seconds", timeout.as_secs());
        advance_because(global, Move::TimeOut, &reason, policy, cx.now);
    }
}
