//! Whether the database answers, so that of many who need it while it does not only one waits.
//!
//! An outage begins when a connection cannot be made or an answer does not come in time. While it
//! lasts, one caller at a time tries; all others are refused at once with what that one was told.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::DbError;

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
    text: String,
}

impl Outage {
    /// Admits a caller who is going to ask the database.
    ///
    /// # Errors
    ///
    /// The database does not answer, and it is somebody else's turn to try.
    pub(crate) fn admit(&self) -> Result<(), DbError> {
        let now = Instant::now();
        match self.state().as_mut() {
            Some(down) if now < down.next_try => {
                let seconds = down.since.elapsed().as_secs();
                Err(DbError::lost(&format!("no answer for {seconds} s: {}", down.text)))
            }
            Some(down) => {
                down.next_try = now + TURN;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes that the database does not answer.
    pub(crate) fn failed(&self, text: &str) {
        let now = Instant::now();
        let mut state = self.state();
        let since = state.as_ref().map_or(now, |down| down.since);
        *state = Some(Down { since, next_try: now + TRY_EVERY, text: text.to_owned() });
    }

    /// Notes that a connection broke: in an outage, the next one may try soon.
    pub(crate) fn broken(&self) {
        if let Some(down) = self.state().as_mut() {
            down.next_try = Instant::now() + TRY_EVERY;
        }
    }

    /// Notes that the database has answered.
    pub(crate) fn ended(&self) {
        *self.state() = None;
    }

    /// Returns for how long the database has not answered; zero if it does.
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

    #[test]
    fn one_tries_while_the_others_are_refused() {
        let outage = Outage::default();
        assert!(outage.admit().is_ok() && outage.lasts() == Duration::ZERO);
        outage.failed("refused");
        let refused = outage.admit().unwrap_err();
        assert!(refused.source.to_string().contains("refused"), "{}", refused.source);
        std::thread::sleep(TRY_EVERY);
        assert!(outage.admit().is_ok(), "the next one's turn");
        assert!(outage.admit().is_err(), "which nobody else has");
        assert!(outage.lasts() >= TRY_EVERY);
        outage.ended();
        assert!(outage.admit().is_ok() && outage.admit().is_ok());
    }
}
