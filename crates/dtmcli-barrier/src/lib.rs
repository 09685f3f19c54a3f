//! What a service does in its own database, so that its branches are safe to be called twice, too
//! late, in the wrong order, or not at all.
//!
//! A transaction manager (dtmd, DTM) calls branches until they answer, so calls repeat; and a
//! compensation may come before the action that it undoes, or without one. A **barrier** absorbs
//! all of that: it keeps one row per call in the service's own database, in the same local
//! transaction as the business. Tables, keys and rules are those of DTM's SDKs, so services in Go,
//! Java, C# and Rust may share one barrier table.
//!
//! # A tour
//!
//! **1. The branch.** Each call says which branch of which global transaction it is for. Read it
//! with [`Branch::from_query`] (HTTP) or [`Branch::from_metadata`] (gRPC). `dtmcli` has extractors.
//!
//! **2. The barrier.** [`Branch::barrier`] opens a local transaction, inserts the rows, runs the
//! business only if it must, and commits:
//!
//! ```
//! # #[cfg(feature = "sqlx-postgres")]
//! # mod example {
//! use dtmcli_barrier::{Branch, BranchError, BranchResult};
//! use sqlx::{PgConnection, PgPool};
//!
//! async fn transfer_out(query: &str, pool: &PgPool, user: i64, amount: i64) -> BranchResult {
//!     let branch = Branch::from_query(query)?;
//!     branch.barrier(pool, async |tx| debit(tx, user, amount).await).await
//! }
//!
//! async fn debit(tx: &mut PgConnection, user: i64, amount: i64) -> BranchResult {
//!     let sql = "update account set balance = balance - $1 where id = $2 and balance >= $1";
//!     let done = sqlx::query(sql).bind(amount).bind(user).execute(tx).await?;
//!     if done.rows_affected() == 0 {
//!         return Err(BranchError::failure("not enough money"));
//!     }
//!     Ok(())
//! }
//! # }
//! ```
//!
//! **3. The answer.** A [`BranchError`] says what the transaction manager does next. Any error that
//! `?` passes on means "call again"; only [`BranchError::failure`] (or
//! [`or_failure`](OrFailure::or_failure)) rolls the global transaction back.
//!
//! **4. Joining.** Where a framework has opened the local transaction already,
//! [`Branch::barrier_in`] inserts the rows in it and returns the [`Admission`].
//!
//! **5. Messages.** [`Branch::local_transaction`] runs the local transaction of a two-phase message
//! and says how it ended ([`LocalOutcome`]), "not known" included;
//! [`Branch::query_prepared`] answers the transaction manager's question about it.
//!
//! **6. XA.** Module `xa`: both phases on MySQL, MariaDB and PostgreSQL, and a scan for prepared
//! branches that were left behind.
//!
//! **7. The local message table.** Module `outbox`: messages written with the business data and
//! relayed afterwards.
//!
//! **8. Keeping the table small.** [`create_table`] makes it, [`purge`] deletes old rows; read what
//! a safe age is first.
//!
//! # Features: one per driver, none by default
//!
//! | feature | pool | transaction | barrier | XA | message table |
//! |---|---|---|---|---|---|
//! | `sqlx-mysql` | `sqlx::MySqlPool` | `SqlxTx`, `sqlx::Transaction` | yes | yes | yes |
//! | `sqlx-postgres` | `sqlx::PgPool` | `SqlxTx`, `sqlx::Transaction` | yes | yes | yes |
//! | `sqlx-sqlite` | `sqlx::SqlitePool` | `SqlxTx`, `sqlx::Transaction` | yes | – | yes |
//! | `mysql-async` | `mysql_async::Pool` | `MySqlTx`, `mysql_async::Transaction` | yes | yes | yes |
//! | `tokio-postgres` | `deadpool_postgres::Pool` | `PgTx`, `tokio_postgres::Transaction` | yes | yes | yes |
//! | `sea-orm` | `sea_orm::DatabaseConnection` | `DatabaseTransaction` | yes | no | yes |
//! | `redis` | any async connection | a script | yes | – | – |
//! | `mongodb` | `mongodb::Client` | `ClientSession` | compiled, not run | – | – |
//!
//! `outbox` adds the message table. TLS is the driver's matter: name the driver in your manifest
//! and choose there (`mongodb` cannot be built without TLS and gets rustls here). One crate with
//! features, and not a crate per driver, is how we begin; when two majors of a driver must be
//! served at once, its adapter becomes a crate of its own behind the same traits.
//!
//! Other databases: implement [`SqlTx`] (or [`BarrierTx`]) and [`BarrierDb`]; it is five methods.
//!
//! # What the types prevent
//!
//! The business borrows the transaction. It cannot keep it:
//!
//! ```compile_fail
//! use dtmcli_barrier::{BarrierDb, Branch};
//!
//! async fn keep<D: BarrierDb>(branch: &Branch, db: &D) {
//!     let mut kept = None;
//!     let _ = branch.barrier(db, async |tx| { kept = Some(tx); Ok(()) }).await;
//! }
//! ```
//!
//! It cannot commit it:
//!
//! ```compile_fail,E0308
//! use dtmcli_barrier::{BarrierDb, Branch};
//!
//! async fn commit<D: BarrierDb>(branch: &Branch, db: &D) {
//!     let _ = branch.barrier(db, async |tx| { D::commit(tx).await?; Ok(()) }).await;
//! }
//! ```
//!
//! And a closure is run at most once, so it may consume what it captures; one that is called again
//! does not exist:
//!
//! ```
//! use dtmcli_barrier::{BarrierDb, Branch, BranchResult};
//!
//! async fn consume<D: BarrierDb>(branch: &Branch, db: &D, order: String) -> BranchResult {
//!     branch.barrier(db, async move |_tx| { drop(order); Ok(()) }).await
//! }
//! ```

mod adapters;
mod barrier;
mod branch;
mod db;
mod error;
#[cfg(feature = "outbox")]
pub mod outbox;
mod sql;
mod table;
#[cfg(any(
    feature = "mysql-async",
    feature = "sqlx-mysql",
    feature = "sqlx-postgres",
    feature = "tokio-postgres"
))]
pub mod xa;

#[cfg(feature = "mongodb")]
pub use adapters::mongodb::create_mongodb_collection;
#[cfg(feature = "mysql-async")]
pub use adapters::mysql_async::MySqlTx;
#[cfg(feature = "tokio-postgres")]
pub use adapters::postgres::PgTx;
#[cfg(any(feature = "sqlx-mysql", feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
pub use adapters::sqlx::SqlxTx;
pub use barrier::{Admission, LocalOutcome};
pub use branch::{
    BARRIERS_MAX, BRANCH_ID_MAX_CHARS, Branch, GID_MAX_CHARS, MESSAGE_BRANCH_ID, Op, ParseError,
    TooManyBarriers, TransType,
};
pub use db::{BarrierDb, BarrierRow, BarrierTx, CommitError};
pub use error::{BoxError, BranchError, BranchResult, Duplicated, OrFailure};
pub use sql::{Cell, Dialect, Kind, PURGE_AGE_MIN, PurgeError, SqlTx, Value, create_table, purge};
pub use table::{TableName, TableNameError};
