//! tokio-postgres: its `Transaction`, and `deadpool_postgres::Pool`, as the driver has no pool.

use std::ops::Deref;

use deadpool_postgres::{Object, Pool};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use super::codes::{commit_error, postgres_rolled_back};
use crate::db::{BarrierDb, CommitError};
use crate::error::BoxError;
use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};

/// A local transaction on a connection of a pool. Use it as a `tokio_postgres::Client`.
///
/// Dropped while it is open, it closes its connection instead of giving it back: the database
/// rolls back, and no later user finds itself inside this transaction.
#[derive(Debug)]
pub struct PgTx {
    client: Option<Object>,
}

impl PgTx {
    pub(crate) async fn begin(pool: &Pool) -> Result<Self, BoxError> {
        // Owned by the guard before the statement is sent, as this future may be dropped in it.
        let tx = Self { client: Some(pool.get().await?) };
        tx.batch_execute("begin").await?;
        Ok(tx)
    }

    /// Ends the transaction with this statement; the connection is only kept if that worked.
    pub(crate) async fn end(mut self, sql: &str) -> Result<(), Error> {
        self.batch_execute(sql).await?;
        // Taken out of the guard, the connection goes back to the pool.
        drop(self.client.take());
        Ok(())
    }
}

impl Deref for PgTx {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("the client is only taken when the transaction is consumed")
    }
}

impl Drop for PgTx {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

impl SqlTx for PgTx {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
        execute(self, sql, values).await
    }

    async fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Cell>>, BoxError> {
        query(self, sql, values, kinds).await
    }
}

impl SqlTx for tokio_postgres::Transaction<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
        execute(self.client(), sql, values).await
    }

    async fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Cell>>, BoxError> {
        query(self.client(), sql, values, kinds).await
    }
}

async fn execute(client: &Client, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
    let sql = Dialect::Postgres.placeholders(sql);
    let values = Params::from(values);
    Ok(client.execute_typed(&sql, &values.typed()).await?)
}

async fn query(
    client: &Client,
    sql: &str,
    values: &[Value<'_>],
    kinds: &[Kind],
) -> Result<Vec<Vec<Cell>>, BoxError> {
    let sql = Dialect::Postgres.placeholders(sql);
    let values = Params::from(values);
    cells(&client.query_typed(&sql, &values.typed()).await?, kinds)
}

/// Parameters with their types, so that a statement is one round trip and needs no cache: it works
/// through a pooler that mixes connections, too.
struct Params(Vec<(Box<dyn ToSql + Sync + Send>, Type)>);

impl From<&[Value<'_>]> for Params {
    fn from(values: &[Value<'_>]) -> Self {
        let typed = values.iter().map(|value| -> (Box<dyn ToSql + Sync + Send>, Type) {
            match *value {
                Value::NullText => (Box::new(None::<String>), Type::TEXT),
                Value::Text(text) => (Box::new(text.to_owned()), Type::TEXT),
                Value::Int(number) => (Box::new(number), Type::INT8),
                Value::Bytes(bytes) => (Box::new(bytes.to_vec()), Type::BYTEA),
            }
        });
        Self(typed.collect())
    }
}

impl Params {
    fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.0
            .iter()
            .map(|(value, r#type)| (&**value as &(dyn ToSql + Sync), r#type.clone()))
            .collect()
    }
}

fn cells(rows: &[Row], kinds: &[Kind]) -> Result<Vec<Vec<Cell>>, BoxError> {
    let cell = |row: &Row, column: usize, kind: Kind| -> Result<Cell, BoxError> {
        let read = match kind {
            Kind::Text => row.try_get::<_, Option<String>>(column)?.map(Cell::Text),
            Kind::Int => row.try_get::<_, Option<i64>>(column)?.map(Cell::Int),
            Kind::Bytes => row.try_get::<_, Option<Vec<u8>>>(column)?.map(Cell::Bytes),
        };
        Ok(read.unwrap_or(Cell::Null))
    };
    rows.iter()
        .map(|row| kinds.iter().enumerate().map(|(at, kind)| cell(row, at, *kind)).collect())
        .collect()
}

impl BarrierDb for Pool {
    type Tx = PgTx;

    async fn begin(&self) -> Result<PgTx, BoxError> {
        PgTx::begin(self).await
    }

    async fn commit(tx: PgTx) -> Result<(), CommitError> {
        // A transaction that the database has aborted answers a commit with "ROLLBACK" and no
        // error; the query in front makes it one, in the same round trip.
        tx.end("select 1; commit").await.map_err(|error| {
            let refused = error.code().is_some_and(|code| postgres_rolled_back(code.code()));
            commit_error(refused, error)
        })
    }

    async fn rollback(tx: PgTx) -> Result<(), BoxError> {
        Ok(tx.end("rollback").await?)
    }
}
