//! A shared store that goes away and comes back: frozen, killed and started again, cut off.
//!
//! Meanwhile every request is answered, with 503 and the reason, and `/readyz` says so. Afterwards
//! everything that was accepted ends, nothing twice but for calls whose answers could not be
//! stored, and new transactions are accepted, without anybody doing anything.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres, Proxy, Redis, RedisOptions};
use dtmd_tests::{Reply, Says, Server, Service, exchange, pairs, saga, store_env, tell, until};
use serde_json::json;

use crate::turn;

/// A request that takes longer than this in an outage hangs. The first ones wait until the server
/// knows (4 s and a bit); later ones are refused at once.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long an outage lasts after `/readyz` has told of it.
const AWAY: Duration = Duration::from_secs(2);
/// Applications that send one request after another.
const CLIENTS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_goes_away_and_comes_back() {
    let _turn = turn::shared().await;
    let store = Mariadb::start(DatabaseOptions { fsync: true }).await.unwrap();
    run("MariaDB", Store::Mariadb(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_goes_away_and_comes_back() {
    let _turn = turn::shared().await;
    let store = Postgres::start(DatabaseOptions { fsync: true }).await.unwrap();
    run("PostgreSQL", Store::Postgres(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_goes_away_and_comes_back() {
    let _turn = turn::shared().await;
    run("Redis", Store::Redis(Redis::start(RedisOptions::default()).await.unwrap())).await;
}

/// The server says at once what it waits for, and goes on when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_waits_for_a_store_that_is_not_there_yet() {
    let _turn = turn::shared().await;
    let mut store = Redis::start(RedisOptions::default()).await.unwrap();
    store.kill_9().await.unwrap();
    let port = store.port();
    let starting = tokio::spawn(async move {
        let begun = Instant::now();
        let server = Server::start_with(&[], &pairs(&store_env("redis", port, "", "0"))).await;
        (server, begun.elapsed())
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    store.restart().await.unwrap();
    let (server, took) = starting.await.unwrap();
    let log = server.log();
    let waits = log.lines().find(|line| line.contains("waiting for the store"));
    let waits = waits.unwrap_or_else(|| panic!("it does not say what it waits for:\n{log}"));
    assert!(waits.contains(&port.to_string()), "{waits}");
    server.assert_serves("after").await;
    tell(&format!("Redis was absent at the start for 1.5 s; the server served after {took:.1?}"));
}

enum Store {
    Mariadb(Mariadb),
    Postgres(Postgres),
    Redis(Redis),
}

impl Store {
    fn env(&self, port: u16) -> Vec<(String, String)> {
        match self {
            Self::Mariadb(_) => store_env("mysql", port, "root", "dtmd"),
            Self::Postgres(_) => store_env("postgres", port, "postgres", "postgres"),
            Self::Redis(_) => store_env("redis", port, "", "0"),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Mariadb(store) => store.port(),
            Self::Postgres(store) => store.port(),
            Self::Redis(store) => store.port(),
        }
    }

    async fn freeze(&self) {
        match self {
            Self::Mariadb(store) => store.freeze().await.unwrap(),
            Self::Postgres(store) => store.freeze().await.unwrap(),
            Self::Redis(store) => store.freeze().await.unwrap(),
        }
    }

    async fn thaw(&self) {
        match self {
            Self::Mariadb(store) => store.thaw().await.unwrap(),
            Self::Postgres(store) => store.thaw().await.unwrap(),
            Self::Redis(store) => store.thaw().await.unwrap(),
        }
    }

    async fn kill_9(&mut self) {
        match self {
            Self::Mariadb(store) => store.kill_9().await.unwrap(),
            Self::Postgres(store) => store.kill_9().await.unwrap(),
            Self::Redis(store) => store.kill_9().await.unwrap(),
        }
    }

    async fn restart(&mut self) {
        match self {
            Self::Mariadb(store) => store.restart().await.unwrap(),
            Self::Postgres(store) => store.restart().await.unwrap(),
            Self::Redis(store) => store.restart().await.unwrap(),
        }
    }
}

async fn run(name: &str, mut store: Store) {
    let proxy = Proxy::start(store.port()).await.unwrap();
    let server = Server::start_with(&[], &pairs(&store.env(proxy.port()))).await;
    let service = Service::start().await;
    // Long enough that outages begin while calls are under way.
    service.script("/first", [Says::success().after(Duration::from_millis(50))]);
    service.script("/second", [Says::success().after(Duration::from_millis(50))]);
    let mut all = Vec::new();
    for outage in ["frozen", "killed", "cut"] {
        let load = Load::start(&server, &service, outage);
        load.wait_accepted(&server, 20).await;
        let begun = Instant::now();
        match outage {
            "frozen" => store.freeze().await,
            "killed" => store.kill_9().await,
            _ => proxy.cut(),
        }
        let told = wait_not_ready(&server, begun).await;
        tokio::time::sleep(AWAY).await;
        check_away(&server).await;
        match outage {
            "frozen" => store.thaw().await,
            "killed" => store.restart().await,
            _ => proxy.move_to(store.port()),
        }
        let back = Instant::now();
        until("a transaction accepted again", async || {
            let reply = submit(server.address(), &service, &format!("{outage}-back")).await;
            (reply.status == 200).then_some(())
        })
        .await;
        let accepting = back.elapsed();
        let asked = load.stop().await;
        let ended = check_end(&server, &service, &asked).await;
        let refused: Vec<&Asked> = asked.iter().filter(|one| one.reply.status != 200).collect();
        let longest = refused.iter().map(|one| one.took).max().unwrap_or_default();
        let mut times: Vec<Duration> = refused.iter().map(|one| one.took).collect();
        times.sort();
        tell(&format!(
            "{name} {outage}: /readyz told after {told:.1?}; {} of {} requests refused, half of \
             them within {:.1?}, all within {longest:.1?}; accepted again after {accepting:.1?}, \
             all ended after {:.1?}",
            refused.len(),
            asked.len(),
            times[times.len() / 2],
            ended.duration_since(back)
        ));
        assert!(longest < ANSWER_MAX, "{name} {outage}: a request was answered after {longest:?}");
        all.extend(asked);
    }
    check_calls(name, &service, &all);
}

async fn submit(address: &str, service: &Service, gid: &str) -> Reply {
    let body = saga(gid, &[service.step("first"), service.step("second")]);
    exchange(address, "POST", "/api/dtmsvr/submit", body.to_string()).await
}

/// A request, and what came of it.
struct Asked {
    gid: String,
    /// A submit; otherwise a query.
    submits: bool,
    reply: Reply,
    took: Duration,
}

/// Applications that submit sagas and look at them.
struct Load {
    stop: Arc<AtomicBool>,
    clients: tokio::task::JoinSet<Vec<Asked>>,
}

impl Load {
    fn start(server: &Server, service: &Service, outage: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let (stop, address) = (stop.clone(), server.address().to_owned());
            let steps = [service.step("first"), service.step("second")];
            let prefix = format!("{outage}-{client}");
            clients.spawn(async move {
                let mut asked = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let gid = format!("{prefix}-{}", asked.len());
                    let body = saga(&gid, &steps).to_string();
                    let query = format!("/api/dtmsvr/query?gid={gid}");
                    for submits in [true, false] {
                        let begun = Instant::now();
                        let reply = match submits {
                            true => {
                                exchange(&address, "POST", "/api/dtmsvr/submit", body.clone()).await
                            }
                            false => exchange(&address, "GET", &query, "").await,
                        };
                        asked.push(Asked {
                            gid: gid.clone(),
                            submits,
                            reply,
                            took: begun.elapsed(),
                        });
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                asked
            });
        }
        Self { stop, clients }
    }

    /// Waits until the server works on this load.
    async fn wait_accepted(&self, server: &Server, count: usize) {
        until("transactions of this load", async || {
            let answer = server.get("all?limit=100").await;
            let found = answer.json()["transactions"].as_array().map_or(0, Vec::len);
            (found >= count).then_some(())
        })
        .await;
    }

    async fn stop(self) -> Vec<Asked> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

async fn wait_not_ready(server: &Server, begun: Instant) -> Duration {
    until("/readyz that tells of the outage", async || {
        let ready = exchange(server.address(), "GET", "/readyz", "").await;
        (ready.status == 503).then_some(())
    })
    .await;
    begun.elapsed()
}

/// What the server says while the store is away.
async fn check_away(server: &Server) {
    let address = server.address();
    let ready = exchange(address, "GET", "/readyz", "").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("store"), "/readyz does not say why: {}", ready.body);
    let alive = exchange(address, "GET", "/healthz", "").await;
    assert_eq!((alive.status, alive.body.as_str()), (200, "ok"), "it must not be restarted");
    let metrics = exchange(address, "GET", "/api/metrics", "").await;
    assert_eq!(metrics.status, 200, "{}", metrics.body);
    let prepare = json!({ "gid": "away", "trans_type": "tcc" }).to_string();
    let list = exchange(address, "GET", "/api/dtmsvr/all?limit=1", "").await;
    let prepare = exchange(address, "POST", "/api/dtmsvr/prepare", prepare).await;
    for reply in [list, prepare] {
        assert_eq!(reply.status, 503, "{}", reply.body);
        assert_told(&reply);
    }
}

fn assert_told(reply: &Reply) {
    let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.len() > 10, "it does not say what is the matter: {}", reply.body);
    assert!(!reply.body.contains("FAILURE"), "nothing has failed for good: {}", reply.body);
}

/// Everything that was accepted ends; what was refused has ended too, or was never there.
/// Returns when.
async fn check_end(server: &Server, service: &Service, asked: &[Asked]) -> Instant {
    for one in asked {
        assert!(matches!(one.reply.status, 200 | 503), "{}: {:?}", one.gid, one.reply);
        if one.reply.status == 503 {
            assert_told(&one.reply);
        }
    }
    let accepted = |one: &&Asked| one.submits && one.reply.status == 200;
    for one in asked.iter().filter(accepted) {
        server.wait_status(&one.gid, "succeed").await;
    }
    let ended = Instant::now();
    for one in asked.iter().filter(|one| one.submits && one.reply.status != 200) {
        until(&format!("the end of {}, if it was accepted", one.gid), async || {
            let status = server.status(&one.gid).await;
            matches!(status.as_str(), "" | "succeed").then_some(())
        })
        .await;
    }
    assert!(!service.paths().iter().any(|path| path.ends_with("-undo")), "nothing was undone");
    ended
}

/// Every step of every accepted saga was called, and hardly any twice.
fn check_calls(name: &str, service: &Service, asked: &[Asked]) {
    let mut calls: HashMap<(String, &str), usize> = HashMap::new();
    for path in ["/first", "/second"] {
        for call in service.calls(path) {
            *calls.entry((call.parameter("gid").to_owned(), path)).or_default() += 1;
        }
    }
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for one in asked.iter().filter(|one| one.submits && one.reply.status == 200) {
        for path in ["/first", "/second"] {
            let count = calls.get(&(one.gid.clone(), path)).copied().unwrap_or(0);
            assert!(count >= 1, "{name}: {path} of {} was never called", one.gid);
            *counts.entry(count).or_default() += 1;
        }
    }
    tell(&format!("{name}: calls of a step, and how many steps were called so often: {counts:?}"));
    let most = counts.keys().max().copied().unwrap_or(0);
    // Once more if its answer could not be stored, and once more by a wake-up meanwhile.
    assert!(most <= 3, "{name}: a step was called {most} times");
}
