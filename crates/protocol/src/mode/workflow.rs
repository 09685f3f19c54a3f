//! Workflow: the application runs it and records its progress; the server keeps the record and
//! calls back when the application has gone quiet (spec 01 §4.5).

use crate::backoff;
use crate::global::{Global, Mode};
use crate::options::Policy;
use crate::plan::Planner;
use crate::status::{GlobalStatus, Move, Op, Outcome};
use crate::step::Context;

/// The table of a workflow's moves: the application decides its end.
pub fn next_status(status: GlobalStatus, movement: Move) -> Option<GlobalStatus> {
    use GlobalStatus::{Failed, Prepared, Succeed};
    use Move::{FinishFailed, FinishSucceed};

    match (status, movement) {
        // Ending it twice the same way is a retry by the application, not a mistake.
        (Prepared | Succeed, FinishSucceed) => Some(Succeed),
        (Prepared | Failed, FinishFailed) => Some(Failed),
        _ => None,
    }
}

/// Plans the callback, once the application has been quiet for an interval.
pub(crate) fn plan(planner: &mut Planner<'_>) {
    let global = planner.global;
    let Mode::Workflow { name, data } = &global.mode else { return };
    if global.status == GlobalStatus::Prepared {
        let timeout =
            global.options.request_timeout.unwrap_or(planner.policy.workflow_callback_timeout);
        planner.call_query(Op::Named(name.clone()), data, timeout);
    }
}

/// Schedules the next callback. What this one answered does not matter: a workflow ends by its
/// submit, and until then it is called again, less and less often (D09).
pub(crate) fn called_back(global: &mut Global, outcome: &Outcome, policy: &Policy, cx: &Context) {
    if global.status != GlobalStatus::Prepared {
        return;
    }
    if let Outcome::Postponed(until) = outcome {
        global.query.next_at = *until;
    } else {
        let row = usize::MAX;
        global.query = backoff::after_unknown(global, row, global.query, policy, cx.now);
    }
}
