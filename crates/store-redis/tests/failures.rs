//! Servers that die, hang, fill up, fail over and refuse.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use dtmd_local_servers::{Redis, RedisCluster};
use dtmd_protocol::Global;
use dtmd_store::conformance::sample::{at, gid, later, saga};
use dtmd_store::{Claim, Health, Store, StoreError, Write};
use dtmd_store_redis::{Mode, RedisOptions, RedisStore};

type Server = dtmd_local_servers::RedisOptions;

async fn start() -> Redis {
    Redis::start(Server::default()).await.unwrap()
}

fn patient(url: &str) -> RedisOptions {
    let mut options = RedisOptions::from_url(url).unwrap();
    options.retry_for = Duration::from_secs(40);
    options
}

fn hasty(url: &str) -> RedisOptions {
    let mut options = RedisOptions::from_url(url).unwrap();
    options.connect_timeout = Duration::from_secs(1);
    options.response_timeout = Duration::from_millis(700);
    options.wait_timeout = Duration::from_millis(150);
    options.retry_for = Duration::from_secs(1);
    options
}

fn create(text: &str) -> Write {
    Write::Create(Arc::new(saga(text)))
}

fn change(before: &Global, after: &Global) -> Write {
    Write::Update { before: Arc::new(before.clone()), after: Arc::new(after.clone()) }
}

async fn tell(url: &str, command: &[&str]) -> redis::Value {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (name, args) = command.split_first().unwrap();
    redis::cmd(name).arg(args).query_async(&mut connection).await.unwrap()
}

/// Makes Redis keep what it acknowledged when it is killed: with `everysec` it answers before it
/// writes while a sync runs.
async fn keep_all(url: &str) {
    tell(url, &["CONFIG", "SET", "appendfsync", "always"]).await;
}

/// Commits creates and their updates until it is told to stop; every one must hold: a repeated
/// call that had been made must not be taken for another writer's.
async fn commit_until(store: &RedisStore, stop: &std::sync::atomic::AtomicBool) -> Vec<Global> {
    let mut expected = Vec::new();
    let mut round = 0;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let firsts: Vec<Global> = (0..8).map(|index| saga(&format!("g{round}-{index}"))).collect();
        let batch: Vec<Write> = firsts.iter().map(|global| create(global.gid.as_str())).collect();
        let results = store.commit(&batch).await.unwrap();
        assert!(results.iter().all(Result::is_ok), "round {round}: {results:?}");
        let seconds: Vec<Global> =
            firsts.iter().map(|global| later(global, |global| global.updated = at(7))).collect();
        let batch: Vec<Write> =
            firsts.iter().zip(&seconds).map(|(before, after)| change(before, after)).collect();
        let results = store.commit(&batch).await.unwrap();
        assert!(results.iter().all(Result::is_ok), "round {round}: {results:?}");
        expected.extend(seconds);
        round += 1;
    }
    expected
}

