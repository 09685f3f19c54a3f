//! Proof for dtmd: the protocol played under every fault we can think of, and searched exhaustively.
//!
//! The way in:
//!
//! 1. [`invariants`]: what must hold, as plain functions.
//! 2. [`sim`]: many transactions, servers and services on simulated time, network and store, from
//!    a seed; first chaos, then quiet, in which everything must end.
//! 3. [`model`]: every reachable state of small transactions.
//! 4. [`FaultyStore`]: a store that fails at one chosen call, for the real engine.
//! 5. [`Bug`]: mistakes switched on one at a time; each must be found, or the proof proves nothing.
//!
//! What simulator and model must not know: sockets, threads, the machine's clock.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod bug;
mod faulty;
pub mod invariants;
pub mod model;
pub mod rng;
pub mod sim;

pub use bug::Bug;
pub use faulty::{Counted, FaultyStore, StoreFault};
