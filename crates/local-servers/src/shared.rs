//! One server of a kind for all tests of a process, started at its first use.
//!
//! The servers live on a thread and runtime of their own, so that tests with runtimes of their own
//! can share them, and end with the process.

use std::sync::OnceLock;

use anyhow::Context as _;
use mysql_async::prelude::Queryable as _;
use tokio_postgres::NoTls;

use crate::{DatabaseOptions, Mariadb, Postgres, Redis, RedisCluster, RedisOptions};

/// What a start gave: the server for ever, or why there is none.
type Started<T> = OnceLock<Result<&'static T, String>>;

static MARIADB: Started<Mariadb> = OnceLock::new();
static POSTGRES: Started<Postgres> = OnceLock::new();
static REDIS: Started<Redis> = OnceLock::new();
static CLUSTER: Started<RedisCluster> = OnceLock::new();

/// Starts the server once; callers that come meanwhile wait.
fn start<T, F>(cell: &'static Started<T>, starting: fn() -> F) -> anyhow::Result<&'static T>
where
    T: Send + Sync + 'static,
    F: Future<Output = anyhow::Result<T>> + 'static,
{
    let started = cell.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // The thread stays: when it ends, the parent death signal ends the server.
        let thread = std::thread::Builder::new().name("private-server".to_owned());
        let spawned = thread.spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(sender.send(Err(error.to_string()))),
            };
            let started = runtime.block_on(starting());
            let server: Result<&'static T, String> = started
                .map(|server| &*Box::leak(Box::new(server)))
                .map_err(|error| format!("{error:#}"));
            drop(sender.send(server));
            runtime.block_on(std::future::pending::<()>());
        });
        spawned.map_err(|error| error.to_string())?;
        receiver.recv().map_err(|_| "the start of the server panicked".to_owned())?
    });
    started.clone().map_err(anyhow::Error::msg)
}

/// A fresh, empty database on the process's MariaDB; returns its URL.
///
/// # Errors
/// No server can be started here.
pub async fn mariadb_database() -> anyhow::Result<String> {
    let server = start(&MARIADB, || Mariadb::start(DatabaseOptions::default()))?;
    let name = fresh_name();
    let mut conn = mysql_async::Conn::from_url(server.url()).await?;
    conn.query_drop(format!("create database {name}")).await?;
    conn.disconnect().await?;
    let (base, _) = server.url().rsplit_once('/').map(own).context("the URL has no database")?;
    Ok(format!("{base}/{name}"))
}

/// A fresh, empty database on the process's PostgreSQL; returns its URL.
///
/// # Errors
/// No server can be started here.
pub async fn postgres_database() -> anyhow::Result<String> {
    let server = start(&POSTGRES, || Postgres::start(DatabaseOptions::default()))?;
    let name = fresh_name();
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await?;
    let driver = tokio::spawn(connection);
    let created = client.batch_execute(&format!("create database {name}")).await;
    drop(client);
    let _ = driver.await;
    created?;
    let (base, _) = server.url().rsplit_once('/').map(own).context("the URL has no database")?;
    Ok(format!("{base}/{name}"))
}

/// The process's Redis: its URL, and a key prefix that nobody else has.
///
/// # Errors
/// No server can be started here.
#[expect(clippy::unused_async, reason = "as its neighbours")]
pub async fn redis() -> anyhow::Result<(String, String)> {
    let server = start(&REDIS, || Redis::start(RedisOptions::default()))?;
    Ok((server.url(), format!("{}:", fresh_name())))
}

/// The process's Redis Cluster: its nodes' URLs, and a key prefix that nobody else has.
///
/// # Errors
/// No server can be started here.
#[expect(clippy::unused_async, reason = "as its neighbours")]
pub async fn redis_cluster() -> anyhow::Result<(Vec<String>, String)> {
    let cluster = start(&CLUSTER, RedisCluster::start)?;
    Ok((cluster.urls(), format!("{}:", fresh_name())))
}

fn own((left, right): (&str, &str)) -> (String, String) {
    (left.to_owned(), right.to_owned())
}

fn fresh_name() -> String {
    format!("t{}", uuid::Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn databases_are_fresh_and_on_one_server() {
        let (first, second) = tokio::join!(mariadb_database(), mariadb_database());
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first, second);
        assert_eq!(first.rsplit_once('/').unwrap().0, second.rsplit_once('/').unwrap().0);
        let url = postgres_database().await.unwrap();
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute("create table t (id int)").await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
        let (url, prefix) = redis().await.unwrap();
        assert!(url.starts_with("redis://127.0.0.1:"));
        assert_ne!(prefix, redis().await.unwrap().1);
    }
}
