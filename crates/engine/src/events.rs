//! What happened, on bounded channels that never hold the engine up.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_protocol::{BranchId, Gid, GlobalStatus, Op, TransType};
use tokio::sync::Notify;

/// Events kept for a slow listener, at most; it is told how many it missed.
pub(crate) const EVENTS_MAX: usize = 1024;
/// Pass events kept for a test that does not ask, at most; the oldest are dropped.
const PASSES_MAX: usize = 100_000;

/// Something that happened to a transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// It changed its status.
    Status {
        /// The transaction.
        gid: Gid,
        /// Its type.
        trans_type: TransType,
        /// Its new status.
        status: GlobalStatus,
    },
    /// A branch was called.
    Called {
        /// The transaction.
        gid: Gid,
        /// The branch.
        branch_id: BranchId,
        /// What it was asked.
        op: Op,
        /// The outcome's word.
        outcome: &'static str,
        /// How long it took.
        elapsed: Duration,
    },
    /// A branch's outcome is unknown for the `attempts`-th time in a row. On the channel of alerts.
    Alert {
        /// The transaction.
        gid: Gid,
        /// Its status.
        status: GlobalStatus,
        /// The branch's URL.
        url: String,
        /// What is known of the failure.
        error: String,
        /// Failures in a row.
        attempts: u32,
    },
    /// A branch that had failed before has answered with success. On the channel of alerts.
    Recovered {
        /// The transaction.
        gid: Gid,
        /// Its status.
        status: GlobalStatus,
        /// The branch's URL.
        url: String,
    },
    /// A transaction's stored record cannot be read: an operator has to look. On the channel of
    /// alerts.
    Poisoned {
        /// The transaction.
        gid: Gid,
        /// What the store says.
        error: String,
    },
    /// A transaction ended that has a branch which had failed and never succeeded: it was stopped,
    /// or another branch decided. On the channel of alerts.
    Ended {
        /// The transaction.
        gid: Gid,
        /// Its final status.
        status: GlobalStatus,
    },
}

/// The "a pass ended" events of a test clock, in order, exactly one a pass.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    ended: Mutex<VecDeque<Gid>>,
    more: Notify,
}

impl Passes {
    pub(crate) fn push(&self, gid: Gid) {
        let mut ended = self.lock();
        if ended.len() == PASSES_MAX {
            ended.pop_front();
        }
        ended.push_back(gid);
        drop(ended);
        self.more.notify_one();
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Takes the oldest event, waiting for one if there is none.
    pub(crate) async fn next(&self, wait: Duration) -> Option<Gid> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let more = self.more.notified();
            if let Some(gid) = self.lock().pop_front() {
                return Some(gid);
            }
            if tokio::time::timeout_at(deadline, more).await.is_err() {
                return self.lock().pop_front();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Gid>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
