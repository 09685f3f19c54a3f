//! Leases and writes: how a change becomes durable, and what follows when it does not.

use std::sync::Arc;

use dtmd_protocol::{Durability, Global, Revision, TransType, durability, schedule};
use dtmd_store::{Lease, Write};

use super::super::tx::{Req, Told};
use super::super::world::World;
use super::{Message, Work, WriteError};
use crate::Bug;
use crate::rng::mix;

const CONFLICTS_MAX: u32 = 32;
/// The low bits of a revision name its writer.
const TAG_BITS: u32 = 24;

impl World {
    /// Makes sure that this server holds the lease, and starts the calls.
    pub(super) fn own(&mut self, s: usize, tx: u32, before: &Arc<Global>) {
        let owner = self.servers[s].owner.clone();
        let ignored = self.bug == Some(Bug::LeaseIgnored);
        if before.owner == owner || ignored {
            for call in self.wanted(s, tx) {
                self.start_call(s, tx, before, call);
            }
            return;
        }
        if !self.is_free(s, before) {
            self.runner(s, tx).not_ours = true;
            return;
        }
        let mut taken = Global::clone(before);
        taken.owner = owner;
        taken.epoch += 1;
        taken.wake_at = self.local_now(s).after(self.policy.lease);
        let lease = Lease {
            gid: before.gid.clone(),
            revision: before.revision,
            epoch: before.epoch,
            owner: taken.owner.clone(),
            new_epoch: taken.epoch,
            wake_at: taken.wake_at,
        };
        self.write(s, tx, Write::Lease(lease), true, true, Arc::new(taken), Work::Own);
    }

    pub(super) fn is_free(&self, s: usize, global: &Global) -> bool {
        global.owner.is_empty() || global.wake_at <= self.local_now(s)
    }

    pub(super) fn renew(&mut self, s: usize, tx: u32) {
        let now = self.local_now(s);
        let lease = self.policy.lease;
        let owner = self.servers[s].owner.clone();
        let runner = self.runner(s, tx);
        let Some(global) = runner.stored.clone() else { return };
        let ours = global.owner == owner && !global.status.is_final();
        if !ours || runner.flying.is_empty() || global.wake_at.since(now) > lease / 2 {
            return;
        }
        let mut renewed = Global::clone(&global);
        renewed.wake_at = now.after(lease);
        let lease = Lease {
            gid: global.gid.clone(),
            revision: global.revision,
            epoch: global.epoch,
            owner: global.owner.clone(),
            new_epoch: global.epoch,
            wake_at: renewed.wake_at,
        };
        self.write(s, tx, Write::Lease(lease), false, false, Arc::new(renewed), Work::Look);
    }

    /// Makes `after` the stored global, if it differs; true if nothing is left to wait for.
    #[allow(clippy::too_many_arguments, reason = "the engine's own parameters, and how to go on")]
    pub(super) fn save(
        &mut self,
        s: usize,
        tx: u32,
        before: &Arc<Global>,
        mut after: Global,
        force: bool,
        wait: bool,
        go_on: Work,
    ) -> bool {
        let mut class = durability(Some(before), &after);
        if class == Durability::None {
            return true;
        }
        if self.bug == Some(Bug::LazySagaResults)
            && after.trans_type() == TransType::Saga
            && before.status == after.status
        {
            class = Durability::Lazy;
        }
        self.sign(s, tx, before, &mut after);
        let after = Arc::new(after);
        let forced = force || class == Durability::Forced;
        let write = Write::Update { before: before.clone(), after: after.clone() };
        self.write(s, tx, write, forced, forced && wait, after, go_on);
        !(forced && wait)
    }

    /// Hands a change over; if `wait`, goes on with `go_on` when the result is known.
    #[allow(clippy::too_many_arguments, reason = "the engine's own parameters, and how to go on")]
    pub(super) fn write(
        &mut self,
        s: usize,
        tx: u32,
        write: Write,
        forced: bool,
        wait: bool,
        after: Arc<Global>,
        go_on: Work,
    ) {
        let id = self.commit(s, tx, write, forced);
        let runner = self.runner(s, tx);
        runner.stored = Some(after);
        if wait {
            runner.awaits = Some(id);
            runner.work = Some(go_on);
        } else {
            runner.unconfirmed.push((id, None));
        }
    }

    /// Puts ownership and revision on a state that is about to be written.
    pub(super) fn sign(&self, s: usize, tx: u32, before: &Global, after: &mut Global) {
        after.revision = self.next_revision(s, tx, before);
        let cx = self.context(s);
        let working = schedule(after, &self.policy, &cx).has_calls;
        let owner = &self.servers[s].owner;
        if before.owner == *owner {
            if !working && !after.status.is_final() {
                after.owner = Arc::from("");
            }
        } else if self.is_free(s, before) {
            if working {
                after.owner = owner.clone();
                after.epoch = before.epoch + 1;
            }
        } else if working {
            after.wake_at = before.wake_at;
        }
    }

