//! What the engine runs in: a machine, or a simulation of one.

use std::fmt;
use std::sync::Arc;

use dtmd_protocol::Timestamp;

/// Tells a simulation's wall clock.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the engine runs in.
#[derive(Clone, Default)]
pub enum Environment {
    /// A machine: its clock, and a thread for the store's work.
    #[default]
    Machine,
    /// A simulation on tokio's paused time, in which one thread plays several servers.
    ///
    /// The wall clock is the one given, and the store's work is done by a task of the runtime that
    /// the engine is started on: a thread would not know the simulated time.
    Simulation(Now),
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "Machine",
            Self::Simulation(_) => "Simulation",
        })
    }
}

impl PartialEq for Environment {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Machine, Self::Machine) => true,
            (Self::Simulation(one), Self::Simulation(other)) => Arc::ptr_eq(one, other),
            (Self::Machine, Self::Simulation(_)) | (Self::Simulation(_), Self::Machine) => false,
        }
    }
}

impl Eq for Environment {}
