//! The protocol as tables: every row of every mode, every refusal, and the laws over all of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acceptance;
mod durable;
mod edges;
mod laws;
mod msg;
mod saga;
mod story;
mod tables;
mod tcc_xa;
mod workflow;
