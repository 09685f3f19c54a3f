//! PostgreSQL: `prepare transaction`, through tokio-postgres and deadpool, or sqlx.

use super::{Decision, Xid};

/// In an aborted transaction "prepare" rolls back and reports no error; this query does.
const IS_ALIVE: &str = "select 1";
/// Only those of this database can be finished through its pool.
const RECOVER: &str = "select gid from pg_prepared_xacts where database = current_database()";

fn prepare(xid: &Xid) -> String {
    format!("prepare transaction '{xid}'")
}

fn decide(xid: &Xid, decision: Decision) -> String {
    match decision {
        Decision::Commit => format!("commit prepared '{xid}'"),
        Decision::Rollback => format!("rollback prepared '{xid}'"),
    }
}

#[cfg(feature = "tokio-postgres")]
mod pooled {
    use deadpool_postgres::Pool;
    use tokio_postgres::error::SqlState;

    use super::{Decision, Xid};
    use crate::adapters::postgres::PgTx;
    use crate::error::BoxError;
    use crate::xa::XaDb;

    impl XaDb for Pool {
        type Session = PgTx;

        async fn xa_start(&self, _xid: &Xid) -> Result<PgTx, BoxError> {
            PgTx::begin(self).await
        }

        async fn xa_prepare(session: PgTx, xid: &Xid) -> Result<(), BoxError> {
            session.batch_execute(super::IS_ALIVE).await?;
            Ok(session.end(&super::prepare(xid)).await?)
        }

        async fn xa_abort(session: PgTx, _xid: &Xid) -> Result<(), BoxError> {
            Ok(session.end("rollback").await?)
        }

        async fn xa_decide(&self, xid: &Xid, decision: Decision) -> Result<bool, BoxError> {
            let client = self.get().await?;
            match client.batch_execute(&super::decide(xid, decision)).await {
                Ok(()) => Ok(true),
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        async fn xa_recover(&self) -> Result<Vec<String>, BoxError> {
            let client = self.get().await?;
            let rows = client.query_typed(super::RECOVER, &[]).await?;
            rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
        }
    }
}

#[cfg(feature = "sqlx-postgres")]
mod sqlx {
    use sqlx::{AssertSqlSafe, PgPool, Postgres};

    use super::{Decision, Xid};
    use crate::adapters::sqlx::SqlxTx;
    use crate::error::BoxError;
    use crate::xa::XaDb;

    /// `undefined_object`: no prepared transaction has this name.
    const UNDEFINED_OBJECT: &str = "42704";

    impl XaDb for PgPool {
        /// sqlx's own, so that a business which begins a transaction within gets a savepoint.
        type Session = SqlxTx<Postgres>;

        async fn xa_start(&self, _xid: &Xid) -> Result<Self::Session, BoxError> {
            Ok(SqlxTx(self.begin().await?))
        }

        async fn xa_prepare(mut session: Self::Session, xid: &Xid) -> Result<(), BoxError> {
            sqlx::raw_sql(super::IS_ALIVE).execute(&mut *session).await?;
            sqlx::raw_sql(AssertSqlSafe(super::prepare(xid))).execute(&mut *session).await?;
            // The work has left this connection. What is rolled back is nothing; sqlx learns from
            // it that the connection is free.
            Ok(session.0.rollback().await?)
        }

        async fn xa_abort(session: Self::Session, _xid: &Xid) -> Result<(), BoxError> {
            Ok(session.0.rollback().await?)
        }

        async fn xa_decide(&self, xid: &Xid, decision: Decision) -> Result<bool, BoxError> {
            let sql = AssertSqlSafe(super::decide(xid, decision));
            let Err(error) = sqlx::raw_sql(sql).execute(self).await else { return Ok(true) };
            let code = error.as_database_error().and_then(|error| error.code());
            if code.as_deref() == Some(UNDEFINED_OBJECT) { Ok(false) } else { Err(error.into()) }
        }

        async fn xa_recover(&self) -> Result<Vec<String>, BoxError> {
            Ok(sqlx::query_scalar(super::RECOVER).fetch_all(self).await?)
        }
    }
}
