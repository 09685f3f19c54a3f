//! Measures the embedded store: how fast it fills, how long it takes to open, how much memory the
//! history takes.
//!
//! ```sh
//! cargo run --release -p dtmd-store-embedded --example fill -- DIR [GLOBALS] [BATCH]
//! ```
//!
//! Each global is a saga of two steps: created, changed twice, finished; `BATCH` of them share each
//! flush. The directory must be empty or a store.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people, which stops at the first error"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use dtmd_protocol::{BranchStatus, Global, Op};
use dtmd_store::conformance::sample::{at, ended, later, row, saga};
use dtmd_store::{ListFilter, Store, Write};
use dtmd_store_embedded::{EmbeddedStore, Options};

const LIVE: usize = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| "fill-data".to_owned()));
    let count: usize = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
    let batch: usize = arguments.next().map_or(64, |text| text.parse().unwrap());
    let base = resident_mb();
    fill(&dir, count, batch).await;
    println!("after the fill: {:.0} MB more resident", resident_mb() - base);
    for round in ["first", "second"] {
        let begun = Instant::now();
        let store = EmbeddedStore::open(&dir, options()).unwrap();
        let opened = begun.elapsed();
        let stats = store.stats();
        println!("{round} opening: {opened:?}, {} finished, {} live", stats.finished, stats.live);
        let begun = Instant::now();
        let page = store.list(&ListFilter::default(), "", 100).await.unwrap();
        println!("a page of {}: {:?}", page.globals.len(), begun.elapsed());
    }
    let child = std::env::current_exe().unwrap();
    if count > 0 {
        // In a process of its own, so that the fill's memory does not count.
        let status = std::process::Command::new(child).arg(&dir).arg("0").status().unwrap();
        assert!(status.success());
    } else {
        let store = EmbeddedStore::open(&dir, options()).unwrap();
        println!("opened alone: {:.0} MB resident, {base:.0} MB before", resident_mb());
        drop(store);
    }
}

fn options() -> Options {
    Options { history_max_count: None, ..Options::default() }
}

async fn fill(dir: &Path, count: usize, batch: usize) {
    if count == 0 {
        return;
    }
    let store = EmbeddedStore::open(dir, options()).unwrap();
    let run = std::process::id();
    let begun = Instant::now();
    for first in (0..count).step_by(batch) {
        let mut states: Vec<Global> =
            (first..(first + batch).min(count)).map(|index| new(run, index)).collect();
        commit(&store, states.iter().map(|state| Write::Create(Arc::new(state.clone())))).await;
        for step in 0..3usize {
            let next: Vec<Global> = states.iter().map(|state| changed(state, step)).collect();
            let pairs = states.iter().zip(&next);
            let writes = pairs.map(|(before, after)| Write::Update {
                before: Arc::new(before.clone()),
                after: Arc::new(after.clone()),
            });
            commit(&store, writes).await;
            states = next;
        }
    }
    let took = begun.elapsed();
    let live = (0..LIVE).map(|index| Write::Create(Arc::new(new(run, count + index))));
    commit(&store, live).await;
    let rate = count as f64 / took.as_secs_f64();
    println!("{count} globals in {took:?}: {rate:.0}/s, {batch} in each of 4 flushes");
    println!("{:?}", store.stats());
    store.maintain().unwrap();
}

async fn commit(store: &EmbeddedStore, writes: impl Iterator<Item = Write>) {
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

/// Returns the resident memory in MB; 0 where the system does not tell.
fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}
