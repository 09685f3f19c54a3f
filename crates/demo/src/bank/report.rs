//! What a bank tells about the calls it handled.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::barrier::Admission;

/// One handled branch call; a bank process prints it as one JSON line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// The bank's name.
    pub bank: String,
    /// The global transaction's id.
    pub gid: String,
    /// The transaction's mode, as the caller said.
    pub trans_type: String,
    /// The branch id.
    pub branch_id: String,
    /// What was asked of the branch.
    pub op: String,
    /// The endpoint.
    pub path: String,
    /// The account the call was for, if it named one.
    #[serde(default)]
    pub account: Option<String>,
    /// The amount, in minor units.
    #[serde(default)]
    pub amount: Option<i64>,
    /// `success`, `failure`, `ongoing`, or `unknown` when the caller cannot know.
    pub outcome: String,
    /// What the barrier said: `run`, `duplicate`, `null-compensation`, `hanging`; none if the
    /// barrier was not asked.
    #[serde(default)]
    pub admission: Option<Admission>,
    /// What else is worth telling: a fault that was injected, why the business said no.
    #[serde(default)]
    pub note: Option<String>,
    /// How long the call took, in milliseconds.
    pub ms: f64,
}

/// Counters of a bank since its start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) in_flight: AtomicU64,
    run: AtomicU64,
    duplicates: AtomicU64,
    null_compensations: AtomicU64,
    hanging: AtomicU64,
    failures: AtomicU64,
    unknown: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, report: &CallReport) {
        let admission = report.admission.map(|admission| match admission {
            Admission::Run => &self.run,
            Admission::Duplicate => &self.duplicates,
            Admission::NullCompensation => &self.null_compensations,
            Admission::Hanging => &self.hanging,
        });
        let outcome = match report.outcome.as_str() {
            "failure" => Some(&self.failures),
            "unknown" => Some(&self.unknown),
            _ => None,
        };
        for counter in admission.into_iter().chain(outcome) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            calls: read(&self.calls),
            in_flight: read(&self.in_flight),
            run: read(&self.run),
            duplicates: read(&self.duplicates),
            null_compensations: read(&self.null_compensations),
            hanging: read(&self.hanging),
            failures: read(&self.failures),
            unknown: read(&self.unknown),
        }
    }
}

/// What `GET /stats` answers: counters since the bank's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Branch calls that arrived.
    pub calls: u64,
    /// Branch calls that arrived and are not done yet.
    pub in_flight: u64,
    /// Calls the barrier let through.
    pub run: u64,
    /// Calls that had been done before.
    pub duplicates: u64,
    /// Compensations whose action never ran.
    pub null_compensations: u64,
    /// Actions that came after their compensation and were kept out.
    pub hanging: u64,
    /// Calls answered FAILURE.
    pub failures: u64,
    /// Calls whose outcome the caller cannot know: errors and dropped connections.
    pub unknown: u64,
}
