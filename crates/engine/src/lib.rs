//! The engine: drives every accepted transaction to its end.
mod caller;
mod error;
mod metrics;
mod engine;
mod events;
pub use caller::{Answer, BranchCall, BranchCaller};
pub use engine::{Engine, ResetCount};
pub use error::EngineError;
pub use metrics::Metrics;
pub use events::{Event, TestControl};
