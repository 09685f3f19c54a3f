//! Which changes must be on disk before anything follows from them (design.md section 4).

use crate::global::Global;
use crate::mode::saga;
use crate::status::{BranchStatus, GlobalStatus, Op, TransType};

/// When a change must be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing changed.
    None,
    /// May ride in the next flush: losing it repeats a call that must be idempotent anyway.
    Lazy,
    /// Before any effect or reply that follows from it.
    Forced,
}

/// Returns the class of the change from `before` to `after`.
///
/// What a person or an application was told is the caller's to force: a request's change is always
/// forced, and so is the end of a transaction that somebody waits for.
pub fn durability(before: Option<&Global>, after: &Global) -> Durability {
    let Some(before) = before else { return Durability::Forced };
    if before == after {
        return Durability::None;
    }
    if after.branches.len() > before.branches.len() {
        return Durability::Forced;
    }
    if before.status != after.status {
        return status_change(before.status, after.status);
    }
    if after.trans_type() == TransType::Saga && a_follower_was_freed(before, after) {
        return Durability::Forced;
    }
    Durability::Lazy
}

fn status_change(before: GlobalStatus, after: GlobalStatus) -> Durability {
    use GlobalStatus::{Aborting, Failed, Prepared, Submitted, Succeed};

    match (before, after) {
        // The last answer and the end are one change; losing it repeats one call.
        (Submitted, Succeed) | (Aborting, Failed) => Durability::Lazy,
        // A decision must outlive the server that made it.
        (Prepared | Submitted | Aborting | Succeed | Failed, _) => Durability::Forced,
    }
}

/// After a crash, an abort must know which actions may have run: an action's success is durable
/// before the next action, the one that follows from it, is called.
fn a_follower_was_freed(before: &Global, after: &Global) -> bool {
    let rows = before.branches.iter().zip(&after.branches).enumerate();
    let mut newly_done = rows.filter(|(_, (old, new))| {
        new.op == Op::Action
            && old.status != BranchStatus::Succeed
            && new.status == BranchStatus::Succeed
    });
    newly_done.any(|(row, _)| saga::has_follower(after, row / 2))
}
