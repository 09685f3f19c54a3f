//! One hanging service delays only its own branches: a concurrency limit and a circuit breaker for
//! each destination (scheme and authority).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dtmd_protocol::Gid;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::hash::QuickMap;

/// Destinations kept, at most; idle ones are forgotten to make room.
const DESTINATIONS_MAX: usize = 10_000;
/// Globals remembered for the return of their destinations, at most; the others come at their own
/// next retry.
const WAITING_MAX: usize = 1_000_000;

/// Limits that hold for each destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationLimits {
    /// Calls in flight at a time; more wait their turn.
    pub concurrency: usize,
    /// Calls in a row that did not reach the service, after which the breaker opens. 0: never.
    pub breaker_failures: u32,
    /// How long it stays open at first; doubles with each probe that fails.
    pub breaker_open: Duration,
    /// How long it stays open at most, unless it does so at first: a service that is back is
    /// noticed so soon.
    pub breaker_open_max: Duration,
}

impl Default for DestinationLimits {
    fn default() -> Self {
        Self {
            concurrency: 64,
            breaker_failures: 10,
            breaker_open: Duration::from_secs(2),
            breaker_open_max: Duration::from_secs(20),
        }
    }
}

/// All destinations this server calls.
#[derive(Debug)]
pub(crate) struct Destinations {
    limits: DestinationLimits,
    // A std mutex: one look-up a call, never across an await.
    known: Mutex<QuickMap<Box<str>, Arc<Destination>>>,
    /// How many globals are remembered in all breakers together.
    waiting: AtomicUsize,
}

/// One destination.
#[derive(Debug)]
pub(crate) struct Destination {
    name: Box<str>,
    pub(crate) places: Semaphore,
    /// Places that are kept back while it returns.
    held: AtomicUsize,
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
    /// When it opened first since then.
    opened_at: Option<Instant>,
    state: State,
    /// Globals that it has sent away, or whose calls were lost.
    waiting: BTreeSet<Gid>,
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

/// A destination that answers again after its breaker was open.
#[derive(Debug)]
pub(crate) struct Returned {
    /// How long it was away.
    pub(crate) away: Duration,
    /// Who waits for it.
    pub(crate) waiting: BTreeSet<Gid>,
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
        Self { limits, known: Mutex::default(), waiting: AtomicUsize::new(0) }
    }

    pub(crate) fn get(&self, name: &str) -> Arc<Destination> {
        let mut known = lock(&self.known);
        if let Some(destination) = known.get(name) {
            return destination.clone();
        }
        if known.len() >= DESTINATIONS_MAX {
            known.retain(|_, destination| {
                let is_used = Arc::strong_count(destination) > 1;
                if !is_used {
                    let waiting = lock(&destination.breaker).waiting.len();
                    self.waiting.fetch_sub(waiting, Ordering::Relaxed);
                }
                is_used
            });
        }
        let destination = Arc::new(Destination {
            name: Box::from(name),
            places: Semaphore::new(self.concurrency()),
            held: AtomicUsize::new(0),
            is_calm: AtomicBool::new(true),
            breaker: Mutex::default(),
        });
        known.insert(Box::from(name), destination.clone());
        destination
    }

    /// Returns how many calls may be under way to a destination.
    pub(crate) fn concurrency(&self) -> usize {
        self.limits.concurrency.max(1)
    }

    /// Asks the breaker on behalf of a global, which is remembered if it has to wait.
    pub(crate) fn admit(
        &self,
        destination: &Destination,
        gid: &Gid,
        call_timeout: Duration,
        now: Instant,
    ) -> Admission {
        if self.limits.breaker_failures == 0 || destination.is_calm.load(Ordering::Acquire) {
            return Admission::Call;
        }
        let mut breaker = lock(&destination.breaker);
        match breaker.state {
            State::Closed => Admission::Call,
            State::Open { until: ends } | State::HalfOpen { probe_ends: ends } if ends > now => {
                self.remember(&mut breaker, gid);
                Admission::Postpone(ends - now)
            }
            State::Open { .. } | State::HalfOpen { .. } => {
                breaker.state = State::HalfOpen { probe_ends: now + call_timeout };
                Admission::Call
            }
        }
    }