async fn check_all(store: &RedisStore, expected: &[Global]) {
    assert!(!expected.is_empty());
    for global in expected {
        let stored = store.load(&global.gid).await.unwrap();
        assert_eq!(stored.as_deref(), Some(global));
    }
    let count: u64 = store.totals().await.unwrap().iter().map(|(.., count)| count).sum();
    assert_eq!(count, expected.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_be_killed_in_the_middle_of_commits() {
    let mut server = start().await;
    keep_all(&server.url()).await;
    let store = RedisStore::open(patient(&server.url())).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let kills = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            server.kill_9().await.unwrap();
            server.restart().await.unwrap();
            keep_all(&server.url()).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (expected, ()) = tokio::join!(commit_until(&store, &stop), kills);
    check_all(&store, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_may_be_cut_in_the_middle_of_commits() {
    let server = start().await;
    let store = RedisStore::open(patient(&server.url())).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let url = server.url();
    let cuts = async {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            tell(&url, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (expected, ()) = tokio::join!(commit_until(&store, &stop), cuts);
    check_all(&store, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_unavailable_and_comes_back() {
    let server = start().await;
    let store = RedisStore::open(hasty(&server.url())).await.unwrap();
    store.commit(&[create("before")]).await.unwrap();
    server.freeze().await.unwrap();
    let failed = store.commit(&[create("during")]).await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    assert!(store.load(&gid("before")).await.is_err());
    assert!(store.ping().await.is_err());
    server.thaw().await.unwrap();
    let mut answers = store.ping().await.is_ok();
    for _ in 0..100 {
        if answers {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answers = store.ping().await.is_ok();
    }
    // What became of it is known now, and does not change any more.
    let results = store.commit(&[create("after"), create("during")]).await.unwrap();
    assert_eq!(results[0], Ok(()));
    assert!(store.load(&gid("during")).await.unwrap().is_some());
    let count: u64 = store.totals().await.unwrap().iter().map(|(.., count)| count).sum();
    assert_eq!(count, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_makes_nothing_and_says_so() {
    let server = start().await;
    let store = RedisStore::open(hasty(&server.url())).await.unwrap();
    tell(&server.url(), &["CONFIG", "SET", "maxmemory", "1"]).await;
    let failed = store.commit(&[create("a"), create("b")]).await;
    assert!(matches!(failed, Err(StoreError::Full { .. })), "{failed:?}");
    assert_eq!(store.load(&gid("a")).await.unwrap(), None);
    tell(&server.url(), &["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(store.commit(&[create("a")]).await.unwrap(), [Ok(())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_said_plainly_and_soon() {
    let mut server = start().await;
    server.kill_9().await.unwrap();
    let error = RedisStore::open(hasty(&server.url())).await.unwrap_err();
    let text = error.to_string();
    let port = server.port().to_string();
    assert!(text.contains(&port) && text.contains("check that it runs"), "{text}");
    // By this the server knows that it may be better in a moment.
    assert!(error.is_passing(), "{}", chain(&error));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_needed_and_never_shown() {
    let server = start().await;
    tell(&server.url(), &["CONFIG", "SET", "requirepass", "t0p-s3cret"]).await;
    for password in ["", "wr0ng-s3cret"] {
        let mut options = hasty(&server.url());
        options.password = password.to_owned();
        let error = RedisStore::open(options).await.unwrap_err();
        let text = chain(&error);
        assert!(text.contains("user or password is wrong"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let mut options = hasty(&server.url());
    options.password = "t0p-s3cret".to_owned();
    let store = RedisStore::open(options).await.unwrap();
    store.commit(&[create("a")]).await.unwrap();
    assert!(!format!("{store:?} {:?}", store.info()).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_sees_what_may_lose_transactions() {
    let server = Redis::start(Server { append_only: false, cluster: false }).await.unwrap();
    let url = server.url();
    tell(&url, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    // What a DTM server has left behind (spec 05 §3).
    tell(&url, &["ZADD", "{a}_u", "1700000000", "gid-of-dtm"]).await;
    let mut options = hasty(&url);
    options.prefix = "{a}".to_owned();
    let store = RedisStore::open(options).await.unwrap();
    assert!(!store.info().durable);
    let checks = store.examine().await;
    for (name, text) in [
        ("persistence", "appendonly yes"),
        ("eviction", "allkeys-lru"),
        ("replicas", "no replica"),
        ("data of DTM", "1 unfinished"),
    ] {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.health, Health::Warning, "{check:?}");
        assert!(check.text.contains(text), "{check:?}");
    }
    // Emptying ours leaves DTM's alone.
    store.reset().await.unwrap();
    assert_eq!(tell(&url, &["ZCARD", "{a}_u"]).await, redis::Value::Int(1));
    for setting in [
        ["appendonly", "yes"],
        ["appendfsync", "always"],
        ["maxmemory-policy", "noeviction"],
        ["maxmemory", "100mb"],
    ] {
        tell(&url, &["CONFIG", "SET", setting[0], setting[1]]).await;
    }
    let checks = store.examine().await;
    for name in ["reachable", "version", "persistence", "eviction", "clocks"] {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.health, Health::Good, "{check:?}");
    }
    assert!(RedisStore::open(hasty(&url)).await.unwrap().info().durable);
    let mut options = hasty(&url);
    options.wait_aof = true;
    let opened = RedisStore::open(options).await;
    // Version 7.2 has it, earlier ones say so.
    assert!(opened.is_ok() || opened.unwrap_err().to_string().contains("7.2"));
    let gone = server;
    drop(gone);
    let checks = store.examine().await;
    assert_eq!(checks[0].health, Health::Bad);
}

/// Starts a replica that has all the master has.
async fn replica_of(master: &Redis) -> Redis {
    let replica = start().await;
    let port = master.port().to_string();
    tell(&replica.url(), &["REPLICAOF", "127.0.0.1", &port]).await;
    for _ in 0..500 {
        let info: String =
            redis::from_redis_value(tell(&replica.url(), &["INFO", "replication"]).await).unwrap();
        if info.contains("master_link_status:up") {
            return replica;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the replica does not follow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replicas_lack_is_not_acknowledged() {
    let master = start().await;
    let mut options = hasty(&master.url());
    options.wait_replicas = 1;
    let hurried = RedisStore::open(options).await.unwrap();
    let failed = hurried.commit(&[create("alone")]).await;
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
    let mut options = patient(&master.url());
    options.wait_replicas = 1;
    let store = RedisStore::open(options).await.unwrap();
    let checks = store.examine().await;
    assert!(checks.iter().any(|check| check.name == "replicas" && check.health == Health::Bad));
    let replica = replica_of(&master).await;
    for round in 0..10 {
        let results = store.commit(&[create(&format!("g{round}"))]).await.unwrap();
        assert_eq!(results, [Ok(())]);
    }
    let size = tell(&replica.url(), &["DBSIZE"]).await;
    assert_eq!(size, tell(&master.url(), &["DBSIZE"]).await);
    replica.freeze().await.unwrap();
    let failed = hurried.commit(&[create("late")]).await;
    replica.thaw().await.unwrap();
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })), "{failed:?}");
}

/// A Sentinel, gone when dropped.
struct Sentinel {
    _process: tokio::process::Child,
    _dir: tempfile::TempDir,
    port: u16,
}

impl Sentinel {
    async fn start(master: &Redis) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sentinel.conf");
        let master = master.port();
        let settings = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
        );
        std::fs::write(&file, settings).unwrap();
        let process = tokio::process::Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .current_dir(dir.path())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { _process: process, _dir: dir, port }
    }

    /// Waits until it knows the master's replica.
    async fn wait_ready(&self) {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        for _ in 0..750 {
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                let mut ask = redis::cmd("SENTINEL");
                let asked: redis::RedisResult<Vec<redis::Value>> =
                    ask.arg("REPLICAS").arg("main").query_async(&mut connection).await;
                if asked.is_ok_and(|replicas| !replicas.is_empty()) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the Sentinel sees no replica");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_sentinels_name_another_master() {
    let mut master = start().await;
    let replica = replica_of(&master).await;
    let sentinel = Sentinel::start(&master).await;
    sentinel.wait_ready().await;
    let mode = Mode::parse("127.0.0.1", sentinel.port, "main").unwrap();
    let mut options = patient(&master.url());
    options.mode = mode;
    let store = RedisStore::open(options).await.unwrap();
    let first = saga("a");
    store.commit(&[create("a"), create("b")]).await.unwrap();
    // The copy is complete before the master dies; what it lacks at that moment Redis loses.
    for _ in 0..500 {
        let size = tell(&replica.url(), &["DBSIZE"]).await;
        if size == tell(&master.url(), &["DBSIZE"]).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    master.kill_9().await.unwrap();
    let second = later(&first, |global| global.updated = at(7));
    let results = store.commit(&[change(&first, &second), create("c")]).await.unwrap();
    assert_eq!(results, [Ok(()), Ok(())]);
    assert_eq!(store.load(&gid("a")).await.unwrap().as_deref(), Some(&second));
    let claim = Claim { owner: "o".into(), due: at(100), until: at(200), limit: 10 };
    assert_eq!(store.claim_due(&claim).await.unwrap().len(), 3);
    let role = tell(&replica.url(), &["ROLE"]).await;
    assert!(format!("{role:?}").contains("master"), "{role:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_may_be_killed_in_the_middle_of_commits() {
    let mut cluster = RedisCluster::start().await.unwrap();
    keep_all(&cluster.nodes[1].url()).await;
    let store = RedisStore::open(patient(&cluster.urls().join(","))).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let kills = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        cluster.nodes[1].kill_9().await.unwrap();
        cluster.nodes[1].restart().await.unwrap();
        cluster.wait_ok().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (expected, ()) = tokio::join!(commit_until(&store, &stop), kills);
    check_all(&store, &expected).await;
}

/// A slot moves from one node to another, with commits in the middle: nothing is made by halves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_may_move_in_the_middle_of_commits() {
    let cluster = RedisCluster::start().await.unwrap();
    let urls = cluster.urls();
    let store = RedisStore::open(patient(&urls.join(","))).await.unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let moves = async {
        let id = async |url: &str| -> String {
            redis::from_redis_value(tell(url, &["CLUSTER", "MYID"]).await).unwrap()
        };
        let (from, to) = (id(&urls[0]).await, id(&urls[1]).await);
        let port = cluster.nodes[1].port().to_string();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut moved = 0;
        for slot in slots_with_keys(&urls[0]).await.into_iter().take(4) {
            let slot = slot.to_string();
            tell(&urls[1], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await;
            tell(&urls[0], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await;
            loop {
                let keys = tell(&urls[0], &["CLUSTER", "GETKEYSINSLOT", &slot, "5"]).await;
                let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
                if keys.is_empty() {
                    break;
                }
                moved += keys.len();
                let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
                migrate.extend(keys.iter().map(String::as_str));
                tell(&urls[0], &migrate).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for url in [&urls[1], &urls[0], &urls[2]] {
                tell(url, &["CLUSTER", "SETSLOT", &slot, "NODE", &to]).await;
            }
        }
        assert!(moved > 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let (expected, ()) = tokio::join!(commit_until(&store, &stop), moves);
    check_all(&store, &expected).await;
    let claim =
        Claim { owner: "o".into(), due: at(100), until: at(200), limit: expected.len() + 1 };
    assert_eq!(store.claim_due(&claim).await.unwrap().len(), expected.len());
}

/// Returns the slots of a node that hold more than a key or two.
async fn slots_with_keys(url: &str) -> Vec<u16> {
    let keys: Vec<String> = redis::from_redis_value(tell(url, &["KEYS", "*"]).await).unwrap();
    let mut slots = Vec::new();
    for key in keys {
        let slot = tell(url, &["CLUSTER", "KEYSLOT", &key]).await;
        slots.push(redis::from_redis_value(slot).unwrap());
    }
    slots.sort_unstable();
    slots.dedup();
    slots
}
