//! Demo participants, and everything that drives a running server from outside.
//!
//! [`bank`] is a small but real service: HTTP in front, a SQLite file behind, a barrier table in
//! the same local transaction as every change of a balance. [`xa`] gives it branches on MariaDB and
//! PostgreSQL. [`client`] speaks the server's HTTP API as an application would, [`process`] starts
//! and kills servers and banks, [`databases`] starts private database servers, and [`scenarios`]
//! puts them together into `dtmd demo`. The end-to-end tests use the same parts.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod bank;
pub mod client;
pub mod databases;
mod dev;
pub mod printer;
pub mod process;
pub mod scenarios;
mod serve;
pub mod xa;

pub use dev::DevBanks;
pub use scenarios::{DemoMode, DemoOptions, Summary, run_demo};
