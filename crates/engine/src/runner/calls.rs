//! The calls of one global: when they are made, and how their answers become state.

use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Call, Global, GlobalStatus, Input, Outcome, Target, Timestamp, step, url};
use tokio::time::Instant;
use tracing::{debug, info};

use super::Runner;
use super::saves::Decided;
use crate::attempts::Attempt;
use crate::caller::{Answer, BranchCall};
use crate::comeback;
use crate::core::Core;
use crate::destinations::Admission;
use crate::events::Event;

impl Runner {
    /// Starts the calls that the plan wants, once this server holds the lease.
    pub(super) async fn start_calls(&mut self) {
        let mut calls = self.wanted();
        if calls.is_empty() {
            return;
        }
        if !self.is_owner() {
            if !self.own().await {
                return;
            }
            // Taking the lease may have shown another state.
            calls = self.wanted();
        }
        let Some(global) = self.stored.clone() else { return };
        for call in calls {
            self.targets.push(call.target);
            self.flying.push(Box::pin(make_call(self.core.clone(), global.clone(), call)));
        }
    }

    pub(super) fn note_answer(&mut self, target: Target, answer: Answer) {
        self.targets.retain(|flying| *flying != target);
        match &answer.outcome {
            Outcome::Success => {}
            undecided => self.undecided = Some(undecided.clone()),
        }
        self.answers.push((target, answer.outcome));
    }

    /// Returns whether the answers may become state now.
    ///
    /// A decision to go back waits until everything in flight is known, so that no compensation is
    /// sent while its action is still under way from here, and so that what did succeed is on
    /// record (design.md section 4). Each call ends within its timeout, so the wait is bounded.
    pub(super) fn may_fold(&self) -> bool {
        if self.flying.is_empty() {
            return true;
        }
        let Some(before) = &self.stored else { return true };
        let after = self.folded(before);
        before.status == after.status || after.status != GlobalStatus::Aborting
    }

    /// Makes the answers part of the stored global. Answers are kept until that is durable.
    pub(super) async fn fold(&mut self) {
        let Some(before) = self.loaded().await else {
            self.answers.clear();
            return;
        };
        let decided = self.decide_fold(&before);
        match self.save(&before, decided).await {
            Ok(()) => {
                dtmd_failpoint::hit("fold-done");
                self.answers.clear();
            }
            Err(failure) => self.recover(&failure).await,
        }
    }

    fn decide_fold(&self, before: &Global) -> Option<Decided> {
        let after = self.folded(before);
        self.alert(before, &after);
        let waited_for = !self.waiters.is_empty() && after.status.is_final();
        self.decide(before, after, waited_for)
    }

    fn folded(&self, before: &Global) -> Global {
        let options = &self.core.options;
        let cx = self.core.clock.context();
        // Successes first: what one answer decides must not hide what another one knows.
        let rank = |outcome: &Outcome| u8::from(!matches!(outcome, Outcome::Success));
        let mut answers: Vec<&(Target, Outcome)> = self.answers.iter().collect();
        answers.sort_by_key(|(_, outcome)| rank(outcome));
        let mut after = None;
        for (target, outcome) in answers {
            let input = Input::Reply { target: *target, outcome: outcome.clone() };
            let so_far = after.as_ref().unwrap_or(before);
            if let Ok(next) = step(so_far, &input, &options.policy, &options.limits, &cx) {
                after = Some(next);
            }
        }
        after.unwrap_or_else(|| Global::clone(before))
    }

