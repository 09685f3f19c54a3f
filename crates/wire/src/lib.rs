//! DTM's messages: JSON, JSON-RPC, outcomes, and their conversion to the protocol.
//!
//! Everything here is a function of bytes; sockets live in `dtmd-transport`. The way in:
//!
//! 1. [`request`]: what SDKs send, decoded with DTM's tolerance, made into protocol types.
//! 2. [`response`]: what SDKs and people read.
//! 3. [`outcome`]: what a branch's answer means.
//! 4. [`jsonrpc`]: the envelope around the first two.
//! 5. [`gid`]: new ids for those who ask for one.
//!
//! What it must not know: sockets, stores, the engine.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod base64;
pub mod gid;
pub mod jsonrpc;
pub mod outcome;
pub mod request;
pub mod response;
pub mod time;

pub use outcome::{SubstringRule, http_outcome, jsonrpc_outcome};
pub use request::{RegisterRequest, RequestError, TransRequest};
pub use time::Zone;
