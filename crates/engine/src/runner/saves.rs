//! How a global's changes become durable, and what follows when they do not.

use std::sync::Arc;

use dtmd_protocol::{Durability, Global, GlobalStatus, durability, schedule};
use dtmd_store::{Lease, Write, WriteError};
use tracing::{debug, info};

use super::calls::lease_end;
use super::{Message, Runner, STORE_PAUSE};
use crate::committer::CommitError;
use crate::error::EngineError;
use crate::events::Event;

/// Why a change is not durable.
#[derive(Debug)]
pub(super) enum SaveError {
    /// Another writer was first: reload and decide again.
    Conflict,
    /// The gid is taken: load it and apply the request to what is there.
    AlreadyExists,
    /// Unknown, or not written: reload when the store answers again.
    Store(Arc<str>),
}

impl From<CommitError> for SaveError {
    fn from(failure: CommitError) -> Self {
        match failure {
            CommitError::Refused(WriteError::AlreadyExists(_)) => Self::AlreadyExists,
            CommitError::Refused(_) => Self::Conflict,
            CommitError::Unavailable(text) | CommitError::Full(text) => Self::Store(text),
        }
    }
}

/// A change that is about to be written.
///
/// Decided apart from its writing: whole globals on the stack of a function cost nothing, in a task
/// that waits they make it twice as large, and a task is moved when it begins.
pub(super) struct Decided {
    after: Arc<Global>,
    forced: bool,
}

impl Runner {
    /// Returns what is to be written to make `after` the stored global; `None` if nothing is.
    ///
    /// The change is going to be as durable as its class asks for; `force` asks for all of it.
    pub(super) fn decide(
        &self,
        before: &Global,
        mut after: Global,
        force: bool,
    ) -> Option<Decided> {
        let class = durability(Some(before), &after);
        if class == Durability::None {
            return None;
        }
        self.sign(before, &mut after);
        let forced = force || class == Durability::Forced;
        Some(Decided { after: Arc::new(after), forced })
    }

    /// Writes what was decided; returns when it is as durable as it must be.
    pub(super) async fn save(
        &mut self,
        before: &Arc<Global>,
        decided: Option<Decided>,
    ) -> Result<(), SaveError> {
        let Some(Decided { after, forced }) = decided else { return Ok(()) };
        let write = Write::Update { before: before.clone(), after: after.clone() };
        self.write(write, forced, after).await
    }

    /// Hands a change over and waits for it if it is forced.
    pub(super) async fn write(
        &mut self,
        write: Write,
        forced: bool,
        after: Arc<Global>,
    ) -> Result<(), SaveError> {
        let before = match &write {
            Write::Create(_) => GlobalStatus::Prepared,
            Write::Update { before, .. } => before.status,
            _ => after.status,
        };
        if before != after.status {
            self.untold = Some(after.clone());
        }
        let mut ack = self.core.committer.write(write, forced);
        self.stored = Some(after);
        if !forced {
            self.unconfirmed.push(ack);
            return Ok(());
        }
        let result = match (&mut ack).await {
            Ok(result) => result.map_err(SaveError::from),
            Err(_) => Err(SaveError::Store(Arc::from("the store's thread has ended"))),
        };
        match result {
            Ok(()) => {
                // The committer keeps the order, and revisions are not reused: what was handed
                // over before is durable too, or this write would have met a conflict.
                self.unconfirmed.clear();
                self.tell();
                Ok(())
            }
            Err(failure) => {
                self.stored = None;
                if !matches!(failure, SaveError::Store(_)) {
                    self.untold = None;
                }
                Err(failure)
            }
        }
    }

    /// Takes what the store holds for the truth, and tells the change whose fate it shows.
    pub(super) fn now_known(&mut self, global: Arc<Global>) {
        self.untold.take_if(|after| after.revision != global.revision);
        self.stored = Some(global);
        self.tell();
    }

    /// Tells the change of status that has become durable, if there is one. Where the view was
    /// dropped it is not known; the next look at the store shows it.
    pub(super) fn tell(&mut self) {
        if self.stored.is_some()
            && let Some(after) = self.untold.take()
        {
            self.publish(&after);
        }
    }

    /// Puts ownership and revision on a state that is about to be written.
    ///
    /// Who has calls to make owns the global; at rest nobody does. Someone else's lease is left
    /// alone while it lasts: that server's next write will meet a conflict and reload.
    fn sign(&self, before: &Global, after: &mut Global) {
        after.revision = before.revision.next_by(self.tag);
        let cx = self.core.clock.context();
        let working = schedule(after, &self.core.options.policy, &cx).has_calls;
        if before.owner == self.core.owner {
            if !working && !after.status.is_final() {
                after.owner = Arc::from("");
            }
        } else if self.is_free(before) {
            if working {
                after.owner = self.core.owner.clone();
                after.epoch = before.epoch + 1;
            }
        } else if working {
            after.wake_at = before.wake_at;
        }
    }

