//! MySQL and MariaDB: `xa start` to `xa commit`, through mysql_async or sqlx.
//!
//! XA statements go by the text protocol: MySQL cannot prepare them (in the other sense).

use super::{Decision, Xid};

/// MySQL's `XAER_NOTA`: no such xid, or one that is held by another connection.
const XAER_NOTA: u16 = 1397;

fn start(xid: &Xid) -> String {
    format!("xa start '{xid}'")
}

fn end(xid: &Xid) -> String {
    format!("xa end '{xid}'")
}

fn prepare(xid: &Xid) -> String {
    format!("xa prepare '{xid}'")
}

fn rollback(xid: &Xid) -> String {
    format!("xa rollback '{xid}'")
}

fn decide(xid: &Xid, decision: Decision) -> String {
    match decision {
        Decision::Commit => format!("xa commit '{xid}'"),
        Decision::Rollback => rollback(xid),
    }
}

/// Of `xa recover`: format, length of the global part, length of the branch part, both parts.
const RECOVER: &str = "xa recover";
const RECOVER_DATA: usize = 3;

#[cfg(feature = "mysql-async")]
pub(super) mod pooled {
    use std::ops::{Deref, DerefMut};

    use mysql_async::prelude::Queryable as _;
    use mysql_async::{Conn, Error, Pool};

    use super::{Decision, Xid};
    use crate::adapters::mysql_async::{execute, query};
    use crate::error::BoxError;
    use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};
    use crate::xa::XaDb;

    /// A pinned connection inside an open XA branch. Use it as a `mysql_async::Conn`.
    #[derive(Debug)]
    pub struct MySqlXa(Option<Conn>);

    impl MySqlXa {
        /// Closes the connection and waits for it: a prepared branch belongs to it till then.
        async fn close(mut self) -> Result<(), Error> {
            match self.0.take() {
                Some(conn) => conn.disconnect().await,
                None => Ok(()),
            }
        }
    }

    impl Deref for MySqlXa {
        type Target = Conn;

        fn deref(&self) -> &Conn {
            self.0.as_ref().expect("the connection is only taken when the session is consumed")
        }
    }

    impl DerefMut for MySqlXa {
        fn deref_mut(&mut self) -> &mut Conn {
            self.0.as_mut().expect("the connection is only taken when the session is consumed")
        }
    }

    impl Drop for MySqlXa {
        fn drop(&mut self) {
            let Some(conn) = self.0.take() else { return };
            // The pool must not get a connection that is inside a branch. Without a runtime there
            // is no pool that could use it either.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(conn.disconnect());
            }
        }
    }

    impl SqlTx for MySqlXa {
        fn dialect(&self) -> Dialect {
            Dialect::MySql
        }

        async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
            execute(&mut **self, sql, values).await
        }

        async fn query(
            &mut self,
            sql: &str,
            values: &[Value<'_>],
            kinds: &[Kind],
        ) -> Result<Vec<Vec<Cell>>, BoxError> {
            query(&mut **self, sql, values, kinds).await
        }
    }

    impl XaDb for Pool {
        type Session = MySqlXa;

        async fn xa_start(&self, xid: &Xid) -> Result<MySqlXa, BoxError> {
            let mut session = MySqlXa(Some(self.get_conn().await?));
            session.query_drop(super::start(xid)).await?;
            Ok(session)
        }

        async fn xa_prepare(mut session: MySqlXa, xid: &Xid) -> Result<(), BoxError> {
            session.query_drop(super::end(xid)).await?;
            session.query_drop(super::prepare(xid)).await?;
            Ok(session.close().await?)
        }

        async fn xa_abort(mut session: MySqlXa, xid: &Xid) -> Result<(), BoxError> {
            session.query_drop(super::end(xid)).await?;
            session.query_drop(super::rollback(xid)).await?;
            Ok(session.close().await?)
        }

        async fn xa_decide(&self, xid: &Xid, decision: Decision) -> Result<bool, BoxError> {
            let mut conn = self.get_conn().await?;
            match conn.query_drop(super::decide(xid, decision)).await {
                Ok(()) => Ok(true),
                Err(Error::Server(error)) if error.code == super::XAER_NOTA => Ok(false),
                Err(error) => Err(error.into()),
            }
        }

        async fn xa_recover(&self) -> Result<Vec<String>, BoxError> {
            let mut conn = self.get_conn().await?;
            let rows: Vec<mysql_async::Row> = conn.query(super::RECOVER).await?;
            let data = rows.iter().filter_map(|row| row.get::<Vec<u8>, _>(super::RECOVER_DATA));
            // An xid that is not UTF-8 is not ours.
            Ok(data.filter_map(|bytes| String::from_utf8(bytes).ok()).collect())
        }
    }
}

