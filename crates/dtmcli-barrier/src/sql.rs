//! Databases that speak SQL: the statements of the barrier, and what an adapter has to do.
//!
//! An adapter implements [`SqlTx`] for its driver's transaction and [`BarrierDb`] for its pool;
//! the barrier and the local message table follow from that.

mod barrier_table;

use std::borrow::Cow;

pub use barrier_table::{PURGE_AGE_MIN, PurgeError, create_table, purge};

use crate::db::{BarrierRow, BarrierTx};
use crate::error::BoxError;
use crate::table::TableName;

#[cfg(doc)]
use crate::db::BarrierDb;

/// How a database spells its SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// MySQL, MariaDB and what speaks like them.
    MySql,
    /// PostgreSQL and what speaks like it.
    Postgres,
    /// SQLite, 3.24 or later.
    Sqlite,
}

/// A parameter of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A text that is not there.
    NullText,
    /// A text.
    Text(&'a str),
    /// A number of a `bigint` column.
    Int(i64),
    /// Bytes of a binary column.
    Bytes(&'a [u8]),
}

/// What a column of an answer is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Cell::Text`] or [`Cell::Null`].
    Text,
    /// [`Cell::Int`] or [`Cell::Null`], of a `bigint`.
    Int,
    /// [`Cell::Bytes`] or [`Cell::Null`].
    Bytes,
}

/// One value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// SQL's null.
    Null,
    /// A text.
    Text(String),
    /// A number.
    Int(i64),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl Cell {
    /// The text, if it is one.
    pub fn into_text(self) -> Option<String> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one.
    pub fn int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The bytes, if these are some.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// An open local transaction that runs SQL. Statements have `?` for parameters in every dialect.
pub trait SqlTx: Send {
    /// How this database spells its SQL.
    fn dialect(&self) -> Dialect;

    /// Runs one statement and returns how many rows it wrote.
    ///
    /// # Errors
    ///
    /// The driver's.
    fn execute(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, BoxError>> + Send;

    /// Runs one query; `kinds` says how to read each column. For small answers: all is held.
    ///
    /// # Errors
    ///
    /// The driver's, or a column that cannot be read so.
    fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> impl Future<Output = Result<Vec<Vec<Cell>>, BoxError>> + Send;
}

impl<X: SqlTx> BarrierTx for X {
    async fn insert(
        &mut self,
        table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<bool, BoxError> {
        let sql = self.dialect().insert_barrier(table);
        let values = [row.trans_type, row.gid, row.branch_id, row.op, row.barrier_id, row.reason];
        Ok(self.execute(&sql, &values.map(Value::Text)).await? > 0)
    }

    async fn reason(
        &mut self,
        table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<Option<String>, BoxError> {
        let sql = self.dialect().select_reason(table, true);
        let values = [row.gid, row.branch_id, row.op, row.barrier_id].map(Value::Text);
        let rows = self.query(&sql, &values, &[Kind::Text]).await?;
        Ok(rows.into_iter().flatten().next().and_then(Cell::into_text))
    }
}

impl Dialect {
    /// The barrier table used unless a branch names another.
    pub fn default_barrier_table(self) -> &'static str {
        match self {
            Self::MySql | Self::Postgres => "dtm_barrier.barrier",
            // SQLite has no schemas; the name says whose table it is.
            Self::Sqlite => "dtm_barrier",
        }
    }

    pub(crate) fn barrier_table(self, table: Option<&TableName>) -> &str {
        table.map_or(self.default_barrier_table(), TableName::as_str)
    }

    /// The insert that ignores a key that is there, and answers 0 rows then.
    ///
    /// `create_time` is given, because DTM's PostgreSQL table has no default for it and rows
    /// without a time can never be purged.
    pub fn insert_barrier(self, table: Option<&TableName>) -> String {
        let (insert, now, on_conflict) = match self {
            // Never `on duplicate key update`: what it counts as written depends on the driver.
            Self::MySql => ("insert ignore into", "now()", ""),
            Self::Postgres | Self::Sqlite => (
                "insert into",
                "current_timestamp",
                " on conflict (gid, branch_id, op, barrier_id) do nothing",
            ),
        };
        let table = self.barrier_table(table);
        format!(
            "{insert} {table} (trans_type, gid, branch_id, op, barrier_id, reason, create_time, \
             update_time) values (?, ?, ?, ?, ?, ?, {now}, {now}){on_conflict}"
        )
    }

    /// The read of a row's reason. `fresh` makes it a locking read on MySQL, where a plain one may
    /// see a snapshot that is older than the row which an insert has just collided with.
    pub fn select_reason(self, table: Option<&TableName>, fresh: bool) -> String {
        let lock = match self {
            Self::MySql if fresh => " lock in share mode",
            Self::MySql | Self::Postgres | Self::Sqlite => "",
        };
        let table = self.barrier_table(table);
        format!(
            "select reason from {table} where gid = ? and branch_id = ? and op = ? \
             and barrier_id = ?{lock}"
        )
    }

    /// Now in milliseconds since 1970, by the clock of the database.
    #[cfg(feature = "outbox")]
    pub(crate) fn now_ms(self) -> &'static str {
        match self {
            Self::MySql => "cast(unix_timestamp(now(3)) * 1000 as signed)",
            Self::Postgres => "cast(extract(epoch from statement_timestamp()) * 1000 as bigint)",
            Self::Sqlite => "cast((julianday('now') - 2440587.5) * 86400000 as integer)",
        }
    }

    /// The statement with this dialect's marks for parameters: `?`, or `$1`, `$2`, ….
    ///
    /// Only for statements of this crate: a `?` in a quoted text would be taken for a mark.
    pub fn placeholders(self, sql: &str) -> Cow<'_, str> {
        match self {
            Self::MySql | Self::Sqlite => Cow::Borrowed(sql),
            Self::Postgres => {
                let mut numbered = String::with_capacity(sql.len() + 16);
                for (number, part) in sql.split('?').enumerate() {
                    if number > 0 {
                        numbered.push('$');
                        numbered.push_str(&number.to_string());
                    }
                    numbered.push_str(part);
                }
                Cow::Owned(numbered)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_numbered_for_postgres_only() {
        let sql = "update t set a = ? where b = ?";
        assert_eq!(Dialect::Postgres.placeholders(sql), "update t set a = $1 where b = $2");
        assert_eq!(Dialect::MySql.placeholders(sql), sql);
        assert_eq!(Dialect::Postgres.placeholders("select 1"), "select 1");
    }
}
