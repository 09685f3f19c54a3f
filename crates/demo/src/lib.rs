//! Demo participants, and everything that drives a running server from outside.
//!
//! [`bank`] is a small but real service: HTTP in front, a SQLite file behind, a barrier table in
//! the same local transaction as every change of a balance. [`xa`] gives it branches on MariaDB and
//! PostgreSQL. [`client`] speaks the server's HTTP API as an application would, [`process`] starts
//! and kills servers and banks, and [`scenarios`] puts them together into `dtmd demo`. [`grpc`] is the
//! little of gRPC that all of them need. The end-to-end tests use the same parts.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod bank;
pub mod client;
mod dev;
pub mod grpc;
pub mod printer;
pub mod process;
pub mod scenarios;
mod serve;
pub mod xa;

pub use dev::DevBanks;
pub use scenarios::{DemoMode, DemoOptions, DemoProtocol, Summary, run_demo};
