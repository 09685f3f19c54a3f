//! What must hold, whoever looks: simulator, model check, end-to-end tests.
//!
//! Each function takes what was observed and says what is wrong with it. The numbers are those of
//! the checker list (`docs/reliability.md`).

use std::fmt;
use std::time::Duration;

use dtmd_protocol::step::next_status;
use dtmd_protocol::{
    BranchId, BranchStatus, Global, GlobalStatus, Move, Op, Policy, TransType, backoff,
};

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant, for instance `I3`.
    pub invariant: &'static str,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}

/// The result of a check.
pub type Checked = Result<(), Violation>;

fn require(
    holds: bool,
    invariant: &'static str,
    text: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { invariant, text: text() }) }
}

/// What has really happened in one branch's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Effects {
    /// How often the action, try or local phase took effect.
    pub done: u32,
    /// How often it was undone: compensated, cancelled, rolled back.
    pub undone: u32,
    /// How often it was made final: confirmed, committed.
    pub confirmed: u32,
    /// XA: a branch is prepared in its database, neither committed nor rolled back.
    pub held: bool,
}

/// What an application was told, and may rely on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promises {
    /// A prepare was acknowledged.
    pub prepared: bool,
    /// A submit was acknowledged.
    pub submitted: bool,
    /// An abort was acknowledged.
    pub aborted: bool,
    /// Registrations that were acknowledged.
    pub registered: Vec<BranchId>,
    /// The end of a workflow that was acknowledged: succeed or not.
    pub finished: Option<bool>,
    /// The final status that an answer named.
    pub told: Option<GlobalStatus>,
}

/// I4: statuses move along the tables, rows are only added and written once, each change counts.
///
/// `forced` says whether somebody has asked to stop it by force.
///
/// # Errors
///
/// [`Violation`] I4.
pub fn check_change(before: &Global, after: &Global, forced: bool) -> Checked {
    let (old, new) = (before.status, after.status);
    require(is_reachable(before.trans_type(), old, new, forced), "I4", || {
        format!("{} went from {old} to {new}", before.gid)
    })?;
    require(after.branches.len() >= before.branches.len(), "I4", || {
        format!("{} lost rows", before.gid)
    })?;
    for (row, later) in before.branches.iter().zip(&after.branches) {
        let same = row.branch_id == later.branch_id && row.op == later.op;
        require(same, "I4", || format!("{}: row {} {} moved", before.gid, row.branch_id, row.op))?;
        require(row.is_pending() || row.status == later.status, "I4", || {
            let (id, op, old, new) = (&row.branch_id, &row.op, row.status, later.status);
            format!("{}: result of {id} {op} changed from {old} to {new}", before.gid)
        })?;
    }
    require(after.revision > before.revision || before == after, "I4", || {
        format!("{}: changed, but stayed at revision {}", before.gid, before.revision)
    })
}

/// Returns whether a table leads from one status to another; one write may hold several moves.
pub fn is_reachable(
    trans_type: TransType,
    from: GlobalStatus,
    to: GlobalStatus,
    forced: bool,
) -> bool {
    if from == to {
        return true;
    }
    let moves = Move::ALL.iter().filter(|movement| forced || **movement != Move::ForceStop);
    let mut next = moves.filter_map(|movement| next_status(trans_type, from, *movement));
    next.any(|status| status != from && is_reachable(trans_type, status, to, forced))
}

/// I3: nothing is done, undone or confirmed twice; never both undone and confirmed.
///
/// # Errors
///
/// [`Violation`] I3.
pub fn check_effects(branch: usize, effects: &Effects) -> Checked {
    let Effects { done, undone, confirmed, .. } = *effects;
    require(done <= 1, "I3", || format!("branch {branch} was done {done} times"))?;
    require(undone <= done, "I3", || {
        format!("branch {branch} was undone {undone} times, done {done} times")
    })?;
    require(confirmed <= 1, "I3", || format!("branch {branch} was confirmed {confirmed} times"))?;
    require(undone == 0 || confirmed == 0, "I3", || {
        format!("branch {branch} was both confirmed and undone")
    })
}

