//! PostgreSQL: `prepare transaction`, through tokio-postgres and deadpool.

use deadpool_postgres::Pool;
use tokio_postgres::error::SqlState;

use super::{Decision, XaDb, Xid};
use crate::adapters::postgres::PgTx;
use crate::error::BoxError;

impl XaDb for Pool {
    type Session = PgTx;

    async fn xa_start(&self, _xid: &Xid) -> Result<PgTx, BoxError> {
        PgTx::begin(self).await
    }

    async fn xa_prepare(session: PgTx, xid: &Xid) -> Result<(), BoxError> {
        // In an aborted transaction "prepare" rolls back and reports no error; the query does.
        session.batch_execute("select 1").await?;
        Ok(session.end(&format!("prepare transaction '{xid}'")).await?)
    }

    async fn xa_abort(session: PgTx, _xid: &Xid) -> Result<(), BoxError> {
        Ok(session.end("rollback").await?)
    }

    async fn xa_decide(&self, xid: &Xid, decision: Decision) -> Result<bool, BoxError> {
        let verb = match decision {
            Decision::Commit => "commit",
            Decision::Rollback => "rollback",
        };
        let client = self.get().await?;
        match client.batch_execute(&format!("{verb} prepared '{xid}'")).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn xa_recover(&self) -> Result<Vec<String>, BoxError> {
        let client = self.get().await?;
        // Only those of this database can be finished through this pool.
        let sql = "select gid from pg_prepared_xacts where database = current_database()";
        let rows = client.query_typed(sql, &[]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
