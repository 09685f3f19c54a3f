//! What a run has really reached.

use std::collections::BTreeMap;

use dtmd_protocol::step::next_status;
use dtmd_protocol::{GlobalStatus, Move, Op, TransType};

/// Counts of what was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Status changes, as (mode, from, to); from `new` when it was accepted.
    pub moves: BTreeMap<(TransType, &'static str, &'static str), u64>,
    /// Calls sent, as (mode, op).
    pub calls: BTreeMap<(TransType, &'static str), u64>,
    /// Where transactions ended.
    pub ends: BTreeMap<(TransType, &'static str), u64>,
    /// Globals taken over by the claimer.
    pub claimed: u64,
}

impl Coverage {
    pub(crate) fn moved(&mut self, trans_type: TransType, from: &'static str, to: GlobalStatus) {
        *self.moves.entry((trans_type, from, to.as_str())).or_default() += 1;
    }

    pub(crate) fn called(&mut self, trans_type: TransType, op: &Op) {
        *self.calls.entry((trans_type, op.label())).or_default() += 1;
    }

    pub(crate) fn ended(&mut self, trans_type: TransType, status: GlobalStatus) {
        *self.ends.entry((trans_type, status.as_str())).or_default() += 1;
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Coverage) {
        for (key, count) in &other.moves {
            *self.moves.entry(*key).or_default() += count;
        }
        for (key, count) in &other.calls {
            *self.calls.entry(*key).or_default() += count;
        }
        for (key, count) in &other.ends {
            *self.ends.entry(*key).or_default() += count;
        }
        self.claimed += other.claimed;
    }

    /// Returns the rows of the modes' tables, and the calls of their planners, that were not seen.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for &trans_type in TransType::ALL {
            for (from, to) in rows(trans_type) {
                if !self.moves.contains_key(&(trans_type, from.as_str(), to.as_str())) {
                    missing.push(format!("{trans_type}: {from} -> {to}"));
                }
            }
        }
        for (trans_type, op) in CALLS {
            if !self.calls.contains_key(&(*trans_type, *op)) {
                missing.push(format!("{trans_type}: call of {op}"));
            }
        }
        missing
    }
}

/// Returns the status changes that a mode's table allows from statuses it can be in.
fn rows(trans_type: TransType) -> Vec<(GlobalStatus, GlobalStatus)> {
    let mut rows = Vec::new();
    let mut reached = vec![GlobalStatus::Prepared];
    while let Some(from) = reached.pop() {
        for movement in Move::ALL {
            let Some(to) = next_status(trans_type, from, *movement) else { continue };
            if to != from && !rows.contains(&(from, to)) {
                rows.push((from, to));
                reached.push(to);
            }
        }
    }
    rows
}

/// Every kind of call that a planner plans.
const CALLS: &[(TransType, &str)] = &[
    (TransType::Saga, "action"),
    (TransType::Saga, "compensate"),
    (TransType::Tcc, "confirm"),
    (TransType::Tcc, "cancel"),
    (TransType::Xa, "commit"),
    (TransType::Xa, "rollback"),
    (TransType::Msg, "msg"),
    (TransType::Msg, "action"),
    (TransType::Workflow, "workflow"),
];
