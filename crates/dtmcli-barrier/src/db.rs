//! What a database must be able to do for a barrier. Adapters implement these two traits.

use crate::error::BoxError;
use crate::table::TableName;

/// One row of a barrier table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarrierRow<'a> {
    /// The mode of the global transaction.
    pub trans_type: &'a str,
    /// The global transaction.
    pub gid: &'a str,
    /// The branch.
    pub branch_id: &'a str,
    /// The op this row stands for: the op that was called, or the one that it undoes.
    pub op: &'a str,
    /// The number of the barrier within the call, two digits.
    pub barrier_id: &'a str,
    /// The op that was called.
    pub reason: &'a str,
}

/// An open local transaction (`tx`) that can keep barrier rows.
///
/// # Atomicity and concurrency
///
/// Rows belong to the transaction: they are there after its commit and gone after its rollback.
/// When another open transaction has inserted the same key, [`insert`](Self::insert) waits for its
/// end (or fails), and answers by what became of it. That wait is what orders an action against
/// its compensation when both run at one time.
pub trait BarrierTx: Send {
    /// Inserts the row unless its key (gid, branch id, op, barrier id) is there. Returns whether it
    /// was inserted. A key that is there must not break the transaction.
    ///
    /// # Errors
    ///
    /// The driver's. The transaction must then be rolled back.
    fn insert(
        &mut self,
        table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> impl Future<Output = Result<bool, BoxError>> + Send;

    /// Reads the newest committed reason of the row with this key, or this transaction's own.
    ///
    /// # Errors
    ///
    /// The driver's. The transaction must then be rolled back.
    fn reason(
        &mut self,
        table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> impl Future<Output = Result<Option<String>, BoxError>> + Send;
}

/// A database (a pool) that can open local transactions for a barrier.
///
/// Dropping a transaction that was neither committed nor rolled back must roll it back and leave
/// the pool usable: this is how a panic, an abandoned future and a lost connection end.
pub trait BarrierDb: Sync {
    /// An open local transaction. The business closure borrows it and cannot keep it.
    type Tx: BarrierTx + 'static;

    /// Opens a local transaction on a connection of its own.
    ///
    /// # Errors
    ///
    /// The driver's; nothing has happened.
    fn begin(&self) -> impl Future<Output = Result<Self::Tx, BoxError>> + Send;

    /// Commits.
    ///
    /// # Errors
    ///
    /// [`CommitError`] says whether the outcome is known.
    fn commit(tx: Self::Tx) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// Rolls back.
    ///
    /// # Errors
    ///
    /// The driver's. As the commit was never asked for, the database rolls back on its own then.
    fn rollback(tx: Self::Tx) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// A commit that was not confirmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The database refused: the transaction is rolled back.
    #[error("the database refused to commit")]
    RolledBack(#[source] BoxError),
    /// The answer did not come, or does not say: it may be committed or not.
    #[error("the outcome of the commit is not known")]
    Unknown(#[source] BoxError),
}
