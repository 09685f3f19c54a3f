//! Balances and the barrier in one SQLite file.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::barrier::{self, Admission, BARRIER_TABLE, BranchContext, LocalOutcome};

const ACCOUNT_TABLE: &str = "create table if not exists account(
    name text primary key,
    balance integer not null,
    frozen integer not null default 0 check(frozen >= 0),
    incoming integer not null default 0 check(incoming >= 0))";

/// How long a transaction waits for another process that holds the file's write lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// A change of one account. Amounts are whole minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Debit; refused if the free balance does not suffice.
    Out,
    /// Credit back what [`Change::Out`] took.
    OutUndo,
    /// Credit.
    In,
    /// Take back what [`Change::In`] gave; may overdraw, because a compensation must not fail.
    InUndo,
    /// Freeze an amount for a later debit; refused if the free balance does not suffice.
    TryOut,
    /// Debit the frozen amount.
    ConfirmOut,
    /// Free the frozen amount.
    CancelOut,
    /// Announce an incoming amount.
    TryIn,
    /// Credit the announced amount.
    ConfirmIn,
    /// Forget the announced amount.
    CancelIn,
}

impl Change {
    /// The update statement; `?1` is the amount, `?2` the account.
    fn sql(self) -> &'static str {
        match self {
            Self::Out => {
                "update account set balance = balance - ?1 \
                 where name = ?2 and balance - frozen >= ?1"
            }
            Self::OutUndo | Self::In => "update account set balance = balance + ?1 where name = ?2",
            Self::InUndo => "update account set balance = balance - ?1 where name = ?2",
            Self::TryOut => {
                "update account set frozen = frozen + ?1 \
                 where name = ?2 and balance - frozen >= ?1"
            }
            Self::ConfirmOut => {
                "update account set balance = balance - ?1, frozen = frozen - ?1 where name = ?2"
            }
            Self::CancelOut => "update account set frozen = frozen - ?1 where name = ?2",
            Self::TryIn => "update account set incoming = incoming + ?1 where name = ?2",
            Self::ConfirmIn => {
                "update account set balance = balance + ?1, incoming = incoming - ?1 \
                 where name = ?2"
            }
            Self::CancelIn => "update account set incoming = incoming - ?1 where name = ?2",
        }
    }
}

/// One account's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The account's name.
    pub account: String,
    /// What the account holds, the frozen part included.
    pub balance: i64,
    /// The part frozen by TCC tries.
    pub frozen: i64,
    /// What TCC tries announced but did not confirm yet.
    pub incoming: i64,
}

/// Sums over all accounts of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Sum of all balances.
    pub total: i64,
    /// Sum of all frozen amounts; 0 when no TCC is under way.
    pub frozen: i64,
    /// Sum of all announced amounts; 0 when no TCC is under way.
    pub incoming: i64,
    /// How many accounts there are.
    pub accounts: i64,
}

/// Why a ledger did not do what it was asked; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The business says no: the branch must answer FAILURE.
    #[error("{0}")]
    Refused(String),
    /// A message's local transaction whose barrier row exists already: it was decided before,
    /// ask query-prepared which way (spec 04 §6.2, step 3).
    #[error("DUPLICATED: the message {0} was decided before, ask query-prepared")]
    Duplicated(String),
    /// The database failed: the outcome is unknown, the call must be repeated.
    #[error("the bank's database failed, repeat the call: {0}")]
    Database(#[from] rusqlite::Error),
    /// The call did not come to its end; nothing was committed, it must be repeated.
    #[error("the bank's call was interrupted, repeat it")]
    Interrupted,
}

/// Balances and barrier of one bank. Calls block for the length of a local transaction.
#[derive(Debug)]
pub struct Ledger {
    connection: Mutex<Connection>,
}

impl Ledger {
    /// Opens the file, creating file and tables if they do not exist.
    ///
    /// # Errors
    /// The file cannot be opened or is not a SQLite database.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute_batch(ACCOUNT_TABLE)?;
        connection.execute_batch(BARRIER_TABLE)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Opens an account with a first balance; an account that exists keeps what it has.
    ///
    /// # Errors
    /// The database failed.
    pub fn open_account(&self, account: &str, balance: i64) -> Result<(), LedgerError> {
        let sql = "insert into account(name, balance) values(?1, ?2) on conflict do nothing";
        self.lock().execute(sql, params![account, balance])?;
        Ok(())
    }

    /// Makes a change behind the barrier, both in one local transaction (spec 04 §6.2).
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the business says no, [`LedgerError::Duplicated`] for a
    /// message's local transaction that was decided before; in every case nothing is changed.
    pub fn change(
        &self,
        branch: &BranchContext,
        change: Change,
        account: &str,
        amount: i64,
    ) -> Result<Admission, LedgerError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let admission = barrier::admit(&tx, branch)?;
        if branch.op == "msg" && admission != Admission::Run {
            return Err(LedgerError::Duplicated(branch.gid.clone()));
        }
        if admission == Admission::Run {
            apply(&tx, change, account, amount)?;
        }
        tx.commit()?;
        Ok(admission)
    }

    /// Answers query-prepared for a message whose local transaction runs in this ledger.
    ///
    /// # Errors
    /// The database failed: nothing is decided.
    pub fn query_prepared(&self, gid: &str) -> Result<LocalOutcome, LedgerError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let outcome = barrier::query_prepared(&tx, gid)?;
        tx.commit()?;
        Ok(outcome)
    }

    /// Reads one account.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if there is no such account.
    pub fn account(&self, account: &str) -> Result<Account, LedgerError> {
        let sql = "select name, balance, frozen, incoming from account where name = ?1";
        let row = self.lock().query_row(sql, [account], |row| {
            Ok(Account {
                account: row.get(0)?,
                balance: row.get(1)?,
                frozen: row.get(2)?,
                incoming: row.get(3)?,
            })
        });
        match row {
            Err(rusqlite::Error::QueryReturnedNoRows) => Err(no_account(account)),
            other => Ok(other?),
        }
    }

    /// Sums over all accounts.
    ///
    /// # Errors
    /// The database failed.
    pub fn totals(&self) -> Result<Totals, LedgerError> {
        let sql = "select coalesce(sum(balance), 0), coalesce(sum(frozen), 0), \
                   coalesce(sum(incoming), 0), count(*) from account";
        let row = self.lock().query_row(sql, [], |row| {
            Ok(Totals {
                total: row.get(0)?,
                frozen: row.get(1)?,
                incoming: row.get(2)?,
                accounts: row.get(3)?,
            })
        });
        Ok(row?)
    }

    /// A panic while the lock was held rolled its transaction back, so the connection is sound.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(
    tx: &Transaction<'_>,
    change: Change,
    account: &str,
    amount: i64,
) -> Result<(), LedgerError> {
    let changed = tx.prepare_cached(change.sql())?.execute(params![amount, account])?;
    if changed > 0 {
        return Ok(());
    }
    let sql = "select balance - frozen from account where name = ?1";
    match tx.query_row(sql, [account], |row| row.get::<_, i64>(0)) {
        Ok(free) => Err(LedgerError::Refused(format!(
            "insufficient funds: {account} has {free}, {amount} are needed. FAILURE"
        ))),
        Err(rusqlite::Error::QueryReturnedNoRows) => Err(no_account(account)),
        Err(error) => Err(error.into()),
    }
}

fn no_account(account: &str) -> LedgerError {
    LedgerError::Refused(format!("no such account: {account}. FAILURE"))
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
