//! HTTP and JSON-RPC, in and out.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod inbound;
pub mod outbound;
pub mod socket;
