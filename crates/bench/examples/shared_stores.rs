//! Measures B12 to B14: what a saga costs a server that keeps it in a database or in Redis.
//!
//! ```sh
//! cargo build --release -p dtmd
//! cargo run --release -p dtmd-bench --example shared_stores -- [DTMD] [SECONDS] [IN_FLIGHT]
//! ```
//!
//! Private servers that force every commit to disk; sagas of two steps, the callers wait. What the
//! database itself spends is not counted.
//!
//! At such low rates a participant pays for its own wakes, so its cost does not tell how fast the
//! machine is (decision 12). B1 is run before and after each store, and its participants tell.

#![allow(clippy::print_stdout, reason = "a measurement for people")]

mod common;
#[path = "common/place.rs"]
mod place;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dtmd_bench::{BenchOptions, StoreChoice, budgets, procfs, run};

use place::Place;

/// B12, and B14's round trips: a batch is one database transaction, or one script.
const BATCHES_MAX: f64 = 0.5;
/// B13, in microseconds.
const SQL_CPU_MAX: f64 = 150.0;
/// B14, in microseconds.
const REDIS_CPU_MAX: f64 = 120.0;
/// How long B1 runs to tell the machine's speed.
const YARDSTICK: Duration = Duration::from_secs(4);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    // What tells of a run's progress stays on its thread.
    tokio::task::LocalSet::new().run_until(measure_all()).await
}

async fn measure_all() -> Result<()> {
    let sagas = common::waiting_sagas()?;
    let folder = tempfile::tempdir()?;
    let measure = async |name: &str, store: &str| -> Result<()> {
        let before = slowness(&sagas).await?;
        let config = folder.path().join(format!("{name}.yml"));
        std::fs::write(&config, store)?;
        let options = BenchOptions {
            store: StoreChoice::Config(config),
            data: Some(made(folder.path(), name)?),
            ..sagas.clone()
        };
        let report = run::run(&options, &|_| {}).await?;
        ensure!(report.errors == 0, "a transaction went wrong: {:?}", report.error_texts);
        let slowness = before.zip(slowness(&sagas).await?);
        let cpu = report.cpu_us_per_tx.server.context("the server's CPU is not known")?;
        let (judged, speed) = match slowness.map(|(before, after)| f64::midpoint(before, after)) {
            Some(slowness) => {
                let speed = format!(
                    ", {:.0} at the reference's speed, which is {slowness:.2} times this machine's",
                    cpu / slowness
                );
                (cpu / slowness, speed)
            }
            None => (cpu, String::new()),
        };
        let batches = report.flushes_per_tx.context("the server counts no batches")?;
        println!(
            "{name}: {:.0}/s, p50 {:.1} ms, p99 {:.1} ms, foreign load {:.1} cores",
            report.tps,
            report.latency_us.p50 / 1e3,
            report.latency_us.p99 / 1e3,
            report.foreign_cores
        );
        let (batch_budget, cpu_budget, cpu_max) = match name {
            "redis" => ("B14", "B14", REDIS_CPU_MAX),
            _ => ("B12", "B13", SQL_CPU_MAX),
        };
        let met = |is_met: bool| if is_met { "met" } else { "NOT met" };
        println!(
            "{name}: {batch_budget} {batches:.3} batches a saga (≤ {BATCHES_MAX}: {}); \
             {cpu_budget} {cpu:.0} µs of the server's CPU{speed} (≤ {cpu_max}: {})",
            met(batches <= BATCHES_MAX),
            met(judged <= cpu_max)
        );
        Ok(())
    };
    for (name, driver) in [("mariadb", "mysql"), ("postgres", "postgres"), ("redis", "redis")] {
        let place = Place::start(driver).await?;
        measure(name, &place.yaml).await?;
    }
    Ok(())
}

/// How much slower the machine is now than the one that the budgets were set on; `None` if its
/// processor is of another kind.
async fn slowness(sagas: &BenchOptions) -> Result<Option<f64>> {
    if !budgets::tells_speed(&procfs::processor()) {
        return Ok(None);
    }
    let options = BenchOptions { concurrency: 64, duration: YARDSTICK, ..sagas.clone() };
    let report = run::run(&options, &|_| {}).await?;
    let mut judged = report.budgets.iter();
    let slowness = judged.find_map(|budget| Some(budget.measured / budget.at_reference?));
    slowness.map(Some).context("the yardstick's run was not judged")
}

fn made(folder: &Path, name: &str) -> Result<PathBuf> {
    let made = folder.join(name);
    std::fs::create_dir_all(&made)?;
    Ok(made)
}
