//! The barrier: whether a call of a branch may do its work, decided by rows in its own database.
//!
//! The rule (spec 04 §6.2), for a call with op *o* that undoes the op *p* (if any):
//!
//! 1. insert the row of *p* with reason *o*, if there is a *p*; 2. insert the row of *o*;
//! 3. *p*'s row was new: nothing to undo, [`Admission::NullCompensation`];
//! 4. *o*'s row was there: [`Admission::Duplicate`], or [`Admission::Hanging`] if its compensation
//!    has put it there; 5. else [`Admission::Run`].
//!
//! Both rows are in the business's own local transaction: what ran is exactly what has rows.

use tracing::debug;

use crate::branch::{BarrierId, Branch, MESSAGE_BRANCH_ID};
use crate::db::{BarrierDb, BarrierRow, BarrierTx, CommitError};
use crate::error::{BranchError, BranchResult, Duplicated};
use crate::{Op, TransType};

/// Widest op that a barrier row can hold, in characters: the width of DTM's column. MySQL would
/// silently cut a longer one.
const OP_COLUMN_CHARS: usize = 45;
/// The reason of the row that calls a message off.
const ROLLBACK: &str = "rollback";

/// What a barrier says about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the business may only run when the admission says so"]
pub enum Admission {
    /// Do the work, in this local transaction.
    Run,
    /// The work was done by an earlier call. Commit and answer success.
    Duplicate,
    /// What is to be undone has never run, and now never will. Commit and answer success.
    NullCompensation,
    /// The call comes after it was undone or called off. Commit and answer success; for the local
    /// transaction of a message: do not go on.
    Hanging,
}

impl Admission {
    /// Whether the business must run.
    pub fn must_run(self) -> bool {
        self == Self::Run
    }
}

/// How the local transaction of a two-phase message ended, for [`Branch::local_transaction`].
#[derive(Debug)]
#[must_use = "the message is to be submitted, aborted or left to the transaction manager by this"]
pub enum LocalOutcome<T> {
    /// Committed, with the closure's value: submit the message.
    Committed(T),
    /// An earlier call with this gid has committed: submit the message (again).
    AlreadyCommitted,
    /// Certainly not committed and, where the reason is `FAILURE`, never will be: abort the
    /// message. A later call with the same gid could commit, unless the message was called off:
    /// abort before you try again under a new gid.
    RolledBack(BranchError),
    /// The commit was sent and its answer was lost. Ask with [`Branch::query_prepared`]: `Ok`
    /// means submit, `FAILURE` means abort, else leave it: the transaction manager will ask.
    Unknown(BranchError),
}

impl Branch {
    /// Runs `business` in a new local transaction of `db`, exactly once for this branch and op.
    ///
    /// The rows of the barrier and the business commit together, so that a repeated call, a
    /// compensation of what never ran and an action that comes after its compensation are all
    /// answered with success without running `business`. If `business` fails or panics, or this
    /// future is dropped, everything is rolled back.
    ///
    /// `business` borrows the transaction; it must not end it by SQL (`COMMIT`), and should not
    /// call other services while it holds the database's locks.
    ///
    /// # Errors
    ///
    /// - what `business` answers; nothing was written then
    /// - [`BranchError::Retry`]: the database could not do it, or did not confirm the commit. The
    ///   barrier makes calling again safe in both cases.
    pub async fn barrier<D, F>(&self, db: &D, business: F) -> BranchResult
    where
        D: BarrierDb,
        F: AsyncFnOnce(&mut D::Tx) -> BranchResult,
    {
        self.barrier_value(db, business).await.map(|_| ())
    }

    /// As [`Branch::barrier`], for a business that answers with a value: `None` if it did not run
    /// because it had been done, or called off, before.
    ///
    /// # Errors
    ///
    /// As [`Branch::barrier`].
    pub async fn barrier_value<D, T, F>(&self, db: &D, business: F) -> BranchResult<Option<T>>
    where
        D: BarrierDb,
        F: AsyncFnOnce(&mut D::Tx) -> BranchResult<T>,
    {
        let mut tx = db.begin().await.map_err(BranchError::Retry)?;
        let ended = self.admit_and_run(&mut tx, business).await;
        match ended {
            Ok(value) => {
                D::commit(tx).await?;
                Ok(value)
            }
            Err(error) => {
                roll_back::<D>(self, tx).await;
                Err(error)
            }
        }
    }

    async fn admit_and_run<X, T, F>(&self, tx: &mut X, business: F) -> BranchResult<Option<T>>
    where
        X: BarrierTx,
        F: AsyncFnOnce(&mut X) -> BranchResult<T>,
    {
        match self.barrier_in(tx).await? {
            Admission::Run => business(tx).await.map(Some),
            // A message's local transaction that does not run must not look like one that did.
            Admission::Duplicate if self.op() == &Op::Msg => Err(Duplicated.into()),
            Admission::Hanging if self.op() == &Op::Msg => Err(called_off()),
            Admission::Duplicate | Admission::NullCompensation | Admission::Hanging => Ok(None),
        }
    }

