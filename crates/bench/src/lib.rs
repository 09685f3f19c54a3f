//! The load generator behind `dtmd bench`, its participants, and the budgets runs are held against.
//!
//! [`run`](run::run) starts a server and participants as processes of their own (or drives a server
//! that is there), keeps so many transactions going, and returns a [`Report`]: rates and latencies,
//! CPU time of each process, flushes, memory. After the load every transaction's state is checked.
//! [`special`] holds the measurements without a load.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod budgets;
mod connection;
mod generator;
pub mod histogram;
mod http1;
pub mod metrics;
mod options;
pub mod participant;
mod plan;
pub mod procfs;
mod report;
pub mod run;
pub mod special;
mod stage;

pub use options::{BenchOptions, Mode, Protocol, StoreChoice, Target};
pub use report::{CpuUs, Echo, LatencyUs, Report, budget_table};
