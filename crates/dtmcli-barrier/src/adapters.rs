//! One file per driver: its pool as a [`BarrierDb`](crate::BarrierDb), its transaction as a
//! [`SqlTx`](crate::SqlTx) (or [`BarrierTx`](crate::BarrierTx) where there is no SQL).

#[cfg(feature = "mongodb")]
pub(crate) mod mongodb;
#[cfg(feature = "mysql-async")]
pub(crate) mod mysql_async;
#[cfg(feature = "tokio-postgres")]
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "sea-orm")]
mod sea_orm;
#[cfg(any(feature = "sqlx-mysql", feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
pub(crate) mod sqlx;

#[cfg(any(
    feature = "mysql-async",
    feature = "sqlx-mysql",
    feature = "tokio-postgres",
    feature = "sqlx-postgres",
    feature = "sqlx-sqlite"
))]
pub(crate) mod codes {
    //! What an error in answer to a commit says about its outcome.

    use crate::db::CommitError;
    use crate::error::BoxError;

    /// The error as an outcome: `rolled_back` if the database itself said that it did not commit.
    pub(crate) fn commit_error(rolled_back: bool, error: impl Into<BoxError>) -> CommitError {
        if rolled_back {
            CommitError::RolledBack(error.into())
        } else {
            CommitError::Unknown(error.into())
        }
    }

    /// Whether PostgreSQL's answer to a commit means a rollback: integrity (23), invalid state
    /// (25) and rollback (40), except the ambiguous 40003. All else, like an administrator's
    /// shutdown while it waited for a standby, may come after the commit.
    #[cfg(any(feature = "tokio-postgres", feature = "sqlx-postgres"))]
    pub(crate) fn postgres_rolled_back(sqlstate: &str) -> bool {
        sqlstate != "40003" && ["23", "25", "40"].iter().any(|class| sqlstate.starts_with(class))
    }

    /// Whether MySQL's answer to a commit means a rollback: a deadlock (also Galera's failed
    /// certification) and group replication's refusal.
    #[cfg(any(feature = "mysql-async", feature = "sqlx-mysql"))]
    pub(crate) fn mysql_rolled_back(code: u16) -> bool {
        matches!(code, 1213 | 3101)
    }
}
