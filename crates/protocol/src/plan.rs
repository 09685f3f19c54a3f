//! What a global needs now: derived from its state alone, so that any effect may be lost.

use std::sync::Arc;
use std::time::Duration;

use crate::global::{CallProtocol, Global};
use crate::ids::BranchId;
use crate::mode::{msg, saga, tcc, workflow, xa};
use crate::options::Policy;
use crate::status::{Op, TransType};
use crate::step::Context;
use crate::time::Timestamp;

/// Whom a call concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The row at this index.
    Branch(usize),
    /// The query-prepared URL of a message, or the resume URL of a workflow.
    Query,
}

/// A call that must be in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Whose answer it is.
    pub target: Target,
    /// Sent as `branch_id`.
    pub branch_id: BranchId,
    /// Sent as `op`.
    pub op: Op,
    /// Where.
    pub url: Arc<str>,
    /// The body.
    pub data: Arc<[u8]>,
    /// POST even when the body is empty (xa, workflow callbacks; spec 02 §4.2, spec 07 D43).
    pub always_post: bool,
    /// How the URL is called if it does not say.
    pub protocol: CallProtocol,
    /// When to give up waiting.
    pub timeout: Duration,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// What a global needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The calls that must be in flight now, in the order to start them.
    pub calls: Vec<Call>,
    /// When to look again if no answer comes; `None` when the global is final.
    pub wake_at: Option<Timestamp>,
}

/// A [`Plan`] without the calls themselves: cheap, for who only needs to know whether there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Whether calls must be in flight now.
    pub has_calls: bool,
    /// As [`Plan::wake_at`].
    pub wake_at: Option<Timestamp>,
}

/// Collects what a mode's planner finds.
pub(crate) struct Planner<'a> {
    pub(crate) global: &'a Global,
    pub(crate) policy: &'a Policy,
    pub(crate) cx: &'a Context,
    /// The calls, for who wants them.
    calls: Option<Vec<Call>>,
    has_calls: bool,
    wake_at: Option<Timestamp>,
}

impl Planner<'_> {
    /// Has the global looked at no later than `at`.
    pub(crate) fn wake_at(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Plans the call of a row: now if it is due, a wake-up if not.
    pub(crate) fn call_row(&mut self, index: usize) {
        let row = &self.global.branches[index];
        if row.retry.next_at > self.cx.now {
            return self.wake_at(row.retry.next_at);
        }
        self.has_calls = true;
        let Some(calls) = &mut self.calls else { return };
        calls.push(Call {
            target: Target::Branch(index),
            branch_id: row.branch_id.clone(),
            op: row.op.clone(),
            url: row.url.clone(),
            data: row.data.clone(),
            always_post: self.global.trans_type() == TransType::Xa,
            protocol: self.global.protocol,
            timeout: self.global.request_timeout(self.policy),
            attempt: row.retry.attempts.saturating_add(1),
        });
    }

    /// Plans the call of the query-prepared or resume URL.
    pub(crate) fn call_query(&mut self, op: Op, data: &Arc<[u8]>, timeout: Duration) {
        let retry = self.global.query;
        if retry.next_at > self.cx.now {
            return self.wake_at(retry.next_at);
        }
        self.has_calls = true;
        let Some(calls) = &mut self.calls else { return };
        calls.push(Call {
            target: Target::Query,
            branch_id: BranchId::reserved(),
            op,
            url: self.global.query_prepared.clone(),
            data: data.clone(),
            always_post: self.global.trans_type() == TransType::Workflow,
            protocol: self.global.protocol,
            timeout,
            attempt: retry.attempts.saturating_add(1),
        });
    }
}

/// Returns the calls a global needs in flight now, and its next wake-up.
///
/// Depends on stored state and time alone, so a server that has just started and one that has just
/// heard an answer take the same path. Every global that is not final has a wake-up.
pub fn plan(global: &Global, policy: &Policy, cx: &Context) -> Plan {
    let planner = planned(global, policy, cx, Some(Vec::new()));
    Plan { calls: planner.calls.unwrap_or_default(), wake_at: planner.wake_at }
}

/// Returns whether [`plan`] has calls, and its wake-up.
pub fn schedule(global: &Global, policy: &Policy, cx: &Context) -> Schedule {
    let planner = planned(global, policy, cx, None);
    Schedule { has_calls: planner.has_calls, wake_at: planner.wake_at }
}

fn planned<'a>(
    global: &'a Global,
    policy: &'a Policy,
    cx: &'a Context,
    calls: Option<Vec<Call>>,
) -> Planner<'a> {
    let mut planner = Planner { global, policy, cx, calls, has_calls: false, wake_at: None };
    if global.status.is_final() {
        return planner;
    }
    match global.trans_type() {
        TransType::Saga => saga::plan(&mut planner),
        TransType::Tcc => tcc::plan(&mut planner),
        TransType::Xa => xa::plan(&mut planner),
        TransType::Msg => msg::plan(&mut planner),
        TransType::Workflow => workflow::plan(&mut planner),
    }
    // Nothing to wait for, as in a saga that was prepared and not submitted: look in now and then.
    let idle = || match global.wake_at > cx.now {
        true => global.wake_at,
        false => cx.now.after(policy.retry_interval_max),
    };
    planner.wake_at = Some(planner.wake_at.unwrap_or_else(idle));
    planner
}