    /// Tells whoever listens that a branch keeps failing (spec 01 §5.5), or no longer does.
    fn alert(&self, before: &Global, after: &Global) {
        let was_tried = |target: &Target| match target {
            Target::Branch(index) => {
                before.branches.get(*index).is_some_and(|row| row.retry.attempts > 0)
            }
            Target::Query => false,
        };
        let mut answers = self.answers.iter();
        let is_usual = answers.all(|(to, outcome)| *outcome == Outcome::Success && !was_tried(to));
        if is_usual || self.core.alerts.receiver_count() == 0 {
            return;
        }
        for (target, outcome) in &self.answers {
            let Target::Branch(index) = target else { continue };
            let Some(row) = after.branches.get(*index) else { continue };
            let error = match outcome {
                Outcome::Unknown(error) | Outcome::Failure(error) => error,
                Outcome::Success => {
                    let was = before.branches.get(*index).map_or(0, |row| row.retry.attempts);
                    if was > 0 && !row.is_pending() {
                        let (gid, url) = (after.gid.clone(), row.url.to_string());
                        let status = after.status;
                        let _ = self.core.alerts.send(Event::Recovered { gid, status, url });
                    }
                    continue;
                }
                Outcome::Ongoing | Outcome::Postponed(_) => continue,
            };
            if row.is_pending() && row.retry.attempts > 0 {
                let _ = self.core.alerts.send(Event::Alert {
                    gid: after.gid.clone(),
                    status: after.status,
                    url: row.url.to_string(),
                    error: error.to_string(),
                    attempts: row.retry.attempts,
                });
            }
        }
    }
}

/// Makes one call in its destination's turn.
async fn make_call(core: Arc<Core>, global: Arc<Global>, call: Call) -> (Target, Answer) {
    let target = call.target;
    let trans_type = global.trans_type();
    let to = core.destinations.get(url::destination(&call.url));
    // A place is free, mostly; to wait for one is dearer than to take it.
    let place = match to.places.try_acquire() {
        Ok(place) => Ok(place),
        Err(_) => to.places.acquire().await,
    };
    let Ok(_place) = place else {
        let outcome = Outcome::Unknown(Arc::from("the server is shutting down"));
        return (target, Answer { outcome, unreachable: false });
    };
    let (begun, at) = (Instant::now(), core.clock.now());
    if let Admission::Postpone(wait) =
        core.destinations.admit(&to, &global.gid, call.timeout, begun)
    {
        let until = core.clock.now().after(spread(wait, global.gid.as_str()));
        return (target, Answer { outcome: Outcome::Postponed(until), unreachable: false });
    }
    let branch_call = BranchCall {
        gid: global.gid.clone(),
        trans_type,
        call,
        headers: global.options.branch_headers.clone(),
    };
    dtmd_failpoint::hit("call-begins");
    let answer = core.caller.call(&branch_call).await;
    dtmd_failpoint::hit("call-done");
    let ended = Instant::now();
    let elapsed = ended - begun;
    let returned = core.destinations.answered(&to, &global.gid, answer.unreachable, ended);
    if let Some(returned) = returned {
        comeback::begin(&core, &to, returned);
    }
    core.metrics.branch_called(trans_type, &branch_call.call.op, &answer.outcome, elapsed);
    report(&core, branch_call, &answer, at, elapsed);
    (target, answer)
}

fn report(core: &Core, call: BranchCall, answer: &Answer, at: Timestamp, elapsed: Duration) {
    let BranchCall { gid, call, .. } = call;
    let outcome = answer.outcome.as_str();
    match &answer.outcome {
        Outcome::Success | Outcome::Postponed(_) => {
            debug!(%gid, branch_id = %call.branch_id, op = %call.op, outcome, "branch answered");
        }
        Outcome::Failure(_) | Outcome::Ongoing => {
            info!(%gid, branch_id = %call.branch_id, op = %call.op, outcome, "branch answered");
        }
        Outcome::Unknown(error) => {
            info!(
                %gid, branch_id = %call.branch_id, op = %call.op, outcome,
                attempt = call.attempt, %error, "branch answered"
            );
        }
    }
    if core.is_watched() {
        let (gid, branch_id, op) = (gid.clone(), call.branch_id.clone(), call.op.clone());
        let _ = core.events.send(Event::Called { gid, branch_id, op, outcome, elapsed });
    }
    core.attempts.record(gid, Attempt::new(call, &answer.outcome, at, elapsed));
}

/// Spreads what waited for one breaker over as long again as it was open.
fn spread(wait: Duration, gid: &str) -> Duration {
    let hash = gid.bytes().fold(17u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(byte));
    wait + wait.mul_f64(f64::from(hash % 1000) / 1000.0)
}

/// Returns the wake-up after a lease taken now.
pub(super) fn lease_end(core: &Core) -> Timestamp {
    core.clock.now().after(core.options.policy.lease)
}
