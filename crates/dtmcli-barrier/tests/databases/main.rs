//! The barrier, XA and the message table on real databases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod barrier;
mod fixture;
mod outbox;
mod redis;
mod xa;