#[cfg(feature = "sqlx-mysql")]
pub(super) mod sqlx {
    use std::ops::{Deref, DerefMut};

    use sqlx::mysql::MySqlDatabaseError;
    use sqlx::pool::PoolConnection;
    use sqlx::{AssertSqlSafe, Connection as _, MySql, MySqlConnection, Row as _};

    use super::{Decision, Xid};
    use crate::adapters::sqlx::{mysql_execute, mysql_query};
    use crate::error::BoxError;
    use crate::sql::{Cell, Dialect, Kind, SqlTx, Value};
    use crate::xa::XaDb;

    /// A pinned connection inside an open XA branch. Use it as a `sqlx::MySqlConnection`.
    #[derive(Debug)]
    pub struct SqlxMySqlXa(Option<PoolConnection<MySql>>);

    impl SqlxMySqlXa {
        async fn text(&mut self, sql: String) -> Result<(), sqlx::Error> {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **self).await.map(|_| ())
        }

        /// Closes the connection and waits for it: a prepared branch belongs to it till then.
        async fn close(mut self) -> Result<(), sqlx::Error> {
            match self.0.take() {
                Some(conn) => conn.detach().close().await,
                None => Ok(()),
            }
        }
    }

    impl Deref for SqlxMySqlXa {
        type Target = MySqlConnection;

        fn deref(&self) -> &MySqlConnection {
            self.0.as_ref().expect("the connection is only taken when the session is consumed")
        }
    }

    impl DerefMut for SqlxMySqlXa {
        fn deref_mut(&mut self) -> &mut MySqlConnection {
            self.0.as_mut().expect("the connection is only taken when the session is consumed")
        }
    }

    impl Drop for SqlxMySqlXa {
        fn drop(&mut self) {
            if let Some(conn) = self.0.take() {
                // Out of the pool; the socket is closed, and the database rolls back.
                drop(conn.detach());
            }
        }
    }

    impl SqlTx for SqlxMySqlXa {
        fn dialect(&self) -> Dialect {
            Dialect::MySql
        }

        async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, BoxError> {
            mysql_execute(self, sql, values).await
        }

        async fn query(
            &mut self,
            sql: &str,
            values: &[Value<'_>],
            kinds: &[Kind],
        ) -> Result<Vec<Vec<Cell>>, BoxError> {
            mysql_query(self, sql, values, kinds).await
        }
    }

    impl XaDb for sqlx::MySqlPool {
        type Session = SqlxMySqlXa;

        async fn xa_start(&self, xid: &Xid) -> Result<SqlxMySqlXa, BoxError> {
            let mut session = SqlxMySqlXa(Some(self.acquire().await?));
            session.text(super::start(xid)).await?;
            Ok(session)
        }

        async fn xa_prepare(mut session: SqlxMySqlXa, xid: &Xid) -> Result<(), BoxError> {
            session.text(super::end(xid)).await?;
            session.text(super::prepare(xid)).await?;
            Ok(session.close().await?)
        }

        async fn xa_abort(mut session: SqlxMySqlXa, xid: &Xid) -> Result<(), BoxError> {
            session.text(super::end(xid)).await?;
            session.text(super::rollback(xid)).await?;
            Ok(session.close().await?)
        }

        async fn xa_decide(&self, xid: &Xid, decision: Decision) -> Result<bool, BoxError> {
            let sql = AssertSqlSafe(super::decide(xid, decision));
            let Err(error) = sqlx::raw_sql(sql).execute(self).await else { return Ok(true) };
            let code = error
                .as_database_error()
                .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
                .map(MySqlDatabaseError::number);
            if code == Some(super::XAER_NOTA) { Ok(false) } else { Err(error.into()) }
        }

        async fn xa_recover(&self) -> Result<Vec<String>, BoxError> {
            let rows = sqlx::raw_sql(super::RECOVER).fetch_all(self).await?;
            let mut xids = Vec::with_capacity(rows.len());
            for row in rows {
                let data: Vec<u8> = row.try_get_unchecked(super::RECOVER_DATA)?;
                // An xid that is not UTF-8 is not ours.
                xids.extend(String::from_utf8(data));
            }
            Ok(xids)
        }
    }
}