/// I1, I2, I8: what a final status says of every branch's effects.
///
/// `joined` says of each branch whether the transaction knows it (tcc and xa: registered).
///
/// # Errors
///
/// [`Violation`] of the invariant that does not hold.
pub fn check_outcome(global: &Global, branches: &[(Effects, bool)]) -> Checked {
    let trans_type = global.trans_type();
    for (branch, (effects, joined)) in branches.iter().enumerate() {
        let Effects { done, undone, confirmed, held } = *effects;
        match (global.status, trans_type) {
            (GlobalStatus::Succeed, TransType::Saga | TransType::Msg) => {
                require(done == 1 && undone == 0, "I1", || {
                    format!("succeed, but branch {branch} was done {done}, undone {undone} times")
                })?;
            }
            (GlobalStatus::Succeed, TransType::Tcc | TransType::Xa) => {
                let whole = done == 1 && undone == 0 && confirmed == 1;
                require(whole || !joined && done == undone, "I1", || {
                    format!("succeed, but branch {branch} is {effects:?}, joined {joined}")
                })?;
            }
            (GlobalStatus::Failed, TransType::Saga | TransType::Tcc | TransType::Xa) => {
                require(done == undone && confirmed == 0, "I2", || {
                    format!("failed, but branch {branch} is {effects:?}")
                })?;
            }
            (GlobalStatus::Failed, TransType::Msg) => {
                require(done == 0, "I2", || format!("failed, but branch {branch} was delivered"))?;
            }
            _ => {}
        }
        require(!global.status.is_final() || !held || !joined, "I8", || {
            format!("{}, but branch {branch} is still prepared in its database", global.status)
        })?;
    }
    Ok(())
}

/// I5, I6: what was acknowledged is there, and is not taken back.
///
/// # Errors
///
/// [`Violation`] of the invariant that does not hold.
pub fn check_promises(promises: &Promises, stored: Option<&Global>, forced: bool) -> Checked {
    let Some(global) = stored else {
        let nothing = !promises.prepared && !promises.submitted && promises.registered.is_empty();
        return require(nothing, "I5", || "an accepted transaction is not stored".to_owned());
    };
    let status = global.status;
    if promises.submitted {
        require(status != GlobalStatus::Prepared, "I5", || {
            format!("{}: an acknowledged submit is not stored", global.gid)
        })?;
        let is_saga = global.trans_type() == TransType::Saga;
        let back = matches!(status, GlobalStatus::Aborting | GlobalStatus::Failed);
        require(is_saga || forced || !back, "I6", || {
            format!("{}: submit was acknowledged, but it is {status}", global.gid)
        })?;
    }
    if promises.aborted {
        let forward = matches!(status, GlobalStatus::Submitted | GlobalStatus::Succeed);
        require(!forward, "I6", || {
            format!("{}: abort was acknowledged, but it is {status}", global.gid)
        })?;
        require(status != GlobalStatus::Prepared, "I5", || {
            format!("{}: an acknowledged abort is not stored", global.gid)
        })?;
    }
    for id in &promises.registered {
        require(global.branches.iter().any(|row| row.branch_id == *id), "I5", || {
            format!("{}: acknowledged branch {id} is not stored", global.gid)
        })?;
    }
    if let Some(succeed) = promises.finished {
        let end = if succeed { GlobalStatus::Succeed } else { GlobalStatus::Failed };
        require(status == end || forced, "I6", || {
            format!("{}: its end as {end} was acknowledged, but it is {status}", global.gid)
        })?;
    }
    Ok(())
}

/// I4: a final status that an answer has named is final.
///
/// # Errors
///
/// [`Violation`] I4.
pub fn check_told(promises: &Promises, global: &Global) -> Checked {
    let Some(told) = promises.told else { return Ok(()) };
    require(told == global.status, "I4", || {
        format!("{}: an answer said {told}, but it is {}", global.gid, global.status)
    })
}

