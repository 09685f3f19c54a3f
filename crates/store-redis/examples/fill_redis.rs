//! Measures the Redis store: how fast it fills, and what a transaction costs in round trips and in
//! processor time, here and in Redis.
//!
//! ```sh
//! cargo run --release -p dtmd-store-redis --example fill_redis -- [URL] [GLOBALS] [BATCH]
//! ```
//!
//! Without a URL (or with `-`) a private Redis server is started. Each global is a saga of two
//! steps: created, changed twice, finished; `BATCH` of them share each flush. What was written is
//! deleted in the end.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people, which stops at the first error"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_local_servers::Redis;
use dtmd_protocol::{BranchStatus, Global, Op, Timestamp};
use dtmd_store::conformance::sample::{at, ended, later, row, saga};
use dtmd_store::{Claim, ListFilter, Store, Write};
use dtmd_store_redis::{RedisOptions, RedisStore};

const LIVE: usize = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().filter(|url| url != "-");
    let count: usize = arguments.next().map_or(100_000, |text| text.parse().unwrap());
    let batch: usize = arguments.next().map_or(64, |text| text.parse().unwrap());
    let mut private = None;
    let url = match url {
        Some(url) => url,
        None => {
            let server = Redis::start(dtmd_local_servers::RedisOptions::default()).await.unwrap();
            private.insert(server).url()
        }
    };
    let mut options = RedisOptions::from_url(&url).unwrap();
    options.prefix = format!("fill-{}", std::process::id());
    let store = RedisStore::open(options).await.unwrap();
    let redis = redis::Client::open(url.split(',').next().unwrap()).unwrap();
    let mut redis = redis.get_multiplexed_async_connection().await.unwrap();
    fill(&store, &mut redis, count, batch).await;
    look(&store).await;
    let begun = Instant::now();
    store.reset().await.unwrap();
    println!("emptied in {:?}", begun.elapsed());
}

type Connection = redis::aio::MultiplexedConnection;

/// What was used up to now.
struct Used {
    calls: f64,
    redis: Duration,
    here: Duration,
    memory: f64,
}

impl Used {
    async fn now(redis: &mut Connection) -> Self {
        let info: String = redis::cmd("INFO").arg("all").query_async(redis).await.unwrap();
        let value = |name: &str| -> f64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
            line.split(',').next().unwrap().trim().parse().unwrap_or(0.0)
        };
        let cpu = value("used_cpu_user:") + value("used_cpu_sys:");
        Self {
            calls: value("cmdstat_evalsha:calls="),
            redis: Duration::from_secs_f64(cpu),
            here: processor_time(),
            memory: value("used_memory:"),
        }
    }
}

async fn fill(store: &RedisStore, redis: &mut Connection, count: usize, batch: usize) {
    let run = std::process::id();
    let before = Used::now(redis).await;
    let begun = Instant::now();
    for first in (0..count).step_by(batch) {
        let mut states: Vec<Global> =
            (first..(first + batch).min(count)).map(|index| new(run, index)).collect();
        commit(store, states.iter().map(|state| Write::Create(Arc::new(state.clone())))).await;
        for step in 0..3usize {
            let next: Vec<Global> = states.iter().map(|state| changed(state, step)).collect();
            let pairs = states.iter().zip(&next);
            let writes = pairs.map(|(before, after)| Write::Update {
                before: Arc::new(before.clone()),
                after: Arc::new(after.clone()),
            });
            commit(store, writes).await;
            states = next;
        }
    }
    let took = begun.elapsed();
    let after = Used::now(redis).await;
    let each = |duration: Duration| duration.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{count} globals in {took:?}: {:.0}/s, {batch} in each of 4 flushes",
        count as f64 / took.as_secs_f64()
    );
    println!(
        "each: {:.3} round trips, {:.1} µs of processor here, {:.1} µs in Redis, {:.0} bytes there",
        (after.calls - before.calls) / count as f64,
        each(after.here - before.here),
        each(after.redis - before.redis),
        (after.memory - before.memory) / count as f64,
    );
    let live = (0..LIVE).map(|index| Write::Create(Arc::new(new(run, count + index))));
    commit(store, live).await;
}

async fn look(store: &RedisStore) {
    for round in ["first", "second"] {
        let begun = Instant::now();
        let page = store.list(&ListFilter::default(), "", 100).await.unwrap();
        println!("{round} page of {}: {:?}", page.globals.len(), begun.elapsed());
    }
    let begun = Instant::now();
    let totals = store.totals().await.unwrap();
    println!("totals: {:?}, {totals:?}", begun.elapsed());
    let begun = Instant::now();
    store.oldest().await.unwrap();
    println!("the oldest: {:?}", begun.elapsed());
    let claim = |due| Claim { owner: "fill".into(), due, until: at(10_000), limit: 100 };
    let begun = Instant::now();
    assert!(store.claim_due(&claim(Timestamp(0))).await.unwrap().is_empty());
    println!("a claim of nothing: {:?}", begun.elapsed());
    let (begun, mut claimed) = (Instant::now(), 0);
    loop {
        let globals = store.claim_due(&claim(at(100))).await.unwrap();
        if globals.is_empty() {
            break;
        }
        claimed += globals.len();
    }
    println!("{claimed} claimed, 100 at a time: {:?}", begun.elapsed());
    let (begun, mut deleted) = (Instant::now(), 0);
    loop {
        let purge = store.purge(at(301), 1000).await.unwrap();
        deleted += purge.deleted;
        if !purge.more {
            break;
        }
    }
    println!("{deleted} deleted, 1000 at a time: {:?}", begun.elapsed());
}

async fn commit(store: &RedisStore, writes: impl Iterator<Item = Write>) {
    let writes: Vec<Write> = writes.collect();
    assert!(store.commit(&writes).await.unwrap().iter().all(Result::is_ok));
}

fn new(run: u32, index: usize) -> Global {
    let mut global = saga(&format!("{run:08x}{:014x}", index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    global.branches.extend([row("02", Op::Compensate), row("02", Op::Action)]);
    global
}

fn changed(state: &Global, step: usize) -> Global {
    let next = later(state, |global| {
        global.updated = at(200);
        if let Some(row) = global.branches.get_mut(2 * step + 1) {
            row.status = BranchStatus::Succeed;
            row.finished = Some(at(200));
        }
    });
    if step == 2 { ended(next, at(300)) } else { next }
}

/// Returns the processor time of this process; none where the system does not tell.
fn processor_time() -> Duration {
    // Ticks of a hundredth of a second, after the command's name.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / 100.0)
}
