//! XA: local phases by the application, then commit or rollback by the server (spec 01 §4.2).

use crate::global::Global;
use crate::mode::{pass_over_empty, pending_of, tcc};
use crate::options::Policy;
use crate::plan::Planner;
use crate::status::{GlobalStatus, Move, Op};
use crate::step::{Context, advance};

/// The table of an XA transaction's moves: TCC's.
pub fn next_status(status: GlobalStatus, movement: Move) -> Option<GlobalStatus> {
    tcc::next_status(status, movement)
}

/// Plans the first registered branch that is not done; one at a time.
pub(crate) fn plan(planner: &mut Planner<'_>) {
    let global = planner.global;
    match tcc::direction(global.status, &Op::Commit, &Op::Rollback) {
        None => tcc::wait_for_decision(planner),
        Some(op) => {
            if let Some(row) = pending_of(global, op).next() {
                planner.call_row(row);
            }
        }
    }
}

/// Takes an XA transaction as far as it goes without a call.
pub(crate) fn settle(global: &mut Global, policy: &Policy, cx: &Context) {
    tcc::time_out(global, policy, cx);
    let Some(op) = tcc::direction(global.status, &Op::Commit, &Op::Rollback) else { return };
    loop {
        let first = pending_of(global, op).next();
        match first {
            Some(row) if pass_over_empty(global, row, cx.now) => {}
            Some(_) => return,
            None => break,
        }
    }
    advance(global, Move::AllDone, cx.now);
}
