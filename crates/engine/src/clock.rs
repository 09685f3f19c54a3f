//! The engine's time: its environment's, plus what a test clock adds.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dtmd_protocol::{Context, Timestamp};

use crate::environment::Environment;

/// Tells the time. Offsets are zero but under a test clock (design.md section 9).
#[derive(Debug, Default)]
pub(crate) struct Clock {
    environment: Environment,
    /// Added to "now" for ages and timeouts, in microseconds.
    age_forward: AtomicI64,
    /// Added to "now" for picking what is due, and for the age in a message's delay.
    due_forward: AtomicI64,
}

impl Clock {
    pub(crate) fn new(environment: Environment) -> Self {
        Self { environment, ..Self::default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match &self.environment {
            Environment::Machine => dtmd_store::wall::now(),
            Environment::Simulation(now) => now(),
        }
    }

    /// Returns the machine's clock minus this one in microseconds: what is left of a jump.
    pub(crate) fn behind(&self) -> i64 {
        match &self.environment {
            Environment::Machine => dtmd_store::wall::behind(),
            Environment::Simulation(_) => 0,
        }
    }

    /// Returns the times a decision is made with.
    pub(crate) fn context(&self) -> Context {
        let now = self.now();
        let forward = |offset: &AtomicI64| Timestamp(now.0 + offset.load(Ordering::Relaxed));
        Context { now, age: forward(&self.age_forward), delay: forward(&self.due_forward) }
    }

    /// Returns "now" for picking what is due.
    pub(crate) fn due(&self) -> Timestamp {
        Timestamp(self.now().0 + self.due_forward.load(Ordering::Relaxed))
    }

    /// Sets the offsets.
    pub(crate) fn forward(&self, ages_ms: i64, due_ms: i64) {
        self.age_forward.store(ages_ms.saturating_mul(1000), Ordering::Relaxed);
        self.due_forward.store(due_ms.saturating_mul(1000), Ordering::Relaxed);
    }

    /// Returns how long it is until `at`.
    pub(crate) fn until(&self, at: Timestamp) -> Duration {
        at.since(self.now())
    }
}
