//! How many of those that are due are worked on at a time, so that callers do not wait for them.
//!
//! After a restart or an outage much is due at once, and nobody waits for any of it; who submits
//! something new does wait. The window follows what callers feel: while the runtime comes late to
//! what it has promised itself it is halved, while it is on time it grows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The window at the start, and the smallest: retries go on beside any number of callers.
const WINDOW_MIN: usize = 16;
/// By how much it grows at a time.
const WINDOW_STEP: usize = 8;
/// How long what is due waits for room before it is looked at again.
const PAUSE: Duration = Duration::from_millis(10);
/// How late a runtime with time to spare may be; its timers have a grain of a millisecond.
const LATE_MAX: Duration = Duration::from_millis(2);

/// The window.
#[derive(Debug)]
pub(crate) struct Pace {
    window: AtomicUsize,
    max: usize,
}

impl Pace {
    pub(crate) fn new(max: usize) -> Self {
        Self { window: AtomicUsize::new(WINDOW_MIN.min(max)), max }
    }

    /// Returns how many may be worked on at a time.
    pub(crate) fn window(&self) -> usize {
        self.window.load(Ordering::Relaxed)
    }

    /// Waits because the window is full, and judges it by how late the wait ends.
    pub(crate) async fn pause(&self) {
        let due = Instant::now() + PAUSE;
        tokio::time::sleep_until(due).await;
        self.judge(Instant::now().saturating_duration_since(due));
    }

    fn judge(&self, late: Duration) {
        let window = self.window();
        let next = if late > LATE_MAX { window / 2 } else { window + WINDOW_STEP };
        self.window.store(next.max(WINDOW_MIN).min(self.max), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_how_late_the_runtime_is() {
        let (on_time, late) = (LATE_MAX, LATE_MAX + Duration::from_micros(1));
        let pace = Pace::new(60);
        let windows = |lateness: &[Duration]| -> Vec<usize> {
            let judged = lateness.iter().map(|late| {
                pace.judge(*late);
                pace.window()
            });
            judged.collect()
        };
        assert_eq!(pace.window(), 16);
        assert_eq!(windows(&[on_time; 3]), [24, 32, 40]);
        assert_eq!(windows(&[late; 3]), [20, 16, 16]);
        assert_eq!(windows(&[on_time; 7]), [24, 32, 40, 48, 56, 60, 60]);
    }

    #[test]
    fn a_small_limit_is_never_exceeded() {
        let pace = Pace::new(5);
        assert_eq!(pace.window(), 5);
        for late in [Duration::ZERO, Duration::from_secs(1)] {
            pace.judge(late);
            assert_eq!(pace.window(), 5, "{late:?}");
        }
    }
}