    /// Returns the revision of the next write: a count, and a tag of who continues which load.
    ///
    /// A bare count is not enough. A runner writes on top of its own lazy writes before it knows
    /// what became of them; if one was refused or lost, another writer's change may bear the very
    /// count that the next write expects, and would be overwritten unseen.
    pub(super) fn next_revision(&self, s: usize, tx: u32, before: &Global) -> Revision {
        if self.bug == Some(Bug::RevisionReused) {
            return before.revision.next();
        }
        let chain = self.servers[s].runners.get(tx).map_or(0, |runner| runner.chain);
        let writer = mix(u64::from(self.servers[s].incarnation) << 8 | s as u64, u64::from(chain));
        Revision(((before.revision.0 >> TAG_BITS) + 1) << TAG_BITS | writer >> (64 - TAG_BITS))
    }

    /// A write's result has come back from the committer.
    pub(crate) fn written(&mut self, s: usize, tx: u32, id: u64, result: Result<(), WriteError>) {
        let go_on_anyway = self.bug == Some(Bug::NoReloadAfterUnknown);
        let result = match result {
            Err(WriteError::Unavailable) if go_on_anyway => Ok(()),
            result => result,
        };
        if result.is_err() {
            self.txs[tx as usize].reasons += 1;
        }
        let Some(runner) = self.servers[s].runners.get_mut(tx) else { return };
        if runner.awaits == Some(id) {
            runner.awaits = None;
            let Some(work) = runner.work.take() else { return };
            if result.is_err() {
                runner.stored = None;
            }
            self.go_on(s, tx, work, result);
        } else if let Some(slot) = runner.unconfirmed.iter_mut().find(|(known, _)| *known == id) {
            slot.1 = Some(result);
        }
        self.drive(s, tx);
    }

    /// Goes on after a forced write.
    pub(super) fn go_on(&mut self, s: usize, tx: u32, work: Work, result: Result<(), WriteError>) {
        let stored = self.runner(s, tx).stored.clone();
        match (work, result, stored) {
            (Work::Create { req, no } | Work::Ask { req, no, .. }, Ok(()), Some(global)) => {
                self.accepted(s, tx, req, no, global);
            }
            (Work::Create { req, no }, Err(WriteError::Refused(_)), _) => {
                self.runner(s, tx).work = Some(Work::Ask { req, no, tries: 0 });
            }
            (Work::Create { no, .. }, Err(WriteError::Unavailable), _) => {
                self.reply(s, tx, no, Told::Unavailable);
            }
            (Work::Ask { req: Req::Register(_), no, .. }, Err(WriteError::Refused(_)), _)
                if self.bug == Some(Bug::LostRegistration) =>
            {
                let global = self.store.get(tx).cloned();
                if let Some(global) = global {
                    self.reply(s, tx, no, Told::Done(global));
                }
            }
            (Work::Ask { req, no, tries }, Err(WriteError::Refused(_)), _) => {
                if tries + 1 < CONFLICTS_MAX {
                    self.runner(s, tx).work = Some(Work::Ask { req, no, tries: tries + 1 });
                } else {
                    self.reply(s, tx, no, Told::Unavailable);
                }
            }
            (Work::Ask { no, .. }, Err(WriteError::Unavailable), _) => {
                self.reply(s, tx, no, Told::Unavailable);
                self.runner(s, tx).work = Some(Work::Recover { store: true });
            }
            (Work::Refuse { req, no, tries }, _, _) => {
                self.runner(s, tx).work = Some(Work::Ask { req, no, tries });
            }
            (Work::Fold, Ok(()), _) => self.runner(s, tx).answers.clear(),
            (Work::Own, Ok(()), _) => self.runner(s, tx).work = Some(Work::Own),
            (_, Ok(()), _) => {}
            (_, Err(failure), _) => {
                let store = failure == WriteError::Unavailable;
                self.runner(s, tx).work = Some(Work::Recover { store });
            }
        }
    }

    /// Gets back to a known state after a change that was not made, or may not have been.
    pub(super) fn recover(&mut self, s: usize, tx: u32, store: bool) {
        self.runner(s, tx).stored = None;
        if store {
            self.refuse_waiting(s, tx);
            if !self.servers[s].healthy {
                self.runner(s, tx).work = Some(Work::Recover { store });
                return self.pause(s, tx);
            }
        }
        self.runner(s, tx).work = Some(Work::Reload);
    }

    pub(super) fn refuse_waiting(&mut self, s: usize, tx: u32) {
        for message in std::mem::take(&mut self.runner(s, tx).inbox) {
            if let Message::Ask { no, .. } = message {
                self.reply(s, tx, no, Told::Unavailable);
            }
        }
    }
}
