//! The model check: small transactions, and everything that can happen to them.
//!
//! The protocol is the real one. Calls, answers and requests are sets: what was once sent may
//! arrive at any time, in any order, any number of times, or never. Servers hold views of the
//! stored global that may be old, with lazy changes that may be lost; there are no leases at all,
//! so every server may do everything at any time.

mod machine;
mod search;

pub use machine::{Small, Transaction};
pub use search::{Machine, Searched, search};
