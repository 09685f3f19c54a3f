//! Measures the SQL store: database transactions, time and this process' CPU per batch.
//!
//! ```sh
//! cargo run --release -p dtmd-store-sql --example fill_sql -- [URL] [BATCHES] [BATCH]
//! ```
//!
//! Each global is a saga of two steps: created, changed twice, finished; `BATCH` of them share each
//! transaction. Without a URL, private servers are started, which force commits to disk.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people, which stops at the first error"
)]

use std::time::Instant;

use std::sync::Arc;

use dtmd_local_servers::{DatabaseOptions, Mariadb, Postgres};
use dtmd_protocol::{BranchStatus, Global, Op};
use dtmd_store::conformance::sample::{at, ended, later, row, saga};
use dtmd_store::{Store, Write};
use dtmd_store_sql::{SqlOptions, SqlStore};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().filter(|url| url != "-");
    let batches: usize = arguments.next().map_or(50, |text| text.parse().unwrap());
    let batch: usize = arguments.next().map_or(64, |text| text.parse().unwrap());
    if let Some(url) = url {
        return measure(&url, batches, batch).await;
    }
    let options = DatabaseOptions { fsync: true };
    let server = Mariadb::start(options).await.unwrap();
    measure(&server.url(), batches, batch).await;
    drop(server);
    let server = Postgres::start(options).await.unwrap();
    measure(&server.url(), batches, batch).await;
}

async fn measure(url: &str, batches: usize, batch: usize) {
    let store = SqlStore::open(SqlOptions::from_url(url).unwrap()).await.unwrap();
    println!("{}: {batches} times {batch} sagas in 4 batches", store.info().location);
    let run = std::process::id();
    let (mut creates, mut updates) = (Spent::default(), Spent::default());
    for first in 0..batches {
        let mut states: Vec<Global> =
            (0..batch).map(|index| new(run, first * batch + index)).collect();
        let writes = states.iter().map(|state| Write::Create(Arc::new(state.clone()))).collect();
        creates.commit(&store, writes).await;
        for step in 0..3usize {
            let next: Vec<Global> = states.iter().map(|state| changed(state, step)).collect();
            let pairs = states.iter().zip(&next);
            let writes = pairs.map(|(before, after)| Write::Update {
                before: Arc::new(before.clone()),
                after: Arc::new(after.clone()),
            });
            updates.commit(&store, writes.collect()).await;
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
    millis: f64,
    cpu_millis: f64,
}

impl Spent {
    async fn commit(&mut self, store: &SqlStore, writes: Vec<Write>) {
        let (begun, cpu) = (Instant::now(), cpu_millis());
        assert!(store.commit(&writes).await.unwrap().iter().all(Result::is_ok));
        self.batches += 1.0;
        self.millis += begun.elapsed().as_secs_f64() * 1_000.0;
        self.cpu_millis += cpu_millis() - cpu;
    }

    fn print(&self, what: &str, batch: usize) {
        let (millis, cpu) = (self.millis / self.batches, self.cpu_millis / self.batches);
        println!(
            "{what}: 1 transaction, {millis:.2} ms, {cpu:.2} ms of this process' CPU a batch; \
             {:.1} µs CPU a write",
            cpu * 1_000.0 / batch as f64
        );
    }
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

/// Returns the CPU time of this process so far; 0 where the system does not tell.
fn cpu_millis() -> f64 {
    let total = |task: &std::path::Path| -> f64 {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok());
        nanos.unwrap_or(0.0) / 1e6
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.map(|task| total(&task.path())).sum()
}
