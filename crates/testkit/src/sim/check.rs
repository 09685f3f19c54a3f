//! Where the invariants are asked: after every write, effect, answer and call, and at the end.

use std::sync::Arc;

use dtmd_protocol::{BranchId, Call, Global, GlobalStatus, Op, TransType};

use super::service::Kind;
use super::world::World;
use crate::Bug;
use crate::invariants::{
    Checked, check_backoff, check_calls, check_change, check_effects, check_message, check_outcome,
    check_promises, check_send, check_told,
};

impl World {
    /// A write was made.
    pub(crate) fn observe(&mut self, tx: u32, before: Option<&Arc<Global>>, lease: bool) {
        let Some(after) = self.store.get(tx).cloned() else { return };
        let tr = &mut self.txs[tx as usize];
        tr.was_submitted |= after.status == GlobalStatus::Submitted;
        tr.was_aborting |= after.status == GlobalStatus::Aborting;
        let forced = tr.force_stopped;
        let from = before.map_or("new", |before| before.status.as_str());
        if from != after.status.as_str() {
            if after.status.is_final() {
                self.last_end = self.now;
            }
            self.coverage.moved(after.trans_type(), from, after.status);
            self.note(|| format!("tx {tx}: {from} -> {}", after.status));
        }
        if let Some(before) = before {
            if !lease {
                self.checked(check_change(before, &after, forced));
                self.checked(check_backoff(before, &after, &self.policy));
            }
            let takes_over = before.epoch != after.epoch;
            self.txs[tx as usize].reasons += u32::from(takes_over);
        }
        if self.is_quiet && !after.status.is_final() {
            self.claim_no_later(after.wake_at);
        }
        self.check_tx(tx);
    }

    /// Asks what must hold of one transaction at any time.
    pub(crate) fn check_tx(&mut self, tx: u32) {
        let check = self.judge(tx);
        self.checked(check);
    }

    fn judge(&self, tx: u32) -> Checked {
        let tr = &self.txs[tx as usize];
        let stored = self.store.get(tx).map(|global| &**global);
        check_promises(&tr.promises, stored, tr.force_stopped)?;
        let Some(global) = stored else { return Ok(()) };
        if tr.force_stopped || !tr.has_barrier() {
            return Ok(());
        }
        // Only a final status says anything of the effects.
        if global.status.is_final() {
            let joined = |branch: usize| {
                let id = BranchId::of_step(branch);
                global.branches.iter().any(|row| row.branch_id == id)
            };
            let services = tr.services.iter().enumerate();
            let branches: Vec<_> =
                services.map(|(branch, service)| (service.effects, joined(branch))).collect();
            check_outcome(global, &branches)?;
        }
        match global.trans_type() {
            TransType::Msg => check_message(global.status, tr.local.committed),
            TransType::Saga | TransType::Tcc | TransType::Xa | TransType::Workflow => Ok(()),
        }
    }

    /// A service has done something.
    pub(crate) fn check_branch(&mut self, tx: u32, branch: usize) {
        let tr = &self.txs[tx as usize];
        if tr.has_barrier() {
            let check = check_effects(branch, &tr.services[branch].effects);
            self.checked(check);
        }
        self.check_tx(tx);
    }

    /// A call is about to be sent.
    pub(crate) fn check_call(
        &mut self,
        s: usize,
        tx: u32,
        global: &Arc<Global>,
        call: &Call,
        branch: usize,
    ) {
        self.coverage.called(global.trans_type(), &call.op);
        self.note(|| format!("server {s}: tx {tx}: {} {}", call.branch_id, call.op));
        let tr = &mut self.txs[tx as usize];
        let stored = self.store.get(tx);
        let ignored = self.bug == Some(Bug::LeaseIgnored);
        let sent = match call.op {
            Op::Msg | Op::Named(_) => &mut tr.asked,
            _ => &mut tr.services[branch].sent[Kind::of(&call.op) as usize],
        };
        *sent += 1;
        let calls = if ignored {
            Ok(())
        } else {
            check_calls(*sent, tr.reasons, || format!("tx {tx} {} {}", call.branch_id, call.op))
        };
        let send = check_send(
            stored.map(|global| &**global),
            &call.branch_id,
            &call.op,
            tr.was_submitted,
            tr.was_aborting,
        );
        let own = self.servers[s].runners.get(tx).map(|runner| runner.flying.iter());
        let overlap = call.op == Op::Compensate
            && own
                .into_iter()
                .flatten()
                .any(|flight| flight.op == Op::Action && flight.branch == branch);
        self.checked(calls);
        self.checked(send);
        if overlap {
            let id = &call.branch_id;
            self.fail("G9", format!("tx {tx}: {id} compensate sent while its action is in flight"));
        }
    }

    /// What must hold when everything has come to its end.
    pub(crate) fn check_end(&mut self) {
        for number in 0..self.txs.len() {
            if self.violation.is_some() {
                return;
            }
            let tx = u32::try_from(number).unwrap_or(u32::MAX);
            let tr = &self.txs[number];
            let stored = self.store.get(tx).cloned();
            if !tr.may_rest(stored.as_ref()) {
                let status = stored.as_ref().map_or("not stored", |global| global.status.as_str());
                let step = tr.app.step;
                self.fail("I9", format!("tx {tx} is {status} for ever; its application: {step:?}"));
                return;
            }
            self.check_tx(tx);
            if let Some(global) = stored {
                let told = check_told(&self.txs[number].promises, &global);
                self.checked(told);
                self.coverage.ended(global.trans_type(), global.status);
            }
        }
    }
}
