//! How many globals there are, without counting them each time.
//!
//! A count goes over an index and is exact. Between two counts, which are the further apart the
//! longer they take, this server's own changes are added to the last one; those of other servers
//! are seen at the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dtmd_protocol::{GlobalStatus, TransType};
use dtmd_store::{Totals, Write, WriteError};

/// Counts are at least this far apart …
const EVERY: Duration = Duration::from_secs(10);
/// … and so many times as far as one takes.
const TIMES: u32 = 100;

type Key = (TransType, GlobalStatus);

#[derive(Default)]
pub(crate) struct Counts {
    // A std mutex: no await while it is held.
    state: Mutex<Option<Counted>>,
}

struct Counted {
    counts: BTreeMap<Key, i64>,
    until: Instant,
}

impl Counts {
    /// Returns what is known, if it is not too old.
    pub(crate) fn known(&self) -> Option<Totals> {
        let state = self.state();
        let counted = state.as_ref().filter(|counted| Instant::now() < counted.until)?;
        Some(totals(&counted.counts))
    }

    /// Takes a count and how long it took.
    pub(crate) fn take(&self, counts: BTreeMap<Key, i64>, took: Duration) -> Totals {
        let known = totals(&counts);
        let until = Instant::now() + EVERY.max(took * TIMES);
        *self.state() = Some(Counted { counts, until });
        known
    }

    /// Adds what a batch changed.
    pub(crate) fn committed(&self, writes: &[Write], results: &[Result<(), WriteError>]) {
        let mut state = self.state();
        let Some(counted) = state.as_mut() else { return };
        let held = writes.iter().zip(results).filter(|(_, result)| result.is_ok());
        for (write, _) in held {
            match write {
                Write::Create(global) => counted.add((global.trans_type(), global.status), 1),
                Write::Update { before, after } if before.status != after.status => {
                    counted.add((before.trans_type(), before.status), -1);
                    counted.add((after.trans_type(), after.status), 1);
                }
                Write::Update { .. } | Write::Lease(_) | Write::Kv { .. } => {}
            }
        }
    }

    /// Takes away what was deleted.
    pub(crate) fn deleted(&self, keys: impl Iterator<Item = Key>) {
        if let Some(counted) = self.state().as_mut() {
            keys.for_each(|key| counted.add(key, -1));
        }
    }

    /// Forgets everything: the next one counts.
    pub(crate) fn forget(&self) {
        *self.state() = None;
    }

    fn state(&self) -> MutexGuard<'_, Option<Counted>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn add(&mut self, key: Key, count: i64) {
        *self.counts.entry(key).or_default() += count;
    }
}

fn totals(counts: &BTreeMap<Key, i64>) -> Totals {
    let positive = counts.iter().filter(|(_, count)| **count > 0);
    positive.map(|(&(kind, status), &count)| (kind, status, count.cast_unsigned())).collect()
}
