//! Measures one store by itself: what writes cost, and lists, totals, claims and the clean-up over
//! a long history.
//!
//! ```sh
//! cargo run --release -p dtmd-bench --example store -- WHICH [FINISHED] [BATCH]
//! ```
//!
//! `WHICH` is `embedded`, `mariadb`, `postgres`, `redis` (private servers that force every commit
//! to disk), `memory`, or the URL of a database whose data may be deleted. First 200 batches of sagas
//! of two steps are created, changed twice and finished. Then a history of `FINISHED` (a million)
//! is written, one transaction a second, of two types and two ends, and ten thousand that are due.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people, which stops at the first error"
)]

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_bench::procfs;
use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres, Redis};
use dtmd_protocol::{BranchStatus, Global, GlobalStatus, Mode, Op, Timestamp, TransType};
use dtmd_store::conformance::sample::{at, ended, later, row, saga};
use dtmd_store::{Claim, ListFilter, MemoryStore, Store, Write};
use dtmd_store_embedded::EmbeddedStore;
use dtmd_store_redis::{RedisOptions, RedisStore};
use dtmd_store_sql::{SqlOptions, SqlStore};

/// Batches whose cost is measured.
const BATCHES: usize = 200;
/// Globals in a batch of the history: its writing is not what is measured.
const FILL_BATCH: usize = 2000;
const DUE: usize = 10_000;
/// When the history begins, in seconds: long before now, so that all of it may be cleaned up.
const BEGIN: i64 = 1_600_000_000;
const PAGE: usize = 100;
/// Pages of a walk through a list.
const WALK: usize = 200;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let which = arguments.next().expect("embedded, mariadb, postgres, redis, memory or a URL");
    let count: usize = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
    let batch: usize = arguments.next().map_or(64, |text| text.parse().unwrap());
    // What must live as long as the store: a server, a directory.
    let (store, _home) = open(&which).await;
    println!("{}", store.info().location);
    cost(&*store, batch).await;
    fill(&*store, count).await;
    look(&*store, count).await;
    empty(&*store).await;
}

async fn open(which: &str) -> (Arc<dyn Store>, Box<dyn Any>) {
    let forced = DatabaseOptions { fsync: true };
    match which {
        "memory" => (Arc::new(MemoryStore::default()), Box::new(())),
        "embedded" => {
            let folder = tempfile::tempdir().unwrap();
            let options =
                dtmd_store_embedded::Options { history_max_count: None, ..Default::default() };
            (Arc::new(EmbeddedStore::open(folder.path(), options).unwrap()), Box::new(folder))
        }
        "mariadb" => {
            let server = Mariadb::start(forced).await.unwrap();
            (open_url(&server.url()).await, Box::new(server))
        }
        "postgres" => {
            let server = Postgres::start(forced).await.unwrap();
            (open_url(&server.url()).await, Box::new(server))
        }
        "redis" => {
            let server = Redis::start(dtmd_local_servers::RedisOptions::default()).await.unwrap();
            (open_url(&server.url()).await, Box::new(server))
        }
        url => (open_url(url).await, Box::new(())),
    }
}

async fn open_url(url: &str) -> Arc<dyn Store> {
    if url.starts_with("redis") {
        return Arc::new(RedisStore::open(RedisOptions::from_url(url).unwrap()).await.unwrap());
    }
    Arc::new(SqlStore::open(SqlOptions::from_url(url).unwrap()).await.unwrap())
}

/// Takes sagas through their lives, a batch at a time.
async fn cost(store: &dyn Store, batch: usize) {
    let (mut creates, mut updates) = (Spent::default(), Spent::default());
    for first in 0..BATCHES {
        let mut states: Vec<Global> =
            (0..batch).map(|index| new("cost", first * batch + index)).collect();
        let writes = states.iter().map(|state| Write::Create(Arc::new(state.clone()))).collect();
        creates.commit(store, writes).await;
        for step in 0..3usize {
            let next: Vec<Global> = states.iter().map(|state| changed(state, step)).collect();
            let pairs = states.iter().zip(&next);
            let writes = pairs.map(|(before, after)| Write::Update {
                before: Arc::new(before.clone()),
                after: Arc::new(after.clone()),
            });
            updates.commit(store, writes.collect()).await;
            states = next;
        }
    }
    creates.print("creates", batch);
    updates.print("updates", batch);
}

/// What batches of one kind cost.
#[derive(Default)]
struct Spent {
    batches: f64,
    time: Duration,
    cpu: Duration,
}

impl Spent {
    async fn commit(&mut self, store: &dyn Store, writes: Vec<Write>) {
        let (begun, cpu) = (Instant::now(), processor_time());
        commit(store, &writes).await;
        self.batches += 1.0;
        self.time += begun.elapsed();
        self.cpu += processor_time() - cpu;
    }

    fn print(&self, what: &str, batch: usize) {
        let each = |time: Duration| time.as_secs_f64() * 1e3 / self.batches;
        let (millis, cpu) = (each(self.time), each(self.cpu));
        println!(
            "{batch} {what} a batch: {millis:.2} ms; {:.1} µs of this process' processor a write",
            cpu * 1e3 / batch as f64
        );
    }
}

