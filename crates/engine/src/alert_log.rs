//! What became of the last alerts, for people who wonder why nobody was told.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_protocol::Timestamp;

/// Alerts kept.
const ALERTS_MAX: usize = 100;

/// One alert and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertRecord {
    /// When it was decided on.
    pub at: Timestamp,
    /// What it is about: `retry`, `stuck`, `poisoned` or `recovered`.
    pub kind: &'static str,
    /// The transaction.
    pub gid: String,
    /// Its status, as the alert says it.
    pub status: &'static str,
    /// The branch's URL without its query; empty if it is about the whole transaction.
    pub branch: String,
    /// `delivered`, `failed` or `dropped`.
    pub result: &'static str,
    /// How often it was sent.
    pub sendings: u32,
    /// How long the last sending took.
    pub elapsed: Duration,
    /// What the hook said to the last sending, if it did not take it.
    pub error: String,
}

/// The last alerts, newest last.
#[derive(Debug, Default)]
pub struct AlertLog {
    // A std mutex around one push or one copy.
    records: Mutex<VecDeque<AlertRecord>>,
}

impl AlertLog {
    /// Adds one; the oldest makes room.
    pub fn push(&self, record: AlertRecord) {
        let mut records = self.lock();
        if records.len() >= ALERTS_MAX {
            records.pop_front();
        }
        records.push_back(record);
    }

    /// Returns all, newest first.
    pub fn newest_first(&self) -> Vec<AlertRecord> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<AlertRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
