//! Several stores on one Redis, and what is in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dtmd_protocol::{Global, Timestamp};
use dtmd_store::conformance::sample::{at, ended, gid, later, saga};
use dtmd_store::{Claim, Health, Lease, ListFilter, Purge, Store, Write, WriteError};
use dtmd_store_redis::{RedisOptions, RedisStore};

async fn open_shifted(url: &str, prefix: &str, shift_ms: i64) -> RedisStore {
    let mut options = RedisOptions::from_url(url).unwrap();
    options.prefix = prefix.to_owned();
    options.clock_shift_ms = shift_ms;
    RedisStore::open(options).await.unwrap()
}

async fn open(url: &str, prefix: &str) -> RedisStore {
    open_shifted(url, prefix, 0).await
}

/// The URLs of one server and of a cluster, each with a fresh prefix.
async fn places() -> Vec<(String, String)> {
    let single = dtmd_local_servers::shared::redis().await.unwrap();
    let (urls, prefix) = dtmd_local_servers::shared::redis_cluster().await.unwrap();
    vec![single, (urls.join(","), prefix)]
}

fn create(global: Global) -> Write {
    Write::Create(Arc::new(global))
}

fn change(before: &Global, after: &Global) -> Write {
    Write::Update { before: Arc::new(before.clone()), after: Arc::new(after.clone()) }
}

