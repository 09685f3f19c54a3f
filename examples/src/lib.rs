//! What the examples share, and what a service of yours has already: a dtmd, databases, a port.
//!
//! Everything is started here and gone at the end, unless the environment names servers that run:
//! `DTMD_URL`, `MARIADB_URL`, `POSTGRES_URL` and `REDIS_URL`. On those each example makes a
//! database of its own and drops it when it has succeeded; in MariaDB the barrier's database,
//! `dtm_barrier`, stays.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use dtmcli::{Client, barrier};
use dtmcli_test::TestServer;
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres, Redis, RedisOptions};
use redis::aio::ConnectionManager;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool, PgConnection, PgPool};
use tokio::net::TcpListener;

/// Longer than anything in an example takes, also on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The servers of one example. Dropping it ends those that were started for it.
#[derive(Debug)]
pub struct Stage {
    /// The transaction manager.
    pub dtm: Client,
    name: String,
    server: Option<TestServer>,
    mariadb: Option<Mariadb>,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    /// Databases on servers that stay: the server's URL.
    made: Vec<String>,
}

impl Stage {
    /// A client of the dtmd at `DTMD_URL`, or of one that runs in this process.
    ///
    /// # Errors
    ///
    /// There is no dtmd at that URL.
    pub async fn start() -> anyhow::Result<Self> {
        let (server, url) = match from_environment("DTMD_URL") {
            Some(url) => (None, url),
            None => {
                let server = TestServer::start_live().await;
                let url = server.url().to_owned();
                (Some(server), url)
            }
        };
        let dtm = Client::new(&url)?;
        dtm.new_gid().await.with_context(|| format!("is there a dtmd at {url}?"))?;
        let name = format!("example_{}", uuid::Uuid::new_v4().simple());
        Ok(Self { dtm, name, server, mariadb: None, postgres: None, redis: None, made: Vec::new() })
    }

    /// A MariaDB database with the barrier's table, and what these statements make.
    ///
    /// # Errors
    ///
    /// There is no MariaDB, or it does not take the statements.
    pub async fn mariadb(&mut self, schema: &'static str) -> anyhow::Result<MySqlPool> {
        let server = match (from_environment("MARIADB_URL"), &self.mariadb) {
            (Some(url), _) => {
                self.made.push(url.clone());
                url
            }
            (None, Some(server)) => server.url(),
            (None, None) => {
                let server = Mariadb::start(DatabaseOptions::default()).await?;
                self.mariadb.insert(server).url()
            }
        };
        let create = AssertSqlSafe(format!("create database {}", self.name));
        let mut connection = MySqlConnection::connect(&server).await.context("no MariaDB")?;
        sqlx::raw_sql(create).execute(&mut connection).await?;
        let pool = MySqlPool::connect(&database(&server, &self.name)?).await?;
        barrier::create_table(&pool, None).await.map_err(anyhow::Error::from_boxed)?;
        sqlx::raw_sql(schema).execute(&pool).await?;
        Ok(pool)
    }

    /// A PostgreSQL database with the barrier's table, and what these statements make.
    ///
    /// # Errors
    ///
    /// There is no PostgreSQL, or it does not take the statements.
    pub async fn postgres(&mut self, schema: &'static str) -> anyhow::Result<PgPool> {
        let server = match (from_environment("POSTGRES_URL"), &self.postgres) {
            (Some(url), _) => {
                self.made.push(url.clone());
                url
            }
            (None, Some(server)) => server.url(),
            (None, None) => {
                let server = Postgres::start(DatabaseOptions::default()).await?;
                self.postgres.insert(server).url()
            }
        };
        let create = AssertSqlSafe(format!("create database {}", self.name));
        let mut connection = PgConnection::connect(&server).await.context("no PostgreSQL")?;
        sqlx::raw_sql(create).execute(&mut connection).await?;
        let pool = PgPool::connect(&database(&server, &self.name)?).await?;
        barrier::create_table(&pool, None).await.map_err(anyhow::Error::from_boxed)?;
        sqlx::raw_sql(schema).execute(&pool).await?;
        Ok(pool)
    }

    /// A connection to Redis, and a prefix for keys that nobody else has.
    ///
    /// # Errors
    ///
    /// There is no Redis.
    pub async fn redis(&mut self) -> anyhow::Result<(ConnectionManager, String)> {
        let url = match (from_environment("REDIS_URL"), &self.redis) {
            (Some(url), _) => url,
            (None, Some(server)) => server.url(),
            (None, None) => {
                let server = Redis::start(RedisOptions::default()).await?;
                self.redis.insert(server).url()
            }
        };
        let client = redis::Client::open(url)?;
        let connection = client.get_connection_manager().await.context("no Redis")?;
        Ok((connection, format!("{}:", self.name)))
    }

    /// Serves a router on a free port of this machine; returns its URL.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub async fn serve(&self, router: Router) -> anyhow::Result<String> {
        let (listener, url) = self.listen().await?;
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    /// A free port, for a service that must know its own URL before it serves.
    ///
    /// # Errors
    ///
    /// There is no free port.
    pub async fn listen(&self) -> anyhow::Result<(TcpListener, String)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        Ok((listener, url))
    }

    /// Ends an example that has shown what it claims: takes away what it made on servers that stay.
    ///
    /// # Errors
    ///
    /// A database cannot be dropped.
    pub async fn end(self) -> anyhow::Result<()> {
        for server in &self.made {
            let name = &self.name;
            if server.starts_with("mysql:") {
                let drop = AssertSqlSafe(format!("drop database if exists {name}"));
                let mut connection = MySqlConnection::connect(server).await?;
                sqlx::raw_sql(drop).execute(&mut connection).await?;
            } else {
                let drop = AssertSqlSafe(format!("drop database if exists {name} with (force)"));
                let mut connection = PgConnection::connect(server).await?;
                sqlx::raw_sql(drop).execute(&mut connection).await?;
            }
        }
        // First the transaction manager, then what its branches write to.
        drop(self.server);
        Ok(())
    }
}

/// A gid that nobody has, and that tells what it is for.
#[must_use]
pub fn fresh(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The URL of a database on the server of another one.
fn database(url: &str, name: &str) -> anyhow::Result<String> {
    let (server, _) = url.rsplit_once('/').context("the URL of a database has no name in it")?;
    Ok(format!("{server}/{name}"))
}
