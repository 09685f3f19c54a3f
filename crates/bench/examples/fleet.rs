//! Measures B15: three servers on one PostgreSQL against one server.
//!
//! ```sh
//! cargo build --release -p dtmd
//! cargo run --release -p dtmd-bench --example fleet -- [DTMD] [SECONDS] [IN_FLIGHT]
//! ```
//!
//! A private PostgreSQL that forces commits to disk; sagas of two steps, the callers wait. First
//! one server with `IN_FLIGHT` transactions at once, then three with as many each, then one again,
//! so that a machine that slows down meanwhile shows. What counts is the rate per second of CPU
//! that the servers spend; on a machine of few processors the rates themselves say little.

#![allow(clippy::print_stdout, reason = "a measurement for people")]

mod common;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dtmd_bench::{BenchOptions, Report, Target, run};
use dtmd_demo::process::{ServerOptions, ServerProcess};
use dtmd_local_servers::{DatabaseOptions, Postgres};

/// B15.
const SHARE_MIN: f64 = 0.9;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    // What tells of a run's progress stays on its thread.
    tokio::task::LocalSet::new().run_until(compare()).await
}

async fn compare() -> Result<()> {
    let sagas = common::waiting_sagas()?;
    let postgres = Postgres::start(DatabaseOptions { fsync: true }).await?;
    let folder = tempfile::tempdir()?;
    let measure = async |servers: usize| -> Result<f64> {
        let fleet = start(&sagas.server, folder.path(), postgres.port(), servers).await?;
        let options = |server: &ServerProcess| BenchOptions {
            target: Some(Target { url: server.url().to_owned(), grpc: None, pid: server.id() }),
            ..sagas.clone()
        };
        let mut runs = Vec::new();
        for server in &fleet {
            let options = options(server);
            // Runs within one second would share their gids.
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            let run = async move { run::run(&options, &|_| {}).await };
            runs.push(tokio::task::spawn_local(run));
        }
        let mut reports = Vec::new();
        for run in runs {
            reports.push(run.await??);
        }
        for mut server in fleet {
            server.terminate().await?;
        }
        judge(servers, &reports)
    };
    let first = measure(1).await?;
    let fleet = measure(3).await?;
    let last = measure(1).await?;
    let share = fleet / ((first + last) / 2.0);
    let met = if share >= SHARE_MIN { "met" } else { "NOT met" };
    println!(
        "B15: three servers make {share:.2} of one server's rate per CPU second (≥ 0.9: {met})"
    );
    Ok(())
}

async fn start(
    binary: &Path,
    folder: &Path,
    port: u16,
    count: usize,
) -> Result<Vec<ServerProcess>> {
    let mut fleet = Vec::new();
    for number in 0..count {
        let mut options = ServerOptions::new(binary, folder.join(format!("server-{number}")));
        options.grpc_port = Some(0);
        let port = port.to_string();
        let env = [
            ("STORE_DRIVER", "postgres"),
            ("STORE_HOST", "127.0.0.1"),
            ("STORE_PORT", &port),
            ("STORE_USER", "postgres"),
            ("STORE_DB", "postgres"),
        ];
        options.env = env.map(|(name, value)| (name.into(), value.into())).to_vec();
        fleet.push(ServerProcess::start(options).await?);
    }
    Ok(fleet)
}

/// Prints what the servers did, and returns their rate per CPU second.
fn judge(servers: usize, reports: &[Report]) -> Result<f64> {
    let (mut rate, mut cpu_seconds, mut transactions) = (0.0, 0.0, 0.0);
    for report in reports {
        ensure!(report.errors == 0, "a transaction went wrong: {:?}", report.error_texts);
        let each = report.cpu_us_per_tx.server.context("the server's CPU is not known")?;
        let count = report.transactions as f64;
        rate += report.tps;
        transactions += count;
        cpu_seconds += each * count / 1e6;
    }
    let per_second = transactions / cpu_seconds;
    println!(
        "{servers} server(s): {rate:.0}/s in all, {:.0} µs of the servers' CPU each, {per_second:.0} \
         per CPU second",
        1e6 / per_second
    );
    Ok(per_second)
}
