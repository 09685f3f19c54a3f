//! Global transactions in MySQL, MariaDB or PostgreSQL, on DTM's tables.
//!
//! The way in:
//!
//! 1. [`SqlOptions`]: where the database is; [`SqlStore::open`].
//! 2. `schema`: DTM's tables and what we add; [`migrate`] makes both.
//! 3. `mark`, `rows`: how a stored row is told from another, and what global it is.
//! 4. `fold`, `write`, `commit`: a batch becomes one transaction of the database.
//! 5. `claim`, `read`, `purge`: the rest of the trait.
//!
//! It must not know the engine, nor what a status means beyond being final.
//!
//! # How a global is stored
//!
//! A global is a row of DTM's `trans_global`, its branches are rows of `trans_branch_op`, as a DTM
//! server would have written them: status, schedule, owner, options, payloads. Beside them stand
//! columns of ours, all of them null in a row that only DTM servers wrote:
//!
//! | column | what it holds |
//! |---|---|
//! | `dtmd_record` | the record of the global (format of [`dtmd_store::record`]), without URLs and payloads of branches, which are in their rows |
//! | `dtmd_revision`, `dtmd_epoch` | what a writer must have seen |
//! | `dtmd_wake` | the wake-up to the microsecond; `next_cron_time` is the same, rounded up to seconds |
//! | `dtmd_ended` | when it ended, for the clean-up |
//! | `dtmd_write` | the nonce of the batch that wrote the row last |
//! | `dtmd_seal` | a digest of `status`, `owner` and `next_cron_time` as we wrote them last |
//!
//! So one row of a table is read and written for everything exact, DTM's columns stay true for
//! whoever reads them, and a payload is stored once.
//!
//! # Beside DTM servers
//!
//! A DTM server that does anything to a global changes one of the three columns under the seal: its
//! cron changes `owner` and `next_cron_time`, an API call changes `status`, a retry changes
//! `next_cron_time`. Then the seal is broken, and
//!
//! - the revision of the row is another one, made from what the server wrote: whoever of us still
//!   believes the state before is refused, and reads again;
//! - what the record and DTM's columns both hold is taken from DTM's columns;
//! - our next write of it puts record and columns in agreement, and seals the row again.
//!
//! Branches that a DTM server registers do not touch the global's row. Therefore whoever changes a
//! global that is still `prepared` must have seen all its branches: they are counted under the
//! lock that a registration takes too. A branch's status in its row wins over the record's.
//!
//! In the other direction: DTM's writes are conditional on the status and on `next_cron_time` being
//! due. What we work on is not due until the lease ends, so its cron leaves it alone. A client that
//! calls submit or abort on a DTM server for a global that ours works on makes both work on it, as
//! two DTM servers would; every call is made at least once, none is lost.
//!
//! # Time
//!
//! `next_cron_time` and `dtmd_wake` are the database's time: each server measures how far its own
//! clock is from it. A difference under half a second is taken for none. Wall-clock columns of
//! MySQL are written in UTC, or in the zone of the DTM servers that share the tables
//! ([`SqlOptions::time_zone_seconds`]). Nothing depends on columns with fractions of seconds.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod claim;
mod clock;
mod commit;
mod conn;
mod counts;
mod doctor;
mod error;
mod fold;
mod inner;
mod list;
mod mark;
pub mod migrate;
mod options;
mod options_json;
mod outage;
mod pool;
mod purge;
mod read;
mod rows;
mod schema;
mod store;
mod text;
mod tls;
mod write;

pub use error::SqlError;
pub use options::{Driver, SqlOptions, Tls};
pub use store::SqlStore;
