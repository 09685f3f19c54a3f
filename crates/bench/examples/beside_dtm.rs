//! Measures dtmd beside DTM itself, on the same stores, with the same load and services.
//!
//! ```sh
//! cargo build --release -p dtmd
//! cargo run --release -p dtmd-bench --example beside_dtm -- [DTMD] [SECONDS] [IN_FLIGHT]
//! ```
//!
//! DTM is compiled by Go from its published module. Both servers have a private database, Redis or
//! folder to themselves, one after the other; every commit is forced to disk. The callers wait for
//! the result. What the database itself spends is not counted.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a measurement for people")]

mod common;
#[path = "common/place.rs"]
mod place;

use anyhow::{Context as _, Result, ensure};
use dtmd_bench::{BenchOptions, Mode, Report, StoreChoice, Target, run};
use dtmd_local_servers::DtmProgram;

use place::Place;

/// By DTM's names; `boltdb` is dtmd's embedded store.
const STORES: [&str; 4] = ["boltdb", "mysql", "postgres", "redis"];
const MODES: [(Mode, usize); 3] = [(Mode::Saga, 2), (Mode::Tcc, 2), (Mode::Msg, 1)];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    // What tells of a run's progress stays on its thread.
    tokio::task::LocalSet::new().run_until(compare()).await
}

async fn compare() -> Result<()> {
    let options = common::waiting_sagas()?;
    let folder = tempfile::tempdir()?;
    let dtm = DtmProgram::make(folder.path().join("dtm"))?;
    println!(
        "| store | mode | DTM/s | dtmd/s | DTM p50, ms | dtmd p50, ms | DTM CPU, µs | dtmd CPU, µs |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for store in STORES {
        for (mode, steps) in MODES {
            let options = BenchOptions { mode, steps, ..options.clone() };
            let theirs = measure_dtm(&dtm, store, &options).await?;
            let ours = measure(store, &options).await?;
            print_row(store, &theirs, &ours)?;
        }
    }
    Ok(())
}

fn print_row(store: &str, theirs: &Report, ours: &Report) -> Result<()> {
    ensure!(ours.errors == 0, "a transaction went wrong: {:?}", ours.error_texts);
    // On SQL it writes the states of branches a while later; the load's last look comes before.
    if let Some(text) = theirs.error_texts.first() {
        eprintln!("DTM on {store}: {} complaints, the first one: {text}", theirs.errors);
    }
    let cpu = |report: &Report| report.cpu_us_per_tx.server.context("the CPU is not known");
    println!(
        "| {store} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} |",
        ours.mode.as_str(),
        theirs.tps,
        ours.tps,
        theirs.latency_us.p50 / 1e3,
        ours.latency_us.p50 / 1e3,
        cpu(theirs)?,
        cpu(ours)?
    );
    Ok(())
}

async fn measure(store: &str, options: &BenchOptions) -> Result<Report> {
    let place = Place::start(store).await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("dtmd.yml");
    std::fs::write(&config, &place.yaml)?;
    let data = Some(folder.path().to_owned());
    let store = StoreChoice::Config(config);
    run::run(&BenchOptions { store, data, ..options.clone() }, &|_| {}).await
}

async fn measure_dtm(dtm: &DtmProgram, store: &str, options: &BenchOptions) -> Result<Report> {
    let place = Place::start(store).await?;
    let dtm = dtm.start(&place.yaml, true).await?;
    let target = Some(Target { url: dtm.url(), grpc: None, pid: dtm.id() });
    run::run(&BenchOptions { target, ..options.clone() }, &|_| {}).await
}
