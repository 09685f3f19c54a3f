//! The SDK for Rust of **dtmd** and of every DTM server: several services, each with a database of
//! its own, commit together or not at all.
//!
//! ```no_run
//! use dtmcli::prelude::*;
//! use serde_json::json;
//!
//! # async fn example() -> dtmcli::Result<()> {
//! let dtm = Client::new("http://127.0.0.1:36789")?;
//!
//! dtm.saga()
//!     .step(Step::at("http://bank/out").compensate("http://bank/out-undo").json(&json!(30)))
//!     .step(Step::at("http://bank/in").compensate("http://bank/in-undo").json(&json!(30)))
//!     .submit()
//!     .wait()
//!     .await?; // both, or neither
//! # Ok(())
//! # }
//! ```
//!
//! # Which mode do I need?
//!
//! | You have | Use | What you write |
//! |---|---|---|
//! | steps that can each be undone | [saga](Client::saga) | an action and a compensation each |
//! | a local transaction, and something that must follow it | [message](Client::msg) | the local transaction, and a handler |
//! | something that must be reserved first, because it cannot be undone once it is seen | [TCC](Client::tcc) | try, confirm and cancel |
//! | databases that can prepare (MySQL, PostgreSQL), and no wish to write compensations | [XA](Client::xa) | plain SQL; locks are held until the end |
//! | a sequence that decides as it goes, or mixes all of these | [workflow](Workflows) | an async function with steps |
//! | rows that must reach a broker exactly if they are committed | the feature `outbox` | an insert |
//!
//! In doubt: a message if nothing can refuse after the local commit, else a saga.
//!
//! # The three questions after an error
//!
//! [`Error`] says what the caller does next: [`is_retryable`](Error::is_retryable) (the same call,
//! with the same gid, may do better), [`is_rolled_back`](Error::is_rolled_back) (it is certain
//! that nothing stays), [`is_unknown`](Error::is_unknown) (find out before you conclude, with
//! [`Client::wait`]). A transaction that is **not finished** is [`Error::Unfinished`] and never
//! [`Error::RolledBack`], although servers answer both with the same 409.
//!
//! A branch has three answers as well, in [`BranchError`]: `Failure` (the business says no: roll
//! back), `Ongoing` (ask later), `Retry` (anything else, and what `?` makes of any error: call
//! again). So an error that nobody thought of never rolls a transaction back.
//!
//! # What is called twice
//!
//! Branches are called **at least once**: again after a time-out, and a compensation even if the
//! action never came. The [barrier](Branch::barrier) makes that safe: one row in the service's own
//! database, in the same local transaction as the work. It comes with the feature of your driver:
//!
//! ```ignore
//! async fn out(
//!     BranchCall(branch): BranchCall,            // feature `axum`
//!     State(pool): State<sqlx::PgPool>,          // feature `sqlx-postgres`
//!     Json(order): Json<Order>,
//! ) -> Answer {
//!     branch.barrier(&pool, async |tx| debit(tx, &order).await).await?;
//!     Ok(Done)
//! }
//! ```
//!
//! # The parts
//!
//! - [`Client`]: the server over HTTP, JSON-RPC or gRPC; connections are kept; TLS by rustls; a
//!   token; [`Client::from_env`]
//! - [`Saga`], [`TccBuilder`], [`XaBuilder`], [`Msg`], [`Workflows`]: the modes
//! - [`Branch`], [`BranchError`], [`barrier`]: the service's side
//! - [`mod@axum`], [`mod@tonic`], [`mod@tower`]: that side in your framework; [`http_answer`] in any other
//!
//! | feature | brings |
//! |---|---|
//! | `http` (default) | the client over HTTP and JSON-RPC, and calls of HTTP branches |
//! | `tls` (default) | `https://` and `grpcs://`: rustls on ring, with the system's certificates |
//! | `grpc` | the client over gRPC, and calls of gRPC branches |
//! | `workflow` | [`Workflows`] |
//! | `axum`, `tonic-server`, `tower` | the service's side in these frameworks |
//! | `sqlx-mysql`, `sqlx-postgres`, `sqlx-sqlite`, `tokio-postgres`, `mysql-async`, `sea-orm`, `redis`, `mongodb` | barriers in this database |
//! | `outbox` | the local message table |
//!
//! # Cancellation and panics
//!
//! Dropping the future of a [TCC](TccBuilder::run) or an [XA](XaBuilder::run) before its closure
//! has ended aborts the global transaction; so does a panic, which then goes on. A
//! [message](Msg::commit_with) is left to the database, which the server asks. A
//! [workflow](Workflows::execute) is resumed by the server. What was submitted goes on, whatever
//! becomes of the caller.
//!
//! # Why there are no macros
//!
//! A branch is a handler of your framework with one more argument, and a step is one expression.
//! Attributes that generate routes or stubs would save a line or two of each and hide which URL is
//! called, what is sent, and where the local transaction begins: what one reads such code for.
//!
//! # With an original DTM server
//!
//! Everything here works with one, but [`Client::query`] over gRPC. Times are sent to it in whole
//! seconds, rounded up.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "http"),
    allow(dead_code, unused_imports, reason = "much of it is what HTTP alone needs")
)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