async fn fill(store: &RedisStore, count: usize) {
    let writes: Vec<Write> =
        (0..count).map(|index| create(saga(&format!("g{index:05}")))).collect();
    assert!(store.commit(&writes).await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_stores_that_create_one_wins() {
    for (url, prefix) in places().await {
        let stores = [open(&url, &prefix).await, open(&url, &prefix).await];
        let race = async |store: &RedisStore, owner: &str| -> Vec<bool> {
            let mut won = Vec::new();
            for round in 0..10 {
                let batch: Vec<Write> = (0..20)
                    .map(|index| {
                        let mut global = saga(&format!("g{round}-{index}"));
                        global.owner = owner.into();
                        create(global)
                    })
                    .collect();
                let results = store.commit(&batch).await.unwrap();
                won.extend(results.iter().map(Result::is_ok));
            }
            won
        };
        let (left, right) = tokio::join!(race(&stores[0], "left"), race(&stores[1], "right"));
        for (index, (left, right)) in left.iter().zip(&right).enumerate() {
            assert!(left != right, "{index}");
            let name = gid(&format!("g{}-{}", index / 20, index % 20));
            let stored = stores[0].load(&name).await.unwrap().unwrap();
            assert_eq!(&*stored.owner, if *left { "left" } else { "right" });
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_that_update_lose_no_change() {
    for (url, prefix) in places().await {
        let stores = [open(&url, &prefix).await, open(&url, &prefix).await];
        stores[0].commit(&[create(saga("a"))]).await.unwrap();
        let race = async |store: &RedisStore, tag: u32| {
            let mut made = 0;
            while made < 30 {
                let before = store.load(&gid("a")).await.unwrap().unwrap();
                let mut after = Global::clone(&before);
                after.revision = before.revision.next_by(tag);
                after.branches[0].retry.attempts += 1;
                let result = store.commit(&[change(&before, &after)]).await.unwrap().remove(0);
                match result {
                    Ok(()) => made += 1,
                    Err(error) => assert_eq!(error, WriteError::Conflict("a".to_owned())),
                }
            }
        };
        tokio::join!(race(&stores[0], 1), race(&stores[1], 2));
        let stored = stores[0].load(&gid("a")).await.unwrap().unwrap();
        assert_eq!(stored.branches[0].retry.attempts, 60);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_claimers_get_disjoint_sets_and_all() {
    for (url, prefix) in places().await {
        let stores = [open(&url, &prefix).await, open(&url, &prefix).await];
        fill(&stores[0], 600).await;
        let race = async |store: &RedisStore, owner: &str| {
            let claim = Claim { owner: owner.into(), due: at(100), until: at(1000), limit: 37 };
            let mut taken = Vec::new();
            let mut empty = 0;
            while empty < 2 {
                let globals = store.claim_due(&claim).await.unwrap();
                empty = if globals.is_empty() { empty + 1 } else { 0 };
                assert!(globals.iter().all(|global| global.epoch == 1 && &*global.owner == owner));
                taken.extend(globals.iter().map(|global| global.gid.clone()));
            }
            taken
        };
        let (left, right) = tokio::join!(race(&stores[0], "left"), race(&stores[1], "right"));
        let all: HashSet<_> = left.iter().chain(&right).collect();
        assert_eq!((all.len(), left.len() + right.len()), (600, 600));
        let oldest = stores[1].oldest().await.unwrap();
        assert_eq!(oldest.due, Some(at(1000)));
    }
}

fn claim(owner: &str, due: i64, until: i64) -> Claim {
    Claim { owner: owner.into(), due: Timestamp(due), until: Timestamp(until), limit: 10 }
}

async fn claimed(store: &RedisStore, claim: Claim) -> Vec<String> {
    let globals = store.claim_due(&claim).await.unwrap();
    globals.iter().map(|global| global.gid.to_string()).collect()
}

/// Half a minute between the clocks: wake-ups and leases hold all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_may_differ_by_half_a_minute() {
    const SECOND: i64 = 1_000_000;
    let (url, prefix) = dtmd_local_servers::shared::redis().await.unwrap();
    let ahead = open_shifted(&url, &prefix, 30_000).await;
    let behind = open_shifted(&url, &prefix, -30_000).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_micros()).unwrap();
    // One moment, as each of the two sees it.
    let (fast, slow) = (now + 30 * SECOND, now - 30 * SECOND);
    let mut global = saga("a");
    global.wake_at = Timestamp(fast + 10 * SECOND);
    ahead.commit(&[create(global)]).await.unwrap();
    assert_eq!(claimed(&behind, claim("slow", slow + 7 * SECOND, 0)).await, [""; 0]);
    let lease = claim("slow", slow + 13 * SECOND, slow + 60 * SECOND);
    assert_eq!(claimed(&behind, lease).await, ["a"]);
    // The lease runs, though by the other's clock it ended long ago.
    assert_eq!(claimed(&ahead, claim("fast", fast + 57 * SECOND, 0)).await, [""; 0]);
    let due = ahead.oldest().await.unwrap().due.unwrap().0 - (fast + 60 * SECOND);
    assert!(due.abs() < 3 * SECOND, "{due}");
    let stored = behind.load(&gid("a")).await.unwrap().unwrap();
    assert_eq!((stored.epoch, stored.wake_at), (1, Timestamp(slow + 60 * SECOND)));
    let renewal = Write::Lease(Lease {
        gid: gid("a"),
        revision: stored.revision,
        epoch: 1,
        owner: "slow".into(),
        new_epoch: 1,
        wake_at: Timestamp(slow + 90 * SECOND),
    });
    assert_eq!(behind.commit(&[renewal]).await.unwrap(), [Ok(())]);
    assert_eq!(claimed(&ahead, claim("fast", fast + 87 * SECOND, 0)).await, [""; 0]);
    let next = claim("fast", fast + 93 * SECOND, fast + 200 * SECOND);
    assert_eq!(claimed(&ahead, next).await, ["a"]);
    let checks = behind.examine().await;
    let clocks = checks.iter().find(|check| check.name == "clocks").unwrap();
    assert_eq!(clocks.health, Health::Warning, "{clocks:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_are_paged_newest_first() {
    for (url, prefix) in places().await {
        let store = open(&url, &prefix).await;
        fill(&store, 5000).await;
        let filters = [
            (ListFilter::default(), 2500),
            (ListFilter { created_from: Some(at(1)), ..ListFilter::default() }, 1000),
        ];
        for (filter, limit) in filters {
            let (mut seen, mut position) = (Vec::new(), String::new());
            loop {
                let page = store.list(&filter, &position, limit).await.unwrap();
                seen.extend(page.globals.iter().map(|global| global.gid.to_string()));
                position = page.next_position;
                if position.is_empty() {
                    break;
                }
            }
            let expected: Vec<String> =
                (0..5000).rev().map(|index| format!("g{index:05}")).collect();
            assert!(seen == expected, "{} {:?}", seen.len(), &seen[..5]);
        }
        let none = ListFilter { created_from: Some(at(1_000_000)), ..ListFilter::default() };
        let page = store.list(&none, "", 10).await.unwrap();
        assert_eq!((page.globals.len(), page.next_position.as_str()), (0, ""));
        store.reset().await.unwrap();
        assert_eq!(store.totals().await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mebibyte_is_kept_and_claimed() {
    for (url, prefix) in places().await {
        let store = open(&url, &prefix).await;
        let globals: Vec<Global> = (0..6)
            .map(|index| {
                let mut global = saga(&format!("large-{index}-订单"));
                global.branches[0].data = (0..1 << 20).map(|byte| (byte % 251) as u8).collect();
                global
            })
            .collect();
        let batch: Vec<Write> = globals.iter().cloned().map(create).collect();
        assert!(store.commit(&batch).await.unwrap().iter().all(Result::is_ok));
        let claim = Claim { owner: "o".into(), due: at(100), until: at(200), limit: 10 };
        let mut claimed = store.claim_due(&claim).await.unwrap();
        claimed.sort_by(|left, right| left.gid.cmp(&right.gid));
        assert_eq!(claimed.len(), globals.len());
        for (global, claimed) in globals.iter().zip(claimed) {
            assert!(global.branches == claimed.branches);
            let stored = store.load(&global.gid).await.unwrap().unwrap();
            assert!(stored == claimed);
        }
    }
}

/// Returns all keys under a prefix, and whether each expires by itself.
async fn keys(url: &str, prefix: &str) -> Vec<(String, bool)> {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let pattern = format!("{prefix}*");
    let names: Vec<String> =
        redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.unwrap();
    let mut keys = Vec::new();
    for name in names {
        let ttl: i64 = redis::cmd("PTTL").arg(&name).query_async(&mut connection).await.unwrap();
        keys.push((name, ttl >= 0));
    }
    keys
}

/// Unfinished data never expires (spec 07 D11), and after a clean-up nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_may_go_goes_and_then_all_of_it() {
    let (url, prefix) = dtmd_local_servers::shared::redis().await.unwrap();
    let store = open(&url, &prefix).await;
    fill(&store, 200).await;
    let batch: Vec<Write> = (0..200)
        .map(|index| {
            let before = saga(&format!("g{index:05}"));
            change(&before, &ended(later(&before, |_| ()), at(500)))
        })
        .collect();
    let kv = |expected, value: Option<&str>| Write::Kv {
        cat: "topics".to_owned(),
        key: "k".to_owned(),
        expected,
        value: value.map(str::to_owned),
        now: at(1),
    };
    store.commit(&[kv(0, Some("v")), create(saga("live"))]).await.unwrap();
    let lasting = |keys: Vec<(String, bool)>| -> Vec<String> {
        keys.into_iter().filter(|(_, expires)| !expires).map(|(name, _)| name).collect()
    };
    let names = lasting(keys(&url, &prefix).await);
    assert_eq!(names.iter().filter(|name| name.contains(":g:")).count(), 201);
    assert!(store.commit(&batch).await.unwrap().iter().all(Result::is_ok));
    let purge = store.purge(at(501), 150).await.unwrap();
    assert_eq!(purge, Purge { deleted: 150, more: true });
    let purge = store.purge(at(501), 150).await.unwrap();
    assert_eq!(purge, Purge { deleted: 50, more: false });
    assert!(store.load(&gid("live")).await.unwrap().is_some());
    let last = ended(later(&saga("live"), |_| ()), at(500));
    store.commit(&[kv(1, None), change(&saga("live"), &last)]).await.unwrap();
    store.purge(at(501), 150).await.unwrap();
    let left = lasting(keys(&url, &prefix).await);
    assert!(left.len() == 1 && left[0].ends_with(":meta"), "{left:?}");
    // Another installation on the same server, and a reset that leaves it alone.
    let (_, other) = dtmd_local_servers::shared::redis().await.unwrap();
    let neighbour = open(&url, &other).await;
    fill(&neighbour, 3).await;
    fill(&store, 3).await;
    store.reset().await.unwrap();
    assert_eq!(lasting(keys(&url, &prefix).await).len(), 1);
    assert!(neighbour.load(&gid("g00002")).await.unwrap().is_some());
}

/// What only eviction or a person can do: an index is gone, or a global is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_indexes_come_back_and_dangling_entries_go() {
    let (url, prefix) = dtmd_local_servers::shared::redis().await.unwrap();
    let store = open(&url, &prefix).await;
    fill(&store, 100).await;
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (name, _) in keys(&url, &prefix).await {
        let is_index = name.ends_with(":due") || name.ends_with(":totals");
        if is_index || name.ends_with(":g:g00042") {
            let () = redis::cmd("DEL").arg(&name).query_async(&mut connection).await.unwrap();
        }
    }
    let claim = Claim { owner: "o".into(), due: at(100), until: at(200), limit: 200 };
    assert!(store.claim_due(&claim).await.unwrap().is_empty());
    drop(store);
    let store = open(&url, &prefix).await;
    assert_eq!(store.claim_due(&claim).await.unwrap().len(), 99);
    let count: u64 = store.totals().await.unwrap().iter().map(|(.., count)| count).sum();
    assert_eq!(count, 99);
    for (name, _) in keys(&url, &prefix).await {
        if name.ends_with(":g:g00007") {
            let () = redis::cmd("DEL").arg(&name).query_async(&mut connection).await.unwrap();
        }
    }
    let claim = Claim { due: at(200), until: at(300), ..claim };
    assert_eq!(store.claim_due(&claim).await.unwrap().len(), 98);
    assert!(store.claim_due(&claim).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_may_be_flushed_at_any_time() {
    for (url, prefix) in places().await {
        let store = Arc::new(open(&url, &prefix).await);
        let first = url.split(',').next().unwrap().to_owned();
        let client = redis::Client::open(first).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        for round in 0..20 {
            let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut connection).await.unwrap();
            let batch: Vec<Write> =
                (0..10).map(|index| create(saga(&format!("g{round}-{index}")))).collect();
            let committed = store.commit(&batch);
            let counted = store.totals();
            let (committed, counted) = tokio::join!(committed, counted);
            assert!(committed.unwrap().iter().all(Result::is_ok));
            counted.unwrap();
        }
        let count: u64 = store.totals().await.unwrap().iter().map(|(.., count)| count).sum();
        assert_eq!(count, 200);
    }
}

/// A store may be used from runtimes that are gone by the next call.
#[test]
fn any_runtime_may_call() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (url, prefix) = runtime().block_on(dtmd_local_servers::shared::redis()).unwrap();
    let store = Arc::new(runtime().block_on(open(&url, &prefix)));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for round in 0..10 {
                    let name = format!("g{thread}-{round}");
                    let batch = [create(saga(&name))];
                    let results = runtime().block_on(store.commit(&batch)).unwrap();
                    assert_eq!(results, [Ok(())]);
                    assert!(runtime().block_on(store.load(&gid(&name))).unwrap().is_some());
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_layout_is_refused() {
    let (url, prefix) = dtmd_local_servers::shared::redis().await.unwrap();
    drop(open(&url, &prefix).await);
    let meta = keys(&url, &prefix).await.into_iter().find(|(name, _)| name.ends_with("meta"));
    let client = redis::Client::open(url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("SET")
        .arg(&[meta.unwrap().0.as_str(), "dtmd 2 128"])
        .query_async(&mut connection)
        .await
        .unwrap();
    let mut options = RedisOptions::from_url(&url).unwrap();
    options.prefix = prefix;
    let refused = RedisStore::open(options).await.unwrap_err().to_string();
    assert!(refused.contains("dtmd 2 128") && refused.contains("use the release"), "{refused}");
}
