//! The pure core of dtmd: what a global transaction is, how it moves, and what must be done next.
//!
//! Everything here is a function of its arguments. There is no I/O, clock, randomness, async,
//! logging or serialization in this crate, so a decision about a transaction can be read, tabled
//! and simulated without starting anything.
//!
//! The way in:
//!
//! 1. [`Global`] and [`Branch`]: the state that is stored ([`global`]).
//! 2. [`step`]: what one input does to a global ([`step()`](step())).
//! 3. One module a mode ([`saga`], [`tcc`], [`xa`], [`msg`], [`workflow`]): its table of allowed
//!    moves, and its planner.
//! 4. [`plan`]: the calls a global needs now, and when to look at it again. Recovery after a crash
//!    is `load`, `plan`, go; it has no code of its own.
//! 5. [`durability`]: which changes must be on disk before anything follows from them.
//!
//! What it must not know: HTTP, gRPC, JSON, stores, threads.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod backoff;
pub mod create;
pub mod durability;
pub mod global;
pub mod ids;
pub mod mode;
pub mod options;
pub mod plan;
pub mod request;
pub mod status;
pub mod step;
pub mod time;
pub mod url;

pub use create::{Invalid, Limits, NewGlobal, NewStep, create};
pub use durability::{Durability, durability};
pub use global::{Branch, CallProtocol, Global, Mode, Retry, Revision, StepDef};
pub use ids::{BranchId, Gid};
pub use mode::{msg, saga, tcc, workflow, xa};
pub use options::{Options, Policy};
pub use plan::{Call, Plan, Schedule, Target, plan, schedule};
pub use request::{NewBranch, Refused, Request, RequestKind};
pub use status::{BranchStatus, GlobalStatus, Move, Op, Outcome, TransType};
pub use step::{Context, Input, step};
pub use time::Timestamp;
pub use url::Scheme;