#[cfg(not(any(feature = "http", feature = "grpc")))]
compile_error!("dtmcli needs a way to the server: the feature `http` (default) or `grpc`");

#[cfg(feature = "axum")]
#[cfg_attr(docsrs, doc(cfg(feature = "axum")))]
pub mod axum;
mod client;
mod error;
mod gid;
mod guard;
#[cfg(any(feature = "axum", feature = "tower"))]
mod incoming;
mod msg;
mod open;
mod options;
mod outcome;
mod payload;
mod request;
mod saga;
mod service;
mod tcc;
#[cfg(feature = "tonic-server")]
#[cfg_attr(docsrs, doc(cfg(feature = "tonic-server")))]
pub mod tonic;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
mod transaction;
mod transport;
#[cfg(feature = "workflow")]
mod workflow;
mod xa_global;

pub use client::{Client, ClientBuilder, Topics};
#[cfg(feature = "outbox")]
#[cfg_attr(docsrs, doc(cfg(feature = "outbox")))]
pub use dtmcli_barrier::outbox;
#[cfg(any(
    feature = "mysql-async",
    feature = "sqlx-mysql",
    feature = "sqlx-postgres",
    feature = "tokio-postgres"
))]
pub use dtmcli_barrier::xa;
pub use dtmcli_barrier::{
    BarrierDb, BarrierTx, Branch, BranchError, BranchResult, Op, OrFailure, TransType,
};
pub use error::{Error, Result};
pub use msg::{Committed, Delivery, Msg, PreparedMsg};
pub use options::TransOptions;
pub use payload::Reply;
pub use saga::{Saga, Step, Submit, Submitted};
pub use service::{SUCCESS_BODY, http_answer};
pub use tcc::{Tcc, TccBranch, TccBuilder, Try, TryConfirm};
pub use transaction::{BranchRow, GlobalStatus, Transaction};
#[cfg(all(feature = "workflow", feature = "tonic-server"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "workflow", feature = "tonic-server"))))]
pub use workflow::WorkflowService;
#[cfg(feature = "workflow")]
#[cfg_attr(docsrs, doc(cfg(feature = "workflow")))]
pub use workflow::{Call, PhaseTwo, Workflow, WorkflowStep, Workflows, WorkflowsBuilder};
pub use xa_global::{Xa, XaBuilder, XaCall};

/// What most programs need: `use dtmcli::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Branch, BranchError, BranchResult, Client, Delivery, OrFailure as _, Step, Try, XaCall,
    };
    #[cfg(feature = "workflow")]
    pub use crate::{Call, Workflow, Workflows};
}

/// The service's side in its own database: all of the crate `dtmcli-barrier`.
pub mod barrier {
    pub use dtmcli_barrier::*;
}
