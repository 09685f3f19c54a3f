//! Whether Redis answers, so that of many who need it while it does not only one waits.
//!
//! An outage begins when a connection cannot be made, ends, or gives no answer in time. While it
//! lasts, one caller at a time tries; all others are refused at once with what that one was told.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};

/// How long after a failed try the next one is made.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// How long one who tries has the turn, if nothing is heard of it.
const TURN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Outage {
    // A std mutex: no await while it is held.
    state: Mutex<Option<Down>>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    next_try: Instant,
    error: RedisError,
}

impl Outage {
    /// Admits a caller who is going to ask Redis.
    ///
    /// # Errors
    ///
    /// Redis does not answer, and it is somebody else's turn to try.
    pub(crate) fn admit(&self) -> RedisResult<()> {
        let now = Instant::now();
        match self.state().as_mut() {
            Some(down) if now < down.next_try => Err(down.error.clone()),
            Some(down) => {
                down.next_try = now + TURN;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes how a connection or a call ended.
    pub(crate) fn note<T>(&self, result: &RedisResult<T>, is_connecting: bool) {
        match result {
            Err(error) if error.is_timeout() || error.is_io_error() => {
                let now = Instant::now();
                let mut state = self.state();
                // A connection may end although Redis is well: the next one is tried at once. Behind
                // a proxy connections can be made, and end, as long as Redis is away.
                let is_first_loss = state.is_none() && !is_connecting && !error.is_timeout();
                let pause = if is_first_loss { Duration::ZERO } else { TRY_EVERY };
                let since = state.as_ref().map_or(now, |down| down.since);
                *state = Some(Down { since, next_try: now + pause, error: error.clone() });
            }
            Ok(_) | Err(_) => *self.state() = None,
        }
    }

    /// Returns for how long Redis has not answered; zero if it does.
    pub(crate) fn lasts(&self) -> Duration {
        self.state().as_ref().map_or(Duration::ZERO, |down| down.since.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, Option<Down>> {
        // Held for assignments that do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::timed_out;

    #[test]
    fn one_tries_while_the_others_are_refused() {
        let outage = Outage::default();
        assert!(outage.admit().is_ok() && outage.lasts() == Duration::ZERO);
        outage.note::<()>(&Err(timed_out("late")), false);
        assert!(outage.admit().is_err_and(|error| error.is_timeout()));
        std::thread::sleep(TRY_EVERY);
        assert!(outage.admit().is_ok(), "the next one's turn");
        assert!(outage.admit().is_err(), "which nobody else has");
        assert!(outage.lasts() >= TRY_EVERY);
        outage.note(&Ok(()), false);
        assert!(outage.admit().is_ok() && outage.admit().is_ok());
    }
}
