//! One module a mode: its table of moves, its planner, and what settles by itself.

pub mod msg;
pub mod saga;
pub mod tcc;
pub mod workflow;
pub mod xa;

use crate::global::Global;
use crate::status::{BranchStatus, Op};
use crate::time::Timestamp;

/// Marks a row without a URL as done: nothing is to be called (spec 07 E10).
///
/// Returns whether it was one.
pub(crate) fn pass_over_empty(global: &mut Global, index: usize, now: Timestamp) -> bool {
    let row = &mut global.branches[index];
    if !row.url.is_empty() || !row.is_pending() {
        return false;
    }
    row.status = BranchStatus::Succeed;
    row.updated = now;
    row.finished = Some(now);
    true
}

/// Returns the rows of an op that are still to be done, first registered first.
pub(crate) fn pending_of<'a>(
    global: &'a Global,
    op: &'a Op,
) -> impl DoubleEndedIterator<Item = usize> + 'a {
    let rows = global.branches.iter().enumerate();
    rows.filter(move |(_, row)| row.op == *op && row.is_pending()).map(|(index, _)| index)
}