/// I7: a message is delivered if and only if the local transaction was committed.
///
/// # Errors
///
/// [`Violation`] I7.
pub fn check_message(status: GlobalStatus, committed: bool) -> Checked {
    match status {
        GlobalStatus::Submitted | GlobalStatus::Succeed => {
            require(committed, "I7", || format!("{status}, but nothing was committed"))
        }
        GlobalStatus::Failed => require(!committed, "I7", || {
            "failed, but the local transaction is committed".to_owned()
        }),
        GlobalStatus::Prepared | GlobalStatus::Aborting => Ok(()),
    }
}

/// I10: a call is sent only when the stored state justifies it.
///
/// `stored` is what is durable at the moment of sending; `was_submitted` and `was_aborting` say
/// which directions have ever been durable.
///
/// # Errors
///
/// [`Violation`] I10.
pub fn check_send(
    stored: Option<&Global>,
    branch_id: &BranchId,
    op: &Op,
    was_submitted: bool,
    was_aborting: bool,
) -> Checked {
    let Some(global) = stored else {
        return require(false, "I10", || format!("{branch_id} {op} sent for nothing stored"));
    };
    let justified = match op {
        Op::Action | Op::Confirm | Op::Commit => was_submitted,
        Op::Compensate | Op::Cancel | Op::Rollback => was_aborting,
        Op::Msg | Op::Named(_) => true,
        Op::Try => false,
    };
    require(justified, "I10", || {
        format!("{}: {branch_id} {op} was sent while {} was stored", global.gid, global.status)
    })?;
    if *op == Op::Action
        && let dtmd_protocol::Mode::Saga { concurrent, orders } = &global.mode
    {
        let steps = global.branches.len() / 2;
        let step = (0..steps).find(|step| BranchId::of_step(*step) == *branch_id).unwrap_or(0);
        let earlier = (0..step).filter(|earlier| {
            (!concurrent && earlier + 1 == step)
                || orders.get(step).is_some_and(|before| before.contains(earlier))
        });
        for earlier in earlier {
            let status = global.branches[2 * earlier + 1].status;
            require(status == BranchStatus::Succeed, "I10", || {
                let before = BranchId::of_step(earlier);
                format!("{}: action {branch_id} was sent while {before} was {status}", global.gid)
            })?;
        }
    }
    Ok(())
}

/// I11: no more calls than there was reason for.
///
/// # Errors
///
/// [`Violation`] I11.
pub fn check_calls(sent: u32, reasons: u32, what: impl FnOnce() -> String) -> Checked {
    require(sent <= 1 + reasons, "I11", || {
        format!("{}: sent {sent} times, {reasons} reasons", what())
    })
}

/// I12: the wait before a retry is the schedule's, within its deviation, and never above its cap.
///
/// # Errors
///
/// [`Violation`] I12.
pub fn check_backoff(before: &Global, after: &Global, policy: &Policy) -> Checked {
    for (row, later) in before.branches.iter().zip(&after.branches) {
        if later.retry.attempts <= row.retry.attempts || !later.is_pending() {
            continue;
        }
        let wait = later.retry.next_at.since(later.updated);
        let base = after.base_interval(policy);
        let planned = backoff::interval(base, later.retry.attempts, policy);
        let slack = planned * policy.retry_jitter_percent / 100 + Duration::from_millis(1);
        require(wait + slack >= planned && wait <= planned + slack, "I12", || {
            let (id, op) = (&row.branch_id, &row.op);
            format!("{}: {id} {op} waits {wait:?} instead of {planned:?}", after.gid)
        })?;
        require(planned <= policy.retry_interval_max.max(base), "I12", || {
            format!("{}: waits {planned:?}, past the cap", after.gid)
        })?;
    }
    Ok(())
}
