//! Databases to test on, and a plain client beside the store.

use std::sync::Arc;

use dtmd_local_servers::shared::{mariadb_database, postgres_database};
use dtmd_protocol::Global;
use dtmd_store::conformance::sample::gid;
use dtmd_store::{Store, Write, WriteError};
use dtmd_store_sql::{SqlOptions, SqlStore};
use mysql_async::prelude::Queryable as _;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Mariadb,
    Postgres,
}

pub(crate) const BOTH: [Kind; 2] = [Kind::Mariadb, Kind::Postgres];

impl Kind {
    /// The URL of a new, empty database.
    pub(crate) async fn url(self) -> String {
        match self {
            Self::Mariadb => mariadb_database().await.unwrap(),
            Self::Postgres => postgres_database().await.unwrap(),
        }
    }

    pub(crate) async fn fresh(self) -> SqlStore {
        open(&self.url().await).await
    }
}

pub(crate) fn options(url: &str) -> SqlOptions {
    SqlOptions::from_url(url).unwrap()
}

pub(crate) async fn open(url: &str) -> SqlStore {
    SqlStore::open(options(url)).await.unwrap()
}

/// Runs a test on a runtime, on both databases.
pub(crate) fn on_both<F: Future<Output = ()>>(test: impl Fn(Kind) -> F) {
    for kind in BOTH {
        run(test(kind));
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// A client that knows nothing of the store: an operator, or a DTM server.
pub(crate) enum Plain {
    Mysql(mysql_async::Conn),
    Postgres(tokio_postgres::Client),
}

impl Plain {
    pub(crate) async fn connect(url: &str) -> Self {
        if url.starts_with("mysql") {
            let mut conn = mysql_async::Conn::from_url(url).await.unwrap();
            conn.query_drop("set time_zone='+00:00'").await.unwrap();
            return Self::Mysql(conn);
        }
        let (client, driver) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(driver);
        client.batch_execute("set time zone 'UTC'").await.unwrap();
        Self::Postgres(client)
    }

    /// Runs statements; returns the columns of the last row, null as `-`.
    pub(crate) async fn try_run(&mut self, statements: &str) -> Result<Vec<String>, String> {
        let mut last = Vec::new();
        match self {
            Self::Mysql(conn) => {
                let mut answer = conn.query_iter(statements).await.map_err(|e| e.to_string())?;
                while !answer.is_empty() {
                    let rows: Vec<mysql_async::Row> =
                        answer.collect().await.map_err(|e| e.to_string())?;
                    for row in rows {
                        let cells = row.unwrap().into_iter();
                        last =
                            cells.map(|v| v.as_sql(true).trim_matches('\'').to_owned()).collect();
                    }
                }
                answer.drop_result().await.map_err(|e| e.to_string())?;
            }
            Self::Postgres(client) => {
                let messages = client.simple_query(statements).await.map_err(|e| e.to_string())?;
                for message in messages {
                    if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
                        let cell = |at| row.get(at).unwrap_or("NULL").to_owned();
                        last = (0..row.len()).map(cell).collect();
                    }
                }
            }
        }
        Ok(last)
    }

    pub(crate) async fn run(&mut self, statements: &str) -> Vec<String> {
        match self.try_run(statements).await {
            Ok(row) => row,
            Err(error) => panic!("{error} in {statements}"),
        }
    }
}

pub(crate) async fn commit(store: &SqlStore, write: Write) -> Result<(), WriteError> {
    store.commit(&[write]).await.unwrap().remove(0)
}

pub(crate) fn create(global: &Global) -> Write {
    Write::Create(Arc::new(global.clone()))
}

pub(crate) fn change(before: &Global, after: &Global) -> Write {
    Write::Update { before: Arc::new(before.clone()), after: Arc::new(after.clone()) }
}

pub(crate) async fn load(store: &SqlStore, text: &str) -> Option<Global> {
    store.load(&gid(text)).await.unwrap().map(|global| Global::clone(&global))
}
