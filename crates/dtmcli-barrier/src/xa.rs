//! XA branches: two-phase commit of one's own database under a global transaction.
//!
//! Phase one ([`Branch::xa_local`]) runs the business in a database transaction and *prepares* it:
//! from then on it survives a crash and keeps its locks until phase two ([`Branch::xa_finish`])
//! commits it or rolls it back. [`resolve_dangling`] finds branches whose phase two never came.
//!
//! Supported: MySQL and MariaDB (mysql_async, sqlx), PostgreSQL (tokio-postgres with deadpool, sqlx;
//! the server needs `max_prepared_transactions` above 0).
//!
//! # What is safer here than in DTM's Go SDK
//!
//! - xids are validated, never quoted from requests (D24)
//! - everything of a branch runs on one pinned connection, which is closed unless its end is known
//!   (D32); the results of `end` and `prepare` count
//! - a branch that was rolled back before it began is refused by its barrier row, not only by the
//!   server's refusal to register it
//! - on MariaDB and older MySQL a prepared branch belongs to its connection until that has gone,
//!   and the database answers "unknown" to everybody else. That answer is only taken for "done"
//!   after a look at the list of prepared branches, so no commit is lost

#[cfg(any(feature = "mysql-async", feature = "sqlx-mysql"))]
mod mysql;
#[cfg(any(feature = "tokio-postgres", feature = "sqlx-postgres"))]
mod postgres;
mod xid;

#[cfg(feature = "mysql-async")]
pub use mysql::pooled::MySqlXa;
#[cfg(feature = "sqlx-mysql")]
pub use mysql::sqlx::SqlxMySqlXa;
pub use xid::{Xid, XidError};

use std::time::Duration;

use tracing::warn;

use crate::barrier::Admission;
use crate::branch::{BarrierId, Branch, Op, TransType};
use crate::db::{BarrierDb, BarrierRow, BarrierTx as _};
use crate::error::{BoxError, BranchError, BranchResult};
use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};

/// Seconds that phase two waits for the row of a branch that is still open elsewhere.
const LOCK_WAIT_SECONDS: u32 = 3;
/// How often phase two looks whether a branch is still held by the connection of its phase one.
const HELD_LOOKS_MAX: u32 = 25;
/// Pause between these looks.
const HELD_PAUSE: Duration = Duration::from_millis(20);

/// What phase two asks of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Commit the prepared branch.
    Commit,
    /// Roll the prepared branch back.
    Rollback,
}

/// What the caller says about the global transaction of a dangling branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was decided: finish the branch so.
    Decided(Decision),
    /// It is not decided, not known, or not ours: leave the branch alone.
    Leave,
}

/// A database that can prepare transactions.
pub trait XaDb: BarrierDb<Tx: SqlTx> {
    /// A pinned connection inside an open XA branch. Dropped before its end, the connection is
    /// closed, and the database rolls back.
    type Session: SqlTx + 'static;

    /// Opens a branch on a connection of its own.
    ///
    /// # Errors
    ///
    /// The driver's; nothing has happened.
    fn xa_start(&self, xid: &Xid) -> impl Future<Output = Result<Self::Session, BoxError>> + Send;

