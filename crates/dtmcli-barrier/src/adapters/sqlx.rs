//! sqlx 0.9: `sqlx::Pool` and `sqlx::Transaction` of MySQL, PostgreSQL and SQLite.

use std::ops::{Deref, DerefMut};

use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Database, Row as _};

use super::codes::commit_error;
use crate::db::{BarrierDb, CommitError};
use crate::error::BoxError;
use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};

/// A transaction that the barrier or an XA branch has opened on a pool of sqlx: use it as its
/// connection, `query.execute(&mut **tx)`. Begun on it, a transaction of sqlx is a savepoint.
///
/// Without a lifetime, unlike [`sqlx::Transaction`]: the compiler takes an async closure over a
/// type with one for less general than it is as soon as its future has to be `Send`, and the
/// handlers of web frameworks have to.
#[derive(Debug)]
pub struct SqlxTx<D: Database>(pub(crate) sqlx::Transaction<'static, D>);

impl<D: Database> Deref for SqlxTx<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        &self.0
    }
}

impl<D: Database> DerefMut for SqlxTx<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        &mut self.0
    }
}

macro_rules! adapter {
    (
        $database:ty, $connection:ty, $dialect:expr, $check:expr, $rolled_back:expr,
        $bound:ident, $execute:ident, $query:ident
    ) => {
        fn $bound<'q>(
            sql: &str,
            values: &[Value<'_>],
        ) -> sqlx::query::Query<'q, $database, <$database as sqlx::Database>::Arguments> {
            let sql = $dialect.placeholders(sql).into_owned();
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for value in values {
                query = match *value {
                    Value::NullText => query.bind(None::<String>),
                    Value::Text(text) => query.bind(text.to_owned()),
                    Value::Int(number) => query.bind(number),
                    Value::Bytes(bytes) => query.bind(bytes.to_vec()),
                };
            }
            query
        }

        pub(crate) async fn $execute(
            connection: &mut $connection,
            sql: &str,
            values: &[Value<'_>],
        ) -> Result<u64, BoxError> {
            Ok($bound(sql, values).execute(connection).await?.rows_affected())
        }

        pub(crate) async fn $query(
            connection: &mut $connection,
            sql: &str,
            values: &[Value<'_>],
            kinds: &[Kind],
        ) -> Result<Vec<Vec<Cell>>, BoxError> {
            let rows = $bound(sql, values).fetch_all(connection).await?;
            let mut cells = Vec::with_capacity(rows.len());
            for row in rows {
                let mut line = Vec::with_capacity(kinds.len());
                for (column, kind) in kinds.iter().enumerate() {
                    let cell = match kind {
                        Kind::Text => row.try_get::<Option<String>, _>(column)?.map(Cell::Text),
                        Kind::Int => row.try_get::<Option<i64>, _>(column)?.map(Cell::Int),
                        Kind::Bytes => row.try_get::<Option<Vec<u8>>, _>(column)?.map(Cell::Bytes),
                    };
                    line.push(cell.unwrap_or(Cell::Null));
                }
                cells.push(line);
            }
            Ok(cells)
        }

        impl SqlTx for sqlx::Transaction<'_, $database> {
            fn dialect(&self) -> Dialect {
                $dialect
            }

            async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
                $execute(self, sql, values).await
            }

            async fn query(
                &mut self,
                sql: &str,
                values: &[Value<'_>],
                kinds: &[Kind],
            ) -> Result<Vec<Vec<Cell>>, BoxError> {
                $query(self, sql, values, kinds).await
            }
        }

        impl SqlTx for SqlxTx<$database> {
            fn dialect(&self) -> Dialect {
                $dialect
            }

            async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
                $execute(self, sql, values).await
            }

            async fn query(
                &mut self,
                sql: &str,
                values: &[Value<'_>],
                kinds: &[Kind],
            ) -> Result<Vec<Vec<Cell>>, BoxError> {
                $query(self, sql, values, kinds).await
            }
        }

        impl BarrierDb for sqlx::Pool<$database> {
            type Tx = SqlxTx<$database>;

            async fn begin(&self) -> Result<Self::Tx, BoxError> {
                Ok(SqlxTx(sqlx::Pool::begin(self).await?))
            }

            async fn commit(mut tx: Self::Tx) -> Result<(), CommitError> {
                if let Some(check) = $check {
                    sqlx::query(check)
                        .execute(&mut *tx)
                        .await
                        .map_err(|error| CommitError::RolledBack(error.into()))?;
                }
                tx.0.commit().await.map_err(|error| {
                    let refused = error.as_database_error().is_some_and($rolled_back);
                    commit_error(refused, error)
                })
            }

            async fn rollback(tx: Self::Tx) -> Result<(), BoxError> {
                Ok(tx.0.rollback().await?)
            }
        }
    };
}

/// PostgreSQL answers a commit of a transaction that it has aborted with "ROLLBACK" and no error.
/// A query before it turns that into one, should the business have swallowed its own error.
#[cfg(feature = "sqlx-postgres")]
const ALIVE: Option<&str> = Some("select 1");
#[cfg(any(feature = "sqlx-mysql", feature = "sqlx-sqlite"))]
const NO_CHECK: Option<&str> = None;

#[cfg(feature = "sqlx-mysql")]
fn mysql_refused(error: &dyn DatabaseError) -> bool {
    error
        .try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
        .is_some_and(|error| super::codes::mysql_rolled_back(error.number()))
}

#[cfg(feature = "sqlx-postgres")]
fn postgres_refused(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| super::codes::postgres_rolled_back(&code))
}

/// SQLite is in this process: a commit that was answered with "busy" (5) did not happen.
#[cfg(feature = "sqlx-sqlite")]
fn sqlite_refused(error: &dyn DatabaseError) -> bool {
    error.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 5)
}

#[cfg(feature = "sqlx-mysql")]
adapter!(
    sqlx::MySql,
    sqlx::MySqlConnection,
    Dialect::MySql,
    NO_CHECK,
    mysql_refused,
    mysql_bound,
    mysql_execute,
    mysql_query
);
#[cfg(feature = "sqlx-postgres")]
adapter!(
    sqlx::Postgres,
    sqlx::PgConnection,
    Dialect::Postgres,
    ALIVE,
    postgres_refused,
    postgres_bound,
    postgres_execute,
    postgres_query
);
#[cfg(feature = "sqlx-sqlite")]
adapter!(
    sqlx::Sqlite,
    sqlx::SqliteConnection,
    Dialect::Sqlite,
    NO_CHECK,
    sqlite_refused,
    sqlite_bound,
    sqlite_execute,
    sqlite_query
);
