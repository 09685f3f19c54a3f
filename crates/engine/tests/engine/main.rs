//! The engine on the memory store, with scripted services.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod driving;
mod ownership;
mod requests;
mod stage;
mod store_faults;
mod test_clock;
mod topics;
mod watching;
