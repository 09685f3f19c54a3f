//! A database of its own for each test, through any adapter, and ways to hurt it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dtmcli_barrier::{
    BarrierDb, Branch, BranchResult, Dialect, Kind, Op, SqlTx, TransType, Value, create_table,
};
use dtmd_local_servers::shared;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A pool that tests can share between tasks.
pub(crate) trait Db: BarrierDb<Tx: SqlTx> + Clone + Send + Sync + 'static {}

impl<D: BarrierDb<Tx: SqlTx> + Clone + Send + Sync + 'static> Db for D {}

/// A database with a barrier table and a ledger of what the business did.
pub(crate) struct Fixture<D> {
    pub(crate) db: D,
    pub(crate) url: String,
    pub(crate) gid: String,
    /// Keeps a SQLite file.
    pub(crate) _directory: Option<Arc<tempfile::TempDir>>,
}

impl<D: Db> Fixture<D> {
    pub(crate) async fn new(db: D, url: String, directory: Option<tempfile::TempDir>) -> Self {
        create_table(&db, None).await.unwrap();
        // Making it again must change nothing.
        create_table(&db, None).await.unwrap();
        let directory = directory.map(Arc::new);
        let fixture = Self { db, url, gid: fresh_gid(), _directory: directory };
        fixture.execute("create table ledger (gid varchar(64), op varchar(64))").await;
        fixture
    }

    pub(crate) fn branch(&self, op: Op) -> Branch {
        Branch::new(TransType::Saga, &self.gid, "01", op).unwrap()
    }

    pub(crate) async fn execute(&self, sql: &str) -> u64 {
        let mut tx = self.db.begin().await.unwrap();
        let rows = tx.execute(sql, &[]).await.unwrap();
        D::commit(tx).await.unwrap();
        rows
    }

    /// The ops the business did for this gid, sorted.
    pub(crate) async fn ledger(&self, gid: &str) -> Vec<String> {
        let mut tx = self.db.begin().await.unwrap();
        let sql = "select op from ledger where gid = ? order by op";
        let rows = tx.query(sql, &[Value::Text(gid)], &[Kind::Text]).await.unwrap();
        D::commit(tx).await.unwrap();
        rows.into_iter().flatten().filter_map(dtmcli_barrier::Cell::into_text).collect()
    }
}

pub(crate) fn fresh_gid() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Between two looks at something that is about to happen.
pub(crate) async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
}

/// The business: writes down that it ran.
pub(crate) async fn book<X: SqlTx>(tx: &mut X, branch: &Branch) -> BranchResult {
    let values = [Value::Text(branch.gid()), Value::Text(branch.op().as_str())];
    tx.execute("insert into ledger (gid, op) values (?, ?)", &values)
        .await
        .map_err(dtmcli_barrier::BranchError::retry)?;
    Ok(())
}

/// Ends the connection of `tx` from the server's side; not possible in SQLite.
pub(crate) async fn kill<D: Db>(db: &D, tx: &mut D::Tx) {
    let (id, end) = match tx.dialect() {
        Dialect::MySql => ("select cast(connection_id() as signed)", "kill "),
        _ => ("select cast(pg_backend_pid() as bigint)", "select pg_terminate_backend("),
    };
    let id = tx.query(id, &[], &[Kind::Int]).await.unwrap()[0][0].int().unwrap();
    let close = if end.ends_with('(') { ")" } else { "" };
    let mut other = db.begin().await.unwrap();
    other.execute(&format!("{end}{id}{close}"), &[]).await.unwrap();
    D::commit(other).await.unwrap();
}

/// A proxy that, when armed, passes a commit on and loses its answer with the connection.
pub(crate) struct LossyProxy {
    pub(crate) armed: Arc<AtomicBool>,
    pub(crate) url: String,
}

pub(crate) async fn lossy_proxy(url: &str) -> LossyProxy {
    let (head, tail) = url.rsplit_once(':').unwrap();
    let (port, rest) = tail.split_once('/').unwrap();
    let target: u16 = port.parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("{head}:{}/{rest}", listener.local_addr().unwrap().port());
    let armed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&armed);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
            tokio::spawn(pass(client, server, Arc::clone(&flag)));
        }
    });
    LossyProxy { armed, url }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, armed: Arc<AtomicBool>) {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(size @ 1..) = read else { return };
                if server.write_all(&up[..size]).await.is_err() { return }
                let commit = up[..size].to_ascii_lowercase().windows(6).any(|w| w == b"commit");
                if commit && armed.load(Ordering::SeqCst) {
                    // The answer says that it is done; nobody hears it.
                    let _ = server.read(&mut down).await;
                    return;
                }
            }
            read = server.read(&mut down) => {
                let Ok(size @ 1..) = read else { return };
                if client.write_all(&down[..size]).await.is_err() { return }
            }
        }
    }
}

