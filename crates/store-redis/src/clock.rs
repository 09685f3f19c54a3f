//! Redis's time, by which wake-ups of several servers are compared.
//!
//! Each server gives and reads wake-ups in its own time. The index of what is due holds them in
//! Redis's: a server whose clock is half a minute off neither takes leases that run nor leaves due
//! ones lying.

use std::sync::atomic::{AtomicI64, Ordering};

use dtmd_protocol::Timestamp;

/// Differences below this are taken for none, and the difference in use stays until another is
/// this far from it: so small ones cost nothing, and a wake-up that was written is due at that
/// very moment.
const TOLERANCE_US: i64 = 1_000_000;
/// An answer that took longer says too little about the time.
const ROUND_TRIP_MAX_US: i64 = 1_000_000;
/// Scores are doubles; up to this they are exact.
const SCORE_MAX: i64 = (1 << 53) - 1;

/// This machine's clock, and how far it is ahead of Redis's.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    shift_us: i64,
    /// As measured last.
    measured_us: AtomicI64,
    /// As used for wake-ups.
    ahead_us: AtomicI64,
    /// The last number of arrival.
    arrival: AtomicI64,
}

impl Clock {
    pub(crate) fn new(shift_ms: i64) -> Self {
        Self { shift_us: shift_ms.saturating_mul(1000), ..Self::default() }
    }

    /// Returns this machine's time.
    pub(crate) fn now_us(&self) -> i64 {
        dtmd_store::wall::now().0.saturating_add(self.shift_us)
    }

    /// Takes note of Redis's time, asked for between two moments of this machine.
    pub(crate) fn observe(&self, asked_us: i64, answered_us: i64, redis_us: i64) {
        let took = answered_us.saturating_sub(asked_us);
        if !(0..=ROUND_TRIP_MAX_US).contains(&took) {
            return;
        }
        let ahead = asked_us.saturating_add(took / 2).saturating_sub(redis_us);
        self.measured_us.store(ahead, Ordering::Relaxed);
        let used = self.ahead_us.load(Ordering::Relaxed);
        let next = if ahead.abs() < TOLERANCE_US {
            0
        } else if ahead.abs_diff(used) < TOLERANCE_US.unsigned_abs() {
            used
        } else {
            ahead
        };
        if next != used {
            self.ahead_us.store(next, Ordering::Relaxed);
            tracing::info!(
                ahead_ms = ahead / 1000,
                "this machine's clock differs from Redis's; wake-ups are translated"
            );
        }
    }

    /// Returns how far this machine is ahead of Redis, in milliseconds, as measured last.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.measured_us.load(Ordering::Relaxed) / 1000
    }

    /// Returns the score of a wake-up: Redis's time.
    pub(crate) fn score(&self, at: Timestamp) -> i64 {
        exact(at.0.saturating_sub(self.ahead_us.load(Ordering::Relaxed)))
    }

    /// Returns the wake-up of a score.
    pub(crate) fn wake_up(&self, score: i64) -> Timestamp {
        Timestamp(score.saturating_add(self.ahead_us.load(Ordering::Relaxed)))
    }

    /// Returns the next number of arrival: about Redis's time, and above all earlier ones.
    pub(crate) fn arrive(&self) -> u64 {
        let now = self.now_us().saturating_sub(self.measured_us.load(Ordering::Relaxed));
        let next = |last: i64| now.max(last.saturating_add(1)).clamp(0, SCORE_MAX);
        let last = self
            .arrival
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.unwrap_or_else(|last| last)).unsigned_abs()
    }
}

/// Returns the nearest number that a score holds exactly.
pub(crate) fn exact(score: i64) -> i64 {
    score.clamp(-SCORE_MAX, SCORE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_differences_are_none_and_large_ones_stay_as_they_are() {
        let clock = Clock::new(0);
        let at = Timestamp(100_000_000);
        clock.observe(5_000_000, 5_000_100, 4_100_000);
        assert_eq!(clock.score(at), at.0);
        clock.observe(35_000_000, 35_000_100, 5_000_050);
        assert_eq!((clock.score(at), clock.ahead_ms()), (at.0 - 30_000_000, 30_000));
        // A little drift moves nothing.
        clock.observe(35_500_000, 35_500_100, 5_000_050);
        assert_eq!(clock.score(at), at.0 - 30_000_000);
        assert_eq!(clock.wake_up(clock.score(at)), at);
        // An answer that took long says nothing.
        clock.observe(0, 5_000_000, 0);
        assert_eq!(clock.ahead_ms(), 30_500);
        clock.observe(5_000_000, 5_000_100, 5_000_050);
        assert_eq!(clock.score(at), at.0);
    }

    #[test]
    fn arrivals_go_up_and_scores_stay_exact() {
        let clock = Clock::new(0);
        let first = clock.arrive();
        assert!(clock.arrive() > first);
        assert_eq!(clock.score(Timestamp(i64::MAX)), SCORE_MAX);
        assert_eq!(clock.score(Timestamp(i64::MIN)), -SCORE_MAX);
    }
}