    /// Tells the breaker what a call of a global came to. Returns who has waited, if it is this call
    /// that has closed it.
    pub(crate) fn answered(
        &self,
        destination: &Destination,
        gid: &Gid,
        unreachable: bool,
        now: Instant,
    ) -> Option<Returned> {
        let is_news = unreachable || !destination.is_calm.load(Ordering::Acquire);
        if self.limits.breaker_failures == 0 || !is_news {
            return None;
        }
        let mut breaker = lock(&destination.breaker);
        destination.is_calm.store(!unreachable, Ordering::Release);
        if unreachable {
            self.note_failure(destination, &mut breaker, now);
            self.remember(&mut breaker, gid);
            return None;
        }
        let Breaker { state, opened_at, waiting, .. } = std::mem::take(&mut *breaker);
        drop(breaker);
        self.waiting.fetch_sub(waiting.len(), Ordering::Relaxed);
        if state == State::Closed {
            // A stumble: those that met it have a retry of their own.
            return None;
        }
        let away = opened_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let (destination, waiting_for_it) = (&destination.name, waiting.len());
        info!(%destination, waiting_for_it, "the destination answers again");
        Some(Returned { away, waiting })
    }

    fn note_failure(&self, destination: &Destination, breaker: &mut Breaker, now: Instant) {
        if matches!(breaker.state, State::Open { .. }) {
            // A straggler from before it opened says nothing new.
            return;
        }
        breaker.failures = breaker.failures.saturating_add(1);
        let probe_failed = matches!(breaker.state, State::HalfOpen { .. });
        if probe_failed || breaker.failures >= self.limits.breaker_failures {
            let factor = 1u32.checked_shl(breaker.opened).unwrap_or(u32::MAX);
            let open = self.limits.breaker_open.saturating_mul(factor);
            let open = open.min(self.limits.breaker_open_max.max(self.limits.breaker_open));
            if breaker.opened == 0 {
                let (destination, failures) = (&destination.name, breaker.failures);
                warn!(%destination, failures, "the destination is unreachable; calls wait");
            }
            breaker.opened = breaker.opened.saturating_add(1);
            breaker.opened_at.get_or_insert(now);
            breaker.state = State::Open { until: now + open };
        }
    }

    fn remember(&self, breaker: &mut Breaker, gid: &Gid) {
        let has_room = self.waiting.load(Ordering::Relaxed) < WAITING_MAX;
        if has_room && breaker.waiting.insert(gid.clone()) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives those back to a breaker that has opened again; false if it is closed.
    pub(crate) fn wait_again(&self, destination: &Destination, waiting: &[Gid]) -> bool {
        if destination.is_calm.load(Ordering::Acquire) {
            return false;
        }
        let mut breaker = lock(&destination.breaker);
        if breaker.state == State::Closed {
            return false;
        }
        for gid in waiting {
            self.remember(&mut breaker, gid);
        }
        true
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
            let free = at.places.available_permits() + at.held.load(Ordering::Relaxed);
            usage.in_flight += self.concurrency().saturating_sub(free);
        }
        usage
    }
}

impl Destination {
    /// Keeps all free places back but one. They are given back one after the other, or all at
    /// once when the guard is dropped.
    pub(crate) fn hold_places(self: &Arc<Self>) -> HeldPlaces {
        let free = self.places.available_permits().saturating_sub(1);
        let count = self.places.forget_permits(free);
        self.held.fetch_add(count, Ordering::Relaxed);
        HeldPlaces { destination: self.clone(), count }
    }
}

