//! The engine: drives every accepted transaction to its end.
//!
//! The way in:
//!
//! 1. [`Engine`]: what can be asked for.
//! 2. `runner`: one task a gid. Load, step, commit, act.
//! 3. `committer`: the one way by which anything becomes durable, in batches.
//! 4. `background`: timers, the claimer, lease renewal, the clean-up; `pace`: how much of it at a time.
//! 5. `destinations`: one hanging service delays only its own branches; `comeback`: what has waited
//!    for one that answers again.
//!
//! It decides nothing about a transaction: that is `dtmd_protocol`'s. It must not know HTTP, gRPC,
//! SQL or configuration files: branches are called through [`BranchCaller`], state is kept through
//! `dtmd_store::Store`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod alert_log;
mod attempts;
mod background;
mod caller;
mod clock;
mod comeback;
mod committer;
mod core;
mod destinations;
mod engine;
mod environment;
mod error;
mod events;
mod hash;
mod inbox;
mod memory;
mod metrics;
mod options;
mod pace;
mod runner;
mod test_control;
mod timers;
mod topics;

pub use dtmd_store::{Kv, KvPage, ListFilter, ListPage};

pub use alert_log::{AlertLog, AlertRecord};
pub use attempts::Attempt;
pub use caller::{Answer, BranchCall, BranchCaller};
pub use destinations::DestinationLimits;
pub use engine::{Engine, ResetCount};
pub use environment::{Environment, Now};
pub use error::EngineError;
pub use events::Event;
pub use metrics::{Metrics, RequestSeries};
pub use options::EngineOptions;
pub use test_control::TestControl;
