//! Three servers on one shared store, under load from outside: servers are killed with SIGKILL and
//! started again, one is frozen for longer than its lease and goes on, and the store is killed and
//! started again in the middle. The same bank, the same invariants as with one server.
//!
//! `DTMD_SEED` repeats a run's choices, `DTMD_FLEET_EVENTS` its length.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_local_servers::{
    DatabaseOptions, Galera, Mariadb, Postgres, Proxy, Redis, RedisCluster, RedisOptions,
};
use dtmd_tests::{Server, pairs, tell, until};
use tempfile::TempDir;

use super::audit::Audit;
use super::book::{Book, Dice};
use super::load::Load;
use super::{check_quiet, from_env, open_banks, seed};

const SERVERS: usize = 3;
/// What happens to servers before all is looked at.
const EVENTS: u64 = 16;
const LEASE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_mariadb() {
    let _turn = crate::turn::alone().await;
    let server = Mariadb::start(DatabaseOptions { fsync: true }).await.unwrap();
    run("MariaDB", SharedStore::Mariadb(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_postgres() {
    let _turn = crate::turn::alone().await;
    let server = Postgres::start(DatabaseOptions { fsync: true }).await.unwrap();
    run("PostgreSQL", SharedStore::Postgres(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_redis() {
    let _turn = crate::turn::alone().await;
    let server = Redis::start(RedisOptions::default()).await.unwrap();
    run("Redis", SharedStore::Redis(server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_on_a_redis_cluster() {
    let _turn = crate::turn::alone().await;
    run("Redis Cluster", SharedStore::Cluster(RedisCluster::start().await.unwrap())).await;
}

/// Half a minute alone for the nodes to copy each other: not in the ordinary run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by `cargo xtask failover`"]
async fn failover_of_a_galera_node() {
    let _turn = crate::turn::alone().await;
    let cluster = Galera::start(DatabaseOptions { fsync: true }).await.unwrap();
    run("three Galera nodes", SharedStore::Galera(cluster)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by `cargo xtask failover`"]
async fn failover_to_a_postgres_standby() {
    let _turn = crate::turn::alone().await;
    let primary = Postgres::start(DatabaseOptions { fsync: true }).await.unwrap();
    let standby = primary.start_standby().await.unwrap();
    let proxy = Proxy::start(primary.port()).await.unwrap();
    let store = SharedStore::Standby(Box::new([primary, standby]), proxy);
    run("PostgreSQL with a standby", store).await;
}

/// What the servers share.
pub(super) enum SharedStore {
    Mariadb(Mariadb),
    Postgres(Postgres),
    Redis(Redis),
    Cluster(RedisCluster),
    /// Each server uses a node of its own.
    Galera(Galera),
    /// The servers know only the proxy.
    Standby(Box<[Postgres; 2]>, Proxy),
}

impl SharedStore {
    /// Starts one of the servers.
    pub(super) async fn server(&self, server: usize) -> Server {
        let env = self.env(server);
        Server::start_with(&[], &pairs(&env)).await
    }

    /// The environment that makes a server use it.
    fn env(&self, server: usize) -> Vec<(String, String)> {
        let (driver, host, port, user, db) = match self {
            Self::Mariadb(server) => ("mysql", String::new(), server.port(), "root", "dtmd"),
            Self::Postgres(server) => {
                ("postgres", String::new(), server.port(), "postgres", "postgres")
            }
            Self::Galera(cluster) => {
                ("mysql", String::new(), cluster.nodes[server].port(), "root", "dtmd")
            }
            Self::Standby(_, proxy) => {
                ("postgres", String::new(), proxy.port(), "postgres", "postgres")
            }
            Self::Redis(server) => ("redis", String::new(), server.port(), "", "0"),
            Self::Cluster(cluster) => {
                let node = |node: &Redis| format!("127.0.0.1:{}", node.port());
                let nodes: Vec<_> = cluster.nodes.iter().map(node).collect();
                ("redis", nodes.join(","), 0, "", "0")
            }
        };
        let host = if host.is_empty() { "127.0.0.1".to_owned() } else { host };
        [
            ("STORE_DRIVER", driver.to_owned()),
            ("STORE_HOST", host),
            ("STORE_PORT", port.to_string()),
            ("STORE_USER", user.to_owned()),
            ("STORE_DB", db.to_owned()),
            // SQL: one, two and three writers.
            ("STORE_MAX_WRITE_CONNS", (1 + server).to_string()),
            ("LEASE", LEASE.as_secs().to_string()),
            ("TRANS_CRON_INTERVAL", "1".to_owned()),
            ("BREAKER_OPEN", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Kills it and starts it again; of a cluster, one node; a primary is replaced by its standby.
    async fn crash(&mut self) {
        match self {
            Self::Mariadb(server) => server.restart().await.unwrap(),
            Self::Postgres(server) => server.restart().await.unwrap(),
            Self::Redis(server) => server.restart().await.unwrap(),
            Self::Galera(cluster) => {
                cluster.nodes[1].kill_9().await.unwrap();
                tokio::time::sleep(2 * LEASE).await;
                cluster.nodes[1].restart().await.unwrap();
            }
            Self::Standby(servers, proxy) => {
                let [primary, standby] = &mut **servers;
                primary.kill_9().await.unwrap();
                standby.promote().await.unwrap();
                proxy.move_to(standby.port());
            }
            Self::Cluster(cluster) => {
                cluster.nodes[1].restart().await.unwrap();
                cluster.wait_ok().await.unwrap();
            }
        }
    }
}

/// What was done to the servers and the store.
#[derive(Default)]
struct Events {
    kills: u32,
    freezes: u32,
    store_crashes: u32,
}

async fn run(what: &str, mut store: SharedStore) {
    let seed = seed();
    let events = from_env("DTMD_FLEET_EVENTS").unwrap_or(EVENTS);
    tell(&format!("three servers on {what}: {events} events, DTMD_SEED={seed}"));
    let folder = TempDir::new().unwrap();
    let (banks, mut audit) = open_banks(&folder).await;
    let mut servers = Vec::new();
    for server in 0..SERVERS {
        servers.push(store.server(server).await);
    }
    let book = Arc::new(Book::default());
    let mut load = Load::begin(seed, &servers, &banks, &book);
    let begun = Instant::now();
    let done =
        chaos(&mut servers, &mut store, &mut Dice::new(seed), events, &book, &mut audit).await;
    load.check();
    let all = load.pause().await;
    for server in &servers {
        until("every server ready", async || {
            let ready = server.client.http().get(&server.at("/readyz")).await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await;
    }
    check_quiet(&servers, &book, &mut audit, &banks).await;
    drop(all);
    load.end().await;
    let (succeed, failed) = book.ends();
    let Events { kills, freezes, store_crashes } = done;
    let duplicates: u64 = banks.iter().map(|bank| bank.stats().duplicates).sum();
    tell(&format!(
        "three servers on {what}: {kills} kills, {freezes} freezes, {store_crashes} crashes of the \
         store, {} transactions ({succeed} succeed, {failed} failed), {} acknowledged, {} answers \
         unknown, {duplicates} duplicates kept out, {} s",
        book.begun(),
        book.accepted(),
        book.unknown(),
        begun.elapsed().as_secs()
    ));
    assert!(kills > 0 && freezes > 0 && store_crashes == 1, "nothing was put to the test");
    assert!(succeed > 0 && failed > 0, "only one end was reached");
}

async fn chaos(
    servers: &mut [Server],
    store: &mut SharedStore,
    dice: &mut Dice,
    events: u64,
    book: &Book,
    audit: &mut Audit,
) -> Events {
    let mut done = Events::default();
    for event in 0..events {
        tokio::time::sleep(Duration::from_millis(200 + dice.below(600))).await;
        let which = dice.below(SERVERS as u64) as usize;
        if event == events / 2 {
            store.crash().await;
            done.store_crashes += 1;
        } else if event % 4 == 1 {
            let id = servers[which].process.id().unwrap();
            signal(id, "STOP").await;
            tokio::time::sleep(LEASE + Duration::from_millis(500 + dice.below(2000))).await;
            signal(id, "CONT").await;
            done.freezes += 1;
        } else {
            servers[which].process.kill_9().await.unwrap();
            // The others must do without it for a while, sometimes past its leases.
            tokio::time::sleep(Duration::from_millis(dice.below(3000))).await;
            servers[which].process.restart().await.unwrap();
            done.kills += 1;
        }
        audit.read(book);
    }
    done
}

async fn signal(id: u32, name: &str) {
    let mut kill = tokio::process::Command::new("kill");
    assert!(kill.args(["-s", name, &id.to_string()]).status().await.unwrap().success());
}
