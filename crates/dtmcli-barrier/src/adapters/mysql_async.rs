//! mysql_async: `Pool` and `Transaction`.

use std::ops::{Deref, DerefMut};

use mysql_async::prelude::Queryable;
use mysql_async::{Pool, Transaction, TxOpts};

use super::codes::{commit_error, mysql_rolled_back};
use crate::db::{BarrierDb, CommitError};
use crate::error::BoxError;
use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};

/// A transaction that the barrier has opened on a pool of mysql_async: use it as that.
///
/// Without a lifetime, unlike [`Transaction`]: the compiler takes an async closure over a type
/// with one for less general than it is as soon as its future has to be `Send`, and the handlers
/// of web frameworks have to.
#[derive(Debug)]
pub struct MySqlTx(Transaction<'static>);

impl Deref for MySqlTx {
    type Target = Transaction<'static>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for MySqlTx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl SqlTx for Transaction<'_> {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
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

impl SqlTx for MySqlTx {
    fn dialect(&self) -> Dialect {
        Dialect::MySql
    }

    async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
        execute(&mut self.0, sql, values).await
    }

    async fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Cell>>, BoxError> {
        query(&mut self.0, sql, values, kinds).await
    }
}

pub(crate) async fn execute<Q: Queryable>(
    connection: &mut Q,
    sql: &str,
    values: &[Value<'_>],
) -> Result<u64, BoxError> {
    let answer = connection.exec_iter(sql, params(values)).await?;
    let rows = answer.affected_rows();
    answer.drop_result().await?;
    Ok(rows)
}

pub(crate) async fn query<Q: Queryable>(
    connection: &mut Q,
    sql: &str,
    values: &[Value<'_>],
    kinds: &[Kind],
) -> Result<Vec<Vec<Cell>>, BoxError> {
    let rows: Vec<mysql_async::Row> = connection.exec(sql, params(values)).await?;
    rows.into_iter()
        .map(|row| {
            let columns = row.unwrap();
            if columns.len() != kinds.len() {
                return Err("an answer has another number of columns than asked for".into());
            }
            columns.into_iter().zip(kinds).map(|(value, kind)| cell(value, *kind)).collect()
        })
        .collect()
}

fn params(values: &[Value<'_>]) -> mysql_async::Params {
    if values.is_empty() {
        return mysql_async::Params::Empty;
    }
    let value = |value: &Value<'_>| match *value {
        Value::NullText => mysql_async::Value::NULL,
        Value::Text(text) => mysql_async::Value::Bytes(text.as_bytes().to_vec()),
        Value::Int(number) => mysql_async::Value::Int(number),
        Value::Bytes(bytes) => mysql_async::Value::Bytes(bytes.to_vec()),
    };
    mysql_async::Params::Positional(values.iter().map(value).collect())
}

fn cell(value: mysql_async::Value, kind: Kind) -> Result<Cell, BoxError> {
    let read = match kind {
        Kind::Text => mysql_async::from_value_opt::<Option<String>>(value)?.map(Cell::Text),
        Kind::Int => mysql_async::from_value_opt::<Option<i64>>(value)?.map(Cell::Int),
        Kind::Bytes => mysql_async::from_value_opt::<Option<Vec<u8>>>(value)?.map(Cell::Bytes),
    };
    Ok(read.unwrap_or(Cell::Null))
}

impl BarrierDb for Pool {
    type Tx = MySqlTx;

    async fn begin(&self) -> Result<Self::Tx, BoxError> {
        Ok(MySqlTx(self.start_transaction(TxOpts::default()).await?))
    }

    async fn commit(tx: Self::Tx) -> Result<(), CommitError> {
        tx.0.commit().await.map_err(|error| {
            let refused = matches!(&error, mysql_async::Error::Server(server)
                if mysql_rolled_back(server.code));
            commit_error(refused, error)
        })
    }

    async fn rollback(tx: Self::Tx) -> Result<(), BoxError> {
        Ok(tx.0.rollback().await?)
    }
}
