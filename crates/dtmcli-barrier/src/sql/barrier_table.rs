//! Making and purging the barrier table.

use std::time::Duration;

use super::{Dialect, SqlTx, Value};
use crate::db::BarrierDb;
use crate::error::BoxError;
use crate::table::TableName;

/// The least age [`purge`] accepts. It guards against a slip of the pen, it is not a safe age.
pub const PURGE_AGE_MIN: Duration = Duration::from_secs(3600);
/// Rows deleted by one statement, so that no purge holds many locks for long.
const PURGE_ROWS_MAX: i64 = 1000;
/// Statements of one purge: bounds its time; the count tells whether to go on.
const PURGE_STATEMENTS_MAX: u32 = 1000;

/// Makes the barrier table (and its schema) unless it is there: DTM's columns and unique key, so
/// that services in other languages may share it.
///
/// Run it when deploying, with the rights for it, not in each process: PostgreSQL may refuse one
/// of two that run at the same time. Two things are better than in DTM's own scripts, and a table
/// made by those works as well: MySQL compares by bytes, so that gids differing in letter case
/// only stay apart; `create_time` has a default and an index on PostgreSQL, too.
///
/// # Errors
///
/// The driver's, for example that the user must not create.
pub async fn create_table<D>(db: &D, table: Option<&TableName>) -> Result<(), BoxError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    let mut tx = db.begin().await?;
    for sql in tx.dialect().create_barrier_table(table) {
        tx.execute(&sql, &[]).await?;
    }
    Ok(D::commit(tx).await?)
}

/// Why a purge did not run, or not to its end. Rows deleted before stay deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// The age is below [`PURGE_AGE_MIN`].
    #[error("barrier rows younger than an hour must not be deleted")]
    TooYoung,
    /// The database did not do it.
    #[error("cannot purge")]
    Database(#[source] BoxError),
}

/// Deletes barrier rows that are older than this, by the clock of the database, and returns how
/// many. Deletes at most a million rows; call again while it returns that many.
///
/// # The safe age
///
/// A row may go when no call of its branch can come any more: **the age must be longer than the
/// longest time any global transaction may stay unfinished, plus the time its calls may be
/// delayed.** A row deleted too early lets a repeated call run its business twice, and lets an
/// action that was compensated run after all. As the transaction manager retries without end,
/// look there first (`dtmd tx ls --older-than 24h`, for `submitted` and `aborting`), and take at
/// least 30 days where nobody looks. Rows without `create_time` (written by other SDKs to DTM's
/// own PostgreSQL table) are kept.
///
/// # Errors
///
/// [`PurgeError`].
pub async fn purge<D>(
    db: &D,
    table: Option<&TableName>,
    older_than: Duration,
) -> Result<u64, PurgeError>
where
    D: BarrierDb,
    D::Tx: SqlTx,
{
    if older_than < PURGE_AGE_MIN {
        return Err(PurgeError::TooYoung);
    }
    let seconds = i64::try_from(older_than.as_secs()).unwrap_or(i64::MAX).min(1 << 32);
    let mut deleted = 0;
    for _ in 0..PURGE_STATEMENTS_MAX {
        let mut tx = db.begin().await.map_err(PurgeError::Database)?;
        let sql = tx.dialect().purge_barrier(table);
        let values = [Value::Int(seconds), Value::Int(PURGE_ROWS_MAX)];
        let rows = tx.execute(&sql, &values).await.map_err(PurgeError::Database)?;
        D::commit(tx).await.map_err(|error| PurgeError::Database(error.into()))?;
        deleted += rows;
        if rows == 0 {
            break;
        }
    }
    Ok(deleted)
}

impl Dialect {
    /// The statements that make the barrier table, in order.
    pub fn create_barrier_table(self, table: Option<&TableName>) -> Vec<String> {
        let whole = self.barrier_table(table);
        let (schema, name) = match whole.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, whole),
        };
        let mut statements = Vec::new();
        match self {
            Self::MySql => {
                statements.extend(schema.map(|s| format!("create database if not exists {s}")));
                statements.push(format!(
                    "create table if not exists {whole} (\
                     id bigint auto_increment primary key, {COLUMNS}, \
                     create_time datetime default now(), update_time datetime default now(), \
                     key (create_time), key (update_time), \
                     unique key (gid, branch_id, op, barrier_id)\
                     ) engine = innodb default charset = utf8mb4 collate = utf8mb4_bin"
                ));
            }
            Self::Postgres => {
                statements.extend(schema.map(|s| format!("create schema if not exists {s}")));
                statements.push(format!("create sequence if not exists {whole}_seq"));
                statements.push(format!(
                    "create table if not exists {whole} (\
                     id bigint primary key default nextval('{whole}_seq'), {COLUMNS}, \
                     create_time timestamp(0) with time zone default now(), \
                     update_time timestamp(0) with time zone default now(), \
                     constraint uniq_{name} unique (gid, branch_id, op, barrier_id))"
                ));
                statements.push(format!(
                    "create index if not exists {name}_create_time on {whole} (create_time)"
                ));
            }
            Self::Sqlite => {
                statements.push(format!(
                    "create table if not exists {whole} (\
                     id integer primary key autoincrement, {COLUMNS}, \
                     create_time datetime default current_timestamp, \
                     update_time datetime default current_timestamp, \
                     unique (gid, branch_id, op, barrier_id))"
                ));
                let dot = schema.map(|schema| format!("{schema}.")).unwrap_or_default();
                statements.push(format!(
                    "create index if not exists {dot}{name}_create_time on {name} (create_time)"
                ));
            }
        }
        statements
    }

    fn purge_barrier(self, table: Option<&TableName>) -> String {
        let table = self.barrier_table(table);
        match self {
            Self::MySql => {
                format!("delete from {table} where create_time < now() - interval ? second limit ?")
            }
            Self::Postgres => format!(
                "delete from {table} where id in (select id from {table} \
                 where create_time < now() - make_interval(secs => ?::bigint::double precision) \
                 limit ?)"
            ),
            Self::Sqlite => format!(
                "delete from {table} where id in (select id from {table} \
                 where create_time < datetime('now', '-' || ? || ' seconds') limit ?)"
            ),
        }
    }
}

const COLUMNS: &str = "trans_type varchar(45) default '', gid varchar(128) default '', \
     branch_id varchar(128) default '', op varchar(45) default '', \
     barrier_id varchar(45) default '', reason varchar(45) default ''";