/// Writes the history, each global as it ended, and what is due.
async fn fill(store: &dyn Store, count: usize) {
    let (begun, before) = (Instant::now(), resident_mb());
    for first in (0..count).step_by(FILL_BATCH) {
        let globals = (first..(first + FILL_BATCH).min(count)).map(finished);
        let writes: Vec<Write> = globals.map(|global| Write::Create(Arc::new(global))).collect();
        commit(store, &writes).await;
    }
    for first in (0..DUE).step_by(FILL_BATCH) {
        let globals = (first..first + FILL_BATCH).map(|index| new("due", index));
        let writes: Vec<Write> = globals.map(|global| Write::Create(Arc::new(global))).collect();
        commit(store, &writes).await;
    }
    let took = begun.elapsed();
    println!(
        "{count} finished and {DUE} due ones written in {:.1} s; {:.0} MB more resident here",
        took.as_secs_f64(),
        resident_mb() - before
    );
}

async fn look(store: &dyn Store, count: usize) {
    let middle = Some(at(BEGIN + i64::try_from(count / 2).unwrap()));
    let late = Some(at(BEGIN + i64::try_from(count - count / 100).unwrap()));
    let (failed, msg) = (Some(GlobalStatus::Failed), Some(TransType::Msg));
    let filters = [
        ("none", ListFilter::default()),
        ("status", ListFilter { status: failed, ..Default::default() }),
        ("type", ListFilter { trans_type: msg, ..Default::default() }),
        ("status and type", ListFilter { status: failed, trans_type: msg, ..Default::default() }),
        ("created after, the last 1 %", ListFilter { created_from: late, ..Default::default() }),
        ("created before the middle", ListFilter { created_to: middle, ..Default::default() }),
        (
            "all of them",
            ListFilter {
                status: failed,
                trans_type: msg,
                created_to: middle,
                ..Default::default()
            },
        ),
        ("wake-ups", ListFilter { wakes_after: Some(at(50)), ..Default::default() }),
    ];
    for (name, filter) in filters {
        let (mut position, mut times, mut found) = (String::new(), Vec::new(), 0);
        for _ in 0..WALK {
            let begun = Instant::now();
            let page = store.list(&filter, &position, PAGE).await.unwrap();
            times.push(begun.elapsed());
            found += page.globals.len();
            position = page.next_position;
            if position.is_empty() {
                break;
            }
        }
        let first = times[0];
        times.sort();
        println!(
            "list by {name}: first page {:.2} ms, of {} pages with {found} half within {:.2} ms, \
             the slowest {:.2} ms",
            millis(first),
            times.len(),
            millis(times[times.len() / 2]),
            millis(times[times.len() - 1]),
        );
    }
    let begun = Instant::now();
    let totals = store.totals().await.unwrap();
    let total: u64 = totals.iter().map(|(_, _, count)| count).sum();
    println!("totals ({total} in all): {:.2} ms", millis(begun.elapsed()));
    let begun = Instant::now();
    store.oldest().await.unwrap();
    println!("the oldest unfinished: {:.2} ms", millis(begun.elapsed()));
}

/// Claims what is due, and deletes the history.
async fn empty(store: &dyn Store) {
    let claim = |due| Claim { owner: "bench".into(), due, until: at(BEGIN), limit: 256 };
    let begun = Instant::now();
    assert!(store.claim_due(&claim(Timestamp(0))).await.unwrap().is_empty());
    println!("a claim of nothing: {:.2} ms", millis(begun.elapsed()));
    let (begun, mut claimed) = (Instant::now(), 0);
    loop {
        let globals = store.claim_due(&claim(at(100))).await.unwrap();
        if globals.is_empty() {
            break;
        }
        claimed += globals.len();
    }
    println!("{claimed} claimed, 256 at a time, in {:.2} s", begun.elapsed().as_secs_f64());
    let (begun, mut deleted, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    loop {
        let each = Instant::now();
        let purge = store.purge(at(BEGIN * 2), 500).await.unwrap();
        slowest = slowest.max(each.elapsed());
        deleted += purge.deleted;
        if !purge.more {
            break;
        }
    }
    println!(
        "{deleted} deleted, 500 at a time, in {:.1} s, the slowest in {:.1} ms",
        begun.elapsed().as_secs_f64(),
        millis(slowest)
    );
}

async fn commit(store: &dyn Store, writes: &[Write]) {
    assert!(store.commit(writes).await.unwrap().iter().all(Result::is_ok));
}

/// A saga of two steps that is due.
fn new(kind: &str, index: usize) -> Global {
    let spread = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut global = saga(&format!("{kind}-{spread:016x}"));
    global.branches.extend([row("02", Op::Compensate), row("02", Op::Action)]);
    global
}

/// Its state after the next step, or its end.
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

/// A global of the history: every third is a message, every tenth has failed.
fn finished(index: usize) -> Global {
    let mut global = new("past", index);
    global.created = at(BEGIN + i64::try_from(index).unwrap());
    if index.is_multiple_of(3) {
        global.mode = Mode::Msg { delay: Duration::ZERO };
        global.steps = Arc::from([]);
        global.branches = vec![row("01", Op::Msg)];
    }
    for row in &mut global.branches {
        row.status = BranchStatus::Succeed;
        row.finished = Some(global.created);
    }
    let end = global.created;
    global = ended(global, end);
    if index.is_multiple_of(10) {
        global.status = GlobalStatus::Failed;
    }
    global
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns the processor time of this process; none where the system does not tell.
fn processor_time() -> Duration {
    procfs::usage(std::process::id()).unwrap_or_default().cpu
}

/// Returns the resident memory in MB; 0 where the system does not tell.
fn resident_mb() -> f64 {
    procfs::memory(std::process::id()).unwrap_or_default().now as f64 / 1024.0
}
