//! The server as SDKs see it: over real sockets, with services of every kind behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(missing_docs, unreachable_pub, reason = "a test has no users")]

mod errors;
mod modes;
#[allow(dead_code, reason = "shared with tests that look at connections")]
mod service;
mod serving;
mod stage;
mod workflow;
