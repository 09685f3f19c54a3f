//! One hanging service delays only its own branches: a concurrency limit and a circuit breaker for
//! each destination (scheme and authority).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::hash::QuickMap;

/// Destinations kept, at most; idle ones are forgotten to make room.
const DESTINATIONS_MAX: usize = 10_000;

/// Limits that hold for each destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationLimits {
    /// Calls in flight at a time; more wait their turn.
    pub concurrency: usize,
    /// Calls in a row that did not reach the service, after which the breaker opens. 0: never.
    pub breaker_failures: u32,
    /// How long it stays open at first; doubles with each probe that fails.
    pub breaker_open: Duration,
    /// How long it stays open at most.
    pub breaker_open_max: Duration,
}

impl Default for DestinationLimits {
    fn default() -> Self {
        Self {
            concurrency: 64,
            breaker_failures: 10,
            breaker_open: Duration::from_secs(2),
            breaker_open_max: Duration::from_secs(60),
        }
    }
}

/// All destinations this server calls.
#[derive(Debug)]
pub(crate) struct Destinations {
    limits: DestinationLimits,
    // A std mutex: one look-up a call, never across an await.
    known: Mutex<QuickMap<Box<str>, Arc<Destination>>>,
}

/// One destination.
#[derive(Debug)]
pub(crate) struct Destination {
    name: Box<str>,
    pub(crate) places: Semaphore,
    /// The breaker is closed and no failure counts: whoever sees this has nothing to ask of it and
    /// no success to tell it. All threads read it with every call, so it is written seldom.
    is_calm: AtomicBool,
    breaker: Mutex<Breaker>,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// How often it has opened since the service answered last.
    opened: u32,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    /// One call is on its way to find out.
    HalfOpen {
        probe_ends: Instant,
    },
}

/// How many destinations are in which state, and what is under way to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) closed: usize,
    pub(crate) open: usize,
    pub(crate) half_open: usize,
    /// Calls that have a place at their destination.
    pub(crate) in_flight: usize,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Call,
    /// Not now; look again after this long.
    Postpone(Duration),
}

impl Destinations {
    pub(crate) fn new(limits: DestinationLimits) -> Self {
        Self { limits, known: Mutex::default() }
    }

    pub(crate) fn get(&self, name: &str) -> Arc<Destination> {
        let mut known = lock(&self.known);
        if let Some(destination) = known.get(name) {
            return destination.clone();
        }
        if known.len() >= DESTINATIONS_MAX {
            known.retain(|_, destination| Arc::strong_count(destination) > 1);
        }
        let destination = Arc::new(Destination {
            name: Box::from(name),
            places: Semaphore::new(self.limits.concurrency.max(1)),
            is_calm: AtomicBool::new(true),
            breaker: Mutex::default(),
        });
        known.insert(Box::from(name), destination.clone());
        destination
    }

    /// Asks the breaker.
    pub(crate) fn admit(
        &self,
        destination: &Destination,
        call_timeout: Duration,
        now: Instant,
    ) -> Admission {
        if self.limits.breaker_failures == 0 || destination.is_calm.load(Ordering::Acquire) {
            return Admission::Call;
        }
        let mut breaker = lock(&destination.breaker);
        match breaker.state {
            State::Closed => Admission::Call,
            State::Open { until } if until > now => Admission::Postpone(until - now),
            State::HalfOpen { probe_ends } if probe_ends > now => {
                Admission::Postpone(probe_ends - now)
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                breaker.state = State::HalfOpen { probe_ends: now + call_timeout };
                Admission::Call
            }
        }
    }

    /// Tells the breaker what a call came to.
    pub(crate) fn answered(&self, destination: &Destination, unreachable: bool, now: Instant) {
        let is_news = unreachable || !destination.is_calm.load(Ordering::Acquire);
        if self.limits.breaker_failures == 0 || !is_news {
            return;
        }
        let mut breaker = lock(&destination.breaker);
        destination.is_calm.store(!unreachable, Ordering::Release);
        if !unreachable {
            if breaker.state != State::Closed {
                info!(destination = %destination.name, "the destination answers again");
            }
            *breaker = Breaker::default();
            return;
        }
        if matches!(breaker.state, State::Open { .. }) {
            // A straggler from before it opened says nothing new.
            return;
        }
        breaker.failures = breaker.failures.saturating_add(1);
        let probe_failed = matches!(breaker.state, State::HalfOpen { .. });
        if probe_failed || breaker.failures >= self.limits.breaker_failures {
            let factor = 1u32.checked_shl(breaker.opened).unwrap_or(u32::MAX);
            let open = self.limits.breaker_open.saturating_mul(factor);
            let open = open.min(self.limits.breaker_open_max);
            if breaker.opened == 0 {
                let (destination, failures) = (&destination.name, breaker.failures);
                warn!(%destination, failures, "the destination is unreachable; calls wait");
            }
            breaker.opened = breaker.opened.saturating_add(1);
            breaker.state = State::Open { until: now + open };
        }
    }

    /// Returns how the destinations are doing.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for at in lock(&self.known).values() {
            match lock(&at.breaker).state {
                State::Closed => usage.closed += 1,
                State::Open { .. } => usage.open += 1,
                State::HalfOpen { .. } => usage.half_open += 1,
            }
            let free = at.places.available_permits();
            usage.in_flight += self.limits.concurrency.saturating_sub(free);
        }
        usage
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_opens_probes_and_closes() {
        let limits = DestinationLimits {
            breaker_failures: 2,
            breaker_open: Duration::from_secs(10),
            ..DestinationLimits::default()
        };
        let all = Destinations::new(limits);
        let at = all.get("http://a:1");
        let t0 = Instant::now();
        let timeout = Duration::from_secs(3);
        let after = |seconds| t0 + Duration::from_secs(seconds);

        all.answered(&at, true, t0);
        assert_eq!(all.admit(&at, timeout, t0), Admission::Call);
        all.answered(&at, true, t0);
        assert_eq!(all.admit(&at, timeout, t0), Admission::Postpone(Duration::from_secs(10)));
        assert_eq!((all.usage().open, all.usage().closed), (1, 0));

        // One probe; the others wait for its answer.
        assert_eq!(all.admit(&at, timeout, after(10)), Admission::Call);
        assert_eq!(all.admit(&at, timeout, after(10)), Admission::Postpone(timeout));
        all.answered(&at, true, after(11));
        assert_eq!(
            all.admit(&at, timeout, after(11)),
            Admission::Postpone(Duration::from_secs(20)),
            "open twice as long after a failed probe"
        );

        assert_eq!(all.admit(&at, timeout, after(31)), Admission::Call);
        all.answered(&at, false, after(31));
        assert_eq!(all.admit(&at, timeout, after(31)), Admission::Call);
        assert_eq!((all.usage().open, all.usage().closed), (0, 1));
        assert_eq!(all.admit(&all.get("http://b:1"), timeout, t0), Admission::Call);
    }
}