pub(crate) mod open {
    //! Every adapter, opened.

    use super::{Fixture, shared};

    pub(crate) async fn sqlx_mysql() -> Fixture<sqlx::MySqlPool> {
        let url = shared::mariadb_database().await.unwrap();
        Fixture::new(connect::sqlx_mysql(&url).await, url, None).await
    }

    pub(crate) async fn sqlx_postgres() -> Fixture<sqlx::PgPool> {
        let url = shared::postgres_database().await.unwrap();
        Fixture::new(connect::sqlx_postgres(&url).await, url, None).await
    }

    pub(crate) async fn sqlx_sqlite() -> Fixture<sqlx::SqlitePool> {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/data.db?mode=rwc", directory.path().display());
        Fixture::new(connect::sqlx_sqlite(&url).await, url, Some(directory)).await
    }

    pub(crate) async fn mysql_async() -> Fixture<mysql_async::Pool> {
        let url = shared::mariadb_database().await.unwrap();
        Fixture::new(connect::mysql_async(&url).await, url, None).await
    }

    pub(crate) async fn tokio_postgres() -> Fixture<deadpool_postgres::Pool> {
        let url = shared::postgres_database().await.unwrap();
        Fixture::new(connect::tokio_postgres(&url).await, url, None).await
    }

    pub(crate) async fn sea_orm_mysql() -> Fixture<sea_orm::DatabaseConnection> {
        let url = shared::mariadb_database().await.unwrap();
        Fixture::new(connect::sea_orm_mysql(&url).await, url, None).await
    }

    pub(crate) async fn sea_orm_postgres() -> Fixture<sea_orm::DatabaseConnection> {
        let url = shared::postgres_database().await.unwrap();
        Fixture::new(connect::sea_orm_postgres(&url).await, url, None).await
    }

    pub(crate) async fn sea_orm_sqlite() -> Fixture<sea_orm::DatabaseConnection> {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/data.db?mode=rwc", directory.path().display());
        Fixture::new(connect::sea_orm_sqlite(&url).await, url, Some(directory)).await
    }

    pub(crate) mod connect {
        pub(crate) async fn sqlx_mysql(url: &str) -> sqlx::MySqlPool {
            let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(8);
            pool.connect(url).await.unwrap()
        }

        pub(crate) async fn sqlx_postgres(url: &str) -> sqlx::PgPool {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8);
            pool.connect(url).await.unwrap()
        }

        pub(crate) async fn sqlx_sqlite(url: &str) -> sqlx::SqlitePool {
            let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(4);
            pool.connect(url).await.unwrap()
        }

        pub(crate) async fn mysql_async(url: &str) -> mysql_async::Pool {
            // Not by the socket, which would pass the proxy by.
            mysql_async::Pool::from_url(format!("{url}?prefer_socket=false")).unwrap()
        }

        pub(crate) async fn tokio_postgres(url: &str) -> deadpool_postgres::Pool {
            let config: tokio_postgres::Config = url.parse().unwrap();
            let manager = deadpool_postgres::Manager::new(config, tokio_postgres::NoTls);
            deadpool_postgres::Pool::builder(manager).max_size(8).build().unwrap()
        }

        async fn sea_orm(url: &str) -> sea_orm::DatabaseConnection {
            let mut options = sea_orm::ConnectOptions::new(url);
            options.max_connections(8).sqlx_logging(false);
            sea_orm::Database::connect(options).await.unwrap()
        }

        pub(crate) async fn sea_orm_mysql(url: &str) -> sea_orm::DatabaseConnection {
            sea_orm(url).await
        }

        pub(crate) async fn sea_orm_postgres(url: &str) -> sea_orm::DatabaseConnection {
            sea_orm(url).await
        }

        pub(crate) async fn sea_orm_sqlite(url: &str) -> sea_orm::DatabaseConnection {
            sea_orm(url).await
        }
    }
}
