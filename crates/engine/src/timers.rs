//! Wakes each global that is at rest when it is due.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dtmd_protocol::{Gid, Timestamp};
use tokio::sync::Notify;

use crate::hash::QuickMap;

/// Wake-ups kept, at most. Past that the claimer finds the due ones in the store.
const TIMERS_MAX: usize = 1_000_000;

/// The wake-ups of the globals that this server knows and does not work on.
///
/// Losing one costs a delay, never a transaction: the claimer looks at the store.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    // A std mutex: each critical section is a few map operations.
    state: Mutex<State>,
    /// How many are set, so that who has nothing to cancel need not take the lock.
    count: AtomicUsize,
    /// Tells the loop that waits that an earlier wake-up has come in.
    earlier: Notify,
}

#[derive(Debug, Default)]
struct State {
    by_time: BTreeSet<(Timestamp, Gid)>,
    by_gid: QuickMap<Gid, Timestamp>,
}

impl Timers {
    /// Sets a global's wake-up, in place of any earlier one.
    pub(crate) fn set(&self, gid: Gid, at: Timestamp) {
        let mut state = self.state();
        state.remove(&gid);
        if state.by_gid.len() >= TIMERS_MAX {
            // Some are set in any case, so `count` need not be exact.
            return;
        }
        let first = state.by_time.first().is_none_or(|(earliest, _)| at < *earliest);
        state.by_gid.insert(gid.clone(), at);
        state.by_time.insert((at, gid));
        self.count.store(state.by_gid.len(), Ordering::Release);
        drop(state);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Takes a global's wake-up away, if its setting happened before.
    pub(crate) fn cancel(&self, gid: &Gid) {
        if self.len() == 0 {
            return;
        }
        let mut state = self.state();
        state.remove(gid);
        self.count.store(state.by_gid.len(), Ordering::Release);
    }

    /// Returns whether a global has a wake-up.
    pub(crate) fn is_set(&self, gid: &Gid) -> bool {
        self.state().by_gid.contains_key(gid)
    }

    /// Takes all away.
    pub(crate) fn clear(&self) {
        let mut state = self.state();
        *state = State::default();
        self.count.store(0, Ordering::Release);
    }

    /// Returns how many wake-ups are set.
    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Takes the globals that are due, the earliest first and `limit` at most, and returns when the
    /// next one is.
    pub(crate) fn take_due(&self, now: Timestamp, limit: usize) -> (Vec<Gid>, Option<Timestamp>) {
        let mut state = self.state();
        let mut due = Vec::new();
        while let Some((at, _)) = state.by_time.first()
            && *at <= now
            && due.len() < limit
        {
            if let Some((_, gid)) = state.by_time.pop_first() {
                state.by_gid.remove(&gid);
                due.push(gid);
            }
        }
        self.count.store(state.by_gid.len(), Ordering::Release);
        let next = state.by_time.first().map(|(at, _)| *at);
        (due, next)
    }

    /// Waits until a wake-up earlier than all others was set.
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, gid: &Gid) {
        if let Some(at) = self.by_gid.remove(gid) {
            self.by_time.remove(&(at, gid.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        Gid::new(text).unwrap()
    }

    #[test]
    fn due_ones_come_in_order_and_once() {
        let timers = Timers::default();
        timers.set(gid("b"), Timestamp(20));
        timers.set(gid("a"), Timestamp(10));
        timers.set(gid("c"), Timestamp(30));
        timers.set(gid("a"), Timestamp(25));
        timers.cancel(&gid("c"));
        assert_eq!(timers.take_due(Timestamp(15), 9), (vec![], Some(Timestamp(20))));
        assert_eq!(timers.take_due(Timestamp(99), 0), (vec![], Some(Timestamp(20))));
        assert_eq!(timers.take_due(Timestamp(99), 1), (vec![gid("b")], Some(Timestamp(25))));
        assert_eq!(timers.take_due(Timestamp(99), 9), (vec![gid("a")], None));
        assert_eq!(timers.len(), 0);
    }
}
