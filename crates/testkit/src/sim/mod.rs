//! The simulator: many transactions, several servers, their services and applications, on simulated
//! time, network and store, all from one seed.
//!
//! The protocol is the real one; the engine's rules around it are played again in `runner`, which
//! follows the engine's runner function by function. A world has two phases: chaos, with the
//! invariants asked after every event, then quiet, in which everything must come to its end.

mod agenda;
mod app;
mod by_tx;
mod check;
mod coverage;
mod env;
mod fault;
mod report;
mod runner;
mod server;
pub(crate) mod service;
mod shrink;
mod store;
mod tx;
mod world;

use std::collections::BTreeSet;

pub use coverage::Coverage;
pub use fault::FaultKind;
pub use report::Report;
pub use service::{Absorbed, Kind, Local, Service, Xa};
pub use shrink::{Small, shrink};

use crate::Bug;
use crate::invariants::Violation;
use world::World;

/// Transactions in one world, unless told otherwise.
pub const TRANSACTIONS: u32 = 25;

/// What to play.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// Transactions in the world.
    pub transactions: u32,
    /// If given, only these of them begin.
    pub only: Option<Vec<u32>>,
    /// If given, only these faults happen.
    pub faults: Option<BTreeSet<u64>>,
    /// A mistake to switch on.
    pub bug: Option<Bug>,
    /// Keep a line for each event.
    pub trace: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self { transactions: TRANSACTIONS, only: None, faults: None, bug: None, trace: false }
    }
}

/// What came of one world.
#[derive(Debug, Clone)]
pub struct Played {
    /// The seed.
    pub seed: u64,
    /// What must never be, if it was.
    pub violation: Option<Violation>,
    /// The same for the same seed (I14).
    pub hash: u64,
    /// Events that happened.
    pub events: u64,
    /// Whether it was one server with a journal, not several on a shared store.
    pub embedded: bool,
    /// Transactions that were begun.
    pub transactions: u64,
    /// The faults that happened, by number and kind.
    pub injected: Vec<(u64, FaultKind)>,
    /// What the barrier absorbed.
    pub absorbed: Absorbed,
    /// What was reached.
    pub coverage: Coverage,
    /// How long after the last fault the last transaction ended, in simulated microseconds.
    pub settled_in: u64,
    /// A line an event, if asked for.
    pub trace: Vec<String>,
}

/// Plays one world.
pub fn play(seed: u64, options: &SimOptions) -> Played {
    let mut world = World::new(seed, options);
    world.run();
    Played {
        seed,
        violation: world.violation.take(),
        hash: world.hash,
        events: world.events,
        embedded: world.embedded,
        transactions: world.txs.iter().filter(|tx| tx.started).count() as u64,
        settled_in: world.last_end.saturating_sub(world.quiet_at),
        absorbed: world.absorbed,
        coverage: std::mem::take(&mut world.coverage),
        trace: world.take_trace(),
        injected: std::mem::take(&mut world.faults.injected),
    }
}