    fn is_free(&self, global: &Global) -> bool {
        global.owner.is_empty() || global.wake_at <= self.core.clock.due()
    }

    pub(super) fn is_owner(&self) -> bool {
        self.stored.as_ref().is_some_and(|global| global.owner == self.core.owner)
    }

    /// Makes sure that this server holds the lease; false if it cannot now.
    pub(super) async fn own(&mut self) -> bool {
        let Some(global) = self.stored.clone() else { return false };
        if global.owner == self.core.owner {
            return true;
        }
        if !self.is_free(&global) {
            debug!(gid = %self.gid, owner = %global.owner, "another server works on it");
            return false;
        }
        let mut taken = Global::clone(&global);
        taken.owner = self.core.owner.clone();
        taken.epoch += 1;
        taken.wake_at = lease_end(&self.core);
        match self.write(lease_of(&global, &taken), true, Arc::new(taken)).await {
            Ok(()) => {
                dtmd_failpoint::hit("lease-taken");
                true
            }
            Err(failure) => {
                self.recover(&failure).await;
                self.is_owner()
            }
        }
    }

    /// Renews the lease when less than half of it is left.
    pub(super) fn renew(&mut self) {
        let Some(global) = self.stored.clone() else { return };
        let ours = global.owner == self.core.owner && !global.status.is_final();
        let left = self.core.clock.until(global.wake_at);
        if !ours || self.targets.is_empty() || left > self.core.options.policy.lease / 2 {
            return;
        }
        let mut renewed = Global::clone(&global);
        renewed.wake_at = lease_end(&self.core);
        let ack = self.core.committer.write(lease_of(&global, &renewed), false);
        self.unconfirmed.push(ack);
        self.stored = Some(Arc::new(renewed));
    }

    /// Gives an unfinished global back at shutdown: due at once, for whoever comes first.
    pub(super) async fn hand_back(&mut self) {
        let Some(global) = self.stored.clone() else { return };
        if global.owner != self.core.owner || global.status.is_final() {
            return;
        }
        let mut free = Global::clone(&global);
        free.owner = Arc::from("");
        free.wake_at = self.core.clock.now();
        if let Err(failure) = self.write(lease_of(&global, &free), true, Arc::new(free)).await {
            debug!(gid = %self.gid, ?failure, "not handed back; its lease will end");
        }
    }

    /// Gets back to a known state after a change that was not made, or may not have been.
    pub(super) async fn recover(&mut self, failure: &SaveError) {
        self.stored = None;
        match failure {
            SaveError::Conflict | SaveError::AlreadyExists => {
                self.core.metrics.conflicts.inc();
                debug!(gid = %self.gid, "another writer was first; reloading");
            }
            SaveError::Store(text) => {
                self.refuse_waiting(text);
                while !self.core.committer.is_healthy() && !self.core.is_closing() {
                    tokio::time::sleep(STORE_PAUSE).await;
                    self.refuse_waiting(text);
                }
            }
        }
        self.loaded().await;
    }

    /// Tells callers that wait in line that their requests were not done, while the store is away.
    pub(super) fn refuse_waiting(&mut self, why: &str) {
        while let Some(message) = self.inbox.take() {
            match message {
                Message::Create { reply, .. } | Message::Request { reply, .. } => {
                    let _ = reply.send(Err(EngineError::Unavailable(why.to_owned())));
                }
                Message::Kick { ended } => {
                    let _ = ended.send(());
                }
                Message::Wake { .. } | Message::Renew => {}
            }
        }
    }

    /// Tells metrics, listeners and the log that the status has changed.
    fn publish(&self, after: &Global) {
        let (gid, trans_type, status) = (&after.gid, after.trans_type(), after.status);
        if status.is_final() {
            let age = self.core.clock.now().since(after.created);
            self.core.metrics.ended(trans_type, status, age);
        }
        match status {
            GlobalStatus::Aborting | GlobalStatus::Failed => {
                info!(%gid, %trans_type, %status, reason = %after.rollback_reason, "status");
            }
            GlobalStatus::Prepared | GlobalStatus::Submitted | GlobalStatus::Succeed => {
                debug!(%gid, %trans_type, %status, "status");
            }
        }
        let left_failing = || after.branches.iter().any(|row| row.retry.attempts > 0);
        if status.is_final() && left_failing() && self.core.alerts.receiver_count() > 0 {
            let _ = self.core.alerts.send(Event::Ended { gid: gid.clone(), status });
        }
        if self.core.is_watched() {
            let _ = self.core.events.send(Event::Status { gid: gid.clone(), trans_type, status });
        }
    }
}

/// Returns the write that changes nothing but who owns a global, and until when.
fn lease_of(before: &Global, after: &Global) -> Write {
    Write::Lease(Lease {
        gid: before.gid.clone(),
        revision: before.revision,
        epoch: before.epoch,
        owner: after.owner.clone(),
        new_epoch: after.epoch,
        wake_at: after.wake_at,
    })
}
