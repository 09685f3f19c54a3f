//! SeaORM 2: `DatabaseConnection` and `DatabaseTransaction`.
//!
//! Chosen before diesel-async because it stands on the same sqlx 0.9, so that it shares pools,
//! drivers and their faults with the adapter beside it, and because more services use it.

use sea_orm::{
    ConnectionTrait as _, DatabaseBackend, DatabaseConnection, DatabaseTransaction, Statement,
};

use crate::db::{BarrierDb, CommitError};
use crate::error::BoxError;
use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};

impl SqlTx for DatabaseTransaction {
    fn dialect(&self) -> Dialect {
        match self.get_database_backend() {
            DatabaseBackend::MySql => Dialect::MySql,
            DatabaseBackend::Postgres => Dialect::Postgres,
            _ => Dialect::Sqlite,
        }
    }

    async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
        Ok(self.execute_raw(statement(self, sql, values)).await?.rows_affected())
    }

    async fn query(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        kinds: &[Kind],
    ) -> Result<Vec<Vec<Cell>>, BoxError> {
        let rows = self.query_all_raw(statement(self, sql, values)).await?;
        let mut cells = Vec::with_capacity(rows.len());
        for row in rows {
            let mut line = Vec::with_capacity(kinds.len());
            for (column, kind) in kinds.iter().enumerate() {
                let cell = match kind {
                    Kind::Text => row.try_get_by::<Option<String>, _>(column)?.map(Cell::Text),
                    Kind::Int => row.try_get_by::<Option<i64>, _>(column)?.map(Cell::Int),
                    Kind::Bytes => row.try_get_by::<Option<Vec<u8>>, _>(column)?.map(Cell::Bytes),
                };
                line.push(cell.unwrap_or(Cell::Null));
            }
            cells.push(line);
        }
        Ok(cells)
    }
}

fn statement(tx: &DatabaseTransaction, sql: &str, values: &[Value<'_>]) -> Statement {
    let sql = tx.dialect().placeholders(sql).into_owned();
    let values = values.iter().map(|value| match *value {
        Value::NullText => sea_orm::Value::from(None::<String>),
        Value::Text(text) => sea_orm::Value::from(text),
        Value::Int(number) => sea_orm::Value::from(number),
        Value::Bytes(bytes) => sea_orm::Value::from(bytes.to_vec()),
    });
    Statement::from_sql_and_values(tx.get_database_backend(), sql, values)
}

impl BarrierDb for DatabaseConnection {
    type Tx = DatabaseTransaction;

    async fn begin(&self) -> Result<DatabaseTransaction, BoxError> {
        Ok(sea_orm::TransactionTrait::begin(self).await?)
    }

    async fn commit(tx: DatabaseTransaction) -> Result<(), CommitError> {
        if tx.get_database_backend() == DatabaseBackend::Postgres {
            // PostgreSQL answers the commit of a transaction it has aborted without an error.
            tx.execute_unprepared("select 1")
                .await
                .map_err(|error| CommitError::RolledBack(error.into()))?;
        }
        // SeaORM wraps the database's code; an error that cannot be told is an unknown outcome.
        tx.commit().await.map_err(|error| CommitError::Unknown(error.into()))
    }

    async fn rollback(tx: DatabaseTransaction) -> Result<(), BoxError> {
        Ok(tx.rollback().await?)
    }
}
