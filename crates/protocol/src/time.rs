//! Points in time, given from outside.

use std::time::Duration;

/// Microseconds since the Unix epoch, in UTC.
///
/// Arithmetic saturates: a far future stays a far future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The beginning: earlier than any event, so "due at once" when it is a due time.
    pub const ZERO: Self = Self(0);

    /// Returns the time `wait` later.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// Returns how long `self` is after `earlier`; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Returns whole seconds since the epoch.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}