/// Places of a destination that nobody has, for now.
#[derive(Debug)]
pub(crate) struct HeldPlaces {
    destination: Arc<Destination>,
    count: usize,
}

impl HeldPlaces {
    /// Returns how many they are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Keeps this many, and gives the others back.
    pub(crate) fn keep(&mut self, count: usize) {
        let given = self.count.saturating_sub(count);
        self.count -= given;
        self.destination.held.fetch_sub(given, Ordering::Relaxed);
        self.destination.places.add_permits(given);
    }
}

impl Drop for HeldPlaces {
    fn drop(&mut self) {
        self.keep(0);
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

        let [a, b, c] = ["a", "b", "c"].map(|gid| Gid::new(gid).unwrap());
        let admit = |gid, now| all.admit(&at, gid, timeout, now);
        let fails = |gid, now| assert!(all.answered(&at, gid, true, now).is_none());

        fails(&a, t0);
        assert_eq!(admit(&b, t0), Admission::Call);
        fails(&b, t0);
        assert_eq!(admit(&c, t0), Admission::Postpone(Duration::from_secs(10)));
        assert_eq!((all.usage().open, all.usage().closed), (1, 0));

        // One probe; the others wait for its answer.
        assert_eq!(admit(&b, after(10)), Admission::Call);
        assert_eq!(admit(&c, after(10)), Admission::Postpone(timeout));
        fails(&b, after(11));
        assert_eq!(
            admit(&c, after(11)),
            Admission::Postpone(Duration::from_secs(20)),
            "open twice as long after a failed probe"
        );

        assert_eq!(admit(&c, after(31)), Admission::Call);
        let returned = all.answered(&at, &c, false, after(31)).unwrap();
        assert_eq!(returned.away, Duration::from_secs(31));
        assert_eq!(
            returned.waiting,
            BTreeSet::from([a.clone(), b.clone(), c.clone()]),
            "each once"
        );
        assert_eq!(admit(&a, after(31)), Admission::Call);
        assert!(all.answered(&at, &a, false, after(31)).is_none());
        assert_eq!((all.usage().open, all.usage().closed), (0, 1));
        assert_eq!(all.admit(&all.get("http://b:1"), &a, timeout, t0), Admission::Call);
        assert!(!all.wait_again(&at, &[b]), "it is closed");
        assert_eq!(all.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn each_probe_that_fails_opens_it_for_twice_as_long_up_to_a_bound() {
        for (first, expected) in [(2, [2, 4, 8, 16, 20, 20]), (30, [30; 6])] {
            let limits = DestinationLimits {
                breaker_failures: 1,
                breaker_open: Duration::from_secs(first),
                ..DestinationLimits::default()
            };
            let all = Destinations::new(limits);
            let (at, gid) = (all.get("http://a:1"), Gid::new("a").unwrap());
            let timeout = Duration::from_secs(3);
            let mut now = Instant::now();
            for seconds in expected.map(Duration::from_secs) {
                assert_eq!(all.admit(&at, &gid, timeout, now), Admission::Call);
                assert!(all.answered(&at, &gid, true, now).is_none());
                assert_eq!(all.admit(&at, &gid, timeout, now), Admission::Postpone(seconds));
                now += seconds;
            }
        }
    }

    #[test]
    fn places_that_are_held_are_nobodys() {
        let limits = DestinationLimits { concurrency: 8, ..DestinationLimits::default() };
        let all = Destinations::new(limits);
        let at = all.get("http://a:1");
        let call = at.places.try_acquire().unwrap();
        let mut held = at.hold_places();
        assert_eq!((held.count(), at.places.available_permits()), (6, 1));
        assert_eq!(all.usage().in_flight, 1);
        held.keep(4);
        held.keep(5);
        assert_eq!((held.count(), at.places.available_permits()), (4, 3));
        drop((call, held));
        assert_eq!((all.usage().in_flight, at.places.available_permits()), (0, 8));
    }
}
