//! The store of the simulated servers: revisions, epochs, due times, and nothing that is lost.
//!
//! What may go wrong with a batch is decided by the committer that sends it; here a write is made
//! whole or refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use dtmd_protocol::{Global, GlobalStatus, Timestamp};
use dtmd_store::Write;

use crate::Bug;

/// Why a write was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Exists,
    Conflict,
}

#[derive(Debug, Default)]
pub(crate) struct SimStore {
    globals: Vec<Option<Arc<Global>>>,
    due: BTreeSet<(Timestamp, u32)>,
    pub(crate) bug: Option<Bug>,
}

impl SimStore {
    pub(crate) fn new(count: usize, bug: Option<Bug>) -> Self {
        Self { globals: vec![None; count], due: BTreeSet::new(), bug }
    }

    pub(crate) fn get(&self, tx: u32) -> Option<&Arc<Global>> {
        self.globals[tx as usize].as_ref()
    }

    /// Makes one write; returns what was stored before.
    pub(crate) fn apply(&mut self, tx: u32, write: &Write) -> Result<Option<Arc<Global>>, Refusal> {
        let stored = self.globals[tx as usize].clone();
        let after = match (write, &stored) {
            (Write::Create(_), Some(_)) => return Err(Refusal::Exists),
            (Write::Create(global), None) => global.clone(),
            (Write::Update { before, after }, Some(stored)) => {
                if stored.revision == before.revision && stored.epoch == before.epoch {
                    after.clone()
                } else {
                    self.against_the_rules(stored, before, after).ok_or(Refusal::Conflict)?
                }
            }
            (Write::Lease(lease), Some(stored)) => {
                if stored.revision != lease.revision || stored.epoch != lease.epoch {
                    return Err(Refusal::Conflict);
                }
                let mut global = Global::clone(stored);
                global.owner = lease.owner.clone();
                global.epoch = lease.new_epoch;
                global.wake_at = lease.wake_at;
                Arc::new(global)
            }
            _ => return Err(Refusal::Conflict),
        };
        self.put(tx, after);
        Ok(stored)
    }

    /// What a store with a mistake makes of a write that should be refused.
    fn against_the_rules(
        &self,
        stored: &Arc<Global>,
        before: &Global,
        after: &Arc<Global>,
    ) -> Option<Arc<Global>> {
        match self.bug? {
            Bug::NoRevisionCheck => Some(after.clone()),
            Bug::StaleViewAtAbort => {
                let back = matches!(after.status, GlobalStatus::Aborting | GlobalStatus::Failed);
                if !back || stored.status != before.status {
                    return None;
                }
                let mut merged = Global::clone(stored);
                merged.status = after.status;
                for (row, known) in merged.branches.iter_mut().zip(&after.branches) {
                    if row.is_pending() {
                        row.status = known.status;
                    }
                }
                merged.revision = merged.revision.next();
                merged.wake_at = after.wake_at;
                Some(Arc::new(merged))
            }
            _ => None,
        }
    }

    fn put(&mut self, tx: u32, after: Arc<Global>) {
        let slot = &mut self.globals[tx as usize];
        if let Some(before) = slot {
            self.due.remove(&(before.wake_at, tx));
        }
        if !after.status.is_final() {
            self.due.insert((after.wake_at, tx));
        }
        *slot = Some(after);
    }

    /// Takes due globals for `owner` until `until`.
    pub(crate) fn claim(
        &mut self,
        owner: &Arc<str>,
        due: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Vec<(u32, Arc<Global>)> {
        let due: Vec<u32> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= due)
            .take(limit)
            .map(|(_, tx)| *tx)
            .collect();
        let mut claimed = Vec::with_capacity(due.len());
        for tx in due {
            let Some(stored) = self.get(tx) else { continue };
            let mut global = Global::clone(stored);
            global.owner = owner.clone();
            global.epoch += 1;
            global.wake_at = until;
            let global = Arc::new(global);
            self.put(tx, global.clone());
            claimed.push((tx, global));
        }
        claimed
    }

    /// Makes everything unfinished due, as opening an exclusive store does.
    pub(crate) fn all_due(&mut self) {
        for (tx, global) in self.globals.iter_mut().enumerate() {
            let Some(stored) = global else { continue };
            let number = u32::try_from(tx).unwrap_or(u32::MAX);
            if self.due.remove(&(stored.wake_at, number)) {
                let mut freed = Global::clone(stored);
                freed.wake_at = Timestamp::ZERO;
                self.due.insert((freed.wake_at, number));
                *global = Some(Arc::new(freed));
            }
        }
    }

    pub(crate) fn earliest_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }
}