    /// Joins a local transaction that the caller has opened and will end: inserts the barrier's
    /// rows and says whether to run the business in it.
    ///
    /// **Commit in every case in which this returns `Ok`**, also when the business must not run:
    /// the rows of a null compensation are what keeps the late action out.
    ///
    /// # Errors
    ///
    /// [`BranchError::Retry`]: roll back and answer with the error.
    pub async fn barrier_in<X: BarrierTx>(&self, tx: &mut X) -> BranchResult<Admission> {
        if self.op().as_str().chars().nth(OP_COLUMN_CHARS).is_some() {
            return Err(OpTooLong.into());
        }
        let id = self.next_barrier_id()?;
        let admission = self.admit(tx, id).await.map_err(BranchError::Retry)?;
        if !admission.must_run() {
            debug!(
                gid = self.gid(),
                branch_id = self.branch_id(),
                op = %self.op(),
                barrier_id = id.as_str(),
                ?admission,
                "barrier absorbed a call"
            );
        }
        Ok(admission)
    }

    async fn admit<X: BarrierTx>(
        &self,
        tx: &mut X,
        id: BarrierId,
    ) -> Result<Admission, crate::BoxError> {
        let own = self.row(self.op(), id.as_str());
        let origin = self.op().origin();
        let undone_first = match &origin {
            // The origin's row first: it is the one the action holds while it runs, so this waits.
            Some(origin) => {
                tx.insert(self.table(), BarrierRow { op: origin.as_str(), ..own }).await?
            }
            None => false,
        };
        let first = tx.insert(self.table(), own).await?;
        if undone_first {
            return Ok(Admission::NullCompensation);
        }
        if first {
            return Ok(Admission::Run);
        }
        match tx.reason(self.table(), own).await? {
            Some(reason) if reason != own.reason => Ok(Admission::Hanging),
            _ => Ok(Admission::Duplicate),
        }
    }

    /// Runs the local transaction of a two-phase message: begin, insert the message's barrier row,
    /// run `business`, commit. Says as precisely as can be known how it ended.
    ///
    /// `self` must come from [`Branch::message`]. Never fails otherwise than through the outcome.
    pub async fn local_transaction<D, T, F>(&self, db: &D, business: F) -> LocalOutcome<T>
    where
        D: BarrierDb,
        F: AsyncFnOnce(&mut D::Tx) -> BranchResult<T>,
    {
        let mut tx = match db.begin().await {
            Ok(tx) => tx,
            Err(error) => return LocalOutcome::RolledBack(BranchError::Retry(error)),
        };
        let ended = match self.barrier_in(&mut tx).await {
            Ok(Admission::Run) => business(&mut tx).await,
            Ok(Admission::Duplicate) => {
                roll_back::<D>(self, tx).await;
                return LocalOutcome::AlreadyCommitted;
            }
            Ok(Admission::Hanging | Admission::NullCompensation) => Err(called_off()),
            Err(error) => Err(error),
        };
        match ended {
            Ok(value) => match D::commit(tx).await {
                Ok(()) => LocalOutcome::Committed(value),
                Err(error @ CommitError::RolledBack(_)) => LocalOutcome::RolledBack(error.into()),
                Err(error @ CommitError::Unknown(_)) => LocalOutcome::Unknown(error.into()),
            },
            Err(error) => {
                roll_back::<D>(self, tx).await;
                LocalOutcome::RolledBack(error)
            }
        }
    }

    /// Answers the question whether the local transaction of a message was committed, and if it
    /// was not, sees to it that it never will be (spec 04 §6.3).
    ///
    /// Waits while that transaction is still open. The answer is final: asked again, it is the
    /// same. Works for the branch of the question itself and for one of [`Branch::message`].
    ///
    /// # Errors
    ///
    /// - [`BranchError::Failure`]: not committed; called off for ever
    /// - [`BranchError::Retry`]: not known now; answer with the error and be asked again
    pub async fn query_prepared<D: BarrierDb>(&self, db: &D) -> BranchResult {
        let row = BarrierRow {
            trans_type: TransType::Msg.as_str(),
            gid: self.gid(),
            branch_id: MESSAGE_BRANCH_ID,
            op: Op::Msg.as_str(),
            barrier_id: BarrierId::FIRST.as_str(),
            reason: ROLLBACK,
        };
        let mut tx = db.begin().await.map_err(BranchError::Retry)?;
        let called_off_now = tx.insert(self.table(), row).await.map_err(BranchError::Retry)?;
        let reason = if called_off_now {
            Some(ROLLBACK.to_owned())
        } else {
            tx.reason(self.table(), row).await.map_err(BranchError::Retry)?
        };
        // FAILURE may only be said once the row that makes it true is committed.
        D::commit(tx).await?;
        match reason.as_deref() {
            Some(ROLLBACK) => Err(called_off()),
            Some(_) => Ok(()),
            None => Err(RowVanished.into()),
        }
    }

    fn row<'a>(&'a self, op: &'a Op, barrier_id: &'a str) -> BarrierRow<'a> {
        BarrierRow {
            trans_type: self.trans_type().as_str(),
            gid: self.gid(),
            branch_id: self.branch_id(),
            op: op.as_str(),
            barrier_id,
            reason: op.as_str(),
        }
    }
}

/// Rolls back; an error of the rollback is not the caller's, for nothing was committed anyway.
async fn roll_back<D: BarrierDb>(branch: &Branch, tx: D::Tx) {
    if let Err(error) = D::rollback(tx).await {
        debug!(gid = branch.gid(), %error, "rollback was not confirmed; the database does it");
    }
}

pub(crate) fn called_off() -> BranchError {
    BranchError::failure("the message was called off before its local transaction committed")
}

#[derive(Debug, thiserror::Error)]
#[error("the op is longer than {OP_COLUMN_CHARS} characters, which the barrier table cannot hold")]
struct OpTooLong;

#[derive(Debug, thiserror::Error)]
#[error("the barrier row was deleted while it was read: was the table purged too early?")]
struct RowVanished;

#[cfg(test)]
mod tests;