    /// Ends and prepares the branch, and lets go of its connection.
    ///
    /// # Errors
    ///
    /// The driver's. The branch may be prepared or rolled back: phase two will tell.
    fn xa_prepare(
        session: Self::Session,
        xid: &Xid,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Ends the branch and rolls it back before it was prepared.
    ///
    /// # Errors
    ///
    /// The driver's; closing the connection has rolled it back then.
    fn xa_abort(
        session: Self::Session,
        xid: &Xid,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Phase two. Returns `false` if the database does not know the xid.
    ///
    /// # Errors
    ///
    /// The driver's: not known whether it was done.
    fn xa_decide(
        &self,
        xid: &Xid,
        decision: Decision,
    ) -> impl Future<Output = Result<bool, BoxError>> + Send;

    /// The xids of all prepared branches of this database, in whatever form.
    ///
    /// # Errors
    ///
    /// The driver's; on MySQL 8 the user needs `XA_RECOVER_ADMIN`.
    fn xa_recover(&self) -> impl Future<Output = Result<Vec<String>, BoxError>> + Send;
}

impl Branch {
    /// One endpoint for all calls of an XA branch: `commit` and `rollback` are phase two, anything
    /// else is the local phase (spec 04 §4).
    ///
    /// # Errors
    ///
    /// As [`Branch::xa_local`] and [`Branch::xa_finish`].
    pub async fn xa<D, R, F>(&self, db: &D, register: R, business: F) -> BranchResult
    where
        D: XaDb,
        R: AsyncFnOnce() -> BranchResult,
        F: AsyncFnOnce(&mut D::Session) -> BranchResult,
    {
        match self.op() {
            Op::Commit | Op::Rollback => self.xa_finish(db).await,
            _ => self.xa_local(db, register, business).await,
        }
    }

    /// Phase one: opens an XA branch, inserts its barrier row, runs `business`, calls `register`
    /// (which tells the transaction manager of the branch, inside the open branch, so that one
    /// that is being rolled back can refuse), and prepares.
    ///
    /// A repeated call of a branch that was committed does nothing and succeeds.
    ///
    /// # Errors
    ///
    /// What `business` and `register` answer; `FAILURE` if the branch was already rolled back;
    /// [`BranchError::Retry`] for the database. After any error the application must abort the
    /// global transaction; phase two then finds out what became of the branch.
    pub async fn xa_local<D, R, F>(&self, db: &D, register: R, business: F) -> BranchResult
    where
        D: XaDb,
        R: AsyncFnOnce() -> BranchResult,
        F: AsyncFnOnce(&mut D::Session) -> BranchResult,
    {
        let branch = self.with_op(Op::Action);
        let xid = Xid::of(&branch)?;
        let mut session = db.xa_start(&xid).await.map_err(BranchError::Retry)?;
        let ran = async {
            match branch.barrier_in(&mut session).await? {
                Admission::Run => {}
                Admission::Duplicate => return Ok(false),
                Admission::Hanging | Admission::NullCompensation => {
                    return Err(BranchError::failure("the branch was rolled back before it began"));
                }
            }
            business(&mut session).await?;
            register().await?;
            Ok(true)
        }
        .await;
        match ran {
            Ok(true) => Ok(D::xa_prepare(session, &xid).await.map_err(BranchError::Retry)?),
            Ok(false) => Ok(D::xa_abort(session, &xid).await.map_err(BranchError::Retry)?),
            Err(error) => {
                if let Err(source) = D::xa_abort(session, &xid).await {
                    tracing::debug!(%xid, error = source, "the closed connection rolls back");
                }
                Err(error)
            }
        }
    }

    /// Phase two, by this branch's op: commits or rolls back the prepared branch. May be repeated.
    ///
    /// A branch that the database does not know counts as done, as it does in DTM, once it is
    /// certain that it is not just held by another connection. After a rollback the barrier row is
    /// put in place, so that a local phase that comes too late is refused; this waits shortly for
    /// one that is open, and fails to be called again.
    ///
    /// # Errors
    ///
    /// [`BranchError::Retry`]: to be called again.
    pub async fn xa_finish<D: XaDb>(&self, db: &D) -> BranchResult {
        let decision = match self.op() {
            Op::Commit => Decision::Commit,
            Op::Rollback => Decision::Rollback,
            _ => return Err(NotPhaseTwo.into()),
        };
        let xid = Xid::of(self)?;
        for attempt in 1..=HELD_LOOKS_MAX {
            if db.xa_decide(&xid, decision).await.map_err(BranchError::Retry)? {
                break;
            }
            if decision == Decision::Commit && self.xa_has_row(db).await? {
                return Ok(());
            }
            if !is_held(db, &xid).await? {
                if decision == Decision::Commit {
                    warn!(%xid, "commit of an XA branch that the database does not know");
                }
                break;
            }
            if attempt == HELD_LOOKS_MAX {
                return Err(StillHeld.into());
            }
            // Its connection was closed before the local phase answered; the server notices soon.
            tokio::time::sleep(HELD_PAUSE).await;
        }
        match decision {
            Decision::Commit => Ok(()),
            Decision::Rollback => self.xa_bar(db).await,
        }
    }

    /// Inserts the row that keeps a late local phase out.
    async fn xa_bar<D: XaDb>(&self, db: &D) -> BranchResult {
        let mut tx = db.begin().await.map_err(BranchError::Retry)?;
        let (set, reset) = match tx.dialect() {
            Dialect::MySql => ("set innodb_lock_wait_timeout = ", true),
            Dialect::Postgres | Dialect::Sqlite => ("set local lock_timeout = ", false),
        };
        // PostgreSQL counts milliseconds where no unit is given.
        let wait = if reset { LOCK_WAIT_SECONDS } else { LOCK_WAIT_SECONDS * 1000 };
        tx.execute(&format!("{set}{wait}"), &[]).await.map_err(BranchError::Retry)?;
        let inserted = tx.insert(self.table(), self.xa_row("rollback")).await;
        if reset {
            // The connection goes back to a pool, with the wait it had before.
            tx.execute(&format!("{set}default"), &[]).await.map_err(BranchError::Retry)?;
        }
        inserted.map_err(BranchError::Retry)?;
        Ok(D::commit(tx).await?)
    }

    async fn xa_has_row<D: XaDb>(&self, db: &D) -> BranchResult<bool> {
        let mut tx = db.begin().await.map_err(BranchError::Retry)?;
        // Not the locking read of the barrier: a branch that is held elsewhere has locked its row.
        let sql = tx.dialect().select_reason(self.table(), false);
        let row = self.xa_row("");
        let values = [row.gid, row.branch_id, row.op, row.barrier_id].map(Value::Text);
        let rows = tx.query(&sql, &values, &[Kind::Text]).await.map_err(BranchError::Retry)?;
        D::commit(tx).await?;
        let reason = rows.into_iter().flatten().next().and_then(Cell::into_text);
        Ok(reason.as_deref() == Some(Op::Action.as_str()))
    }

    fn xa_row<'a>(&'a self, reason: &'a str) -> BarrierRow<'a> {
        BarrierRow {
            trans_type: TransType::Xa.as_str(),
            gid: self.gid(),
            branch_id: self.branch_id(),
            op: "action",
            barrier_id: BarrierId::FIRST.as_str(),
            reason,
        }
    }
}

/// Whether a branch that the database does not know is prepared after all, and just held by a
/// connection that has not gone yet.
async fn is_held<D: XaDb>(db: &D, xid: &Xid) -> BranchResult<bool> {
    let prepared = db.xa_recover().await.map_err(BranchError::Retry)?;
    Ok(prepared.iter().any(|other| other == xid.as_str()))
}

/// What [`resolve_dangling`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Branches committed.
    pub committed: usize,
    /// Branches rolled back.
    pub rolled_back: usize,
    /// Branches left alone.
    pub left: usize,
    /// Branches that could not be finished or asked about; look again later.
    pub failed: usize,
}

/// Finishes prepared branches whose phase two never came: asks `outcome` about each global
/// transaction that has one here, and does what it says.
///
/// Prepared branches hold locks, and on PostgreSQL they keep vacuum from its work: run this every
/// few minutes, and after a restart. Xids that are not `<gid>-<digits>` belong to others and are
/// not touched; neither are those for which `outcome` says [`Outcome::Leave`], as it must for a
/// gid that its transaction manager does not know or has not decided.
///
/// # Errors
///
/// [`BranchError::Retry`] if the list of prepared branches cannot be read. Trouble with single
/// branches is logged and counted.
pub async fn resolve_dangling<D, F>(db: &D, mut outcome: F) -> BranchResult<Resolved>
where
    D: XaDb,
    F: AsyncFnMut(&str) -> BranchResult<Outcome>,
{
    let mut resolved = Resolved::default();
    for text in db.xa_recover().await.map_err(BranchError::Retry)? {
        let Some((gid, branch_id)) = Xid::split(&text) else { continue };
        let finished = async {
            let Outcome::Decided(decision) = outcome(gid).await? else { return Ok(None) };
            let op = if decision == Decision::Commit { Op::Commit } else { Op::Rollback };
            let branch = Branch::new(TransType::Xa, gid, branch_id, op)?;
            branch.xa_finish(db).await.map(|()| Some(decision))
        }
        .await;
        match finished {
            Ok(Some(Decision::Commit)) => resolved.committed += 1,
            Ok(Some(Decision::Rollback)) => resolved.rolled_back += 1,
            Ok(None) => resolved.left += 1,
            Err(error) => {
                warn!(gid, branch_id, %error, "cannot finish a dangling XA branch");
                resolved.failed += 1;
            }
        }
    }
    Ok(resolved)
}

#[derive(Debug, thiserror::Error)]
#[error("phase two of XA has the op commit or rollback")]
struct NotPhaseTwo;

#[derive(Debug, thiserror::Error)]
#[error("the prepared XA branch is still held by the connection that prepared it")]
struct StillHeld;
