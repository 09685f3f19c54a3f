//! gRPC, in and out (spec 03).
//!
//! The way in:
//!
//! 1. [`proto`]: the messages of `proto/`, which every part speaks.
//! 2. [`inbound`]: DTM's service, the operators' service, health and reflection over an engine.
//! 3. [`outbound`]: branches called over gRPC, and the caller that picks HTTP or gRPC by the URL.
//!
//! It is a crate of its own so that what only wants HTTP does not compile tonic. What it must not
//! know: what a transaction is allowed to do (`dtmd-protocol`), what `steps` and `custom_data` mean
//! (`dtmd-wire`).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod inbound;
pub mod outbound;
pub mod proto;
