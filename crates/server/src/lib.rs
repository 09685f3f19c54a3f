//! The dtmd server as a library: configuration, command line, logging, and the wiring of them all.
//!
//! [`run()`](run::run) and [`run::Server`] serve embedding; `main` is thin.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod cli;
pub mod commands;
pub mod config;
pub mod logs;
pub mod run;
mod spans;

pub use run::{Server, run};
