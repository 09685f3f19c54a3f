//! What the engine is told at its start.

use std::time::Duration;

use dtmd_protocol::{Limits, Policy};

use crate::destinations::DestinationLimits;
use crate::environment::Environment;

/// The engine's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The retry schedule and the timeouts.
    pub policy: Policy,
    /// The bounds of what is accepted.
    pub limits: Limits,
    /// The bounds of what each destination is asked at a time.
    pub destinations: DestinationLimits,
    /// Globals worked on at a time. Past it new ones are refused with "overloaded".
    pub active_max: usize,
    /// How often the store is asked for globals that nobody works on (`TransCronInterval`).
    pub claim_interval: Duration,
    /// How long a caller with `wait_result` waits at most; then it is told ONGOING.
    pub wait_max: Duration,
    /// How long finished globals are kept; `None` keeps them for ever.
    pub keep_finished: Option<Duration>,
    /// Time is driven from outside (design.md section 9): no timers, no claimer.
    pub test_control: bool,
    /// What the engine runs in.
    pub environment: Environment,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            limits: Limits::default(),
            destinations: DestinationLimits::default(),
            active_max: 50_000,
            claim_interval: Duration::from_secs(3),
            wait_max: Duration::from_secs(60),
            keep_finished: Some(Duration::from_secs(7 * 24 * 3600)),
            test_control: false,
            environment: Environment::Machine,
        }
    }
}
